-- What an nginx worker holds in memory after so many requests, each with a round trip over a stack: on a pooled
-- connection, and on one of its own. Needs nginx with ngx_lua, wrk, LuaSocket and luassert.
--   luajit bench/resty_memory.lua [requests]   1,000,000 of each kind; takes minutes

local root = arg[0]:gsub("[^/]*$", "") .. "../"
package.path = root .. "?.lua;" .. package.path

local nginx = require "spec.nginx"
local WORLD = require "spec.resty_world"

local TOTAL = tonumber(arg[1]) or 1000000
local SHARES = { 0, 0.1, 0.25, 0.5, 0.75, 1 }

local LOCATIONS = [[
  keepalive_requests 100000000;
  location / { content_by_lua_block {
    local socket = resty.tcp(a)
    assert(socket:connect("10.0.0.2", 80))
    assert(socket:send("hello\n"))
    local line = assert(socket:receive())
    if ngx.var.uri == "/pooled" then socket:setkeepalive() else socket:close() end
    ngx.say(line)
  } }
]]

local function sample(server)
  -- What was collected belongs to the system again only when the allocator likes: resident memory is before that.
  local resident = server:resident()
  local lua, open = server:run([[
    ngx.sleep(2.5) -- TIME-WAIT is over
    collectgarbage()
    collectgarbage()
    local open = 0
    for _, stack in ipairs { a, b } do
      for _, one in ipairs(stack:sockets()) do if one.state ~= "TIME-WAIT" then open = open + 1 end end
    end
    return ("%d %d"):format(collectgarbage "count", open)
  ]]):match("(%d+) (%d+)")
  return resident, lua, open
end

local function run(path)
  local server, done = nginx.start { http = WORLD, locations = LOCATIONS }, 0
  print(("%s\n%10s %14s %20s %14s"):format(path, "requests", "resident, KB", "Lua, collected, KB", "open sockets"))
  for _, share in ipairs(SHARES) do
    while done < share * TOTAL do
      local text = nginx.capture(("wrk -t1 -c16 -d1s http://127.0.0.1:%d%s"):format(server.port, path))
      if text:find("Socket errors", 1, true) or text:find("Non-2xx", 1, true) then error(text .. server:log(), 0) end
      done = done + tonumber(text:match("(%d+) requests in"))
    end
    print(("%10d %14d %20d %14d"):format(done, sample(server)))
    io.stdout:flush()
  end
  nginx.finish()
end

local ok, err = pcall(function()
  local why = nginx.missing()
  if why then error(why, 0) end
  run "/pooled"
  run "/own"
end)
nginx.finish()
if not ok then
  io.stderr:write("bench/resty_memory.lua: ", tostring(err), "\n")
  os.exit(1)
end
