-- List groups from a rank on, with their counts: most members first, or fewest.
-- KEYS: index, leases
-- ARGV: prefix, first rank, how many, '1' for fewest members first
-- Returns {how many of them it has looked for, group, count, group, count, ...}.

local index, leases = unpack(KEYS)
local first, size = tonumber(ARGV[2]), tonumber(ARGV[3])

local gone = expired(leases)
if #gone > 0 then size = math.min(size, math.ceil(PART / #gone)) end
local range = ARGV[4] == '1' and 'ZRANGE' or 'ZREVRANGE'
local entries = call(range, index, first, first + size - 1, 'WITHSCORES')
return {size, unpack(without(gone, entries))}
