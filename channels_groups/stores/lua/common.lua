-- What commit.lua, evict.lua and the reading scripts share; it is put before each.
-- ARGV[1] is always the prefix of the library's keys.
--
--   leases           ZSET node -> deadline in seconds by the server's clock; 0: lost
--   index            ZSET group -> members
--   members:<g>:<n>  HASH connection -> record, see records.py
--   nodes:<g>        HASH node -> its members in the group that want to be told
--   users:<g>        HASH user -> connections
--   user:<u>, user#:<digest of u>
--                    HASH "<length of connection>:<connection><group>" (a place) -> node
--   node:<n>         HASH group -> msgpack of its entries in the layer's groups
--   channels         HASH node -> channel
--   sizes            HASH node -> memberships
--   told             ZSET group -> revision of its last change, while somebody is told
--   answer:<n>       HASH of the last commit's sequence and answer, the last eviction's,
--                    and the node's process and connections
--   revision         the last revision given; follows the clock in microseconds
--   epoch            names the present data
--   rebuilding       set while the living nodes write back what was lost; 'restarted':
--                    while they look if anything was
--   run              the server's name for its present run
--   watchers         ZSET channel that wants to hear of every event -> until when
--   void             set while there is data of an earlier epoch to be wiped
--   damaged          set when an eviction found less, or more, than there should be
--
-- Members that linger are those of a node '~', which is nobody's. The end of its lease
-- is that of the last of them.
--
--   lingering:<g>    HASH user -> msgpack of {{connection, the node that had it}, ...}
--   due              ZSET place -> end of its grace
--
-- A member that another node's connection goes on with is that node's. The node that
-- had it counts it as its own until it hears of that.
--
--   taken:<n>        SET of the places of such members

local prefix = ARGV[1]
local call = redis.call
local LINGERING = '~'
-- What a reading script looks at, at most: it blocks the server as long as it runs.
local PART = 300

local function members_key(group, node)
  return prefix .. 'members:' .. group .. ':' .. node
end

local function now()
  local time = call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local function expired(leases)
  return call('ZRANGEBYSCORE', leases, '-inf', now())
end

-- Take the members of nodes out of {group, count, group, count, ...}.
local function without(gone, entries)
  for i = 1, #entries, 2 do
    local count = tonumber(entries[i + 1])
    for _, node in ipairs(gone) do
      count = count - call('HLEN', members_key(entries[i], node))
    end
    entries[i + 1] = count
  end
  return entries
end

-- At least the clock: it grows over a server that went back to older data, too.
local clock
local function next_revision(key)
  local revision = call('INCR', key)
  clock = clock or math.floor(now() * 1000000)
  if revision < clock then
    revision = clock
    call('SET', key, string.format('%.0f', revision))
  end
  return revision
end

-- Whether a node's subscription is there: a sign of a living connection.
local function is_connected(node)
  return call('PUBSUB', 'NUMSUB', prefix .. 'alive:' .. node)[2] > 0
end

local function run_id()
  return string.match(call('INFO', 'server'), 'run_id:(%x+)')
end

-- A server that has started again may be back with older data. Each node finds that
-- out for its own part, and nobody commits before all have looked: let them.
local function note_restart(run_key, rebuilding, milliseconds)
  local run = run_id()
  if call('GET', run_key) == run then return end
  call('SET', run_key, run)
  call('SET', rebuilding, 'restarted', 'PX', milliseconds, 'NX')
end

local function user_of(record)
  local digits = string.match(record, '^(%d*):')
  if digits == '' then return false end
  return string.sub(record, #digits + 2, #digits + 1 + tonumber(digits))
end

-- How many members of a group, in all nodes, want to be told of changes.
local function told_in(group)
  local told = 0
  for _, count in ipairs(call('HVALS', prefix .. 'nodes:' .. group)) do
    told = told + tonumber(count)
  end
  return told
end

-- The revision of a group's last change, which the members who are told know, or 0.
local function last_told(told_groups, group)
  return tonumber(call('ZSCORE', told_groups, group) or 0)
end

-- How many members of a group are on these nodes.
local function count_on(group, nodes)
  local count = 0
  for _, node in ipairs(nodes) do
    count = count + call('HLEN', members_key(group, node))
  end
  return count
end

-- How many members a group has, by what each node has in it, and by the index.
local function held_in(group)
  return count_on(group, call('HKEYS', prefix .. 'nodes:' .. group))
end

local function counted_in(index, group)
  return tonumber(call('ZSCORE', index, group) or 0)
end

local function count_without(index, group, nodes)
  return counted_in(index, group) - count_on(group, nodes)
end

-- A name that is not plain text, as that of a sealed user, would be no good key.
local function user_key(user)
  if not string.find(user, '[^\32-\126]') then return prefix .. 'user:' .. user end
  return prefix .. 'user#:' .. redis.sha1hex(user)
end

local function place(group, id)
  return #id .. ':' .. id .. group
end

-- Return the group and the connection.
local function parse_place(text)
  local digits = string.match(text, '^(%d+):')
  local first = #digits + 2
  local last = first + tonumber(digits) - 1
  return string.sub(text, last + 1), string.sub(text, first, last)
end

-- Count one member less; return count, user_count and the user's connections.
local function count_out(index, group, id, user)
  local count = tonumber(call('ZINCRBY', index, -1, group))
  if count <= 0 then
    call('ZREM', index, group)
  end
  local users, connections = prefix .. 'users:' .. group, 0
  if user then
    connections = math.max(call('HINCRBY', users, user, -1), 0)
    if connections == 0 then call('HDEL', users, user) end
    call('HDEL', user_key(user), place(group, id))
  end
  return count, call('HLEN', users), connections
end

-- An entry {group of the layer, channel, 1 if scripts write it} in the groups of
-- channels_redis.core 4.3: a ZSET of channel -> time under <layer's prefix>:group:.
local function enter_layer(layer, entries, time, expiry)
  for _, entry in ipairs(entries) do
    if entry[3] == 1 then
      local key = layer .. ':group:' .. entry[1]
      call('ZADD', key, time, entry[2])
      call('EXPIRE', key, expiry)
    end
  end
end

-- Return the entries that are not this script's to write.
local function leave_layer(layer, entries)
  local others = {}
  for _, entry in ipairs(entries) do
    if entry[3] == 1 then
      call('ZREM', layer .. ':group:' .. entry[1], entry[2])
    else
      others[#others + 1] = entry
    end
  end
  return others
end

-- Let a member that is out of its node linger.
local function add_lingering(group, id, user, record, owner, deadline)
  local at, former = place(group, id), prefix .. 'lingering:' .. group
  call('HSET', members_key(group, LINGERING), id, record)
  call('HSET', prefix .. 'nodes:' .. group, LINGERING, 0)
  call('HSET', prefix .. 'node:' .. LINGERING, group, cmsgpack.pack({}))
  call('HSET', user_key(user), at, LINGERING)
  local list = call('HGET', former, user)
  list = list and cmsgpack.unpack(list) or {}
  list[#list + 1] = {id, owner}
  call('HSET', former, user, cmsgpack.pack(list))
  call('ZADD', prefix .. 'due', deadline, at)
  call('ZADD', prefix .. 'leases', 'GT', deadline, LINGERING)
  call('HINCRBY', prefix .. 'sizes', LINGERING, 1)
end

-- Take one out of the user's members that linger in a group; return who had it.
local function forget_lingering(group, id, user)
  local former, owner = prefix .. 'lingering:' .. group, ''
  local rest = {}
  local list = call('HGET', former, user)
  for _, one in ipairs(list and cmsgpack.unpack(list) or {}) do
    if one[1] == id then owner = one[2] else rest[#rest + 1] = one end
  end
  if #rest > 0 then
    call('HSET', former, user, cmsgpack.pack(rest))
  else
    call('HDEL', former, user)
  end
  return owner
end

-- End it that a member lingers; return its record and the channel of who had it.
local function end_lingering(group, id)
  local members = members_key(group, LINGERING)
  local record = call('HGET', members, id)
  call('ZREM', prefix .. 'due', place(group, id))
  if not record then return false end
  call('HDEL', members, id)
  if call('EXISTS', members) == 0 then
    call('HDEL', prefix .. 'nodes:' .. group, LINGERING)
    call('HDEL', prefix .. 'node:' .. LINGERING, group)
  end
  local owner = forget_lingering(group, id, user_of(record))
  if call('HINCRBY', prefix .. 'sizes', LINGERING, -1) <= 0 then
    call('HDEL', prefix .. 'sizes', LINGERING)
    call('ZREM', prefix .. 'leases', LINGERING)
  end
  return record, call('HGET', prefix .. 'channels', owner) or ''
end
