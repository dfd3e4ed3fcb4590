-- Take members out of a dead node, or those whose grace has ended out of '~'.
-- KEYS: leases, index, revision, sizes, channels, told, node:<dead>,
--       answer:<dead>, answer:<the node that evicts>
-- ARGV: prefix, dead node, sequence, limit, lease (seconds), patience (seconds, see
--       renew.lua), layer ('' or channels_redis.core's prefix)
-- Returns msgpack of {done (0 or 1), entries in the layer that it has to discard,
--   {{group, connection, record, outcome, count, user_count, revision, told,
--     connections of the user, previous revision, channel of who had let it linger},
--     ...}}.

local leases, index, revisions, sizes, channels, told_groups = unpack(KEYS)
local node_groups, answered, mine = unpack(KEYS, 7)
local dead, sequence, limit = ARGV[2], ARGV[3], tonumber(ARGV[4])
local lease, patience, layer = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local LEFT, DESTROYED = 3, 4
local losses, entries, groups = {}, {}, 0

local function is_evictable(deadline)
  local time = now()
  if deadline <= time then return true end
  return not is_connected(dead) and deadline <= time + lease - patience
end

local function is_destroyed(group, members, count)
  return count <= 0 and call('EXISTS', members) == 0
    and call('HLEN', prefix .. 'nodes:' .. group) <= 1
end

-- Count one out that is in its node no more; return the revision of it.
local function lose(group, members, id, record, told, previous, owner)
  local count, user_count, connections = count_out(index, group, id, user_of(record))
  local revision = next_revision(revisions)
  losses[#losses + 1] = {
    group, id, record, is_destroyed(group, members, count) and DESTROYED or LEFT,
    math.max(count, 0), user_count, revision, told and 1 or 0, connections, previous,
    owner or '',
  }
  return revision
end

local function note_told(group, told, revision)
  if told then
    call('ZADD', told_groups, revision, group)
  else
    call('ZREM', told_groups, group)
  end
end

local function note_damage()
  call('SET', prefix .. 'damaged', 1)
end

-- What the dead node's members wanted to be told of matters no more.
local function lose_group(group, packed)
  local members = members_key(group, dead)
  local found = call('HRANDFIELD', members, limit - #losses, 'WITHVALUES')
  call('HSET', prefix .. 'nodes:' .. group, dead, 0)
  local held = held_in(group)
  if held > counted_in(index, group) then call('ZADD', index, held, group) end
  local told, last = told_in(group) > 0, last_told(told_groups, group)
  for i = 1, #found, 2 do
    call('HDEL', members, found[i])
    last = lose(group, members, found[i], found[i + 1], told, last)
  end
  if #found > 0 or not told then note_told(group, told, last) end
  if call('EXISTS', members) == 0 then
    call('HDEL', prefix .. 'nodes:' .. group, dead)
    call('HDEL', node_groups, group)
    if held_in(group) ~= counted_in(index, group) then note_damage() end
    for _, entry in ipairs(leave_layer(layer, cmsgpack.unpack(packed))) do
      entries[#entries + 1] = entry
    end
    groups = groups + 1
  end
end

-- Return whether there are no more.
local function lose_due()
  local due, time = prefix .. 'due', now()
  for _, at in ipairs(call('ZRANGEBYSCORE', due, '-inf', time, 'LIMIT', 0, limit)) do
    local group, id = parse_place(at)
    local record, owner = end_lingering(group, id)
    if record then
      local told, last = told_in(group) > 0, last_told(told_groups, group)
      local members = members_key(group, LINGERING)
      note_told(group, told, lose(group, members, id, record, told, last, owner))
    end
  end
  return call('ZCOUNT', due, '-inf', time) == 0
end

local function reply(done)
  local answer = cmsgpack.pack({done and 1 or 0, entries, losses})
  call('HSET', mine, 'evicting', sequence, 'evicted', answer)
  return answer
end

local last = call('HMGET', mine, 'evicting', 'evicted')
if last[1] == sequence then return last[2] end
if dead == LINGERING then return reply(lose_due()) end
local deadline = call('ZSCORE', leases, dead)
if not deadline or not is_evictable(tonumber(deadline)) then
  return cmsgpack.pack({1, {}, {}})
end
call('ZADD', leases, 0, dead)
-- Groups cost more than members: count them too.
while #losses + groups < limit do
  local entry = call('HRANDFIELD', node_groups, 1, 'WITHVALUES')
  if #entry == 0 then break end
  lose_group(entry[1], entry[2])
end
local done = call('EXISTS', node_groups) == 0
if done then
  if tonumber(call('HGET', sizes, dead) or 0) ~= #losses then note_damage() end
  call('ZREM', leases, dead)
  call('HDEL', channels, dead)
  call('HDEL', sizes, dead)
  call('DEL', prefix .. 'taken:' .. dead)
  -- A frozen node may yet ask what its last commit did.
  call('EXPIRE', answered, 600)
elseif #losses > 0 then
  call('HINCRBY', sizes, dead, -#losses)
end
return reply(done)
