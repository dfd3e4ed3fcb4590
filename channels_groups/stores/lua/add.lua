-- Add to numbers in a hash what verify() found that they are off by.
-- KEYS: the hash, rebuilding, void
-- ARGV: prefix, field, what to add to its number, field, what to add, ...
-- Returns 'rebuilding', or 'ok'. A number that comes to nothing is taken out.

local key, rebuilding, void = unpack(KEYS)

if call('EXISTS', rebuilding, void) > 0 then return 'rebuilding' end
for i = 2, #ARGV, 2 do
  if call('HINCRBY', key, ARGV[i], ARGV[i + 1]) <= 0 then call('HDEL', key, ARGV[i]) end
end
return 'ok'
