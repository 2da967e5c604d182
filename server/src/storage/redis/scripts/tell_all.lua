-- Tells every node something that must not be missed: it is sent, and written down for those that are cut off.
--
-- KEYS  1 log  stream
-- ARGV  1 PUBLISH or SPUBLISH   2 topic   3 message   4 how long it is kept, ms
-- Returns the id of the entry.

local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', 1000, '*', 'message', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call(ARGV[1], ARGV[2], id .. ' ' .. ARGV[3])
return id
