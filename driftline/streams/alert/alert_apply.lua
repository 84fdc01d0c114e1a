-- One write of one drift event: alert, incident, applied offset and outbox together, or nothing at all.
-- KEYS: applied (hash), states (hash), open (set), recent (zset), books (hash), incidents that ended (hash), their ends (zset),
--       names of the books (set), outbox of the partition (zset)
-- ARGV: partition, expected next offset ('' = none), next offset, most recent alerts, seed ('1' = only where absent),
--       number of states, of books, of incidents that ended,
--       then per state: fingerprint, 'firing'|'resolved', end (ms), bytes; per book: key, bytes; per incident: id, end (ms), bytes,
--       then per outbox row: score, member
local applied, states, open, recent, books, ended, ended_at, names, outbox = unpack(KEYS)
local seed = ARGV[5] == '1'
if not seed then
  local current = redis.call('HGET', applied, ARGV[1]) or ''
  if current ~= ARGV[2] then
    return 0
  end
  redis.call('HSET', applied, ARGV[1], ARGV[3])
end
local at = 9
for _ = 1, tonumber(ARGV[6]) do
  local fingerprint, condition, ends_at, bytes = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  at = at + 4
  if not seed or redis.call('HEXISTS', states, fingerprint) == 0 then
    redis.call('HSET', states, fingerprint, bytes)
    if condition == 'firing' then
      redis.call('SADD', open, fingerprint)
      redis.call('ZREM', recent, fingerprint)
    else
      redis.call('SREM', open, fingerprint)
      redis.call('ZADD', recent, ends_at, fingerprint)
    end
  end
end
for _ = 1, tonumber(ARGV[7]) do
  if not seed or redis.call('HEXISTS', books, ARGV[at]) == 0 then
    redis.call('HSET', books, ARGV[at], ARGV[at + 1])
    redis.call('SADD', names, ARGV[at])
  end
  at = at + 2
end
for _ = 1, tonumber(ARGV[8]) do
  if not seed or redis.call('HEXISTS', ended, ARGV[at]) == 0 then
    redis.call('HSET', ended, ARGV[at], ARGV[at + 2])
    redis.call('ZADD', ended_at, ARGV[at + 1], ARGV[at])
  end
  at = at + 3
end
local function trim(index, values)
  local excess = redis.call('ZCARD', index) - tonumber(ARGV[4])
  if excess > 0 then
    local oldest = redis.call('ZRANGE', index, 0, excess - 1)
    redis.call('ZREM', index, unpack(oldest))
    redis.call('HDEL', values, unpack(oldest))
  end
end
trim(recent, states)
trim(ended_at, ended)
while at < #ARGV do
  redis.call('ZADD', outbox, ARGV[at], ARGV[at + 1])
  at = at + 2
end
return 1
