-- GCRA as in gcra.py, with leases for concurrency: one atomic step for one caller, on the server's own clock.
-- KEYS: a hash of the debts, and a sorted set of the running leases. The caller's id in braces keeps both in one cluster slot.
-- ARGV: for requests, then for tokens: the rate a minute (0 is no limit), the burst, the largest cost, units that must fit, units to
--       charge (negative for a refund); then "enter", "charge", "leave" or "renew", the lease's name, how many leases may run (0 is
--       no limit), and after how many microseconds a lease expires if its gateway died.
-- Returns the limit that refused (0 none, 1 requests, 2 tokens, 3 concurrency), microseconds to wait, and both debts.
-- Numbers are doubles, which are exact for integers to 2^53: debts are exact up to 150 million units.
local SECOND = 1000000
local MINUTE = 60 * SECOND
local clock = redis.call('TIME')
local now = clock[1] * SECOND + clock[2]
local action, visit, most, lease = ARGV[11], ARGV[12], tonumber(ARGV[13]), tonumber(ARGV[14])

local state = redis.call('HMGET', KEYS[1], 'requests', 'tokens', 'at')
local elapsed = math.max(0, now - (tonumber(state[3]) or now))
local meters, refused, wait = {}, 0, 0
for i = 1, 2 do
  local rate, burst, max_cost = tonumber(ARGV[5 * i - 4]), tonumber(ARGV[5 * i - 3]), tonumber(ARGV[5 * i - 2])
  local need, cost = tonumber(ARGV[5 * i - 1]), tonumber(ARGV[5 * i])
  local debt = math.max(0, math.min(tonumber(state[i]) or 0, max_cost * MINUTE) - elapsed * rate)
  meters[i] = { rate = rate, debt = debt, full = max_cost * MINUTE, cost = cost * MINUTE }
  local over = debt + (need - (need <= burst and burst or max_cost)) * MINUTE
  if need > cost and debt + (math.max(need, burst + 1) - max_cost) * MINUTE <= 0 then
    over = 0 -- the cost is not known yet, and one above the burst would fit
  end
  if rate > 0 and need > 0 and over > 0 and math.ceil(over / rate) > wait then
    refused, wait = i, math.ceil(over / rate)
  end
end

if most > 0 and action == 'enter' then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], now + lease + 1, '+inf')) do
    redis.call('ZADD', KEYS[2], now + lease, other) -- a lease from before the clock was set back
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
