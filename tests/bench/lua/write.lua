-- Creates, patches and deletes tasks: wrk --script write.lua --header "Authorization: Bearer TOKEN" URL
-- Any free connection takes the next step of any task. Task ids are read from the responses.

local to_patch, to_delete = {}, {}
local create, patch_before, patch_after, delete_before, delete_after
local main_thread
wrong = 0

local function around_id(method, body)
  local headers = { Host = wrk.headers.Host, Authorization = wrk.headers.Authorization }
  if body then
    headers["Content-Type"] = "application/json"
  end
  return wrk.format(method, wrk.path .. "/{id}", headers, body):match("^(.-){id}(.*)$")
end

function setup(thread)
  main_thread = thread
end

function init()
  patch_before, patch_after = around_id("PATCH", '{"completed":true}')
  delete_before, delete_after = around_id("DELETE")
  wrk.headers["Content-Type"] = "application/json"
  create = wrk.format("POST", nil, nil, '{"title":"Write the minutes of meeting number 0000"}')
end

function request()
  if #to_delete > 0 then
    return delete_before .. table.remove(to_delete) .. delete_after
  elseif #to_patch > 0 then
    return patch_before .. table.remove(to_patch) .. patch_after
  else
    return create
  end
end

function response(status, _, body)
  local id = body:match('"id":(%d+)')
  if status ~= 200 then
    wrong = wrong + 1
  elseif id and body:find('"completed":false', 1, true) then
    to_patch[#to_patch + 1] = id
  elseif id and body:find('"completed":true', 1, true) then
    to_delete[#to_delete + 1] = id
  elseif not body:find('"status":"deleted"', 1, true) then
    wrong = wrong + 1
  end
end

function done()
  print(string.format("wrong responses %d", main_thread:get("wrong")))
end
