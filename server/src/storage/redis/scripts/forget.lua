-- Forgets what was read of an outbox, and counts what made way before anybody read it.
--
-- KEYS  1 outbox   stream
--       2 gone     how many of its entries somebody answered for: they were read, or said to be lost
-- ARGV  1 the first entry that is kept
-- Returns how many entries made way unread since the last call.

local outbox, gone = KEYS[1], KEYS[2]
local forgotten = redis.call('XTRIM', outbox, 'MINID', '=', ARGV[1])
if redis.call('EXISTS', outbox) == 0 then
  redis.call('DEL', gone)
  return 0
end
local added
local info = redis.call('XINFO', 'STREAM', outbox)
for field = 1, #info, 2 do
  if info[field] == 'entries-added' then
    added = info[field + 1]
  end
end
-- A stream that lost its memory counts from the beginning, and so do we.
local answered = math.min((tonumber(redis.call('GET', gone)) or 0) + forgotten, added)
local lost = added - redis.call('XLEN', outbox) - answered
redis.call('SET', gone, string.format('%.0f', answered + lost))
return lost
