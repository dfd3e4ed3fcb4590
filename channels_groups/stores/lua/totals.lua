-- Count all groups and all memberships.
-- KEYS: index, leases, sizes
-- ARGV: prefix
-- Returns {groups, memberships}.

local index, leases, sizes = unpack(KEYS)

local groups, memberships = call('ZCARD', index), 0
for _, size in ipairs(call('HVALS', sizes)) do
  memberships = memberships + tonumber(size)
end
local gone = expired(leases)
local on_the_gone = {}
for _, node in ipairs(gone) do
  memberships = memberships - tonumber(call('HGET', sizes, node) or 0)
  for _, group in ipairs(call('HKEYS', prefix .. 'node:' .. node)) do
    local members = call('HLEN', members_key(group, node))
    on_the_gone[group] = (on_the_gone[group] or 0) + members
  end
end
for group, count in pairs(on_the_gone) do
  if tonumber(call('ZSCORE', index, group) or 0) <= count then groups = groups - 1 end
end
return {groups, memberships}
