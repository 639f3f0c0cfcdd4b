-- Is a wake-up due for this shard of a stage?
--
-- KEYS  1 lease   2 log   3 wake   ARGV  1 expiry of the wake-up in ms
-- Returns 1 when the caller has to publish one: entries wait, nobody drains, no wake-up is on its way.
if redis.call('XLEN', KEYS[2]) == 0 then return 0 end
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if redis.call('SET', KEYS[3], '1', 'NX', 'PX', ARGV[1]) then return 1 end
return 0
