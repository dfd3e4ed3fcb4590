-- Count all memberships, and all groups but those of the gone: of nodes whose lease
-- has run out, which have nobody else in them.
-- KEYS: index, leases, sizes
-- ARGV: prefix, how many parts of groups to look at, where to go on: node, cursor
-- Returns {groups, memberships, node and cursor to go on from (node '': that is all),
-- group of the gone, ...}. The groups are to be left out of the number.

local index, leases, sizes = unpack(KEYS)
local limit, start, cursor = tonumber(ARGV[2]), ARGV[3], ARGV[4]

local groups, memberships = call('ZCARD', index), 0
for _, size in ipairs(call('HVALS', sizes)) do
  memberships = memberships + tonumber(size)
end
local gone = expired(leases)
for _, node in ipairs(gone) do
  memberships = memberships - tonumber(call('HGET', sizes, node) or 0)
end
if #gone == call('ZCARD', leases) then return {0, memberships, '', '0'} end

local answer = {groups, memberships, '', '0'}
limit = math.ceil(limit / math.max(#gone, 1)) -- Of each group each node's part.
table.sort(gone)
for _, node in ipairs(gone) do
  if node >= start then
    if node > start then cursor = '0' end
    repeat
      if limit <= 0 then
        answer[3], answer[4] = node, cursor
        return answer
      end
      local page = call('HSCAN', prefix .. 'node:' .. node, cursor, 'COUNT', limit)
      cursor, limit = page[1], limit - #page[2] / 2 - 1
      for i = 1, #page[2], 2 do
        local group = page[2][i]
        if call('ZSCORE', index, group) and count_without(index, group, gone) <= 0 then
          answer[#answer + 1] = group
        end
      end
    until cursor == '0'
  end
end
return answer
