-- Count the members of a group.
-- KEYS: index, leases
-- ARGV: prefix, group
-- Returns the number.

local index, leases = unpack(KEYS)
local group = ARGV[2]

local count = tonumber(call('ZSCORE', index, group) or 0)
for _, node in ipairs(expired(leases)) do
  count = count - call('HLEN', members_key(group, node))
end
return count
