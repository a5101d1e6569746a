-- Creates tasks, each with a new value of a header: wrk --script create_with_header.lua … URL -- HEADER
-- With another header than Idempotency-Key, it measures the same work of wrk without keys.

local body = '{"title":"' .. ("x"):rep(40) .. '"}'
local header, prefix, count = "", "", 0

function init(arguments)
  header = arguments[1]
  prefix = string.format("%d-%d-", os.time(), math.random(1000000000))
  wrk.headers["Content-Type"] = "application/json"
end

function request()
  count = count + 1
  wrk.headers[header] = prefix .. count
  return wrk.format("POST", nil, nil, body)
end
