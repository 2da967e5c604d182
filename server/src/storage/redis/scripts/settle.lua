-- Tells the outside what was put off, now that nothing undid it. Any node may call this for any entry; one of them
-- finds it there.
--
-- KEYS  1 due   2 outbox   3 state
-- ARGV  1 the entry: "r:APP:CHANNEL:USER" a member is gone, "v:APP:CHANNEL" a channel is empty, "s:APP:CHANNEL" a count
--       is owed   2 app   3 channel   4 user
--       5 entries of the outbox, 0: none   6 PUBLISH or SPUBLISH   7 topic
-- Returns 1 if it was this call that told, else 0.

local due, outbox, state = KEYS[1], KEYS[2], KEYS[3]
local what, app, channel, user, most = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

local at_ms = tonumber(redis.call('ZSCORE', due, what) or 'inf')
if at_ms > now_ms then
  return 0
end
redis.call('ZREM', due, what)

local got = redis.call('HMGET', state, 'out', 'n', 'epoch')
local out = tonumber(got[1]) or 0
local kind = string.sub(what, 1, 1)
if kind == 'r' then
  out = record(outbox, most, out, app, channel, 'member_removed', 'user', user)
elseif kind == 'v' then
  out = record(outbox, most, out, app, channel, 'channel_vacated')
elseif got[3] and tonumber(got[2]) > 0 then
  local serial = redis.call('HINCRBY', state, 'serial', 1)
  redis.call('HSET', state, 'sent', text(now_us))
  redis.call(ARGV[6], ARGV[7], text(serial) .. ' ' .. got[3] .. ' #' .. got[2])
  out = record(outbox, most, out, app, channel, 'subscription_count', 'count', got[2])
end
if got[3] then
  redis.call('HSET', state, 'out', text(out))
end
return 1
