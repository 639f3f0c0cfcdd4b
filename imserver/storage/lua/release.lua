-- Give a lease back. Atomic with the look at the log: an append either finds the lease (and sends no wake-up)
-- or the drainer finds the entry, never neither.
--
-- KEYS  1 lease   2 log   3 wake   4 optional: another lease that is held with the same token
-- ARGV  1 token   2 "1": give back also when entries are left   3 expiry of the wake-up in ms
-- Returns 0 the lease was not ours, or is kept because entries are left · 1 given back, log empty
--       2 given back with entries left: the caller has to publish a wake-up
local function give_back()
  redis.call('DEL', KEYS[1])
  if KEYS[4] and redis.call('GET', KEYS[4]) == ARGV[1] then redis.call('DEL', KEYS[4]) end
end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if redis.call('XLEN', KEYS[2]) == 0 then
  give_back()
  return 1
end
if ARGV[2] ~= '1' then return 0 end
give_back()
redis.call('SET', KEYS[3], '1', 'PX', ARGV[3])
return 2
