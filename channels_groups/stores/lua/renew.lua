-- Put off the end of a node's lease and report the nodes that may be evicted.
-- KEYS: leases, epoch, rebuilding, node:<n>
-- ARGV: prefix, node, epoch that the node knows, lease (seconds), seconds without a
--       renewal after which a node with no connection may be evicted,
--       a name for a new epoch, milliseconds that rebuilding takes
-- Returns {state, epoch, 1 if the node's subscription is there, node, node, ...}.

local leases, epoch_key, rebuilding, node_groups = unpack(KEYS)
local node, known, lease, patience, new, rebuild = unpack(ARGV, 2)
lease, patience = tonumber(lease), tonumber(patience)

local function is_connected(other)
  return call('PUBSUB', 'NUMSUB', prefix .. 'alive:' .. other)[2] > 0
end

local epoch = call('GET', epoch_key)
if not epoch then
  epoch = new
  call('SET', epoch_key, epoch)
  call('SET', rebuilding, 1, 'PX', rebuild)
end

local time = now()
local deadline = tonumber(call('ZSCORE', leases, node) or 0)
local state = 'alive'
if deadline > 0 then
  call('ZADD', leases, time + lease, node)
elseif epoch ~= known then
  state = 'emptied'
else
  state = 'lost'
  -- Where only the lease is gone, its members still have to be evicted.
  if call('EXISTS', node_groups) == 1 then call('ZADD', leases, 0, node) end
end

local answer = {state, epoch, is_connected(node) and 1 or 0}
local silent = call('ZRANGEBYSCORE', leases, '-inf', time + lease - patience, 'WITHSCORES')
for i = 1, #silent, 2 do
  local other = silent[i]
  if other ~= node and (tonumber(silent[i + 1]) <= time or not is_connected(other)) then
    answer[#answer + 1] = other
  end
end
return answer
