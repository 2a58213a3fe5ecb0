-- For nginx.conf: two stacks on a pipe, clients on the first, and on the second light threads that pass bytes on to
-- servers at 127.0.0.1.
local M = {}

-- REDIS, MEMCACHED, SERVER: ports. 10.0.0.2 has them at 6379, 11211 and 80.
M.INIT = [[
  init_by_lua_block {
    resty = require "netstack.resty"
    early = require "nginx.memcached" -- before there is anything to look at a caller
    assert(resty.install() == 1 and resty.install() == 1)
    redis = require "nginx.redis"
    memcached = dofile(package.searchpath("nginx.memcached", package.path))
    websocket = require "nginx.websocket.client"
    function texts(...) -- as text
      local results = { ... }
      for i = 1, select("#", ...) do results[i] = tostring(results[i]) end
      return table.concat(results, " ")
    end
  }
]]
M.WORKER = [[
  lua_socket_log_errors off;
  lua_check_client_abort on;
  init_worker_by_lua_block {
    local netstack = require "netstack"
    a, b = netstack.pair { hosts = { redis = "10.0.0.2" } }
    resty.start(a)
    resty.start(b)
    if app then app.stack = a end
    function open_sockets() -- of a, to 10.0.0.2
      collectgarbage()
      local count = 0
      for _, one in ipairs(a:sockets()) do if one.state == "ESTABLISHED" then count = count + 1 end end
      return count
    end
    local function pump(from, to)
      local data
      repeat data = from:receiveany(65536) until not data or not to:send(data)
    end
    local function pass_on(peer, port)
      local upstream = ngx.socket.tcp() -- nginx's own
      if not upstream:connect("127.0.0.1", port) then return peer:close() end
      local there, back = ngx.thread.spawn(pump, peer, upstream), ngx.thread.spawn(pump, upstream, peer)
      ngx.thread.wait(there, back)
      ngx.thread.kill(there)
      ngx.thread.kill(back)
      peer:close()
      upstream:close()
    end
    for _, ports in ipairs { { 6379, REDIS }, { 11211, MEMCACHED }, { 80, SERVER } } do
      local listener = assert(resty.listen(b, "*", ports[1]))
      for _ = 1, 6 do
        ngx.timer.at(0, function()
          local peer = listener:accept()
          while peer do
            pass_on(peer, ports[2])
            peer = listener:accept()
          end
        end)
      end
    end
  }
]]

M.WEBSOCKET = [[
  location = /websocket { content_by_lua_block {
    local socket = assert(require("nginx.websocket.server"):new { timeout = 5000, max_payload_len = 200000 })
    while true do
      local data, kind = socket:recv_frame()
      if not data or kind == "close" then return socket:send_close() end
      if kind == "ping" then socket:send_pong(data)
      elseif kind == "text" then socket:send_text("you said " .. data)
      else socket:send_binary(data:reverse()) end
    end
  } }
]]

M.PHASES = [[
  location = /phases {
    rewrite_by_lua_block { resty.with(a, function()
      local client = redis:new()
      client:connect("redis", 6379)
      ngx.ctx.said = client:ping()
      client:set_keepalive()
      ngx.exit(ngx.OK) -- on to the next phase, in what may be the same coroutine
    end) }
    access_by_lua_block { ngx.ctx.bound = ngx.socket.tcp().stack ~= nil }
    content_by_lua_block { ngx.print(ngx.ctx.said, " ", tostring(ngx.ctx.bound)) }
  }
  location = /filter {
    header_filter_by_lua_block {
      ngx.header.answer = select(2, resty.with(a, function() return redis:new():connect("redis", 6379) end)) .. ", " ..
        tostring(pcall(redis.new, redis)) -- which nginx does not have here
    }
    return 204;
  }
]]

return M
