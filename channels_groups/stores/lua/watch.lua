-- Let renewals name a channel that wants to hear of every event.
-- KEYS: watchers
-- ARGV: prefix, channel, seconds (0: no longer)
-- Returns nothing.

local watchers = KEYS[1]
local channel, seconds = ARGV[2], tonumber(ARGV[3])

call('ZREMRANGEBYSCORE', watchers, '-inf', now())
if seconds > 0 then
  call('ZADD', watchers, now() + seconds, channel)
  local milliseconds = math.ceil(seconds * 1000)
  if call('PTTL', watchers) < milliseconds then
    call('PEXPIRE', watchers, milliseconds)
  end
else
  call('ZREM', watchers, channel)
end
