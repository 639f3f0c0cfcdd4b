-- Give a refill lock back without a refill: MongoDB did not answer. Whether it reserved a range is not known, so TRY stays.
--
-- KEYS  1 MALLOC_SEQ   ARGV  1 lock owner
-- Returns 1, or 0 when the lock was somebody else's by then.
if redis.call('HGET', KEYS[1], 'LOCK') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'LOCK', 'LOCKED')
return 1
