-- One caller's meters, changed in one step on the server's own clock: limits.py, word for word, with leases beside it.
-- KEYS: a hash of what was used, a sorted set of the visits that are running; the caller's id in braces keeps both in one slot.
-- ARGV: for requests, then for tokens: a minute's rate (0 is no limit), burst, units that must fit, units charged (less than
--       none are given back); then "enter", "charge", "leave" or "renew", the visit, how many may run (0 is no limit), and the
--       microseconds after which the visit of a gateway that died is forgotten.
-- Returns what refused (0 nothing, 1 requests, 2 tokens, 3 concurrency), microseconds to wait, and both debts.
-- Numbers are doubles: whole to 2^53, so debts are exact for bursts up to 150 million.
local SECOND = 1000000
local MINUTE = 60 * SECOND
local clock = redis.call('TIME')
local now = clock[1] * SECOND + clock[2]
local action, visit, most, lease = ARGV[9], ARGV[10], tonumber(ARGV[11]), tonumber(ARGV[12])

local state = redis.call('HMGET', KEYS[1], 'requests', 'tokens', 'at')
local elapsed = math.max(0, now - (tonumber(state[3]) or now))
local meters, refused, wait = {}, 0, 0
for i = 1, 2 do
  local rate, burst, need = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2]), tonumber(ARGV[4 * i - 1])
  local debt = math.max(0, math.min(tonumber(state[i]) or 0, burst * MINUTE) - elapsed * rate)
  meters[i] = { rate = rate, debt = debt, full = burst * MINUTE, cost = tonumber(ARGV[4 * i]) * MINUTE }
  local over = debt + (need - burst) * MINUTE
  if rate > 0 and need > 0 and over > 0 and math.ceil(over / rate) > wait then
    refused, wait = i, math.ceil(over / rate)
  end
end

if most > 0 and action == 'enter' then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], now + lease + 1, '+inf')) do
    redis.call('ZADD', KEYS[2], now + lease, other) -- from before the clock was set back
  end
  if redis.call('ZCARD', KEYS[2]) >= most then
    refused, wait = 3, SECOND
  end
end
if action == 'leave' then
  redis.call('ZREM', KEYS[2], visit)
elseif most > 0 and refused == 0 and (action == 'enter' or action == 'renew' and redis.call('ZSCORE', KEYS[2], visit)) then
  redis.call('ZADD', KEYS[2], now + lease, visit)
  redis.call('PEXPIRE', KEYS[2], math.ceil(lease / 1000) + 1000)
end

local rest = 0
for i = 1, 2 do
  local meter = meters[i]
  if refused == 0 and meter.rate > 0 then
    meter.debt = math.min(math.max(0, meter.debt + meter.cost), meter.full)
  end
  if meter.debt > 0 then
    rest = math.max(rest, math.ceil(meter.debt / meter.rate))
  end
end
if rest > 0 then
  redis.call('HSET', KEYS[1], 'requests', meters[1].debt, 'tokens', meters[2].debt, 'at', now)
  redis.call('PEXPIRE', KEYS[1], math.ceil(rest / 1000) + 1000)
else
  redis.call('DEL', KEYS[1])
end
return { refused, wait, meters[1].debt, meters[2].debt }
