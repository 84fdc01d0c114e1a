-- One write of one drift event: state, applied offset and outbox together, or nothing at all.
-- KEYS: applied (hash), states (hash), open (set), recent (zset), outbox of the partition (zset)
-- ARGV: partition, expected next offset ('' = none), next offset, most recent alerts, seed ('1' = only where absent),
--       number of states, then per state: fingerprint, 'firing'|'resolved', end (ms), bytes,
--       then per outbox row: score, member
local applied, states, open, recent, outbox = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local seed = ARGV[5] == '1'
if not seed then
  local current = redis.call('HGET', applied, ARGV[1]) or ''
  if current ~= ARGV[2] then
    return 0
  end
  redis.call('HSET', applied, ARGV[1], ARGV[3])
end
local at = 7
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
local excess = redis.call('ZCARD', recent) - tonumber(ARGV[4])
if excess > 0 then
  local oldest = redis.call('ZRANGE', recent, 0, excess - 1)
  redis.call('ZREM', recent, unpack(oldest))
  redis.call('HDEL', states, unpack(oldest))
end
while at < #ARGV do
  redis.call('ZADD', outbox, ARGV[at], ARGV[at + 1])
  at = at + 2
end
return 1
