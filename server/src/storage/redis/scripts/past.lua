-- Reads a channel's history.
--
-- KEYS  1 state   2 history
-- ARGV  1 size   2 age, ms   3 and 4 the ends of the range, as XRANGE takes them   5 most   6 1: the newest first
-- Returns {epoch or nothing, serial, trimmed, events}

trim(KEYS[1], KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[2]))
local events
if ARGV[6] == '1' then
  events = redis.call('XREVRANGE', KEYS[2], ARGV[4], ARGV[3], 'COUNT', ARGV[5])
else
  events = redis.call('XRANGE', KEYS[2], ARGV[3], ARGV[4], 'COUNT', ARGV[5])
end
local got = redis.call('HMGET', KEYS[1], 'epoch', 'serial', 'trimmed')
return {got[1], got[2], got[3], events}
