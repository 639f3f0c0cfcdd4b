-- Put values that were read from MongoDB into a cached hash, unless somebody changed something since the reader looked.
--
-- KEYS  1 hash {v: number of changes, other fields: values}
-- ARGV  1 what the reader found in v ("" for nothing)   2 expiry in seconds   3… field, value
-- Returns 1, or 0 when the hash was changed meanwhile: nothing was put. Fields that are there stay as they are.
if (redis.call('HGET', KEYS[1], 'v') or '') ~= ARGV[1] then return 0 end
for p = 3, #ARGV, 2 do
  redis.call('HSETNX', KEYS[1], ARGV[p], ARGV[p + 1])
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
