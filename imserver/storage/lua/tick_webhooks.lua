-- Let the webhook stage look at a shard whose log is empty when a line of it is due.
--
-- KEYS  1 log:toWebhook   2 WEBHOOK_DUE
-- ARGV  1 now in ms   2 field that marks a tick
-- Returns 1 when a tick was added.
if redis.call('XLEN', KEYS[1]) > 0 or redis.call('ZCOUNT', KEYS[2], '-inf', ARGV[1]) == 0 then return 0 end
redis.call('XADD', KEYS[1], '*', ARGV[2], '')
return 1
