-- Sends many tokens in turn: wrk --script many.lua URL -- TOKENS_FILE
-- Builds all requests in advance, so that wrk only selects one during the run.

local requests, position = {}, 0

function init(arguments)
  for token in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format(nil, nil, { Host = wrk.headers.Host, Authorization = "Bearer " .. token })
  end
end

function request()
  position = position % #requests + 1
  return requests[position]
end
