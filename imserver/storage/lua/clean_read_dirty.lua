-- Forget read seqs that MongoDB has now, unless they moved on meanwhile.
--
-- KEYS  1 READ_DIRTY   ARGV  field, value written, …
for p = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[p]) == ARGV[p + 1] then redis.call('HDEL', KEYS[1], ARGV[p]) end
end
return 1
