-- List the nodes.
-- KEYS: leases, sizes
-- ARGV: prefix
-- Returns {{node, process, connections, memberships, seconds that the lease lasts}, ...}.

local leases, sizes = unpack(KEYS)

local time, answer = now(), {}
local nodes = call('ZRANGE', leases, 0, -1, 'WITHSCORES')
for i = 1, #nodes, 2 do
  local node = nodes[i]
  local about = call('HMGET', prefix .. 'answer:' .. node, 'process', 'connections')
  if node ~= LINGERING then
    answer[#answer + 1] = {
      node, about[1] or '', about[2] or '0', call('HGET', sizes, node) or '0',
      tostring(tonumber(nodes[i + 1]) - time),
    }
  end
end
return answer
