-- Add a token; the others of the platform count for a while yet, and then no more.
--
-- KEYS  1 TOKENS  hash token -> state, or "<state> <ms>": not after that
-- ARGV  1 token   2 now in ms   3 ms until which the others count   4 expiry in seconds
local flat = redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
  local ends = string.match(flat[i + 1], '^0 (%d+)$')
  if flat[i + 1] == '0' then
    redis.call('HSET', KEYS[1], flat[i], '0 ' .. ARGV[3])
  elseif ends and tonumber(ends) <= tonumber(ARGV[2]) then
    redis.call('HDEL', KEYS[1], flat[i])
  end
end
redis.call('HSET', KEYS[1], ARGV[1], '0')
redis.call('EXPIRE', KEYS[1], ARGV[4])
