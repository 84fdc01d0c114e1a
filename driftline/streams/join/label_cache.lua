-- The label cache of one join task. Ids and facts come as one string each: parsing thousands of arguments costs the
-- client more than cutting them up here costs Redis.
-- KEYS[1] entries (hash: id -> facts), KEYS[2] bounds (hash: from, next), KEYS[3] owner of the task ("token epoch").
-- ARGV[1] operation, ARGV[2] token ('' = no owner is checked).
local entries, bounds = KEYS[1], KEYS[2]
local ID, FACT, COUNTED, CHUNK = 16, 43, 43, 2000

if ARGV[2] ~= '' and ARGV[1] ~= 'lookup' then
  local token = string.match(redis.call('GET', KEYS[3]) or '', '^(%S+)')
  if token ~= ARGV[2] then
    return { 'owner', token or '' }
  end
end

-- Positions of n values in one string: all of one size, or sizes as 4-byte numbers.
local function cutter(values, size, sizes)
  local at = 1
  return function(i)
    if size ~= 0 then
      return string.sub(values, (i - 1) * size + 1, i * size)
    end
    local length = struct.unpack('<I4', sizes, (i - 1) * 4 + 1)
    local value = string.sub(values, at, at + length - 1)
    at = at + length
    return value
  end
end

local sub = string.sub

-- Counted, here and below: `#list` searches for the end of a list each time.
local function ids_from(text, first, last)
  local ids, n = {}, 0
  for at = (first - 1) * ID + 1, last * ID, ID do
    n = n + 1
    ids[n] = sub(text, at, at + ID - 1)
  end
  return ids, n
end

-- Whether a chunk of facts of one size went in: none of its ids was held, and no id stood in it twice. What was written
-- for one that did is written again.
local function insert_new(ids, count, old, facts, first)
  local out, at = {}, (first - 1) * FACT + 1
  for i = 1, count do
    if old[i] then
      return false
    end
    out[2 * i - 1] = ids[i]
    out[2 * i] = sub(facts, at, at + FACT - 1)
    at = at + FACT
  end
  return redis.call('HSET', entries, unpack(out)) == count
end

local function write(pairs_)
  if #pairs_ > 0 then
    redis.call('HSET', entries, unpack(pairs_))
  end
end

if ARGV[1] == 'reset' then
  redis.call('UNLINK', entries, bounds)
  redis.call('HSET', bounds, 'from', ARGV[3], 'next', ARGV[3])
  return { 'ok' }
end

if ARGV[1] == 'insert' then
  -- ARGV: start, next, ids, facts, size, sizes
  local held = redis.call('HGET', bounds, 'next')
  if not held or tonumber(held) < tonumber(ARGV[3]) then
    return { 'lost', held or '' }
  end
  if tonumber(ARGV[4]) > tonumber(held) then
    redis.call('HSET', bounds, 'next', ARGV[4])
  end
  local n = #ARGV[5] / ID
  local cut = cutter(ARGV[6], tonumber(ARGV[7]), ARGV[8])
  for first = 1, n, CHUNK do
    local ids, count = ids_from(ARGV[5], first, math.min(first + CHUNK - 1, n))
    local old = redis.call('HMGET', entries, unpack(ids))
    if tonumber(ARGV[7]) ~= FACT or not insert_new(ids, count, old, ARGV[6], first) then
      local now, out = {}, {}
      for i = 1, count do
        local fact = cut(first + i - 1)
        local before = now[ids[i]] or old[i]
        if not before then
          now[ids[i]] = fact
          out[#out + 1] = ids[i]
          out[#out + 1] = fact
        elseif not string.find(before, fact, 1, true) then
          now[ids[i]] = fact .. before
          out[#out + 1] = ids[i]
          out[#out + 1] = now[ids[i]]
        end
      end
      write(out)
    end
  end
  return { 'ok' }
end

if ARGV[1] == 'lookup' then
  -- One character an id: '0' nothing, '1' one plain fact, '2' a value whose length stands before it.
  local n = #ARGV[3] / ID
  local codes, values, c, v = {}, {}, 0, 0
  for first = 1, n, CHUNK do
    local ids, count = ids_from(ARGV[3], first, math.min(first + CHUNK - 1, n))
    local found = redis.call('HMGET', entries, unpack(ids))
    for i = 1, count do
      local value = found[i]
      c = c + 1
      if not value then
        codes[c] = '0'
      else
        codes[c] = '1'
        if #value ~= FACT then
          codes[c] = '2'
          v = v + 1
          values[v] = struct.pack('<I4', #value)
        end
        v = v + 1
        values[v] = value
      end
    end
  end
  return { table.concat(codes), table.concat(values) }
end

if ARGV[1] == 'settle' then
  -- ARGV: ids to remove, ids to replace, values, sizes
  local n = #ARGV[3] / ID
  for first = 1, n, CHUNK do
    local ids = ids_from(ARGV[3], first, math.min(first + CHUNK - 1, n))
    redis.call('HDEL', entries, unpack(ids))
  end
  local cut = cutter(ARGV[5], 0, ARGV[6])
  for i = 1, #ARGV[4] / ID do
    redis.call('HSET', entries, string.sub(ARGV[4], (i - 1) * ID + 1, i * ID), cut(i))
  end
  return { 'ok' }
end

-- sweep: cursor, count, before
local before = tonumber(ARGV[5])
local reply = redis.call('HSCAN', entries, ARGV[3], 'COUNT', ARGV[4])
local orphans, gone = 0, {}
for i = 1, #reply[2], 2 do
  local value = reply[2][i + 1]
  local at, wanted, uncounted, seen = 1, false, 0, {}
  while at <= #value do
    -- Times are below 2^53, so a Lua number holds them.
    local low, high = struct.unpack('<I4i4', value, at)
    if high * 4294967296 + low >= before then
      wanted = true
      break
    end
    local position = string.sub(value, at + 16, at + 27)
    if string.byte(value, at + COUNTED - 1) == 0 and not seen[position] then
      uncounted = uncounted + 1
    end
    seen[position] = true
    at = at + FACT + struct.unpack('<I2', value, at + 40)
  end
  if not wanted then
    gone[#gone + 1] = reply[2][i]
    orphans = orphans + uncounted
  end
end
for first = 1, #gone, CHUNK do
  redis.call('HDEL', entries, unpack(gone, first, math.min(first + CHUNK - 1, #gone)))
end
return { 'ok', reply[1], orphans }
