-- HTTP requests a second that one nginx worker answers, each with a round trip over a stack, and what the same handler
-- makes without a stack, and with nginx's own socket to a server behind the kernel (Redis). Needs nginx with ngx_lua,
-- wrk, redis-server, LuaSocket and luassert.
--   luajit bench/resty.lua [seconds [rounds]]   whole seconds

local root = arg[0]:gsub("[^/]*$", "") .. "../"
package.path = root .. "?.lua;" .. package.path

local nginx = require "spec.nginx"
local servers = require "spec.local_servers"

local seconds, rounds = tonumber(arg[1]) or 1, tonumber(arg[2]) or 9
local CONNECTIONS = 32

-- The server on the stack answers as Redis does.
local WORLD = [[
  lua_socket_log_errors off;
  init_worker_by_lua_block {
    netstack, resty = require "netstack", require "netstack.resty"
    a, b = netstack.pair()
    assert(resty.start(a) == 1 and resty.start(b) == 1)
    local listener = assert(resty.listen(b, "*", 6379, 1024))
    local function serve(peer)
      while peer:receive() do
        peer:send("+PONG\r\n")
      end
      peer:close()
    end
    ngx.timer.at(0, function()
      while true do
        local peer = listener:accept()
        if not peer then return end
        ngx.thread.spawn(serve, peer)
      end
    end)
  }
]]

local LOCATIONS = [[
  keepalive_requests 100000000;
  location = /static { return 200 "+PONG\n"; }
  location = /lua { content_by_lua_block { ngx.say("+PONG") } }
]]

-- Each location has code of its own, as users' have: LuaJIT compiles it for the kind of socket that it meets there.
local ROUND_TRIP = [[
  location = PATH {
    content_by_lua_block {
      local socket = SOCKET
      assert(socket:connect(ADDRESS))
      assert(socket:send("PING\r\n"))
      local line = assert(socket:receive())
      socket:FINISH
      ngx.say(line)
    }
  }
]]

local function round_trip(path, socket, address, finish)
  local values = { PATH = path, SOCKET = socket, ADDRESS = address, FINISH = finish }
  return (ROUND_TRIP:gsub("%u%u%u+", values))
end

local function locations(redis)
  local stack, kernel = '"10.0.0.2", 6379', ('"127.0.0.1", %d'):format(redis)
  return LOCATIONS .. round_trip("/stack", "resty.tcp(a)", stack, "setkeepalive(60000, 64)") ..
    round_trip("/stack-connect", "resty.tcp(a)", stack, "close()") ..
    round_trip("/kernel", "ngx.socket.tcp()", kernel, "setkeepalive(60000, 64)") ..
    round_trip("/kernel-connect", "ngx.socket.tcp()", kernel, "close()")
end

-- Each with a worker of its own: what is connected and closed leaves connections in TIME-WAIT behind. Ratios are to the
-- first row.
local parts = {
  {
    { "the handler without a socket", "lua" },
    { "round trip over a stack, pooled connection", "stack" },
    { "round trip to Redis, cosocket, pooled", "kernel" },
    { "no Lua: return 200", "static" },
  },
  {
    { "the handler without a socket", "lua" },
    { "connect, round trip, close over a stack", "stack-connect" },
    { "the same to Redis, cosocket", "kernel-connect" },
  },
}

local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)]
end

local function measure(server, path)
  local before = server:cpu()
  local text = nginx.capture(("wrk -t1 -c%d -d%ds http://127.0.0.1:%d/%s"):format(CONNECTIONS, seconds, server.port,
    path))
  local used = server:cpu() - before
  local count, rate = text:match("(%d+) requests in"), text:match("Requests/sec:%s+([%d.]+)")
  if not rate or text:find("Socket errors", 1, true) or text:find("Non-2xx", 1, true) then
    error("wrk: " .. text .. server:log(), 0)
  end
  return tonumber(rate), used / count * 1e6
end

local function run_part(redis, rows)
  local server = nginx.start { http = WORLD, locations = locations(redis) }
  local rates, costs, ratios, to_kernel = {}, {}, {}, {}
  for i, row in ipairs(rows) do
    rates[i], costs[i], ratios[i] = {}, {}, {}
    measure(server, row[2]) -- until it is compiled, and connections are pooled
  end
  for round = 1, rounds do
    for i, row in ipairs(rows) do rates[i][round], costs[i][round] = measure(server, row[2]) end
    for i in ipairs(rows) do ratios[i][round] = rates[i][round] / rates[1][round] end
    to_kernel[round] = rates[2][round] / rates[3][round]
  end
  for i, row in ipairs(rows) do
    print(("%-44s %12.0f %18.1f %22.2f"):format(row[1], median(rates[i]), median(costs[i]), median(ratios[i])))
  end
  print(("%-44s %54.2f"):format("  over a stack against the cosocket", median(to_kernel)))
  server:stop()
end

local function run()
  local why = nginx.missing() or servers.missing()
  if why then error(why, 0) end
  local redis = servers.redis()
  print(("One nginx worker, wrk with %d connections, %d s each; medians of %d rounds, ratios within a round")
    :format(CONNECTIONS, seconds, rounds))
  print(("%-44s %12s %18s %22s"):format("", "requests/s", "us CPU a request", "of the handler without"))
  for _, rows in ipairs(parts) do run_part(redis, rows) end
end

local ok, err = pcall(run)
nginx.finish()
servers.finish()
if not ok then
  io.stderr:write("bench/resty.lua: ", tostring(err), "\n")
  os.exit(1)
end
