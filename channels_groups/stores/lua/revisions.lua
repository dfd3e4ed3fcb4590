-- Tell the revision of the last change of some groups.
-- KEYS: told
-- ARGV: prefix, groups (msgpack)
-- Returns the revisions; 0 where nobody is told of changes.

local told = KEYS[1]

local answer = {}
for i, group in ipairs(cmsgpack.unpack(ARGV[2])) do
  answer[i] = tonumber(call('ZSCORE', told, group) or 0)
end
return answer
