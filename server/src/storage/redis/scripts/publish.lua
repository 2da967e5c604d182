-- Publishes one event: gives it its place in the channel's order, keeps it where the channel has history or remembers
-- its last event, and sends it to every node that listens.
--
-- KEYS  1 state    hash of the channel; absent while nobody listens and nothing is kept
--       2 history  stream, ids SERIAL-0, fields at (Unix ms) and body
--       3 cached   the remembered event of a cache channel
--       4 outbox   stream
-- ARGV  1 PUBLISH or SPUBLISH   2 topic   3 body
--       4 how long it is remembered, ms; 0: not at all
--       5 size of the history, 6 its age in ms; size 0: the channel has none
--       7 entries kept in the outbox; 0: the customer is not told
--       8 app   9 channel   10 the event, as the customer is told of it
-- Returns the serial; 0 without state, when the moment stands for the epoch: it tells one such event from another.
--
-- Atomic: an event that is in the history has been sent, one that was sent to fewer nodes than listen is kept for
-- those that are cut off just now.

local state, history, cached, outbox = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local size, age_ms = tonumber(ARGV[5]), tonumber(ARGV[6])

local got = redis.call('HMGET', state, 'epoch', 'nodes', 'out')
local epoch, nodes = got[1], tonumber(got[2]) or 0
local serial = 0
if not epoch and size > 0 then
  epoch = text(now_us)
  redis.call('HSET', state, 'epoch', epoch, 'serial', epoch, 'trimmed', epoch, 'n', 0, 'nodes', 0)
end
if epoch then
  serial = redis.call('HINCRBY', state, 'serial', 1)
end

local listening = redis.call(ARGV[1], ARGV[2], text(serial) .. ' ' .. (epoch or text(now_us)) .. ' e' .. ARGV[3])

if epoch and (size > 0 or listening < nodes) then
  if size == 0 then
    size, age_ms = 1000, 60000
  end
  redis.call('XADD', history, text(serial) .. '-0', 'at', text(now_ms), 'body', ARGV[3])
  redis.call('PEXPIRE', history, age_ms)
  redis.call('HSET', state, 'kept', text(serial))
  trim(state, history, size, age_ms)
  if nodes == 0 then
    redis.call('PEXPIRE', state, age_ms + 60000)
  end
end
if ARGV[7] ~= '0' then
  local out = record(outbox, tonumber(ARGV[7]), tonumber(got[3]) or 0, ARGV[8], ARGV[9], 'published', 'data', ARGV[10])
  if epoch then
    redis.call('HSET', state, 'out', text(out))
  end
end
if ARGV[4] ~= '0' then
  redis.call('SET', cached, ARGV[3], 'PX', ARGV[4])
end
return text(serial)
