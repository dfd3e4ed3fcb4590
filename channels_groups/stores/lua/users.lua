-- Read a part of what nodes whose lease has run out have in a group, to count its users
-- without theirs.
-- KEYS: index, leases
-- ARGV: prefix, group, where to go on: node, cursor
-- Returns {users of the group (0: all of it is gone), members that such nodes have,
-- how many of them were read, node and cursor to go on from (node '': that is all),
-- connection, user, connections of the user, connection, ...}.

local index, leases = unpack(KEYS)
local group, start, cursor = ARGV[2], ARGV[3], ARGV[4]
local users_key = prefix .. 'users:' .. group

local gone = expired(leases)
local lost, users = count_on(group, gone), call('HLEN', users_key)
local answer = {users, lost, 0, '', '0'}
if lost == 0 or users == 0 then return answer end
if lost >= tonumber(call('ZSCORE', index, group) or 0) then
  answer[1] = 0
  return answer
end

-- Put those who have a user into the answer.
local function add(members)
  for i = 1, #members, 2 do
    local user = user_of(members[i + 1])
    if user then
      answer[#answer + 1] = members[i]
      answer[#answer + 1] = user
      answer[#answer + 1] = call('HGET', users_key, user) or 0
    end
  end
end

local left = PART / 2 -- Reading one, and its user, costs more than looking at a group.
table.sort(gone)
for _, node in ipairs(gone) do
  if node >= start then
    if node > start then cursor = '0' end
    repeat
      if left <= 0 then
        answer[4], answer[5] = node, cursor
        return answer
      end
      local page = call('HSCAN', members_key(group, node), cursor, 'COUNT', left)
      cursor, left = page[1], left - #page[2] / 2 - 1
      answer[3] = answer[3] + #page[2] / 2
      add(page[2])
    until cursor == '0'
  end
end
return answer
