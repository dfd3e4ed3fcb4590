-- Give up the lease of a node without members; the last one takes the rest along.
-- KEYS: leases, channels, sizes, node:<n>, answer:<n>, epoch, rebuilding, revision,
--       told, void, run
-- ARGV: prefix, node
-- Returns nothing.

local leases, channels, sizes, node_groups, answered, epoch, rebuilding, revision =
  unpack(KEYS)
local told_groups, void, run = unpack(KEYS, 9)
local node = ARGV[2]

call('DEL', answered, prefix .. 'taken:' .. node)
if call('EXISTS', node_groups) == 1 then
  -- Something is left in its name: let it be evicted.
  call('ZADD', leases, 0, node)
  return
end
call('ZREM', leases, node)
call('HDEL', channels, node)
call('HDEL', sizes, node)
if call('EXISTS', leases, void) == 0 then
  call('DEL', channels, sizes, epoch, rebuilding, revision, told_groups, run)
  call('DEL', prefix .. 'damaged')
end
