-- Every request carries the next of many tokens: wrk -s many.lua URL -- FILE_OF_TOKENS
-- The requests are made before the clock runs, so that wrk only picks one.

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
