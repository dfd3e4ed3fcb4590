-- Carry out a node's joins and leaves, and answer each.
-- KEYS: leases, index, revision, rebuilding, sizes, told, node:<n>, answer:<n>
-- ARGV: prefix, node, sequence, restore ('1' or ''), operations (msgpack, below),
--       the groups' entries (msgpack of group -> entries, see common.lua),
--       layer ('' or channels_redis.core's prefix), group_expiry
-- An operation: {'join', 'leave', 'update' or 'confirm', group, connection,
--                user or false, told (0 or 1), record (of a leave: seconds of grace
--                or 0), limit or -1, connections to go on with, or any, or false}
-- Returns {'lost'}, {'rebuilding'} or the answers (msgpack); an answer: {outcome, count,
-- user_count, revision, told, connections of the user, previous revision}, and of what
-- was resumed {connection, record, owner's channel}. There are fewer answers than
-- operations where a key is missing: the rest was not carried out.

local leases, index, revisions, rebuilding, sizes, told_groups = unpack(KEYS)
local node_groups, answered = unpack(KEYS, 7)
local node, sequence, restore = ARGV[2], ARGV[3], ARGV[4] ~= ''
local layer, group_expiry = ARGV[7], ARGV[8]

-- After a restart each node looks at its part by a renewal, and then subscribes.
local function is_looked_over()
  if call('GET', rebuilding) ~= 'restarted' then return false end
  for _, other in ipairs(call('ZRANGE', leases, 0, -1)) do
    if other ~= LINGERING and not is_connected(other) then return false end
  end
  call('DEL', rebuilding)
  return true
end

local last = call('HMGET', answered, 'sequence', 'answer')
if last[1] == sequence then return last[2] end
local deadline = call('ZSCORE', leases, node)
if not deadline or tonumber(deadline) == 0 then return {'lost'} end
if tonumber(last[1] or 0) > tonumber(sequence) then return {'lost'} end
-- It has lost its connection, and perhaps the server its data: let it renew first.
if not is_connected(node) then return {'lost'} end
local found = call('MGET', revisions, rebuilding)
if not restore and found[2] and not is_looked_over() then return {'rebuilding'} end

local UNCHANGED, JOINED, CREATED, LEFT, DESTROYED, FULL = 0, 1, 2, 3, 4, 5
local UPDATED, LINGERS, RESUMED, ELSEWHERE, TAKEN, CONFIRMED = 6, 7, 8, 9, 10, 11
local clock, revision = math.floor(now() * 1000000), tonumber(found[1] or 0)
local changed, groups, wanted = 0, {}, nil

-- What a group's keys say, read once in a batch. Its count is written at the end.
local function look_at(name)
  local nodes_key, users_key = prefix .. 'nodes:' .. name, prefix .. 'users:' .. name
  local nodes, told, mine = call('HGETALL', nodes_key), 0, 0
  for i = 1, #nodes, 2 do
    local wishes = tonumber(nodes[i + 1])
    told = told + wishes
    if nodes[i] == node then mine = wishes end
  end
  local members = members_key(name, node)
  local group = {
    name = name, members = members, nodes_key = nodes_key, users_key = users_key,
    count = tonumber(call('ZSCORE', index, name) or 0), here = call('HLEN', members),
    users = call('HLEN', users_key), nodes = #nodes / 2, told = told, mine = mine,
  }
  groups[name] = group
  return group
end

local function entries_of(group)
  wanted = wanted or cmsgpack.unpack(ARGV[6])
  return wanted[group.name] or {}
end

-- As common.lua's: at least the clock.
local function next_revision()
  revision = math.max(revision + 1, clock)
  return revision
end

-- The answer to a change by which so many more members want to be told.
local function change(outcome, group, connections, more_told)
  local revision, previous = next_revision(), 0
  if group.told > 0 or more_told < 0 then
    previous = group.last or last_told(told_groups, group.name)
    group.last = group.told > 0 and revision or 0
  end
  return {
    outcome, group.count, group.users, revision, group.told > 0 and 1 or 0,
    connections, previous,
  }
end

local function unchanged(outcome, group)
  return {outcome, group.count, group.users, 0, 0, 0, 0}
end

-- Creating and destroying are not done again: be sure that they are right.
local function is_sane(kind, group)
  if kind == 'join' then return group.count > 0 or group.nodes == 0 end
  return kind ~= 'leave' or group.count > 1 or (group.nodes <= 1 and group.here <= 1)
end

-- A member of this node more.
local function put_in(group, id, user, told)
  changed = changed + 1
  group.here, group.told, group.mine = group.here + 1, group.told + told, group.mine + told
  if group.here == 1 then
    local entries = entries_of(group)
    group.nodes = group.nodes + 1
    call('HSET', node_groups, group.name, cmsgpack.pack(entries))
    call('HSET', group.nodes_key, node, told)
    enter_layer(layer, entries, now(), group_expiry)
  elseif told == 1 then
    call('HINCRBY', group.nodes_key, node, 1)
  end
  if user then call('HSET', user_key(user), place(group.name, id), node) end
end

-- A member of this node less.
local function take_out(group, told)
  changed = changed - 1
  group.here = group.here - 1
  if group.here == 0 then told = group.mine end
  group.told, group.mine = group.told - told, group.mine - told
  if group.here == 0 then
    group.nodes = group.nodes - 1
    call('HDEL', node_groups, group.name)
    call('HDEL', group.nodes_key, node)
    leave_layer(layer, entries_of(group))
  elseif told == 1 then
    call('HINCRBY', group.nodes_key, node, -1)
  end
end

local function count_user(group, user, more)
  if not user then return 0 end
  local connections = call('HINCRBY', group.users_key, user, more)
  if more == 1 and connections == 1 then group.users = group.users + 1 end
  if more == -1 and connections == 0 then group.users = group.users - 1 end
  if connections <= 0 then call('HDEL', group.users_key, user) end
  return math.max(connections, 0)
end

-- Take a member out of another node; return its record and that node's channel. Of
-- what the others there want to be told, no less is kept than they may want.
local function take_from(owner, group, id)
  local members, node_key = members_key(group.name, owner), prefix .. 'node:' .. owner
  local record = call('HGET', members, id)
  call('HDEL', members, id)
  local rest, told = call('HLEN', members), call('HGET', group.nodes_key, owner)
  if rest == 0 then
    local entries = call('HGET', node_key, group.name)
    if entries then leave_layer(layer, cmsgpack.unpack(entries)) end
    call('HDEL', node_key, group.name)
    call('HDEL', group.nodes_key, owner)
  elseif tonumber(told or 0) > rest then
    call('HSET', group.nodes_key, owner, rest)
  end
  call('HINCRBY', sizes, owner, -1)
  call('SADD', prefix .. 'taken:' .. owner, place(group.name, id))
  group.told = told_in(group.name)
  return record, call('HGET', prefix .. 'channels', owner) or ''
end

-- Whether a member was taken from this node, which has yet to hear of it: until then
-- the node has another connection of that id.
local function is_unheard(group, id)
  return call('SISMEMBER', prefix .. 'taken:' .. node, place(group.name, id)) == 1
end

-- One of the user's members that linger.
local function find_lingering(group, user)
  local list = call('HGET', prefix .. 'lingering:' .. group.name, user)
  for _, one in ipairs(list and cmsgpack.unpack(list) or {}) do
    if not is_unheard(group, one[1]) then return one[1] end
  end
end

-- Take the member that a join goes on with out of where it is; return its id, its
-- record and the channel of who had it, or ELSEWHERE if it is another node's.
local function take_former(group, id, user, resume)
  local is_own = resume[1] == id
  for _, former in ipairs(resume) do
    local owner = (is_own or not is_unheard(group, former))
      and call('HGET', user_key(user), place(group.name, former))
    if owner == LINGERING then return former, end_lingering(group.name, former) end
    if owner and owner ~= node
      and call('HEXISTS', members_key(group.name, owner), former) == 1 then
      if is_own then return ELSEWHERE end
      return former, take_from(owner, group, former)
    end
  end
  local former = not is_own and find_lingering(group, user)
  if not former then return false end
  return former, end_lingering(group.name, former)
end

-- Let a connection go on with a member that was taken out, since when that has joined.
local function go_on(group, id, user, told, record, old, owner)
  group.nodes = call('HLEN', group.nodes_key)
  local time = #string.match(record, '^%d*:') + #user + 1
  record = string.sub(record, 1, time - 1) .. string.sub(old, time, time + 7)
    .. string.sub(record, time + 8)
  call('HSET', group.members, id, record)
  put_in(group, id, user, told)
  local is_told, last = group.told > 0, 0
  if is_told then
    last = group.last or last_told(told_groups, group.name)
  else
    group.last = 0
  end
  if last == 0 then
    last = next_revision()
    if is_told then group.last = last end
  end
  return {
    RESUMED, group.count, group.users, last, is_told and 1 or 0, 0, 0, id, old, owner,
  }
end

-- The answer for a member that this node has not, as it may have been taken from it.
local function missing(group, id)
  local is_taken = call('SREM', prefix .. 'taken:' .. node, place(group.name, id)) == 1
  return unchanged(is_taken and TAKEN or UNCHANGED, group)
end

local operations = {}

function operations.join(group, id, user, told, record, limit, resume)
  if resume and user then
    local former, old, owner = take_former(group, id, user, resume)
    if former == ELSEWHERE then return unchanged(ELSEWHERE, group) end
    if old then return go_on(group, former, user, told, record, old, owner) end
  end
  if limit >= 0 and group.count >= limit then
    local is_in = call('HEXISTS', group.members, id) == 1
    return unchanged(is_in and UNCHANGED or FULL, group)
  end
  if call('HSETNX', group.members, id, record) == 0 then
    return unchanged(UNCHANGED, group)
  end
  group.count, group.is_changed = group.count + 1, true
  put_in(group, id, user, told)
  local connections = count_user(group, user, 1)
  return change(group.count == 1 and CREATED or JOINED, group, connections, told)
end

-- It counts as a member as before, but of no node.
local function linger(group, id, user, told, grace)
  local record = call('HGET', group.members, id)
  if not record then return missing(group, id) end
  call('HDEL', group.members, id)
  take_out(group, told)
  add_lingering(group.name, id, user, record, node, now() + grace)
  group.nodes = call('HLEN', group.nodes_key)
  if told == 1 and group.told == 0 then group.last = 0 end
  return unchanged(LINGERS, group)
end

function operations.leave(group, id, user, told, grace)
  if grace > 0 then return linger(group, id, user, told, grace) end
  if call('HDEL', group.members, id) == 0 then return missing(group, id) end
  group.count, group.is_changed = group.count - 1, true
  take_out(group, told)
  if user then call('HDEL', user_key(user), place(group.name, id)) end
  local connections = count_user(group, user, -1)
  return change(group.count <= 0 and DESTROYED or LEFT, group, connections, -told)
end

function operations.update(group, id, user, told, record)
  if call('HEXISTS', group.members, id) == 0 then return missing(group, id) end
  call('HSET', group.members, id, record)
  local connections = user and tonumber(call('HGET', group.users_key, user) or 0) or 0
  return change(UPDATED, group, connections, 0)
end

function operations.confirm(group, id)
  if call('HEXISTS', group.members, id) == 0 then return missing(group, id) end
  return unchanged(CONFIRMED, group)
end

-- What is found there was not wiped with the rest, as the key that names it was lost.
local function restore_group(group)
  if call('HEXISTS', node_groups, group) == 1 then return end
  call('DEL', members_key(group, node))
  if not call('ZSCORE', index, group) then
    call('DEL', prefix .. 'nodes:' .. group, prefix .. 'users:' .. group)
    call('DEL', members_key(group, LINGERING), prefix .. 'lingering:' .. group)
  end
end

if restore then
  wanted = cmsgpack.unpack(ARGV[6])
  for group in pairs(wanted) do restore_group(group) end
end
local answers = {}
for i, op in ipairs(cmsgpack.unpack(ARGV[5])) do
  local kind, name, id, user, told, record, limit, resume = unpack(op)
  local group = groups[name] or look_at(name)
  if not is_sane(kind, group) then break end
  answers[i] = operations[kind](group, id, user, told, record, limit, resume)
end
for name, group in pairs(groups) do
  if group.is_changed and group.count > 0 then
    call('ZADD', index, group.count, name)
  elseif group.is_changed then
    call('ZREM', index, name)
  end
  if group.last and group.last > 0 then
    call('ZADD', told_groups, string.format('%.0f', group.last), name)
  elseif group.last then
    call('ZREM', told_groups, name)
  end
end
if revision > tonumber(found[1] or 0) then
  call('SET', revisions, string.format('%.0f', revision))
end
if changed ~= 0 then call('HINCRBY', sizes, node, changed) end
local packed = cmsgpack.pack(answers)
call('HSET', answered, 'sequence', sequence, 'answer', packed)
return packed
