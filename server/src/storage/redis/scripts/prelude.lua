-- In front of every script that touches a channel. Numbers that may exceed 2^31 are written by `text`, because Lua would
-- write them with an exponent; all of them stay below 2^53, where a double is exact.

local function text(number)
  return string.format('%.0f', number)
end

local clock = redis.call('TIME')
local now_us = clock[1] * 1000000 + clock[2]
local now_ms = math.floor(now_us / 1000)

-- Notes what the customer is to be told: `out` is the last number given to an entry of this channel. A channel whose
-- state is gone starts again from the clock, so that the numbers of a channel grow for ever.
local function record(outbox, most, out, app, channel, event, ...)
  if most == 0 then
    return out
  end
  out = math.max(out + 1, now_us)
  redis.call('XADD', outbox, 'MAXLEN', '~', most, '*',
    'app', app, 'channel', channel, 'serial', text(out), 'at', text(now_ms), 'event', event, ...)
  return out
end

-- Drops what is too old or too much. `trimmed` in the state is the serial up to which events may be missing.
local function trim(state, history, size, age_ms)
  local trimmed
  while true do
    local oldest = redis.call('XRANGE', history, '-', '+', 'COUNT', 1)[1]
    if not oldest then
      -- It may have expired as a whole.
      trimmed = redis.call('HGET', state, 'kept') or trimmed
      break
    end
    local is_old = tonumber(oldest[2][2]) < now_ms - age_ms
    if not is_old and redis.call('XLEN', history) <= size then
      break
    end
    redis.call('XDEL', history, oldest[1])
    trimmed = string.match(oldest[1], '^%d+')
  end
  if trimmed and redis.call('EXISTS', state) == 1 then
    redis.call('HSET', state, 'trimmed', trimmed)
  end
end
