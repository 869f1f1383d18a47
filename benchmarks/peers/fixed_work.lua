-- Sends so many of the bodies of a file, one a line, in turn, and none beyond: the work is fixed, and timed to its end.
-- Run as: wrk -t1 … -s fixed_work.lua URL -- BODIES_FILE API_KEY REQUESTS
-- It says "enough" with the last reply; ended then, it prints what came back as one line of JSON. With one connection it also
-- tells what each request took. (wrk's own percentiles are corrected for requests that were never sent, which here are none.)
local ffi = require("ffi")
ffi.cdef("typedef struct { long seconds; long nanoseconds; } timespec; int clock_gettime(int clock, timespec *time);")
local MONOTONIC, NEVER = 1, 1e9
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
  requests, num_sent, num_replies, not_ok, took = {}, 0, 0, 0, {}
  num_wanted = tonumber(args[3])
  for body in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", wrk.path, headers, body)
  end
end

-- wrk asks before each request how many milliseconds it has to wait: a connection that would send one too many waits for ever.
function delay()
  began = began or now()
  num_sent = num_sent + 1
  return num_sent > num_wanted and NEVER or 0
end

function request()
  sent_at = now()
  return requests[(math.max(num_sent, 1) - 1) % #requests + 1]
end

function response(status)
  ended = now()
  num_replies = num_replies + 1
  took[num_replies] = ended - sent_at
  if status ~= 200 then not_ok = not_ok + 1 end
  if num_replies == num_wanted then
    io.write("enough\n")
    io.flush()
  end
end

function done(summary)
  local errors = summary.errors
  print(string.format(
    '{"replies": %d, "not_ok": %d, "broken": %d, "seconds": %.6f, "took": [%s]}', thread:get("num_replies"), thread:get("not_ok"),
    errors.connect + errors.read + errors.write + errors.timeout, (thread:get("ended") or 0) - (thread:get("began") or 0),
    table.concat(thread:get("took"), ",")))
end
