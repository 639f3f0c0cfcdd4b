-- Remove handled entries from the head of a log, if the caller still is its drainer; keep dead letters of them.
--
-- KEYS  1 lease   2 log   3 log:dead
-- ARGV  1 lease token   2 id to trim before   3 origin (name of the log)   4… for each dead letter: reason, c, s, b
-- Returns 1, or 0 when the lease was lost (nothing was changed).
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for p = 4, #ARGV, 4 do
  redis.call('XADD', KEYS[3], '*', 'reason', ARGV[p], 'origin', ARGV[3],
    'c', ARGV[p + 1], 's', ARGV[p + 2], 'b', ARGV[p + 3])
end
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[2])
return 1
