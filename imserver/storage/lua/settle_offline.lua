-- Apply what became of a batch of one shard's offline pushes: all of it, once.
--
-- KEYS  1 lease:offline_push   2 log:toOfflinePush   3 log:dead   4 OFFLINE_WAIT   5 OFFLINE_DUE   6 OFFLINE_SETTLED
-- ARGV  1 lease token   2 id of this settlement   3 now in ms   4 field that marks a tick
--       5 number of entries that leave the log   6 number of dead letters
--       7 number of waiting pushes that are done   8 number of pushes that wait (again)
--       then the ids of the entries
--       then each dead letter: reason, origin, number of fields, each field: name, value
--       then the ids of the pushes that are done
--       then each push that waits: id, ms of the next try, what is left of it
-- Returns 1, also when this settlement was applied before; 0 when the lease was lost (nothing was changed).
-- Stored in: OFFLINE_WAIT {id: push} (imserver/storage/offline_waits.py); OFFLINE_DUE {id: ms}.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if redis.call('GET', KEYS[6]) == ARGV[2] then return 1 end
redis.call('SET', KEYS[6], ARGV[2], 'EX', 60)

local at = 9
for _ = 1, tonumber(ARGV[5]) do
  redis.call('XDEL', KEYS[2], ARGV[at])
  at = at + 1
end
for _ = 1, tonumber(ARGV[6]) do
  local entry = {'reason', ARGV[at], 'origin', ARGV[at + 1]}
  local count = tonumber(ARGV[at + 2]) * 2
  for p = at + 3, at + 2 + count do entry[#entry + 1] = ARGV[p] end
  redis.call('XADD', KEYS[3], '*', unpack(entry))
  at = at + 3 + count
end
for _ = 1, tonumber(ARGV[7]) do
  redis.call('HDEL', KEYS[4], ARGV[at])
  redis.call('ZREM', KEYS[5], ARGV[at])
  at = at + 1
end
for _ = 1, tonumber(ARGV[8]) do
  redis.call('ZADD', KEYS[5], ARGV[at + 1], ARGV[at])
  redis.call('HSET', KEYS[4], ARGV[at], ARGV[at + 2])
  at = at + 3
end
-- What is due already must not wait for the next sweep.
if redis.call('XLEN', KEYS[2]) == 0 and redis.call('ZCOUNT', KEYS[5], '-inf', ARGV[3]) > 0 then
  redis.call('XADD', KEYS[2], '*', ARGV[4], '')
end
return 1
