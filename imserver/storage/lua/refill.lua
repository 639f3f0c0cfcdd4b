-- Store a range that was reserved in MongoDB, if the caller still holds the refill lock, and give the lock back.
--
-- KEYS  1 MALLOC_SEQ   ARGV  1 lock owner   2 CURR   3 LAST   4 now in ms
-- Returns 1, or 0 when the lock was lost: the range stays unused.
if redis.call('HGET', KEYS[1], 'LOCK') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'CURR', ARGV[2], 'LAST', ARGV[3], 'TIME', ARGV[4])
redis.call('HDEL', KEYS[1], 'LOCK', 'LOCKED')
return 1
