-- Compare what some keys say with what others say, and mend what disagrees.
-- KEYS: leases, index, sizes, channels, told, rebuilding, void
-- ARGV: prefix, layer ('' or channels_redis.core's prefix), group_expiry,
--       mend ('1' or ''), how many records may be read, then what to look at:
--       kind, name, kind, name, ...
-- Kinds: 'group'; 'node'; 'part', <group>:<node>; 'told' and 'due', an entry of that
-- key; the prefixes of the keys of a group, node or user, with the rest of a key that was
-- found; 'member', which is <node>:<place>; 'layer', a group of the layer. Of what is
-- larger than the limit: 'place', <length of key>:<key><place>; 'former', <length of
-- user>:<user><group>; 'channels', msgpack of {a group of the layer, {channel, ...}}.
-- Returns {'rebuilding'}, or {'ok', how many of them were looked at,
-- {{what, group, node, first number, second number}, ...}}. The members' records count
-- as true; whether they are what the living nodes hold is found out by their renewals.

local leases, index, sizes, channels, told_groups, rebuilding, void = unpack(KEYS)
local layer, group_expiry, mend, limit = ARGV[2], ARGV[3], ARGV[4] ~= '', tonumber(ARGV[5])
local found, read = {}, 0

if call('EXISTS', rebuilding, void) > 0 then return {'rebuilding'} end

-- Note a disagreement; return whether to mend it.
local function differs(what, group, node, one, two)
  found[#found + 1] = {what, group, node, tostring(one or 0), tostring(two or 0)}
  return mend
end

-- Without a lease, let it be evicted; who lingers has the time that is left.
local function give_lease(node)
  local last = node == LINGERING
    and call('ZRANGE', prefix .. 'due', -1, -1, 'WITHSCORES')[2]
  call('ZADD', leases, last or 0, node)
end

local function is_alive(node)
  local deadline = call('ZSCORE', leases, node)
  return deadline and tonumber(deadline) > now()
end

local function look_at_node_in_group(group, node, told)
  local size = call('HLEN', members_key(group, node))
  local node_groups = prefix .. 'node:' .. node
  if size == 0 then
    if differs('empty', group, node) then
      call('HDEL', prefix .. 'nodes:' .. group, node)
      call('HDEL', node_groups, group)
    end
    return 0
  end
  if not call('ZSCORE', leases, node) and differs('leaseless', group, node) then
    give_lease(node)
  end
  local entries = call('HGET', node_groups, group)
  if not entries then
    if differs('unlisted', group, node) then
      call('HSET', node_groups, group, cmsgpack.pack({}))
    end
  elseif layer ~= '' and is_alive(node) then
    for _, entry in ipairs(cmsgpack.unpack(entries)) do
      if entry[3] == 1 and not call('ZSCORE', layer .. ':group:' .. entry[1], entry[2])
        and differs('deaf', group, node) then
        enter_layer(layer, {entry}, now(), group_expiry)
      end
    end
  end
  local right = math.min(math.max(told, 0), size)
  if told ~= right and differs('told', group, node, told, size) then
    call('HSET', prefix .. 'nodes:' .. group, node, right)
  end
  return size
end

-- Whether one that lingers is among those of its user that can be resumed.
local function is_resumable(group, id, user)
  local list = call('HGET', prefix .. 'lingering:' .. group, user)
  for _, one in ipairs(list and cmsgpack.unpack(list) or {}) do
    if one[1] == id then return true end
  end
  return false
end

-- What leads to one member of a user, wherever it is.
local function look_at_member(group, id, node, user)
  local at = place(group, id)
  if call('HGET', user_key(user), at) ~= node and differs('lost', group, node) then
    call('HSET', user_key(user), at, node)
  end
  if node ~= LINGERING then return end
  local deadline = call('ZSCORE', prefix .. 'due', at)
  local is_found = is_resumable(group, id, user)
  if deadline and is_found then return end
  if differs(deadline and 'hidden' or 'endless', group, node) then
    if is_found then forget_lingering(group, id, user) end
    local record = call('HGET', members_key(group, node), id)
    add_lingering(group, id, user, record, '', deadline or now())
    call('HINCRBY', sizes, node, -1) -- It has been counted.
  end
end

local function look_at_users(group, nodes)
  local key, users = prefix .. 'users:' .. group, {}
  for i = 1, #nodes, 2 do
    local members = call('HGETALL', members_key(group, nodes[i]))
    for j = 1, #members, 2 do
      local user = user_of(members[j + 1])
      if user then
        users[user] = (users[user] or 0) + 1
        look_at_member(group, members[j], nodes[i], user)
      end
    end
  end
  local expected, agree = 0, true
  for user, connections in pairs(users) do
    expected = expected + 1
    agree = agree and tonumber(call('HGET', key, user) or 0) == connections
  end
  local written = call('HLEN', key)
  if agree and written == expected then return end
  if differs('users', group, '', written, expected) then
    call('UNLINK', key)
    for user, connections in pairs(users) do call('HSET', key, user, connections) end
  end
end

local function look_at_group(group)
  local nodes = call('HGETALL', prefix .. 'nodes:' .. group)
  local total = 0
  for i = 1, #nodes, 2 do
    total = total + look_at_node_in_group(group, nodes[i], tonumber(nodes[i + 1]))
  end
  local count = tonumber(call('ZSCORE', index, group) or 0)
  if count ~= total and differs('count', group, '', count, total) then
    if total > 0 then
      call('ZADD', index, total, group)
    else
      call('ZREM', index, group)
    end
  end
  -- Of a larger group the users are compared, and mended, in pages.
  if total <= limit then
    look_at_users(group, nodes)
    read = read + total
  end
end

-- Return the size of a node's part of a group, which it lists as its own.
local function look_at_part(group, node)
  local size = call('HLEN', members_key(group, node))
  if size == 0 and differs('empty', group, node) then
    call('HDEL', prefix .. 'node:' .. node, group)
    call('HDEL', prefix .. 'nodes:' .. group, node)
  end
  return size
end

local function look_at_node(node)
  local key = prefix .. 'node:' .. node
  if call('EXISTS', key) == 1 and not call('ZSCORE', leases, node)
    and differs('leaseless', '', node) then
    give_lease(node)
  end
  -- As the users of a larger group.
  if call('HLEN', key) > limit then return end
  local groups, total = call('HKEYS', key), 0
  for _, group in ipairs(groups) do
    total = total + look_at_part(group, node)
  end
  read = read + #groups
  local size = tonumber(call('HGET', sizes, node) or 0)
  if size ~= total and differs('size', '', node, size, total) then
    call('HSET', sizes, node, total)
  end
end

-- Of what is larger than the limit the entries are looked at one by one.

-- One of the places under a user's key, which leads to a member of the user.
local function look_at_place(key, at, node)
  local group, id = parse_place(at)
  local record = call('HGET', members_key(group, node), id)
  local user = record and user_of(record)
  if not (user and user_key(user) == prefix .. key) and differs('stray', group, '') then
    call('HDEL', prefix .. key, at)
  end
end

local function look_at_user(key)
  if call('HLEN', prefix .. key) > limit then return end
  local places = call('HGETALL', prefix .. key)
  read = read + #places / 2
  for i = 1, #places, 2 do
    look_at_place(key, places[i], places[i + 1])
  end
end

-- What is kept of a user's members that linger in a group.
local function look_at_former(group, user, list)
  for _, one in ipairs(cmsgpack.unpack(list)) do
    local record = call('HGET', members_key(group, LINGERING), one[1])
    if not (record and user_of(record) == user)
      and differs('stray', group, LINGERING) then
      forget_lingering(group, one[1], user)
    end
  end
end

-- Channels in a group of the layer.
local known
local function look_at_channels(name, list)
  if not known then
    known = {}
    for _, channel in ipairs(call('HVALS', channels)) do known[channel] = true end
  end
  read = read + #list
  for _, channel in ipairs(list) do
    if not known[channel] and differs('dead', name, channel) then
      call('ZREM', layer .. ':group:' .. name, channel)
    end
  end
end

local look = {
  group = look_at_group,
  node = look_at_node,
  nodes = function(group)
    if not call('ZSCORE', index, group) then look_at_group(group) end
  end,
  users = function(group)
    local key = prefix .. 'users:' .. group
    if call('EXISTS', prefix .. 'nodes:' .. group) == 0 and call('EXISTS', key) == 1
      and differs('stray', group, '') then
      call('UNLINK', key)
    end
  end,
  members = function(rest)
    local group, node = string.match(rest, '^(.*):([^:]*)$')
    local key = prefix .. 'members:' .. rest
    if call('HEXISTS', prefix .. 'nodes:' .. group, node) == 1
      or call('EXISTS', key) == 0 or not differs('unknown', group, node) then
      return
    end
    if not call('ZSCORE', leases, node) then
      call('UNLINK', key)
      return
    end
    call('HSET', prefix .. 'nodes:' .. group, node, call('HLEN', key))
    look_at_group(group)
    look_at_node(node)
  end,
  part = function(rest)
    local group, node = string.match(rest, '^(.*):([^:]*)$')
    if call('HEXISTS', prefix .. 'node:' .. node, group) == 1 then
      look_at_part(group, node)
    end
  end,
  answer = function(node)
    local key = prefix .. 'answer:' .. node
    if not call('ZSCORE', leases, node) and call('TTL', key) == -1
      and differs('stray', '', node) then
      call('EXPIRE', key, 600)
    end
  end,
  user = function(rest) look_at_user('user:' .. rest) end,
  ['user#'] = function(rest) look_at_user('user#:' .. rest) end,
  place = function(rest)
    local at, key = parse_place(rest)
    local node = call('HGET', prefix .. key, at)
    read = read + 1
    if node then look_at_place(key, at, node) end
  end,
  member = function(rest)
    local node, at = string.match(rest, '^([^:]*):(.*)$')
    local group, id = parse_place(at)
    local record = call('HGET', members_key(group, node), id)
    local user = record and user_of(record)
    read = read + 1
    if user then look_at_member(group, id, node, user) end
  end,
  lingering = function(group)
    local key = prefix .. 'lingering:' .. group
    if call('HLEN', key) > limit then return end
    local former = call('HGETALL', key)
    read = read + #former / 2
    for i = 1, #former, 2 do
      look_at_former(group, former[i], former[i + 1])
    end
  end,
  former = function(rest)
    local group, user = parse_place(rest)
    local list = call('HGET', prefix .. 'lingering:' .. group, user)
    read = read + 1
    if list then look_at_former(group, user, list) end
  end,
  due = function(at)
    local group, id = parse_place(at)
    if call('HEXISTS', members_key(group, LINGERING), id) == 0
      and differs('stray', group, LINGERING) then
      call('ZREM', prefix .. 'due', at)
    end
    local last = call('ZSCORE', prefix .. 'due', at)
    local lease = tonumber(call('ZSCORE', leases, LINGERING) or 0)
    if last and lease < tonumber(last) and differs('late', '', LINGERING) then
      call('ZADD', leases, last, LINGERING)
    end
  end,
  taken = function(node)
    if not call('ZSCORE', leases, node) and differs('stray', '', node) then
      call('DEL', prefix .. 'taken:' .. node)
    end
  end,
  told = function(group)
    if told_in(group) == 0 and differs('stray', group, '') then
      call('ZREM', told_groups, group)
    end
  end,
  layer = function(name)
    local key = layer .. ':group:' .. name
    if call('ZCARD', key) > limit then return end
    look_at_channels(name, call('ZRANGE', key, 0, -1))
  end,
  channels = function(rest)
    local name, list = unpack(cmsgpack.unpack(rest))
    look_at_channels(name, list)
  end,
}

local done = 0
for i = 6, #ARGV, 2 do
  if read > limit then break end
  look[ARGV[i]](ARGV[i + 1])
  done = done + 1
end
return {'ok', done, found}
