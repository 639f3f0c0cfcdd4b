-- Keep a lease alive.
--
-- KEYS  1 lease   ARGV  1 token   2 expiry in ms
-- Returns 1, or 0 when somebody else holds it or nobody does.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
