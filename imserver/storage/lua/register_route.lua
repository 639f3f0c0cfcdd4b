-- Register a connection of a user and tell the others.
--
-- KEYS  1 ROUTE   ARGV  1 connection id   2 its record (JSON)
-- Returns the connection ids and records that were there before, flat.
local before = redis.call('HGETALL', KEYS[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return before
