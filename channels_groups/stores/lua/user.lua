-- List a page of a user's memberships.
-- KEYS: leases
-- ARGV: prefix, user, cursor, page size
-- Returns {next cursor, {group, connection, record, group, connection, record, ...}}.

local leases = KEYS[1]

local answer, time = {}, now()
local page = call('HSCAN', user_key(ARGV[2]), ARGV[3], 'COUNT', ARGV[4])
for i = 1, #page[2], 2 do
  local group, id = parse_place(page[2][i])
  local node = page[2][i + 1]
  local deadline = call('ZSCORE', leases, node)
  local record = call('HGET', members_key(group, node), id)
  if record and deadline and tonumber(deadline) > time then
    for _, one in ipairs({group, id, record}) do answer[#answer + 1] = one end
  end
end
return {page[1], answer}
