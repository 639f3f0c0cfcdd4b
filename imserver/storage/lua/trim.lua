-- Remove handled entries from the head of a log, if the caller still is its drainer; keep dead letters of them, and
-- hand entries on to another stage's log.
--
-- KEYS  1 lease   2 log   3 log:dead   4 the other stage's log   5 its lease   6 its wake-up
-- ARGV  1 lease token   2 id of the last handled entry   3 expiry of a wake-up in ms
--       4 most entries that the other log may hold; what comes when it does is dropped
--       5 number of dead letters, then each: number of its fields and values, then these
--       then each entry to hand on, in the same form
-- May run twice: entries that are gone are not handed on again.
-- Returns {outcome, number of dropped entries}: outcome 1 · 2 done, and the caller has to publish a wake-up of the other
--       stage · 0 the lease was lost (nothing was changed)
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {0, 0} end
if #redis.call('XRANGE', KEYS[2], ARGV[2], ARGV[2]) == 0 then return {1, 0} end
local at = 6
local function add(log)
  local last = at + tonumber(ARGV[at])
  redis.call('XADD', log, '*', unpack(ARGV, at + 1, last))
  at = last + 1
end
for _ = 1, tonumber(ARGV[5]) do add(KEYS[3]) end
local handed_on, dropped = at <= #ARGV, 0
local room = handed_on and tonumber(ARGV[4]) - redis.call('XLEN', KEYS[4])
while at <= #ARGV do
  if room > 0 then
    add(KEYS[4])
    room = room - 1
  else
    dropped = dropped + 1
    at = at + 1 + tonumber(ARGV[at])
  end
end
-- MINID keeps the id itself.
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[2])
redis.call('XDEL', KEYS[2], ARGV[2])
if handed_on and redis.call('EXISTS', KEYS[5]) == 0 and redis.call('SET', KEYS[6], '1', 'NX', 'PX', ARGV[3]) then
  return {2, dropped}
end
return {1, dropped}
