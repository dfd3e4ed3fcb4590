-- Carry out a node's joins and leaves, and answer each.
-- KEYS: leases, index, revision, rebuilding, sizes, told, node:<n>, answer:<n>
-- ARGV: prefix, node, sequence, restore ('1' or ''), operations (msgpack, below),
--       the groups' entries (msgpack of group -> entries, see common.lua),
--       layer ('' or channels_redis.core's prefix), group_expiry
-- An operation: {'join', 'leave' or 'update', group, connection, user or false,
--                told (0 or 1), record (not of a leave), limit or -1 (of a join)}
-- Returns {'lost'}, {'rebuilding', milliseconds} or {'ok', answers (msgpack)};
-- an answer: {outcome, count, user_count, revision, told, connections of the user,
-- previous revision}. There are fewer answers than operations where a key is missing:
-- the rest was not carried out.

local leases, index, revisions, rebuilding, sizes, told_groups = unpack(KEYS)
local node_groups, answered = unpack(KEYS, 7)
local node, sequence, restore = ARGV[2], ARGV[3], ARGV[4] ~= ''
local layer, group_expiry = ARGV[7], ARGV[8]

-- After a restart each node looks at its part by a renewal, and then subscribes.
local function is_looked_over()
  if call('GET', rebuilding) ~= 'restarted' then return false end
  for _, other in ipairs(call('ZRANGE', leases, 0, -1)) do
    if not is_connected(other) then return false end
  end
  call('DEL', rebuilding)
  return true
end

local answered_last = call('HMGET', answered, 'sequence', 'answer')
if answered_last[1] == sequence then return {'ok', answered_last[2]} end
local deadline = call('ZSCORE', leases, node)
if not deadline or tonumber(deadline) == 0 then return {'lost'} end
if tonumber(answered_last[1] or 0) > tonumber(sequence) then return {'lost'} end
-- It has lost its connection, and perhaps the server its data: let it renew first.
if not is_connected(node) then return {'lost'} end
if not restore then
  local wait = call('PTTL', rebuilding)
  if wait > 0 and not is_looked_over() then return {'rebuilding', wait} end
end

local UNCHANGED, JOINED, CREATED, LEFT, DESTROYED, FULL, UPDATED = 0, 1, 2, 3, 4, 5, 6
local told_cache, last, changed = {}, {}, 0
local wanted = cmsgpack.unpack(ARGV[6])

-- The answer to a change by which so many more members want to be told.
local function change(outcome, group, count, user_count, connections, more_told)
  local told = told_cache[group]
  if told then told = told + more_told else told = told_in(group) end
  told_cache[group] = told
  local revision, previous = next_revision(revisions), 0
  if told > 0 or more_told < 0 then
    previous = last[group] or last_told(told_groups, group)
    last[group] = told > 0 and revision or 0
  end
  return {
    outcome, count, user_count, revision, told > 0 and 1 or 0, connections, previous,
  }
end

local function unchanged(outcome, group)
  local count = tonumber(call('ZSCORE', index, group) or 0)
  return {outcome, count, call('HLEN', prefix .. 'users:' .. group), 0, 0, 0, 0}
end

-- Creating and destroying are not done again: be sure that they are right.
local function is_sane(kind, group)
  if kind == 'update' then return true end
  local count = tonumber(call('ZSCORE', index, group) or 0)
  if kind == 'join' then
    return count > 0 or call('EXISTS', prefix .. 'nodes:' .. group) == 0
  end
  return count > 1 or call('HLEN', prefix .. 'nodes:' .. group) <= 1
    and call('HLEN', members_key(group, node)) <= 1
end

local operations = {}

function operations.join(group, id, user, told, record, limit)
  local members = members_key(group, node)
  if limit >= 0 and tonumber(call('ZSCORE', index, group) or 0) >= limit then
    local is_in = call('HEXISTS', members, id) == 1
    return unchanged(is_in and UNCHANGED or FULL, group)
  end
  if call('HSETNX', members, id, record) == 0 then
    return unchanged(UNCHANGED, group)
  end
  changed = changed + 1
  if call('HLEN', members) == 1 then
    local entries = wanted[group] or {}
    call('HSET', node_groups, group, cmsgpack.pack(entries))
    call('HSET', prefix .. 'nodes:' .. group, node, told)
    enter_layer(layer, entries, now(), group_expiry)
  elseif told == 1 then
    call('HINCRBY', prefix .. 'nodes:' .. group, node, 1)
  end
  local count = tonumber(call('ZINCRBY', index, 1, group))
  local users, connections = prefix .. 'users:' .. group, 0
  if user then connections = call('HINCRBY', users, user, 1) end
  local outcome = count == 1 and CREATED or JOINED
  return change(outcome, group, count, call('HLEN', users), connections, told)
end

function operations.leave(group, id, user, told)
  local members = members_key(group, node)
  if call('HDEL', members, id) == 0 then return unchanged(UNCHANGED, group) end
  changed = changed - 1
  if call('HLEN', members) == 0 then
    call('HDEL', node_groups, group)
    call('HDEL', prefix .. 'nodes:' .. group, node)
    leave_layer(layer, wanted[group] or {})
  elseif told == 1 then
    call('HINCRBY', prefix .. 'nodes:' .. group, node, -1)
  end
  local count, user_count, connections = count_out(index, group, user)
  local outcome = count <= 0 and DESTROYED or LEFT
  return change(outcome, group, count, user_count, connections, -told)
end

function operations.update(group, id, user, told, record)
  local members = members_key(group, node)
  if call('HEXISTS', members, id) == 0 then return unchanged(UNCHANGED, group) end
  call('HSET', members, id, record)
  local count, users = tonumber(call('ZSCORE', index, group) or 0), prefix .. 'users:' .. group
  local connections = user and tonumber(call('HGET', users, user) or 0) or 0
  return change(UPDATED, group, count, call('HLEN', users), connections, 0)
end

-- What is found there was not wiped with the rest, as the key that names it was lost.
local function restore_group(group)
  if call('HEXISTS', node_groups, group) == 1 then return end
  call('DEL', members_key(group, node))
  if not call('ZSCORE', index, group) then
    call('DEL', prefix .. 'nodes:' .. group, prefix .. 'users:' .. group)
  end
end

if restore then
  for group in pairs(wanted) do restore_group(group) end
end
local answers = {}
for i, op in ipairs(cmsgpack.unpack(ARGV[5])) do
  if not is_sane(op[1], op[2]) then break end
  answers[i] = operations[op[1]](unpack(op, 2))
end
for group, revision in pairs(last) do
  if revision > 0 then
    call('ZADD', told_groups, revision, group)
  else
    call('ZREM', told_groups, group)
  end
end
if changed ~= 0 then call('HINCRBY', sizes, node, changed) end
local packed = cmsgpack.pack(answers)
call('HSET', answered, 'sequence', sequence, 'answer', packed)
return {'ok', packed}
