-- Put a dead letter back to the end of the log it came from.
--
-- KEYS  1 log:dead   2 log it came from   3 lease and   4 wake of the stage that drains that log
-- ARGV  1 entry id   2 name of the log it must have come from   3 expiry of the wake-up in ms
-- Returns 0 no such entry, or it came from elsewhere (nothing was changed) · 1 put back
--       2 put back, and the caller has to publish a wake-up.
local entry = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not entry then return 0 end
local fields, origin = {}, ''
for i = 1, #entry[2], 2 do
  local name, value = entry[2][i], entry[2][i + 1]
  if name == 'origin' then
    origin = value
  elseif name ~= 'reason' then
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
end
if origin ~= ARGV[2] or #fields == 0 then return 0 end
redis.call('XADD', KEYS[2], '*', unpack(fields))
redis.call('XDEL', KEYS[1], ARGV[1])
if redis.call('EXISTS', KEYS[3]) == 0 and redis.call('SET', KEYS[4], '1', 'NX', 'PX', ARGV[3]) then return 2 end
return 1
