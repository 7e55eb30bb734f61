"""What the calibration store runs inside Redis. As `dedup.redis_scripts`: each script runs alone, and whole.

A time only ever grows here: what was said to be needed later stays needed.
"""

from __future__ import annotations

PUT_LABELS = """
-- KEYS: the tenant's pcs_ids by time, of benign and of bad ones; its labels; the tenants.
-- ARGV: the tenant; how many are kept a class; then for each label the number of its class, time, pcs_id and value.
local call, kept = redis.call, tonumber(ARGV[2])
for at = 3, #ARGV, 4 do
  local mine = tonumber(ARGV[at])
  call('ZREM', KEYS[3 - mine], ARGV[at + 2])
  call('ZADD', KEYS[mine], ARGV[at + 1], ARGV[at + 2])
  call('HSET', KEYS[3], ARGV[at + 2], ARGV[at + 3])
end
for class = 1, 2 do
  for _, pcs_id in ipairs(call('ZRANGE', KEYS[class], 0, -1 - kept)) do
    call('ZREM', KEYS[class], pcs_id)
    call('HDEL', KEYS[3], pcs_id)
  end
end
call('SADD', KEYS[4], ARGV[1])
return 0
"""

LIST_LABELS = """
-- KEYS: a tenant's pcs_ids of a class by time; its labels. ARGV: since when; how many. Returns labels, newest first.
local found = {}
for _, pcs_id in ipairs(redis.call('ZREVRANGEBYSCORE', KEYS[1], '+inf', ARGV[1], 'LIMIT', 0, ARGV[2])) do
  found[#found + 1] = redis.call('HGET', KEYS[2], pcs_id) or nil
end
return found
"""

KEEP = """
-- KEYS: artifacts; their digests by when they were needed. ARGV: digest; bytes; now; how many are kept, -1 for any number.
-- Returns 1, or 0 where there is no room.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  local most = tonumber(ARGV[4])
  if most >= 0 and redis.call('HLEN', KEYS[1]) >= most then
    return 0
  end
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
if tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or 0) < tonumber(ARGV[3]) then
  redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
end
return 1
"""

PROMOTE = """
-- KEYS: artifacts; their digests by when they were needed; promotions in force by scope; the scope's promotions.
-- ARGV: scope; version; digest; when; how many promotions are kept; the promotion. Returns 1, or 0 if it may not be.
local call = redis.call
local last, former = 0, nil
local held = call('HGET', KEYS[3], ARGV[1])
if held then
  last, former = string.match(held, '^(%d+):(%x+):')
end
if tonumber(ARGV[2]) ~= last + 1 or call('HEXISTS', KEYS[1], ARGV[3]) == 0 then
  return 0
end
call('HSET', KEYS[3], ARGV[1], ARGV[2] .. ':' .. ARGV[3] .. ':' .. ARGV[6])
call('LPUSH', KEYS[4], ARGV[6])
call('LTRIM', KEYS[4], 0, ARGV[5] - 1)
for _, digest in ipairs({ARGV[3], former}) do
  local needed = call('ZSCORE', KEYS[2], digest)
  if call('HEXISTS', KEYS[1], digest) == 1 and tonumber(needed or 0) < tonumber(ARGV[4]) then
    call('ZADD', KEYS[2], ARGV[4], digest)
  end
end
return 1
"""

PURGE = """
-- KEYS: artifacts; their digests by when they were needed; promotions in force by scope. ARGV: before when.
-- Returns how many went.
local in_force, gone = {}, 0
for _, held in ipairs(redis.call('HVALS', KEYS[3])) do
  in_force[string.match(held, '^%d+:(%x+):') or error('not a promotion')] = true
end
for _, digest in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[1])) do
  if not in_force[digest] then
    redis.call('HDEL', KEYS[1], digest)
    redis.call('ZREM', KEYS[2], digest)
    gone = gone + 1
  end
end
return gone
"""
