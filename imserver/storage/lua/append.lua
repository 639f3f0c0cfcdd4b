-- Append messages to one shard's toRedis log, each once.
--
-- KEYS  1 log:toRedis   stream the entries go to
--       2 lease:transfer  exists while a drainer looks at this shard
--       3 wake:transfer   exists while a wake-up is on its way
--       4 log:toMongo, 5 log:toPush  when the stages behind fall as far back, no more is taken in
--       6… DEDUP of each message, or "" where none is wanted
-- ARGV  1 most entries the log may hold   2 expiry of DEDUP in seconds   3 expiry of the wake-up in ms
--       4… for each message: conversation key, MsgData, operation id, answer to remember
-- Returns {wake, outcome of each message}: wake 1 when the caller has to publish a wake-up;
--       outcome 1 appended, 0 log full, or the first answer (string) when the message was seen before.
-- Entry fields: k conversation key, m MsgData, o operation id.
local log, limit, ttl = KEYS[1], tonumber(ARGV[1]), ARGV[2]
local waiting = redis.call('XLEN', log)
local room = limit - math.max(waiting, redis.call('XLEN', KEYS[4]), redis.call('XLEN', KEYS[5]))
local result, appended, repeated = {0}, false, false
for i = 6, #KEYS do
  local at = 4 + (i - 6) * 4
  local dedup, seen = KEYS[i], false
  if dedup ~= '' then
    -- Nearly always it is new, so a first message is looked for and noted in one call.
    local is_new = room > 0 and redis.call('SET', dedup, ARGV[at + 3], 'NX', 'EX', ttl)
    if not is_new then seen = redis.call('GET', dedup) end
  end
  if seen then
    result[#result + 1] = seen
    repeated = true
  elseif room <= 0 then
    result[#result + 1] = 0
  else
    redis.call('XADD', log, '*', 'k', ARGV[at], 'm', ARGV[at + 1], 'o', ARGV[at + 2])
    result[#result + 1] = 1
    room = room - 1
    appended = true
  end
end
-- A drainer gives its lease back only when it finds the log empty (release.lua), so while there is one no wake-up is due.
-- Of who repeats, the first answer got lost, and with it perhaps that a wake-up was to be published.
if (appended or repeated and waiting > 0) and redis.call('EXISTS', KEYS[2]) == 0 then
  if redis.call('SET', KEYS[3], '1', 'NX', 'PX', ARGV[3]) or repeated then result[1] = 1 end
end
return result
