-- Count the members of a group.
-- KEYS: index, leases
-- ARGV: prefix, group
-- Returns the number.

local index, leases = unpack(KEYS)

return count_without(index, ARGV[2], expired(leases))
