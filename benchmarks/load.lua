-- Sends the bodies of a file, one a line, in turn; prints what came back as one line of JSON.
-- Run as: wrk … -s load.lua URL -- BODIES_FILE API_KEY SECONDS REPLIES
-- It says "enough" once it has run for SECONDS and had REPLIES replies, and goes on until it is ended.
local ffi = require("ffi")
ffi.cdef("typedef struct { long seconds; long nanoseconds; } timespec; int clock_gettime(int clock, timespec *time);")
local MONOTONIC = 1
local time = ffi.new("timespec")
local thread

local function now()
  ffi.C.clock_gettime(MONOTONIC, time)
  return tonumber(time.seconds) + tonumber(time.nanoseconds) / 1e9
end

function setup(new_thread)
  thread = new_thread
end

function init(args)
  local headers = { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. args[2], ["Host"] = wrk.headers["Host"] }
  requests, next_request, times, not_ok, is_enough = {}, 0, {}, 0, false
  min_seconds, min_replies = tonumber(args[3]), tonumber(args[4])
  for body in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", wrk.path, headers, body)
  end
end

function request()
  began = began or now()
  next_request = next_request % #requests + 1
  return requests[next_request]
end

function response(status)
  local at = now()
  times[#times + 1] = at
  if status ~= 200 then not_ok = not_ok + 1 end
  if not is_enough and #times >= min_replies and at - began >= min_seconds then
    is_enough = true
    io.write("enough\n")
    io.flush()
  end
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"duration_seconds": %.6f, "not_ok": %d, "broken": %d, "p50": %.1f, "p95": %.1f, "p99": %.1f, "began": %.6f, "finished_at": [%s]}',
    summary.duration / 1e6, thread:get("not_ok"), errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99),
    thread:get("began"), table.concat(thread:get("times"), ",")))
end
