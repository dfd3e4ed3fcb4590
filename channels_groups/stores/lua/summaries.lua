-- Look at some groups, each at one moment.
-- KEYS: leases, index, told, rebuilding, void
-- ARGV: prefix, groups (msgpack)
-- Returns false while the living nodes write back what was lost, else for each of the
-- first groups {revision of its last change (0: nobody is told of changes), count,
-- user_count (-1: see users.lua)}. The rest is to be asked for again.

local leases, index, told, rebuilding, void = unpack(KEYS)

-- How many users of a group have all of their connections on these nodes.
local function count_users_on(group, nodes)
  local connections, users = {}, 0
  for _, node in ipairs(nodes) do
    for _, record in ipairs(call('HVALS', members_key(group, node))) do
      local user = user_of(record)
      if user then connections[user] = (connections[user] or 0) + 1 end
    end
  end
  for user, number in pairs(connections) do
    if tonumber(call('HGET', prefix .. 'users:' .. group, user) or 0) <= number then
      users = users + 1
    end
  end
  return users
end

if call('EXISTS', rebuilding, void) > 0 then return false end
local gone, summaries, left = expired(leases), {}, PART
for i, group in ipairs(cmsgpack.unpack(ARGV[2])) do
  local count = tonumber(call('ZSCORE', index, group) or 0)
  local users = call('HLEN', prefix .. 'users:' .. group)
  local lost = count_on(group, gone)
  if lost >= count then
    users = 0
  elseif users > 0 and lost > PART then
    users = -1
  elseif users > 0 and lost > 0 then
    left = left - lost
    if i > 1 and left < 0 then break end
    users = users - count_users_on(group, gone)
  end
  summaries[i] = {last_told(told, group), count - lost, users}
  left = left - math.max(#gone, 1)
  if left <= 0 then break end
end
return summaries
