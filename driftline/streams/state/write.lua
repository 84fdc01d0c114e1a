-- The one script that writes: a claim of a task, or one checkpoint, whole or not at all.
-- Conditions first: an error or a refusal after the first write would leave half a checkpoint.
-- KEYS[1] owner ("token epoch"), KEYS[2] head; the further keys in the order of ARGV's lists.
local owner = redis.call('GET', KEYS[1]) or ''
local head = redis.call('GET', KEYS[2]) or ''
local token, epoch = string.match(owner, '^(%S+) (%d+)$')

if ARGV[1] == 'claim' then
  local next_epoch = math.max(tonumber(epoch or '0'), tonumber(ARGV[3])) + 1
  redis.call('SET', KEYS[1], ARGV[2] .. ' ' .. string.format('%.0f', next_epoch))
  return { 'ok', string.format('%.0f', next_epoch), head }
end

if token ~= ARGV[2] then
  return { 'owner', epoch or '', '' }
end
if head ~= ARGV[3] then
  return { 'head', head, '' }
end

local k, a = 2, 5
local function next_key()
  k = k + 1
  return KEYS[k]
end
local function next_argument()
  a = a + 1
  return ARGV[a]
end

-- ARGV[5] = number of length conditions.
for _ = 1, tonumber(ARGV[5]) do
  local expected = tonumber(next_argument())
  local found = redis.call('STRLEN', next_key())
  if found ~= expected then
    return { 'length', found .. ' bytes, expected ' .. expected, '' }
  end
end

for _ = 1, tonumber(next_argument()) do
  local target, source = next_key(), next_key()
  local pieces = { next_argument() }
  for _ = 1, tonumber(next_argument()) do
    local first, last = next_argument(), next_argument()
    pieces[#pieces + 1] = redis.call('GETRANGE', source, first, last)
  end
  pieces[#pieces + 1] = next_argument()
  redis.call('SET', target, table.concat(pieces))
end
for _ = 1, tonumber(next_argument()) do
  local offset = next_argument()
  redis.call('SETRANGE', next_key(), offset, next_argument())
end
for _ = 1, tonumber(next_argument()) do
  redis.call('SET', next_key(), next_argument())
end
for _ = 1, tonumber(next_argument()) do
  redis.call('UNLINK', next_key())
end
redis.call('SET', KEYS[2], ARGV[4])
return { 'ok', '', '' }
