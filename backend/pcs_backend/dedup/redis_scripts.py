"""What runs inside Redis. Redis runs a script alone and writes its effects to the append-only file as one transaction.

Keys carry their tenant's hash tag; one call may take several tenants, so Redis Cluster is not supported. Times are milliseconds of the caller's clock; the
lives handed to `PX` are counted by the server's, so that Redis forgets by itself even when nobody asks.
"""

from __future__ import annotations

PUT_FIRST = """
-- KEYS: an outcome key a record, then the escalation queues that may be added to.
-- ARGV: now; life in ms; how many records; their values; then for each that is escalated its number, its queue's number
-- among KEYS, its expiry and its pcs_id.
-- Returns for each record that was not stored its number and the value that was there first; '' if it is no string.
local call, records = redis.call, tonumber(ARGV[3])
local now, life = tonumber(ARGV[1]), ARGV[2]
for i = records + 1, #KEYS do
  call('ZCARD', KEYS[i]) -- a key of another type fails here, before anything is written
end
local escalated, queued, lost = {}, {}, {}
for at = records + 4, #ARGV, 4 do
  escalated[tonumber(ARGV[at])] = at
end
for i = 1, records do
  local stored = call('SET', KEYS[i], ARGV[i + 3], 'PX', life, 'NX')
  if not stored then
    local held = redis.pcall('GET', KEYS[i])
    held = type(held) == 'string' and held or ''
    -- A value without an expiry is not ours to replace: the caller fails closed on it.
    if (tonumber(string.match(held, '^(%d+):')) or math.huge) > now then
      lost[#lost + 1] = i
      lost[#lost + 1] = held
    else
      stored = call('SET', KEYS[i], ARGV[i + 3], 'PX', life)
    end
  end
  local at = stored and escalated[i]
  if at then
    local queue = KEYS[tonumber(ARGV[at + 1])]
    call('ZADD', queue, ARGV[at + 2], ARGV[at + 3])
    queued[queue] = (queued[queue] or 0) + 1
  end
end
for queue, count in pairs(queued) do
  if call('PTTL', queue) < tonumber(life) then
    call('PEXPIRE', queue, life)
  end
  -- Two go for one that came: the queue cannot grow by what expired.
  local gone = call('ZRANGEBYSCORE', queue, '-inf', ARGV[1], 'LIMIT', 0, 2 * count)
  if #gone > 0 then
    call('ZREM', queue, unpack(gone))
  end
end
return lost
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
