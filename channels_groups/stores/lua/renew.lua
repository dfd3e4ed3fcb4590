-- Put off the end of a node's lease and report the nodes that may be evicted.
-- KEYS: leases, epoch, rebuilding, void, index, sizes, channels, run, node:<n>,
--       answer:<n>, watchers
-- ARGV: prefix, node, epoch that the node knows, lease (seconds), seconds without a
--       renewal after which a node with no connection may be evicted,
--       a name for a new epoch, milliseconds that rebuilding takes,
--       the last sequence number that was answered, the node's memberships,
--       some of its groups (msgpack of group -> {its members there, a user
--       of theirs or false, a connection of that user there or false}),
--       the node's connections
-- Returns {state ('damaged': alive, and data will count as lost once the dead are
--   evicted), epoch, 1 if the node's subscription is there, {channel, ...} of those
--   who want to hear of every event, {group, connection, group, connection, ...} of what
--   was taken from the node, node, node, ...}; '~' is among the nodes if the grace of a
--   member has ended.

local leases, epoch_key, rebuilding, void, index, sizes, channels, run = unpack(KEYS)
local node_groups, answered, watchers = unpack(KEYS, 9)
local node, known, lease, patience, new, rebuild, sequence, size, audit, connections =
  unpack(ARGV, 2)
lease, patience = tonumber(lease), tonumber(patience)

-- How many members that the node counts as its own have been taken from it: in all,
-- and by group. Without any, its size is right.
local places_taken = {}
local function count_taken(number)
  local taken = {}
  if number == 0 then return taken end
  local places = call('SMEMBERS', prefix .. 'taken:' .. node)
  if #places ~= number then return false end
  for _, at in ipairs(places) do
    local group, id = parse_place(at)
    taken[group] = (taken[group] or 0) + 1
    places_taken[#places_taken + 1] = group
    places_taken[#places_taken + 1] = id
  end
  return taken
end

local function is_group_damaged(group, expected, user, id)
  if call('HLEN', members_key(group, node)) ~= expected then return true end
  if call('HEXISTS', node_groups, group) ~= math.min(expected, 1) then return true end
  if user and call('HEXISTS', prefix .. 'users:' .. group, user) == 0 then
    return true
  end
  if user and id and call('HGET', user_key(user), place(group, id)) ~= node then
    return true
  end
  local here = call('HEXISTS', prefix .. 'nodes:' .. group, node) == 1
  return here ~= (expected > 0) or held_in(group) ~= counted_in(index, group)
end

-- The server may have gone back to older data, or keys may have been deleted.
local function is_damaged(deadline)
  -- An eviction takes the lease last.
  if not deadline then return call('EXISTS', node_groups) == 1 end
  if call('EXISTS', prefix .. 'damaged') == 1 then return true end
  local last = tonumber(call('HGET', answered, 'sequence') or 0)
  if last < tonumber(sequence) then return true end
  if last > tonumber(sequence) then return false end -- A commit is under way.
  local taken = count_taken(tonumber(size) - tonumber(call('HGET', sizes, node) or 0))
  if not taken then return true end
  if call('HEXISTS', channels, node) == 0 then return true end
  for group, expected in pairs(cmsgpack.unpack(audit)) do
    local gone = taken[group] or 0
    -- The user whom the node names may be the one of a member that was taken.
    local user = gone == 0 and expected[2]
    local left = expected[1] - gone
    if is_group_damaged(group, left, user, expected[3]) then return true end
  end
  return false
end

-- Nobody would write back what dead nodes have: they are evicted before it is wiped.
-- Not if the data may be older: of some who are in it a leave was told already.
local function awaits_evictions(time)
  if call('GET', rebuilding) == 'restarted' then return false end
  for _, other in ipairs(call('HKEYS', channels)) do
    call('ZADD', leases, 'NX', time + lease, other)
  end
  for _, other in ipairs(call('ZRANGE', leases, 0, -1)) do
    if other ~= node and other ~= LINGERING and not is_connected(other) then
      return true
    end
  end
  return false
end

local connected = is_connected(node)
if not connected then note_restart(run, rebuilding, rebuild) end
local epoch = call('GET', epoch_key)
if not epoch then
  epoch = new
  call('SET', epoch_key, epoch)
  call('SET', rebuilding, 1, 'PX', rebuild)
end

-- What an evicted node may yet ask for expires. Its members' leaves were told of, even
-- if the others have gone since and have taken the epoch along.
local time = now()
local deadline = tonumber(call('ZSCORE', leases, node) or nil)
local state = 'alive'
local damaged = deadline ~= 0 and epoch == known and is_damaged(deadline)
if damaged and awaits_evictions(time) then
  state = 'damaged'
  call('ZADD', leases, time + lease, node)
elseif damaged then
  -- Nobody's data can be trusted: all nodes write theirs back under a new epoch.
  state, epoch = 'emptied', new
  call('SET', epoch_key, epoch)
  call('SET', rebuilding, 1, 'PX', rebuild)
  call('SET', void, 1)
  for _, other in ipairs(call('ZRANGE', leases, 0, -1)) do
    call('HSETNX', channels, other, '')
  end
  if call('EXISTS', prefix .. 'node:' .. LINGERING) == 1 then
    call('HSETNX', channels, LINGERING, '')
  end
  call('DEL', leases)
elseif deadline and deadline > 0 then
  call('ZADD', leases, time + lease, node)
  call('HSET', answered, 'connections', connections)
elseif epoch ~= known and call('TTL', answered) < 0 then
  state = 'emptied'
else
  state = 'lost'
end

local watching = call('ZRANGEBYSCORE', watchers, time, '+inf')
local answer = {state, epoch, connected and 1 or 0, watching, places_taken}
local silent = call('ZRANGEBYSCORE', leases, '-inf', time + lease - patience, 'WITHSCORES')
for i = 1, #silent, 2 do
  local other = silent[i]
  local is_silent = tonumber(silent[i + 1]) <= time or not is_connected(other)
  if is_silent and other ~= node and other ~= LINGERING then
    answer[#answer + 1] = other
  end
end
if call('ZCOUNT', prefix .. 'due', '-inf', time) > 0 then
  answer[#answer + 1] = LINGERING
end
return answer
