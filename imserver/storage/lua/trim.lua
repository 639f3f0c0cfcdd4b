-- Remove handled entries from the head of a log, if the caller still is its drainer; keep dead letters of them, and
-- hand what was saved to the after-save webhook.
--
-- KEYS  1 lease   2 log   3 log:dead   4 log:toWebhook   5 lease:webhook   6 wake:webhook
-- ARGV  1 lease token   2 id to trim before   3 origin (name of the log)   4 expiry of a wake-up in ms
--       5 number of dead letters, then each: reason, c, s, b   then for each entry to hand on: c, s, b
-- Returns 1 · 2 done, and the caller has to publish a wake-up of the webhook stage
--       0 the lease was lost (nothing was changed)
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local at = 6
for _ = 1, tonumber(ARGV[5]) do
  redis.call('XADD', KEYS[3], '*', 'reason', ARGV[at], 'origin', ARGV[3],
    'c', ARGV[at + 1], 's', ARGV[at + 2], 'b', ARGV[at + 3])
  at = at + 4
end
local hooked = at <= #ARGV
for p = at, #ARGV, 3 do
  redis.call('XADD', KEYS[4], '*', 'c', ARGV[p], 's', ARGV[p + 1], 'b', ARGV[p + 2], 'h', 'after_save')
end
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[2])
if hooked and redis.call('EXISTS', KEYS[5]) == 0 and redis.call('SET', KEYS[6], '1', 'NX', 'PX', ARGV[4]) then
  return 2
end
return 1
