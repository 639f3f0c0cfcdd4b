-- Apply the outcome of one transfer batch of one shard: all of it, or nothing.
--
-- KEYS  1 lease:transfer   2 log:toRedis   3 log:toMongo   4 log:toPush   5 log:dead
--       6 lease:persist   7 wake:persist   8 lease:push   9 wake:push   10 READ_DIRTY
--       11 log:toWebhook   12 lease:webhook   13 wake:webhook
--       14… two for each list: MALLOC_SEQ, MSG_CACHE prefix (its block keys share the slot; unused by transient lists)
-- ARGV  1 lease token   2 first entry id of the batch   3 id to trim before   4 now in ms   5 cache expiry in seconds
--       6 expiry of a wake-up in ms   7 number of lists   8 number of read receipts   9 number of dead letters
--       10 seqs that may be handed out beyond the reserved range (MongoDB is away)   11 expiry of MALLOC_SEQ in seconds
--       12 most entries of log:toWebhook, beyond which they are dropped; 0: no after-send webhook is on
--       13 "1": the caller pushes by itself when nobody else does
--       14 expiry of a lease in ms   15 number of entries to remove one by one because others of the batch stay
--       (0: trim before 3), then their ids
--       then each list: conversation id, LogBatch, number of senders, number of messages (0: transient),
--            each sender: SEQ_USER_READ key, user id, index (1…) of the sender's last message,   each message: MsgData
--       then each read receipt: SEQ_USER_READ key, field of READ_DIRTY, seq, MALLOC_SEQ key (it ends where the chat does)
--       then each dead letter: reason, k, m, o
-- Returns {-1} lease lost · {-2} the batch was applied before (an answer got lost)
--       {0, numbers of the lists whose seq range must be refilled first}: nothing was changed
--       {1, wake persist, wake push (2: the caller holds the push lease by its own token, and pushes), wake webhook,
--       id of the last entry in toPush, entries that log:toWebhook did not take, first seq of each list (0: transient), then
--       numbers of the lists that run low, and, negative, of those whose conversation Redis did not know before}
-- Stored in: toMongo and toPush entries {c conversation id, s first seq (0: transient), b LogBatch}, toMongo
--       also {n 1: look after the conversation's records}, toWebhook also {h};
--       MSG_CACHE:<block> {seq: MsgData}; SEQ_USER_READ; READ_DIRTY {conversation \n user: seq};
--       MALLOC_SEQ also {BATCH: ARGV 2 of the last batch, KEPT: ms when the expiries were last set}
-- Every call of Redis costs as much as a good deal of Lua, so what can be known without one is not asked.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {-1} end
local count, receipts, dead = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local overdraft, removed = tonumber(ARGV[10]), tonumber(ARGV[15])
-- A range with fewer seqs left is refilled before it is needed.
local LOW = 20
-- Expiries are set anew when as much of them is over: a 256th.
local now, kept_ms = tonumber(ARGV[4]), math.min(tonumber(ARGV[5]), tonumber(ARGV[11])) * 1000 / 256

-- Only look: where does each list lie in ARGV, and is its range long enough?
local at, lists, refill, ahead, batch_before = 16 + removed, {}, {0}, {}, nil
for i = 1, count do
  local malloc = KEYS[12 + i * 2]
  local list = {at = at, senders = tonumber(ARGV[at + 2]), count = tonumber(ARGV[at + 3]), malloc = malloc}
  if list.count > 0 then
    -- A refill that is on its way only ever adds to the range, so its lock is nobody's business here.
    local seq = redis.call('HMGET', malloc, 'CURR', 'LAST', 'NEW', 'KEPT', 'BATCH')
    list.curr, list.last, list.new = ahead[malloc] or tonumber(seq[1]), tonumber(seq[2]), seq[3] and not ahead[malloc]
    list.is_kept = seq[4] and now - tonumber(seq[4]) < kept_ms
    batch_before = batch_before or seq[5]
    if not list.curr or list.curr + list.count > list.last + overdraft then
      refill[#refill + 1] = i
    else
      ahead[malloc] = list.curr + list.count
    end
  end
  lists[i] = list
  at = at + 4 + list.senders * 3 + list.count
end
-- All lists of a batch are applied at once, and its first entry is the first of no other batch.
local is_repeated
if batch_before ~= nil then
  is_repeated = batch_before == ARGV[2]
else
  is_repeated = #redis.call('XRANGE', KEYS[2], ARGV[2], ARGV[2]) == 0
end
if is_repeated then
  -- Who lost the answer does not know that it was to push, so the push stage must get the lease.
  if redis.call('GET', KEYS[8]) == ARGV[1] then redis.call('DEL', KEYS[8]) end
  return {-2}
end
if #refill > 1 then return refill end

local dirty = {}
local function write_dirty()
  if #dirty > 0 then redis.call('HSET', KEYS[10], unpack(dirty)) end
  dirty = {}
end
local function note_read(field, seq)
  dirty[#dirty + 1] = field
  dirty[#dirty + 1] = seq
  if #dirty == 1000 then write_dirty() end
end
-- Who sends has read what is new, so the read seq moves on; should it be further on already, it is put back.
local function read_own(key, field, seq)
  local before = tonumber(redis.call('SET', key, seq, 'GET') or 0)
  if seq > before then note_read(field, seq) else redis.call('SET', key, before) end
end
-- A receipt often says what is known: that is to write nothing.
local function read_forward(key, field, seq)
  if seq > tonumber(redis.call('GET', key) or 0) then
    redis.call('SET', key, seq)
    note_read(field, seq)
  end
end

local function cache(prefix, first, from, n, is_kept)
  local block, fields = nil, {}
  local function flush()
    redis.call('HSET', prefix .. block, unpack(fields))
    -- A block that begins here has no expiry yet.
    if not is_kept or fields[1] % 100 == 1 then redis.call('EXPIRE', prefix .. block, ARGV[5]) end
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

-- The push lease: ours as long as we push by ourselves and nothing older waits in the log, which would be overtaken.
local pusher = redis.call('GET', KEYS[8])
local pushes = ARGV[13] == '1' and count > 0 and (not pusher or pusher == ARGV[1]) and redis.call('XLEN', KEYS[4]) == 0
if pushes and not pusher then
  redis.call('SET', KEYS[8], ARGV[1], 'PX', ARGV[14])
elseif not pushes and pusher == ARGV[1] then
  redis.call('DEL', KEYS[8])
end

local result, stored, hooked, low = {1, 0, 0, 0, 0, 0}, false, false, {}
local room = ARGV[12] ~= '0' and tonumber(ARGV[12]) - redis.call('XLEN', KEYS[11])
for i, list in ipairs(lists) do
  local conversation, batch, first = ARGV[list.at], ARGV[list.at + 1], 0
  if list.count > 0 then
    first = list.curr + 1
    local curr = list.curr + list.count
    if list.is_kept then
      redis.call('HSET', list.malloc, 'CURR', curr, 'TIME', ARGV[4], 'BATCH', ARGV[2])
    else
      redis.call('HSET', list.malloc, 'CURR', curr, 'TIME', ARGV[4], 'BATCH', ARGV[2], 'KEPT', ARGV[4])
      redis.call('EXPIRE', list.malloc, ARGV[11])
    end
    if list.last - curr < LOW then low[#low + 1] = i end
    if list.new then
      redis.call('HDEL', list.malloc, 'NEW')
      low[#low + 1] = -i
    end
    local sender_at = list.at + 4
    for s = 0, list.senders - 1 do
      local p = sender_at + s * 3
      read_own(ARGV[p], conversation .. '\n' .. ARGV[p + 1], list.curr + tonumber(ARGV[p + 2]))
    end
    cache(KEYS[13 + i * 2], first, sender_at + list.senders * 3, list.count, list.is_kept)
    redis.call('XADD', KEYS[3], '*', 'c', conversation, 's', first, 'b', batch, 'n', list.new and 1 or 0)
    stored = true
  end
  result[5] = redis.call('XADD', KEYS[4], '*', 'c', conversation, 's', first, 'b', batch)
  -- Notifications never go to after-send webhooks.
  if ARGV[12] ~= '0' and string.sub(conversation, 1, 2) ~= 'n_' then
    if room > 0 then
      redis.call('XADD', KEYS[11], '*', 'c', conversation, 's', first, 'b', batch, 'h', 'after_send')
      room, hooked = room - 1, true
    else
      result[6] = result[6] + 1
    end
  end
  result[#result + 1] = first
end
for i = 0, receipts - 1 do
  local p = at + i * 4
  local curr = tonumber(redis.call('HGET', ARGV[p + 3], 'CURR') or 0)
  if curr > 0 then read_forward(ARGV[p], ARGV[p + 1], math.min(tonumber(ARGV[p + 2]), curr)) end
end
write_dirty()
at = at + receipts * 4
for i = 0, dead - 1 do
  local p = at + i * 4
  redis.call('XADD', KEYS[5], '*', 'reason', ARGV[p], 'origin', 'toRedis',
    'k', ARGV[p + 1], 'm', ARGV[p + 2], 'o', ARGV[p + 3])
end
if removed > 0 then
  redis.call('XDEL', KEYS[2], unpack(ARGV, 16, 15 + removed))
else
  redis.call('XTRIM', KEYS[2], 'MINID', ARGV[3])
end

local function due(lease, wake)
  if redis.call('EXISTS', lease) == 0 and redis.call('SET', wake, '1', 'NX', 'PX', ARGV[6]) then return 1 end
  return 0
end
if stored then result[2] = due(KEYS[6], KEYS[7]) end
if pushes then result[3] = 2 elseif count > 0 then result[3] = due(KEYS[8], KEYS[9]) end
if hooked then result[4] = due(KEYS[12], KEYS[13]) end
for _, i in ipairs(low) do result[#result + 1] = i end
return result
