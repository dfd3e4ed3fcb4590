-- Look at some groups at one moment.
-- KEYS: leases, index, told, rebuilding, void
-- ARGV: prefix, groups (msgpack)
-- Returns false while the living nodes write back what was lost, else for each group
-- {revision of its last change (0: nobody is told of changes), count, user_count}.

local leases, index, told, rebuilding, void = unpack(KEYS)

if call('EXISTS', rebuilding, void) > 0 then return false end
local gone, summaries = expired(leases), {}
for i, group in ipairs(cmsgpack.unpack(ARGV[2])) do
  summaries[i] = {
    last_told(told, group),
    count_without(index, group, gone),
    call('HLEN', prefix .. 'users:' .. group) - #users_only_on(group, gone),
  }
end
return summaries
