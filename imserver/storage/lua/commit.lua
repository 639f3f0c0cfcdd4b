-- Apply the outcome of one transfer batch of one shard: all of it, or nothing.
--
-- KEYS  1 lease:transfer   2 log:toRedis   3 log:toMongo   4 log:toPush   5 log:dead
--       6 lease:persist   7 wake:persist   8 lease:push   9 wake:push   10 READ_DIRTY
--       11… two for each list: MALLOC_SEQ, MSG_CACHE prefix (its block keys share the slot; unused by transient lists)
-- ARGV  1 lease token   2 first entry id of the batch   3 id to trim before   4 now in ms   5 cache expiry in seconds
--       6 expiry of a wake-up in ms   7 number of lists   8 number of read receipts   9 number of dead letters
--       then each list: conversation id, LogBatch, number of senders, number of messages (0: transient),
--            each sender: SEQ_USER_READ key, user id, index (1…) of the sender's last message,   each message: MsgData
--       then each read receipt: SEQ_USER_READ key, field of READ_DIRTY, seq
--       then each dead letter: reason, k, m, o
-- Returns {-1} lease lost · {-2} the batch was applied before (an answer got lost)
--       {0, numbers of the lists whose seq range must be refilled first}: nothing was changed
--       {1, wake persist, wake push, first seq of each list (0: transient)}
-- Stored in: toMongo and toPush entries {c conversation id, s first seq (0: transient), b LogBatch};
--       MSG_CACHE:<block> {seq: MsgData}; SEQ_USER_READ; READ_DIRTY {conversation \n user: seq}.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {-1} end
if #redis.call('XRANGE', KEYS[2], ARGV[2], ARGV[2]) == 0 then return {-2} end
local count, receipts, dead = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])

-- Only look: where does each list lie in ARGV, and is its range long enough?
local at, lists, refill, ahead = 10, {}, {0}, {}
for i = 1, count do
  local malloc = KEYS[9 + i * 2]
  local list = {at = at, senders = tonumber(ARGV[at + 2]), count = tonumber(ARGV[at + 3]), malloc = malloc}
  if list.count > 0 then
    local seq = redis.call('HMGET', malloc, 'CURR', 'LAST', 'LOCK')
    list.curr = ahead[malloc] or tonumber(seq[1])
    if seq[3] or not list.curr or list.curr + list.count > tonumber(seq[2]) then
      refill[#refill + 1] = i
    else
      ahead[malloc] = list.curr + list.count
    end
  end
  lists[i] = list
  at = at + 4 + list.senders * 3 + list.count
end
if #refill > 1 then return refill end

local function read_forward(key, field, seq)
  if seq > tonumber(redis.call('GET', key) or 0) then
    redis.call('SET', key, seq)
    redis.call('HSET', KEYS[10], field, seq)
  end
end

local function cache(prefix, first, from, n)
  local block, fields = nil, {}
  local function flush()
    redis.call('HSET', prefix .. block, unpack(fields))
    redis.call('EXPIRE', prefix .. block, ARGV[5])
  end
  for m = 0, n - 1 do
    local this = math.floor((first + m - 1) / 100)
    if this ~= block then
      if block then flush() end
      block, fields = this, {}
    end
    fields[#fields + 1] = first + m
    fields[#fields + 1] = ARGV[from + m]
  end
  flush()
end

local result, stored = {1, 0, 0}, false
for i, list in ipairs(lists) do
  local conversation, batch, first = ARGV[list.at], ARGV[list.at + 1], 0
  if list.count > 0 then
    first = list.curr + 1
    redis.call('HSET', list.malloc, 'CURR', list.curr + list.count, 'TIME', ARGV[4])
    local sender_at = list.at + 4
    for s = 0, list.senders - 1 do
      local p = sender_at + s * 3
      read_forward(ARGV[p], conversation .. '\n' .. ARGV[p + 1], list.curr + tonumber(ARGV[p + 2]))
    end
    cache(KEYS[10 + i * 2], first, sender_at + list.senders * 3, list.count)
    redis.call('XADD', KEYS[3], '*', 'c', conversation, 's', first, 'b', batch)
    stored = true
  end
  redis.call('XADD', KEYS[4], '*', 'c', conversation, 's', first, 'b', batch)
  result[#result + 1] = first
end
for i = 0, receipts - 1 do
  local p = at + i * 3
  read_forward(ARGV[p], ARGV[p + 1], tonumber(ARGV[p + 2]))
end
at = at + receipts * 3
for i = 0, dead - 1 do
  local p = at + i * 4
  redis.call('XADD', KEYS[5], '*', 'reason', ARGV[p], 'origin', 'toRedis',
    'k', ARGV[p + 1], 'm', ARGV[p + 2], 'o', ARGV[p + 3])
end
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[3])

local function due(lease, wake)
  if redis.call('EXISTS', lease) == 0 and redis.call('SET', wake, '1', 'NX', 'PX', ARGV[6]) then return 1 end
  return 0
end
if stored then result[2] = due(KEYS[6], KEYS[7]) end
if count > 0 then result[3] = due(KEYS[8], KEYS[9]) end
return result
