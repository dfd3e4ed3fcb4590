-- Give a node a lease.
-- KEYS: leases, epoch, rebuilding, channels, void, index, sizes, revision, told,
--       run, answer:<n>
-- ARGV: prefix, node, channel, lease (seconds), epoch the node knew or '',
--       a name for a new epoch, milliseconds that rebuilding takes,
--       layer ('' or channels_redis.core's prefix), process
-- Returns the epoch, or false as long as there is void data, a part of which each
-- call wipes.

local leases, epoch_key, rebuilding, channels, void, index, sizes, revision =
  unpack(KEYS)
local told_groups, run, answered = unpack(KEYS, 9)
local node, channel, lease, known, new, rebuild, layer, process = unpack(ARGV, 2)
local LIMIT = 100

-- A new node cannot know whether a store without data was emptied. It was if other
-- nodes are about (their subscriptions are no data), and it may have been if the
-- server has only just started.
local function may_have_been_emptied()
  if known ~= '' then return true end
  if #call('PUBSUB', 'CHANNELS', prefix .. 'alive:*') > 0 then return true end
  local uptime = string.match(call('INFO', 'server'), 'uptime_in_seconds:(%d+)')
  return tonumber(uptime) * 1000 < tonumber(rebuild)
end

local function wipe_members(other, group)
  for _, record in ipairs(call('HVALS', members_key(group, other))) do
    local user = user_of(record)
    if user then call('DEL', user_key(user)) end
  end
  call('DEL', members_key(group, other))
end

-- Also of nodes that do not know of it any more.
local function wipe_group(group)
  for _, other in ipairs(call('HKEYS', prefix .. 'nodes:' .. group)) do
    wipe_members(other, group)
  end
  for _, user in ipairs(call('HKEYS', prefix .. 'users:' .. group)) do
    call('DEL', user_key(user))
  end
  call('DEL', prefix .. 'users:' .. group, prefix .. 'lingering:' .. group)
  call('DEL', prefix .. 'nodes:' .. group)
  call('ZREM', index, group)
end

-- Wipe some of what a node had; return whether nothing is left.
local function wipe()
  local other = call('HRANDFIELD', channels)
  if not other then
    for _, group in ipairs(call('ZRANGE', index, 0, LIMIT - 1)) do
      wipe_group(group)
    end
    if call('EXISTS', index) == 1 then return false end
    call('DEL', void, sizes, revision, told_groups, prefix .. 'due', prefix .. 'damaged')
    return true
  end
  local groups = call('HRANDFIELD', prefix .. 'node:' .. other, LIMIT, 'WITHVALUES')
  for i = 1, #groups, 2 do
    leave_layer(layer, cmsgpack.unpack(groups[i + 1]))
    wipe_members(other, groups[i])
    wipe_group(groups[i])
    call('HDEL', prefix .. 'node:' .. other, groups[i])
  end
  if call('EXISTS', prefix .. 'node:' .. other) == 0 then
    call('HDEL', channels, other)
    call('DEL', prefix .. 'answer:' .. other, prefix .. 'taken:' .. other)
  end
  return false
end

if call('EXISTS', void) == 1 then
  if not wipe() then return false end
  call('SET', rebuilding, 1, 'PX', rebuild)
end
local epoch = call('GET', epoch_key)
if not epoch then
  if may_have_been_emptied() then call('SET', rebuilding, 1, 'PX', rebuild) end
  epoch = new
  call('SET', epoch_key, epoch)
  call('SET', run, run_id())
end
note_restart(run, rebuilding, rebuild)
-- Leases that were lost: who is dead has to be evicted.
if call('HLEN', channels) > call('ZCARD', leases) then
  for _, other in ipairs(call('HKEYS', channels)) do
    call('ZADD', leases, 'NX', now() + tonumber(lease), other)
  end
end
call('ZADD', leases, now() + tonumber(lease), node)
call('HSET', channels, node, channel)
call('HSET', answered, 'process', process)
return epoch
