-- Keeps a node's lease, and finds those whose lease has ended.
--
-- KEYS  1 leases  sorted set: node -> end, Unix ms
-- ARGV  1 node   2 length of a lease, ms   3 NUMSUB or SHARDNUMSUB   4 what the topic of a living node begins with
--       5 after how long without a sign a node that listens to nothing counts as dead, ms
--       6 1: a new lease may begin; 0: only one that is there goes on
-- Returns {1 if the lease was there, else 0; Unix ms; the nodes to reap}
--
-- A node that was killed stops listening at once, because the kernel closes its connections; a node that only stands
-- still goes on listening. So the first needs not be waited for as long as the second.

local leases, node, lease_ms, silence_ms = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[5])
local was_there = redis.call('ZSCORE', leases, node) and 1 or 0
if was_there == 1 or ARGV[6] == '1' then
  redis.call('ZADD', leases, text(now_ms + lease_ms), node)
end

local dead = {}
local late = redis.call('ZRANGEBYSCORE', leases, '-inf', text(now_ms + lease_ms - silence_ms), 'WITHSCORES')
for i = 1, #late, 2 do
  local other, ends_ms = late[i], tonumber(late[i + 1])
  if other ~= node then
    local listens = redis.call('PUBSUB', ARGV[3], ARGV[4] .. other)[2]
    if ends_ms <= now_ms or listens == 0 then
      dead[#dead + 1] = other
    end
  end
end
return {was_there, text(now_ms), dead}
