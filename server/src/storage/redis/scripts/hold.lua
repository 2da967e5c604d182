-- A node says what it holds of something: a channel, a signed-in user or an app's quota of connections. Joining,
-- leaving, asserting everything again and the reaping of a dead node are this one transition, so that each of them is
-- right if any is. What a node says is absolute ("so many connections, these users"), never a difference: saying it
-- twice changes nothing.
--
-- KEYS  1 state     hash: serial, epoch, n (connections), nodes (that listen), c:NODE (its connections),
--                   sent (when the count was last announced, µs), out (last entry of the outbox), missed (when the
--                   outside was last told that a cache channel is empty, Unix ms), kept, trimmed
--       2 members   hash: user -> "NODES INFO", the number of nodes that hold the user, and the user_info
--       3 held      set: the users that this node holds here
--       4 index     set: everything this node holds in this partition
--       5 occupied  sorted set, all scores 0: the app's occupied channels in this partition
--       6 due       sorted set by Unix ms: what is to be told later, unless it is undone before
--       7 outbox    stream
--       8 fence     exists once the node was declared dead: nothing it says counts any more
--       9 cached    the remembered event of a cache channel
--      10 history   stream
--      11 bound     hash: whom the outside was told to be bound here by this node -> by how many connections
-- ARGV  1 JSON object:
--         node, thing (its name in the index), app, channel
--         publish (PUBLISH or SPUBLISH), topic: where changes are announced; no topic: nowhere
--         kind: "channel", "own" (a user's own channel: not listed, nobody is told), "user" or "quota"
--         count: connections of this node, listen: whether it stays subscribed
--         users: those who came and went, in order: [user, connections, is_new, info] enters, [user] leaves
--         bound: whose number of connections has changed, in order, where the outside is told: [uuid, connections]
--         full: it holds no users but those that enter, and nobody is bound but those said to be
--         limit: of distinct users, or of connections for a quota; 0: none
--         joins: how many connections wait for the answer
--         counted, above, every_us: whether and how often subscribers are told their number
--         settle_ms: how long a removal waits for a return; outbox: entries kept, 0: none
--         cache: whether the channel remembers its last event
--         history: {size, age_ms} of the channel, size 0: none
--         past: nothing, or {after = SERIAL, last = NUMBER, most = NUMBER}, either of the first two or both
--         known: nothing, or {epoch, serial} as this node has seen the channel
--         list: whether the members are wanted
--         reap: the node is dead; so many of its users leave at once, and so many are unbound
-- Returns  {"fenced"}, {"more"} (reap again), or
--          {"ok", epoch, serial, n, refused, due, cached, its ms to live, past, trimmed, members}

local state, members, held, index, occupied, due, outbox, fence, cached, history, bound = unpack(KEYS)
local a = cjson.decode(ARGV[1])

if not a.reap and redis.call('EXISTS', fence) == 1 then
  return {'fenced'}
end

local mine = 'c:' .. a.node
local got = redis.call('HMGET', state, 'serial', 'epoch', 'n', 'nodes', mine, 'sent', 'out')
local serial, epoch = tonumber(got[1]), tonumber(got[2])
local n, nodes, mine_before = tonumber(got[3]) or 0, tonumber(got[4]) or 0, tonumber(got[5])
local sent, out = tonumber(got[6]) or 0, tonumber(got[7]) or 0

local forgot = a.known and serial and a.known.epoch == epoch and a.known.serial > serial
local is_new_epoch = not serial or forgot
if is_new_epoch then
  -- No state, or an older one than this node has seen: what was between is lost, and a new epoch says so. It is greater
  -- than those before, even if another clock made them.
  epoch = math.max(now_us, a.known and a.known.epoch + 1 or 0)
  serial = epoch
end

local is_channel = a.kind == 'channel'
local before, count = n, a.count
local told = {}
local is_due = 0

local function tell(body)
  if a.topic then
    serial = serial + 1
    told[#told + 1] = text(serial) .. ' ' .. text(epoch) .. ' ' .. body
  end
end

local function note(event, ...)
  out = record(outbox, a.outbox, out, a.app, a.channel, event, ...)
end

-- Whether the outside was not told yet that it is gone, and need not be.
local function undo(what)
  return redis.call('ZREM', due, what) == 1
end

local function later(what, at_ms)
  redis.call('ZADD', due, text(at_ms), what)
  is_due = 1
end

local place = a.app .. ':' .. a.channel

if is_channel and before == 0 and count > 0 then
  redis.call('ZADD', occupied, 0, a.channel)
  if not undo('v:' .. place) then
    note('channel_occupied')
  end
end

local function leave(user)
  if redis.call('SREM', held, user) == 0 then
    return
  end
  local known = redis.call('HGET', members, user)
  local holders, info = string.match(known or '1 ', '^(%d+) (.*)$')
  if tonumber(holders) > 1 then
    redis.call('HSET', members, user, (holders - 1) .. ' ' .. info)
    return
  end
  redis.call('HDEL', members, user)
  tell('-' .. user)
  later('r:' .. place .. ':' .. user, now_ms + a.settle_ms)
end

local refused, is_refused = {}, {}
local function enter(user, connections, is_new, info)
  if redis.call('SADD', held, user) == 0 then
    return
  end
  local known = redis.call('HGET', members, user)
  if known then
    local holders, first_info = string.match(known, '^(%d+) (.*)$')
    redis.call('HSET', members, user, (holders + 1) .. ' ' .. first_info)
    return
  end
  if is_new and a.limit > 0 and redis.call('HLEN', members) >= a.limit then
    redis.call('SREM', held, user)
    refused[#refused + 1] = user
    is_refused[user] = true
    count = count - connections
    return
  end
  redis.call('HSET', members, user, '1 ' .. info)
  tell('+' .. #user .. ':' .. user .. info)
  if not undo('r:' .. place .. ':' .. user) then
    note('member_added', 'user', user)
  end
end

-- The outside is told of each connection that has come or gone since it was told last.
local function bind(uuid, connections)
  local bound_before = tonumber(redis.call('HGET', bound, uuid)) or 0
  for _ = bound_before + 1, connections do
    note('bind', 'user', uuid)
  end
  for _ = connections + 1, bound_before do
    note('unbind', 'user', uuid)
  end
  if connections > 0 then
    redis.call('HSET', bound, uuid, connections)
  else
    redis.call('HDEL', bound, uuid)
  end
end

if a.reap then
  for _, uuid in ipairs(redis.call('HRANDFIELD', bound, a.reap)) do
    bind(uuid, 0)
  end
  for _, user in ipairs(redis.call('SRANDMEMBER', held, a.reap)) do
    leave(user)
  end
elseif a.full then
  local wanted = {}
  for _, entry in ipairs(a.users) do
    wanted[entry[1]] = true
  end
  for _, user in ipairs(redis.call('SMEMBERS', held)) do
    if not wanted[user] then
      leave(user)
    end
  end
end
for _, entry in ipairs(a.users) do
  if entry[2] then
    enter(entry[1], entry[2], entry[3], entry[4])
  else
    leave(entry[1])
  end
end

if a.full and is_channel then
  local stays_bound = {}
  for _, entry in ipairs(a.bound) do
    stays_bound[entry[1]] = true
  end
  for _, uuid in ipairs(redis.call('HKEYS', bound)) do
    if not stays_bound[uuid] then
      bind(uuid, 0)
    end
  end
end
for _, entry in ipairs(a.bound) do
  if not is_refused[entry[1]] then
    bind(entry[1], entry[2])
  end
end

local is_partial = a.reap and redis.call('EXISTS', held, bound) > 0
if is_partial then
  count = mine_before or 0
end

if a.kind == 'quota' then
  local over = n - (mine_before or 0) + count - a.limit
  if a.limit > 0 and over > 0 then
    local without_place = math.min(over, a.joins)
    count = count - without_place
    refused = without_place
  end
end

n = n - (mine_before or 0) + count
local stays = a.listen or count > 0
if stays then
  redis.call('HSET', state, mine, count)
  redis.call('SADD', index, a.thing)
else
  redis.call('HDEL', state, mine)
  redis.call('SREM', index, a.thing)
end
if stays and not mine_before then
  nodes = nodes + 1
elseif mine_before and not stays then
  nodes = nodes - 1
end

if is_channel and before > 0 and n == 0 then
  redis.call('ZREM', occupied, a.channel)
  later('v:' .. place, now_ms + a.settle_ms)
end

-- Here the joiners stand: behind the change that they are, in front of the count that includes them.
local at = serial

if a.kind == 'user' then
  if (before == 0) ~= (n == 0) then
    tell('#' .. n)
  end
elseif a.counted and n ~= before and n > 0 then
  if n <= a.above or now_us - sent >= a.every_us then
    sent = now_us
    tell('#' .. n)
    note('subscription_count', 'count', n)
  else
    later('s:' .. place, math.floor((sent + a.every_us) / 1000))
  end
end

local remembered, lives_ms = false, 0
if a.cache and a.joins > 0 then
  remembered = redis.call('GET', cached)
  if remembered then
    lives_ms = redis.call('PTTL', cached)
  else
    -- Who was counted before has missed it before: only the answer was lost. Who was told a moment ago that it is empty
    -- is about to fill it, and need not hear of everybody who comes meanwhile.
    local missed = tonumber(redis.call('HGET', state, 'missed')) or 0
    if count > (mine_before or 0) and now_ms - missed >= 10000 then
      redis.call('HSET', state, 'missed', text(now_ms))
      note('cache_miss')
    end
  end
end

if nodes == 0 and a.history.size == 0 then
  redis.call('DEL', state)
else
  redis.call('HSET', state, 'serial', text(serial), 'epoch', text(epoch), 'n', n, 'nodes', nodes,
    'sent', text(sent), 'out', text(out))
  if is_new_epoch then
    redis.call('HSET', state, 'trimmed', text(epoch))
  end
  if nodes == 0 then
    redis.call('PEXPIRE', state, a.history.age_ms + 60000)
  elseif not mine_before then
    redis.call('PERSIST', state)
  end
end

for _, message in ipairs(told) do
  redis.call(a.publish, a.topic, message)
end

if is_partial then
  return {'more'}
end

local past, trimmed = {}, '0'
if a.past then
  if a.history.size > 0 then
    trim(state, history, a.history.size, a.history.age_ms)
  end
  if a.past.after then
    past = redis.call('XRANGE', history, '(' .. text(a.past.after) .. '-0', '+', 'COUNT', a.past.most)
  end
  if a.past.last then
    for _, event in ipairs(redis.call('XREVRANGE', history, '+', '-', 'COUNT', a.past.last)) do
      past[#past + 1] = event
    end
  end
  trimmed = redis.call('HGET', state, 'trimmed') or '0'
end

local list = false
if a.list then
  list = redis.call('HGETALL', members)
end

return {'ok', text(epoch), text(at), n, refused, is_due, remembered, lives_ms, past, trimmed, list}
