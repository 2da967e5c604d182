-- Lets one of several requests with the same idempotency key through.
--
-- KEYS  1 once    DIGEST while the first request is under way, DIGEST and its answer behind a colon when it was answered
-- ARGV  1 digest of the request   2 how long it may be under way, ms
-- Returns {"first"}, {"under way"}, {"other"} if the key was used for another request, or {"again", the answer}

local known = redis.call('GET', KEYS[1])
if not known then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return {'first'}
end
local digest, answer = string.match(known, '^(%x+):(.*)$')
if (digest or known) ~= ARGV[1] then
  return {'other'}
end
if answer then
  return {'again', answer}
end
return {'under way'}
