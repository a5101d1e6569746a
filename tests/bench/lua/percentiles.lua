-- Prints the results of a run on one line for limits.py. Latencies are in microseconds.
-- There is no response() function: with one, wrk hands every response to Lua and becomes the bottleneck.

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    'result {"requests": %d, "p50": %d, "p99": %d, "failed": %d}\n',
    summary.requests, latency:percentile(50), latency:percentile(99), failed
  ))
end
