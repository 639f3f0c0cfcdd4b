-- Add users to what a user has subscribed, all or none.
--
-- KEYS  1 SUBSCRIBED  set of user ids
-- ARGV  1 most members it may have   2 expiry in seconds   3… user ids
-- Returns 1, or 0 when there would be too many: nothing was changed then.
local new = {}
for i = 3, #ARGV do
  if redis.call('SISMEMBER', KEYS[1], ARGV[i]) == 0 then new[ARGV[i]] = true end
end
local count = redis.call('SCARD', KEYS[1])
for _ in pairs(new) do count = count + 1 end
if count > tonumber(ARGV[1]) then return 0 end
for id in pairs(new) do redis.call('SADD', KEYS[1], id) end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
