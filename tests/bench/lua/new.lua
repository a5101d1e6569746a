-- Sends each token once: wrk --script new.lua --connections CONNECTIONS URL -- TOKENS_FILE CONNECTIONS
-- wrk divides by the duration it was given, but the tokens run out earlier. This script therefore measures the time.

local ffi = require("ffi")
ffi.cdef([[
  typedef struct { long seconds, nanoseconds; } timespec;
  int clock_gettime(int clock, timespec *now);
]])
local CLOCK_MONOTONIC = 1

local requests, main_thread = {}, nil
position, connections, started = 0, 0, 0 -- global, so that done() can read them

local function now()
  local time = ffi.new("timespec")
  ffi.C.clock_gettime(CLOCK_MONOTONIC, time)
  return tonumber(time.seconds) + tonumber(time.nanoseconds) / 1e9
end

function setup(thread)
  main_thread = thread
end

function init(arguments)
  for token in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format(nil, nil, { Host = wrk.headers.Host, Authorization = "Bearer " .. token })
  end
  connections = tonumber(arguments[2])
end

-- A connection asks for its next request when it has received a response. After the first request of every
-- connection, each call therefore counts one response.
function request()
  position = position + 1
  if position == connections then
    started = now()
  elseif position == #requests then
    finished = now()
    wrk.thread:stop()
  end
  return requests[math.min(position, #requests)]
end

-- Runs after the thread has stopped, in a separate Lua state.
function done()
  local seconds = (main_thread:get("finished") or now()) - main_thread:get("started")
  local responses = main_thread:get("position") - main_thread:get("connections")
  print(string.format("received %d responses in %.6f seconds", responses, seconds))
end
