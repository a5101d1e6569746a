-- The figures of one wrk run on one line that limits.py reads: latencies in microseconds.
-- No response() here: wrk would hand every answer to Lua, and the client would be what is measured.

function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    'limits {"requests": %d, "p50": %d, "p99": %d, "failed": %d}\n',
    summary.requests, latency:percentile(50), latency:percentile(99), failed
  ))
end
