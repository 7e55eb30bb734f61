"""What runs inside Redis. Redis runs a script alone and writes its effects to the append-only file as one transaction.

All keys of a call carry the tenant's hash tag, and so are in one slot. Times are milliseconds of the caller's clock; the
lives handed to `PX` are counted by the server's, so that Redis forgets by itself even when nobody asks.
"""

from __future__ import annotations

PUT_FIRST = """
-- KEYS: the escalation queue, then an outcome key a record.
-- ARGV: now; then for each record its pcs_id, value, life in ms, and its expiry if it is escalated, else ''.
-- Returns for each record 1 if it was stored, else the value that was there first.
local queue, now = KEYS[1], tonumber(ARGV[1])
redis.call('ZCARD', queue) -- a key of another type fails here, before anything is written
local replies, queued = {}, false
for i = 2, #KEYS do
  local at = (i - 2) * 4 + 2
  local pcs_id, value, life, due = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local held = redis.call('GET', KEYS[i])
  -- A value without an expiry is not ours to replace: the caller fails closed on it.
  if held and (tonumber(string.match(held, '^(%d+):')) or math.huge) > now then
    replies[#replies + 1] = held
  else
    redis.call('SET', KEYS[i], value, 'PX', life)
    if due ~= '' then
      redis.call('ZADD', queue, due, pcs_id)
      if redis.call('PTTL', queue) < tonumber(life) then
        redis.call('PEXPIRE', queue, life)
      end
      queued = true
    else
      redis.call('ZREM', queue, pcs_id) -- what an expired outcome may have left
    end
    replies[#replies + 1] = 1
  end
end
if queued then -- two go for one that came: the queue cannot grow by what expired
  local gone = redis.call('ZRANGEBYSCORE', queue, '-inf', ARGV[1], 'LIMIT', 0, 2 * (#KEYS - 1))
  if #gone > 0 then
    redis.call('ZREM', queue, unpack(gone))
  end
end
return replies
"""

ACK_ESCALATIONS = """
-- KEYS: the escalation queue. ARGV: now; then pcs_ids. Returns 1 for each that was there unexpired, else 0.
local now, replies = tonumber(ARGV[1]), {}
for i = 2, #ARGV do
  local due = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if due then
    redis.call('ZREM', KEYS[1], ARGV[i])
  end
  replies[#replies + 1] = due and tonumber(due) > now and 1 or 0
end
return replies
"""

NOTE_CONFLICTS = """
-- KEYS: the conflict list. ARGV: how many are kept; then time and member of each.
for i = 2, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], 'NX', ARGV[i], ARGV[i + 1])
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[1]))
return 0
"""
