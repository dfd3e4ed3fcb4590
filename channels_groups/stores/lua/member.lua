-- Find one member of a group.
-- KEYS: leases
-- ARGV: prefix, group, connection
-- Returns the record or false.

local leases = KEYS[1]
local group, id = ARGV[2], ARGV[3]

local time = now()
for _, node in ipairs(call('HKEYS', prefix .. 'nodes:' .. group)) do
  local deadline = call('ZSCORE', leases, node)
  if deadline and tonumber(deadline) > time then
    local record = call('HGET', members_key(group, node), id)
    if record then return record end
  end
end
return false
