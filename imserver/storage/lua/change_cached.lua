-- Apply a change of MongoDB to a cached hash, and count it, so that whoever read MongoDB before does not put that back.
--
-- KEYS  1 hash {v: number of changes, other fields: values}
-- ARGV  1 expiry in seconds   2 how   3 its argument   4… fields
--       how "set": each field becomes the argument · "raise": the same, where it is a greater number than before
--       "drop": each field is removed
--       "append": the argument is added behind each field that has a value and does not end in it
-- Returns v.
local how, argument = ARGV[2], ARGV[3]
for p = 4, #ARGV do
  local field = ARGV[p]
  if how == 'set' then
    redis.call('HSET', KEYS[1], field, argument)
  elseif how == 'raise' then
    if tonumber(argument) > tonumber(redis.call('HGET', KEYS[1], field) or 0) then
      redis.call('HSET', KEYS[1], field, argument)
    end
  elseif how == 'drop' then
    redis.call('HDEL', KEYS[1], field)
  else
    local value = redis.call('HGET', KEYS[1], field)
    if value and value ~= '' and string.sub(value, -#argument) ~= argument then
      redis.call('HSET', KEYS[1], field, value .. argument)
    end
  end
end
local version = redis.call('HINCRBY', KEYS[1], 'v', 1)
redis.call('EXPIRE', KEYS[1], ARGV[1])
return version
