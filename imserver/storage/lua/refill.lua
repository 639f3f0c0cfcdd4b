-- Store a range that was reserved in MongoDB, if the caller still holds the refill lock, and give the lock back.
--
-- KEYS  1 MALLOC_SEQ   ARGV  1 lock owner   2 seq before the range   3 LAST   4 now in ms   5 size of the refill
--       6 expiry of MALLOC_SEQ in seconds   7 "1": Redis did not know the conversation, so its records are to be looked after
-- Returns 1, or 0 when the lock was lost: the range stays unused.
-- CURR never moves back: seqs may have been handed out since the refill began. Where it jumps, commit.lua may begin to cache in
-- the middle of a block, so it is to set the expiries (KEPT).
if redis.call('HGET', KEYS[1], 'LOCK') ~= ARGV[1] then return 0 end
local curr = tonumber(redis.call('HGET', KEYS[1], 'CURR') or 0)
if tonumber(ARGV[2]) > curr then curr = ARGV[2] end
redis.call('HSET', KEYS[1], 'CURR', curr, 'LAST', ARGV[3], 'TIME', ARGV[4], 'SEG', ARGV[5], 'REFILLED', ARGV[4])
redis.call('HDEL', KEYS[1], 'LOCK', 'LOCKED', 'TRY', 'KEPT')
if ARGV[7] == '1' then redis.call('HSET', KEYS[1], 'NEW', 1) end
redis.call('EXPIRE', KEYS[1], ARGV[6])
return 1
