-- Keep a lease alive, and another one that is held with the same token.
--
-- KEYS  1 lease   2 optional: the other lease   ARGV  1 token   2 expiry in ms
-- Returns 1, or 0 when somebody else holds the first or nobody does.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if KEYS[2] and redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
return 1
