-- List a page of groups with their counts, most members first, or by pattern.
-- KEYS: index, leases
-- ARGV: prefix, pattern ('' for all), cursor, page size
-- Returns {next cursor ('' at the end), group, count, group, count, ...}.

local index, leases = unpack(KEYS)
local pattern, cursor, size = ARGV[2], ARGV[3], tonumber(ARGV[4])

local entries, answer
if pattern == '' then
  local first = tonumber(cursor)
  entries = call('ZREVRANGE', index, first, first + size - 1, 'WITHSCORES')
  answer = {#entries == 2 * size and tostring(first + size) or ''}
else
  local page = call('ZSCAN', index, cursor, 'MATCH', pattern, 'COUNT', size)
  entries = page[2]
  answer = {page[1] == '0' and '' or page[1]}
end
local gone = expired(leases)
for i = 1, #entries, 2 do
  local count = tonumber(entries[i + 1])
  for _, node in ipairs(gone) do
    count = count - call('HLEN', members_key(entries[i], node))
  end
  if count > 0 then
    answer[#answer + 1] = entries[i]
    answer[#answer + 1] = count
  end
end
return answer
