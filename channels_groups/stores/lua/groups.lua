-- List a page of the groups that match a pattern, with their counts.
-- KEYS: index, leases
-- ARGV: prefix, pattern, cursor, page size
-- Returns {next cursor (0 at the end), {group, count, group, count, ...}}.

local index, leases = unpack(KEYS)
local pattern, cursor, size = ARGV[2], ARGV[3], tonumber(ARGV[4])

local gone = expired(leases)
if #gone > 0 then size = math.min(size, math.ceil(PART / #gone)) end
local page = call('ZSCAN', index, cursor, 'MATCH', pattern, 'COUNT', size)
return {page[1], without(gone, page[2])}
