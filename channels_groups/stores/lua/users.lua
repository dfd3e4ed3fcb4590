-- Count the distinct users of a group.
-- KEYS: leases
-- ARGV: prefix, group
-- Returns {number, user, ...}: the users named are to be left out of the list, since
-- all their connections are on nodes whose lease has run out.

local leases = KEYS[1]
local group = ARGV[2]
local users = prefix .. 'users:' .. group

local gone = {}
for _, node in ipairs(expired(leases)) do
  for _, record in ipairs(call('HVALS', members_key(group, node))) do
    local user = user_of(record)
    if user then gone[user] = (gone[user] or 0) + 1 end
  end
end
local answer = {call('HLEN', users)}
for user, connections in pairs(gone) do
  if tonumber(call('HGET', users, user) or 0) <= connections then
    answer[1] = answer[1] - 1
    answer[#answer + 1] = user
  end
end
return answer
