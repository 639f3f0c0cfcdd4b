-- Connections of a user on living nodes, in one round trip.
--
-- KEYS  1 ROUTE   ARGV  1 prefix of NODE keys (read by name, as in change_routes.lua)
-- Returns connection id and record of each, flat.
local living, known, flat = {}, {}, redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
  local node = cjson.decode(flat[i + 1]).node
  if known[node] == nil then known[node] = redis.call('EXISTS', ARGV[1] .. node) == 1 end
  if known[node] then
    living[#living + 1] = flat[i]
    living[#living + 1] = flat[i + 1]
  end
end
return living
