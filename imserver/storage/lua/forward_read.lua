-- Move a user's read seq forward, never back.
--
-- KEYS  1 SEQ_USER_READ   2 READ_DIRTY   ARGV  1 seq   2 field of READ_DIRTY (conversation \n user)
-- Returns the read seq before.
local before = tonumber(redis.call('GET', KEYS[1]) or 0)
if tonumber(ARGV[1]) > before then
  redis.call('SET', KEYS[1], ARGV[1])
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[1])
end
return before
