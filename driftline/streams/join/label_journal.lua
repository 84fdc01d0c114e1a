-- One write to the journal of a join task's label cache: all of it or nothing, and only on top of what is expected.
-- KEYS[1] journal (list of entries), KEYS[2] bounds (hash: from, next, version), KEYS[3] owner of the task ("token epoch").
-- ARGV[1] token ('' = no owner is checked), ARGV[2] the version this write goes on top of, or 'reset',
-- ARGV[3] the labels offset that must have been reached, ARGV[4] the one reached by this, ARGV[5] oldest entries to drop,
-- ARGV[6..] entries to append.
local journal, bounds = KEYS[1], KEYS[2]

if ARGV[1] ~= '' then
  local token = string.match(redis.call('GET', KEYS[3]) or '', '^(%S+)')
  if token ~= ARGV[1] then
    return { 'owner', token or '' }
  end
end

if ARGV[2] == 'reset' then
  redis.call('UNLINK', journal, bounds)
  redis.call('HSET', bounds, 'from', ARGV[4], 'next', ARGV[4], 'version', 0)
  return { 'ok' }
end

local held = redis.call('HMGET', bounds, 'next', 'version')
if not held[1] or held[2] ~= ARGV[2] or tonumber(held[1]) < tonumber(ARGV[3]) then
  return { 'lost', held[1] or '' }
end
if tonumber(ARGV[5]) > 0 then
  redis.call('LTRIM', journal, ARGV[5], -1)
end
for i = 6, #ARGV do
  redis.call('RPUSH', journal, ARGV[i])
end
redis.call('HINCRBY', bounds, 'version', 1)
if tonumber(ARGV[4]) > tonumber(held[1]) then
  redis.call('HSET', bounds, 'next', ARGV[4])
end
return { 'ok' }
