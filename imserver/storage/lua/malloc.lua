-- Hand out seqs of one conversation from the range that MongoDB reserved, or say what has to happen first.
--
-- KEYS  1 MALLOC_SEQ {CURR last seq handed out, LAST end of the range, TIME ms of the last allocation,
--         LOCK owner of a refill, LOCKED ms when it was taken, TRY names the reservation that is under way until its range is
--         stored, whoever holds the lock meanwhile, SEG size of the last refill, REFILLED its ms;
--         BATCH, KEPT: see commit.lua}
-- ARGV  1 size   2 lock owner   3 lock expiry in ms   4 now in ms   5 "1": take the seqs, "0": only make sure of them
-- Returns {0, CURR before (-1: no such key, size 0), LAST, TIME} · {1, TRY} no such key, lock taken · {2} somebody else refills
--       {3, TRY, CURR, LAST, SEG, REFILLED} range exhausted, lock taken. Size 0 only reads (and never locks a range that is there).
local key, size, now = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[4])
local seq = redis.call('HMGET', key, 'CURR', 'LAST', 'TIME', 'LOCK', 'LOCKED', 'SEG', 'REFILLED', 'TRY')
local curr, last = tonumber(seq[1]), tonumber(seq[2])
if size == 0 and ARGV[5] == '1' then return {0, curr or -1, last or 0, tonumber(seq[3] or 0)} end
-- The lock is a field, not a key, so its expiry is a time and not a TTL.
if seq[4] and seq[4] ~= ARGV[2] and now < tonumber(seq[5]) + tonumber(ARGV[3]) then return {2} end
if curr and curr + size <= last then
  if seq[4] then redis.call('HDEL', key, 'LOCK', 'LOCKED') end
  if ARGV[5] == '1' then redis.call('HSET', key, 'CURR', curr + size, 'TIME', now, 'KEPT', 0) end
  return {0, curr, last, tonumber(seq[3] or 0)}
end
-- Who had the lock before, and died or heard nothing of MongoDB, may have reserved a range: it is found by its name.
local try = seq[8] or ARGV[2]
redis.call('HSET', key, 'LOCK', ARGV[2], 'LOCKED', now, 'TRY', try)
if curr then return {3, try, curr, last, tonumber(seq[6] or 0), tonumber(seq[7] or 0)} end
return {1, try}
