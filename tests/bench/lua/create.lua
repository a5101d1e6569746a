-- Creates tasks: wrk --script create.lua --header "Authorization: Bearer TOKEN" URL

wrk.method = "POST"
wrk.body = '{"title":"' .. ("x"):rep(40) .. '"}'
wrk.headers["Content-Type"] = "application/json"
