-- Apply what became of a batch of one shard's after hooks: all of it, once.
--
-- KEYS  1 lease:webhook   2 log:toWebhook   3 log:dead   4 WEBHOOK_DUE   5 WEBHOOK_SETTLED
--       6… WEBHOOK_WAIT of each line (a conversation and a kind of hook)
-- ARGV  1 lease token   2 id of this settlement   3 now in ms   4 number of entries that leave the log
--       5 number of dead letters   6 number of lines   7 field that marks a tick
--       then the ids of the entries
--       then each dead letter: reason, origin, number of fields, each field: name, value
--       then each line: name, batches done at the head, new head or "", ms of the next try or "" (as it is),
--            number of batches to put behind, those batches
-- Returns 1, also when this settlement was applied before; 0 when the lease was lost (nothing was changed).
-- Stored in: WEBHOOK_WAIT list of batches (imserver/storage/webhook_waits.py); WEBHOOK_DUE {line: ms}.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if redis.call('GET', KEYS[5]) == ARGV[2] then return 1 end
redis.call('SET', KEYS[5], ARGV[2], 'EX', 60)

local at = 8
for _ = 1, tonumber(ARGV[4]) do
  redis.call('XDEL', KEYS[2], ARGV[at])
  at = at + 1
end
for _ = 1, tonumber(ARGV[5]) do
  local entry = {'reason', ARGV[at], 'origin', ARGV[at + 1]}
  local count = tonumber(ARGV[at + 2]) * 2
  for p = at + 3, at + 2 + count do entry[#entry + 1] = ARGV[p] end
  redis.call('XADD', KEYS[3], '*', unpack(entry))
  at = at + 3 + count
end
for i = 1, tonumber(ARGV[6]) do
  local wait, line, done, head, due = KEYS[5 + i], ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3]
  if done > 0 then redis.call('LTRIM', wait, done, -1) end
  if head ~= '' then redis.call('LSET', wait, 0, head) end
  local count = tonumber(ARGV[at + 4])
  for p = at + 5, at + 4 + count do redis.call('RPUSH', wait, ARGV[p]) end
  if redis.call('LLEN', wait) == 0 then
    redis.call('ZREM', KEYS[4], line)
  elseif due ~= '' then
    redis.call('ZADD', KEYS[4], due, line)
  end
  at = at + 5 + count
end
-- What is due already must not wait for the next sweep.
if redis.call('XLEN', KEYS[2]) == 0 and redis.call('ZCOUNT', KEYS[4], '-inf', ARGV[3]) > 0 then
  redis.call('XADD', KEYS[2], '*', ARGV[7], '')
end
return 1
