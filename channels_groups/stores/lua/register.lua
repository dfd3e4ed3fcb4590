-- Give a node a lease.
-- KEYS: leases, epoch, rebuilding, channels
-- ARGV: prefix, node, channel, lease (seconds), epoch the node knew or '',
--       a name for a new epoch, milliseconds that rebuilding takes
-- Returns the epoch.

local leases, epoch_key, rebuilding, channels = unpack(KEYS)
local node, channel, lease, known, new, rebuild = unpack(ARGV, 2)

-- A new node cannot know whether a store without data was emptied. It was if other
-- nodes are about (their subscriptions are no data), and it may have been if the
-- server has only just started.
local function may_have_been_emptied()
  if known ~= '' then return true end
  if #call('PUBSUB', 'CHANNELS', prefix .. 'alive:*') > 0 then return true end
  local uptime = string.match(call('INFO', 'server'), 'uptime_in_seconds:(%d+)')
  return tonumber(uptime) * 1000 < tonumber(rebuild)
end

local epoch = call('GET', epoch_key)
if not epoch then
  if may_have_been_emptied() then call('SET', rebuilding, 1, 'PX', rebuild) end
  epoch = new
  call('SET', epoch_key, epoch)
end
call('ZADD', leases, now() + tonumber(lease), node)
call('HSET', channels, node, channel)
return epoch
