-- List the channels of the living nodes.
-- KEYS: leases, channels
-- ARGV: prefix
-- Returns the channels.

local leases, channels = unpack(KEYS)

local answer = {}
for _, node in ipairs(call('ZRANGEBYSCORE', leases, '(' .. now(), '+inf')) do
  local channel = call('HGET', channels, node)
  if channel then answer[#answer + 1] = channel end
end
return answer
