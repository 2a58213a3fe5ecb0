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
    function answer(socket, host, port, keep)
      assert(socket:connect(host, port))
      assert(socket:send("PING\r\n"))
      local line = assert(socket:receive())
      if keep then socket:setkeepalive(60000, 64) else socket:close() end
      ngx.say(line)
    end
  }
]]

local LOCATIONS = [[
  keepalive_requests 100000000;
  location = /static { return 200 "+PONG\n"; }
  location = /lua { content_by_lua_block { ngx.say("+PONG") } }
  location = /stack { content_by_lua_block { answer(resty.tcp(a), "10.0.0.2", 6379, true) } }
  location = /stack-connect { content_by_lua_block { answer(resty.tcp(a), "10.0.0.2", 6379) } }
  location = /kernel { content_by_lua_block { answer(ngx.socket.tcp(), "127.0.0.1", REDIS, true) } }
  location = /kernel-connect { content_by_lua_block { answer(ngx.socket.tcp(), "127.0.0.1", REDIS) } }
]]

local rows = {
  { "no Lua: return 200", "static" },
  { "the handler without a socket", "lua" },
  { "round trip over a stack, pooled connection", "stack" },
  { "round trip to Redis, cosocket, pooled", "kernel" },
  { "connect, round trip, close over a stack", "stack-connect" },
  { "the same to Redis, cosocket", "kernel-connect" },
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

local function run()
  local why = nginx.missing() or servers.missing()
  if why then error(why, 0) end
  local redis = servers.redis()
  local server = nginx.start { http = WORLD, locations = LOCATIONS:gsub("REDIS", redis) }
  local rates, costs, ratios = {}, {}, {}
  for i in ipairs(rows) do rates[i], costs[i], ratios[i] = {}, {}, {} end
  local to_kernel, to_kernel_connect = {}, {}
  for round = 1, rounds do
    for i, row in ipairs(rows) do rates[i][round], costs[i][round] = measure(server, row[2]) end
    for i in ipairs(rows) do ratios[i][round] = rates[i][round] / rates[2][round] end
    to_kernel[round] = rates[3][round] / rates[4][round]
    to_kernel_connect[round] = rates[5][round] / rates[6][round]
  end
  print(("One nginx worker, wrk with %d connections, %d s each; medians of %d rounds, ratios within a round")
    :format(CONNECTIONS, seconds, rounds))
  print(("%-44s %12s %18s %22s"):format("", "requests/s", "us CPU a request", "of the handler without"))
  for i, row in ipairs(rows) do
    print(("%-44s %12.0f %18.1f %22.2f"):format(row[1], median(rates[i]), median(costs[i]), median(ratios[i])))
  end
  print(("A pooled round trip over a stack against one to Redis: %.2f; with connect and close: %.2f"):format(
    median(to_kernel), median(to_kernel_connect)))
end

local ok, err = pcall(run)
nginx.finish()
servers.finish()
if not ok then
  io.stderr:write("bench/resty.lua: ", tostring(err), "\n")
  os.exit(1)
end
