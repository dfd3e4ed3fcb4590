-- List the living nodes that have members of a group.
-- KEYS: leases
-- ARGV: prefix, group
-- Returns the nodes.

local leases = KEYS[1]
local group = ARGV[2]

local nodes, time = {}, now()
for _, node in ipairs(call('HKEYS', prefix .. 'nodes:' .. group)) do
  local deadline = call('ZSCORE', leases, node)
  if deadline and tonumber(deadline) > time then nodes[#nodes + 1] = node end
end
return nodes
