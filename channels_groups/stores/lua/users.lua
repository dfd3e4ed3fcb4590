-- Count the distinct users of a group.
-- KEYS: leases
-- ARGV: prefix, group
-- Returns {number, user, ...}: the users named are to be left out of the list, since
-- all their connections are on nodes whose lease has run out.

local leases = KEYS[1]
local group = ARGV[2]

local gone = users_only_on(group, expired(leases))
return {call('HLEN', prefix .. 'users:' .. group) - #gone, unpack(gone)}
