-- The newest dead letters of a shard, without what was in them.
--
-- KEYS  1 log:dead   ARGV  1 greatest id, "(" before it leaves it out, "+" for no limit   2 most entries
-- Returns a list of {id, reason, origin, conversation or key, bytes}.
local found = {}
for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], ARGV[1], '-', 'COUNT', ARGV[2])) do
  local fields, bytes = {reason = '', origin = ''}, 0
  for i = 1, #entry[2], 2 do
    local name, value = entry[2][i], entry[2][i + 1]
    if name == 'reason' or name == 'origin' then
      fields[name] = value
    else
      bytes = bytes + #value
      if name == 'c' or name == 'k' then fields.conversation = value end
    end
  end
  found[#found + 1] = {entry[1], fields.reason, fields.origin, fields.conversation or '', bytes}
end
return found
