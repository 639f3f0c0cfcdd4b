-- Change the connections of a user, in one step with all that follows: who is kicked, token states, news, webhooks.
--
-- KEYS  1 ROUTE            connection id -> record {node, platform_id, token_digest, since_ms, is_background}
--       2 log:toWebhook    gets an entry {c user, s 0, b LogBatch of one event (JSON), h presence} for each event
--       3 lease:webhook    exists while a drainer looks at that log
--       4 wake:webhook     exists while a wake-up is on its way
--       5… TOKENS          join, restore: the connection's platform, then each platform whose connections must leave
--                          kick: the platform
-- ARGV  1 what: join, restore, leave, kick, background, forget   2 user   3 channel of the user's status
--       4 prefix of NODE keys   5 node that asks ("" is none): it lives whatever its heartbeat says
--       6 most entries of log:toWebhook, beyond which they are dropped; 0: webhooks are not told   7 now in ms   8 operation id
--       9 expiry of the wake-up in ms
--      10… join: connection id, record, token ("" is not looked at), "1" when all other tokens of the platform are kicked, then
--          the platforms whose connections must leave
--          restore: connection id, record, token, "1" when the node was not known and its users seemed to be offline
--          leave: connection ids   kick: platform   background: connection id, record   forget: none
-- Returns {outcome, wake the webhook stage, number of dropped events, connection id and record of everyone who is to be kicked …}
--   outcome: 0 nothing changed · 1 changed · -1 the token was kicked meanwhile, nothing was registered
--
-- A route whose node has no heartbeat counts for nothing: its user is not kicked, its platform not shown. NODE keys are read by
-- name, so routes want one server and not a Redis Cluster.
local what, user, own = ARGV[1], ARGV[2], ARGV[5]
local NORMAL, KICKED = '0', '2'
local ONLINE, OFFLINE = 'callbackAfterUserOnlineCommand', 'callbackAfterUserOfflineCommand'
local KICK_OFF = 'callbackAfterUserKickOffCommand'

local routes, flat = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
  routes[flat[i]] = {raw = flat[i + 1], at = cjson.decode(flat[i + 1])}
end

local known = {}
local function is_alive(node)
  if known[node] == nil then
    known[node] = node == own or redis.call('EXISTS', ARGV[4] .. node) == 1
  end
  return known[node]
end

local function platforms(with_dead)
  local found, list = {}, {}
  for _, route in pairs(routes) do
    local platform = route.at.platform_id
    if not found[platform] and (with_dead or is_alive(route.at.node)) then
      found[platform] = true
      list[#list + 1] = platform
    end
  end
  table.sort(list)
  return table.concat(list, ',')
end

-- LogBatch by hand: field 1 msgs, field 2 operation_ids.
local function field(number, value)
  local size, length = '', #value
  while length >= 128 do
    size = size .. string.char(length % 128 + 128)
    length = math.floor(length / 128)
  end
  return string.char(number * 8 + 2) .. size .. string.char(length) .. value
end

local told, dropped, most = false, 0, tonumber(ARGV[6])
local function tell(command, id, at)
  if most == 0 then return end
  if redis.call('XLEN', KEYS[2]) >= most then
    dropped = dropped + 1
    return
  end
  local event = cjson.encode({
    command = command, userID = user, platformID = at.platform_id, connID = id,
    isAppBackground = at.is_background, seq = tonumber(ARGV[7]),
  })
  redis.call('XADD', KEYS[2], '*', 'c', user, 's', 0, 'b', field(1, event) .. field(2, ARGV[8]), 'h', 'presence')
  told = true
end

local changed = false
local function remove(id)
  tell(OFFLINE, id, routes[id].at)
  redis.call('HDEL', KEYS[1], id)
  routes[id] = nil
  changed = true
end

local kicked = {}
local function kick(id)
  local route = routes[id]
  kicked[#kicked + 1] = id
  kicked[#kicked + 1] = route.raw
  tell(KICK_OFF, id, route.at)
  remove(id)
end

-- Valid tokens of a platform that is_meant names are kicked from now on.
local function kick_tokens(key, is_meant)
  local states = redis.call('HGETALL', key)
  for i = 1, #states, 2 do
    if string.sub(states[i + 1], 1, 1) == NORMAL and is_meant(states[i]) then
      redis.call('HSET', key, states[i], KICKED)
    end
  end
end

local function ids()
  local list = {}
  for id in pairs(routes) do list[#list + 1] = id end
  table.sort(list)
  return list
end

local before, before_alive = platforms(true), platforms(false)

if what == 'join' or what == 'restore' then
  local id, record, token = ARGV[10], ARGV[11], ARGV[12]
  local at = cjson.decode(record)
  if what == 'restore' and routes[id] then
    -- Who asked while the node had no heartbeat was told otherwise.
    if ARGV[13] == '1' then redis.call('PUBLISH', ARGV[3], before_alive) end
    return {0, 0, 0}
  end
  local state = token ~= '' and redis.call('HGET', KEYS[5], token)
  if state and string.sub(state, 1, 1) ~= NORMAL then return {-1, 0, 0} end
  if what == 'join' then
    local lost = {}
    for i = 14, #ARGV do lost[tonumber(ARGV[i])] = {key = KEYS[i - 8], digests = {}, any = false} end
    for _, other in ipairs(ids()) do
      local theirs = routes[other].at
      local platform = lost[theirs.platform_id]
      if other ~= id and platform and theirs.token_digest ~= at.token_digest then
        if is_alive(theirs.node) then
          platform.digests[theirs.token_digest], platform.any = true, true
          kick(other)
        else
          remove(other)
        end
      end
    end
    for _, platform in pairs(lost) do
      if platform.any then
        kick_tokens(platform.key, function(other)
          return platform.digests[string.sub(redis.sha1hex(other), 1, 16)]
        end)
      end
    end
    if ARGV[13] == '1' then kick_tokens(KEYS[5], function(other) return other ~= token end) end
  end
  redis.call('HSET', KEYS[1], id, record)
  -- Not again when the answer to the first call was lost, or the node's heartbeat was quicker.
  if not routes[id] then tell(ONLINE, id, at) end
  routes[id] = {raw = record, at = at}
  changed = true
elseif what == 'leave' then
  for i = 10, #ARGV do
    if routes[ARGV[i]] then remove(ARGV[i]) end
  end
elseif what == 'kick' then
  for _, id in ipairs(ids()) do
    local at = routes[id].at
    if at.platform_id == tonumber(ARGV[10]) then
      if is_alive(at.node) then kick(id) else remove(id) end
    end
  end
  kick_tokens(KEYS[5], function() return true end)
elseif what == 'background' then
  if routes[ARGV[10]] then
    redis.call('HSET', KEYS[1], ARGV[10], ARGV[11])
    changed = true
  end
elseif what == 'forget' then
  for _, id in ipairs(ids()) do
    if not is_alive(routes[id].at.node) then remove(id) end
  end
else
  return redis.error_reply('unknown change of routes')
end

local after = platforms(false)
-- Some were told of the dead node's platforms, and some, who asked after its death, were not.
if after ~= before or after ~= before_alive then redis.call('PUBLISH', ARGV[3], after) end
local wake = 0
if told and redis.call('EXISTS', KEYS[3]) == 0 and redis.call('SET', KEYS[4], '1', 'NX', 'PX', ARGV[9]) then
  wake = 1
end
return {changed and 1 or 0, wake, dropped, unpack(kicked)}
