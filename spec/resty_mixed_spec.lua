-- A little of all that requests do, for a look from outside: `.ci/run` has valgrind look at nginx meanwhile.
local WORLD = require "spec.resty_world"
local nginx = require "spec.nginx"

describe("netstack.resty", function()
  if nginx.absent(it, pending) then return end
  local socket = require "socket"

  after_each(nginx.finish)

  it("connects, waits, fails, is left, in states that last and that do not, and ends", function()
    local server = nginx.start { workers = 1, http = WORLD .. [[
      init_by_lua_block { require("netstack.resty").install() }
    ]] }
    local function check(answer, code) assert.equal(answer, server:run(code)) end
    check("40", [[
      local socket, count = resty.tcp(a), 0
      for i = 1, 40 do
        assert(socket:connect("10.0.0.2", 80) and socket:send("hello\n"))
        if socket:receive() == "hello" then count = count + 1 end
        if i % 2 == 0 then socket:setkeepalive() else socket:close() end
      end
      return count
    ]])
    check("200000", [[
      local socket = resty.tcp(a)
      assert(socket:connect("10.0.0.2", 80) and socket:send("give 200000\n"))
      return #socket:receive(200000)
    ]])
    check("timeout", [[
      local socket = resty.tcp(a)
      socket:connect("10.0.0.2", 80)
      socket:settimeout(30)
      return select(2, socket:receive())
    ]])
    check("connection refused", [[
      local socket = resty.udp(a)
      socket:setpeername("10.0.0.2", 53)
      socket:send("x")
      return select(2, socket:receive())
    ]])
    check("hello", [[
      return resty.with(a, function()
        local socket = ngx.socket.connect("10.0.0.2", 80)
        return ngx.thread.wait(ngx.thread.spawn(socket.send, socket, "hello\n")) and socket:receive()
      end)
    ]])
    check("open", [[ -- and forgotten
      local stack, other = netstack.pair()
      resty.listen(other, "*", 80)
      resty.tcp(stack):connect("10.0.0.2", 80)
      return "open"
    ]])
    for _, code in ipairs { "socket:receive()", "socket:connect('10.0.0.9', 80)", "resty.listen(b, '*', 0):accept()",
      "ngx.thread.spawn(socket.receive, socket) ngx.sleep(10)" } do
      local request = server:open("/run", "local socket = resty.tcp(a) socket:connect('10.0.0.2', 80) " .. code)
      assert.equal(204, (server:request("/empty")))
      request:abort()
    end
    assert.equal(500, (server:request("/run", [[
      local socket = resty.tcp(a)
      socket:connect("10.0.0.2", 80)
      collectgarbage()
      collectgarbage()
      error("on purpose")
    ]])))
    local last = server:open("/run", [[
      local socket = resty.tcp(a)
      assert(socket:connect("10.0.0.2", 80) and socket:send("wait 0.2\n"))
      return socket:receive()
    ]])
    socket.sleep(0.1)
    server:signal("HUP")
    assert.same({ 200, "waited" }, { last:wait() })
    check("again", [[
      local socket = resty.tcp(a)
      assert(socket:connect("10.0.0.2", 80) and socket:send("again\n"))
      return socket:receive()
    ]])
    server:signal("QUIT")
    nginx.eventually(function() return server:ended() end)
    server = nginx.start { http = "lua_code_cache off;" }
    for _ = 1, 3 do
      check("hello", [[
        local netstack, resty = require "netstack", require "netstack.resty"
        local stack, other = netstack.pair()
        local listener = resty.listen(other, "*", 80)
        ngx.thread.spawn(function()
          local peer = listener:accept()
          peer:send(peer:receive() .. "\n")
        end)
        local socket = resty.tcp(stack)
        socket:connect("10.0.0.2", 80)
        socket:send("hello\n")
        return socket:receive()
      ]])
    end
    server:signal("QUIT")
    nginx.eventually(function() return server:ended() end)
  end)
end)
