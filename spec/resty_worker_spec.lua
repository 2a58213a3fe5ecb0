local WORLD = require "spec.resty_world"
local nginx = require "spec.nginx"

describe("netstack.resty, in the life of a worker,", function()
  if nginx.absent(it, pending) then return end
  local socket = require "socket"
  local server

  after_each(nginx.finish)

  -- Requests that end in time.
  local function begin()
    local requests = {}
    for i = 1, 8 do
      requests[i] = server:open("/run", [[
        local socket = resty.tcp(a)
        socket:connect("10.0.0.2", 80)
        for i = 1, 5 do
          socket:send("wait 0.1\n")
          if socket:receive() ~= "waited" then return "failed" end
        end
        return "done " .. socket:setkeepalive()
      ]])
    end
    return requests
  end

  local function check_end(requests, start)
    for _, request in ipairs(requests) do assert.same({ 200, "done 1" }, { request:wait() }) end
    assert.is_true(socket.gettime() - start < 1.9)
  end

  it("leaves requests time to finish when nginx reloads", function()
    server = nginx.start { http = WORLD }
    local old = server:workers()[1]
    local requests = begin()
    local endless = server:open("/run", [[
      local socket = resty.tcp(a)
      socket:connect("10.0.0.2", 80)
      return (select(2, socket:receive()))
    ]])
    socket.sleep(0.1)
    local start = socket.gettime()
    server:signal("HUP")
    nginx.eventually(function() return server:log():find("accept ended: closed", 1, true) end, 1)
    assert.equal("hello", server:run [[
      local socket = resty.tcp(a)
      socket:connect("10.0.0.2", 80)
      socket:send("hello\n")
      return (socket:receive())
    ]])
    check_end(requests, start)
    assert.same({ 200, "closed" }, { endless:wait() })
    local took = socket.gettime() - start
    assert.is_true(took > 1.5 and took < 3.5, took)
    nginx.eventually(function() return nginx.ended(old) and #server:workers() == 1 end, 2)
    server:check_log()
  end)

  it("ends with nginx, soon when nothing is under way", function()
    server = nginx.start { http = WORLD }
    local requests = begin()
    socket.sleep(0.1)
    local start = socket.gettime()
    server:signal("QUIT")
    check_end(requests, start)
    nginx.eventually(function() return server:ended() end, 2)
    server = nginx.start { http = WORLD }
    server:run [[ -- an idle connection in a pool does not keep it
      local socket = resty.tcp(a)
      socket:connect("10.0.0.2", 80)
      socket:setkeepalive(0)
    ]]
    start = socket.gettime()
    server:signal("QUIT")
    nginx.eventually(function() return server:ended() end, 5)
    assert.is_true(socket.gettime() - start < 1.5, socket.gettime() - start)
    assert.is_truthy(server:log():find("the server ended", 1, true))
  end)

  it("ends with nginx at once when nothing wakes that", function()
    server = nginx.start { http = WORLD } -- stacks, and who waits for connections
    local start = socket.gettime()
    server:signal("QUIT")
    nginx.eventually(function() return server:ended() end, 5)
    assert.is_true(socket.gettime() - start < 1, socket.gettime() - start)
    server:check_log()
  end)

  local ENDLESS = [[
    local socket = resty.tcp(a)
    socket:connect("10.0.0.2", 80)
    return (select(2, socket:receive()))
  ]]

  it("tells who begins to wait when nothing else needs stacks any more", function()
    server = nginx.start { http = WORLD }
    local old = server:workers()[1]
    local request = server:open("/run", [[
      local udp = a:udp()
      udp:setsockname("*", 53)
      ngx.sleep(0.4)
      return (select(2, udp:receive()))
    ]])
    socket.sleep(0.1)
    local start = socket.gettime()
    server:signal("HUP")
    assert.same({ 200, "closed" }, { request:wait() })
    nginx.eventually(function() return nginx.ended(old) end, 2)
    assert.is_true(socket.gettime() - start < 3.5, socket.gettime() - start)
    server:check_log()
  end)

  it("is ended by TERM whatever is under way", function()
    server = nginx.start { http = WORLD }
    local request = server:open("/run", ENDLESS)
    socket.sleep(0.1)
    local start = socket.gettime()
    server:signal("TERM")
    assert.is_nil((request:wait()))
    nginx.eventually(function() return server:ended() end, 2)
    assert.is_true(socket.gettime() - start < 1, socket.gettime() - start)
    server:check_log()
  end)

  it("keeps worker_shutdown_timeout, after which nginx closes its connections", function()
    server = nginx.start { http = WORLD, main = "worker_shutdown_timeout 300ms;" }
    local old = server:workers()[1]
    local requests = { server:open("/run", ENDLESS), server:open("/run", "ngx.sleep(10)"),
      server:open("/run", "resty.tcp(a):connect('10.0.0.9', 80)") }
    socket.sleep(0.1)
    local start = socket.gettime()
    server:signal("HUP")
    for _, request in ipairs(requests) do assert.is_nil((request:wait())) end
    nginx.eventually(function() return nginx.ended(old) end, 5)
    local took = socket.gettime() - start
    assert.is_true(took > 0.25 and took < 1.5, took)
    server:run("ngx.timer.at(0, function() " .. ENDLESS .. " end) ngx.sleep(0.1) return 1") -- which is no connection
    start = socket.gettime()
    server:signal("QUIT")
    nginx.eventually(function() return server:ended() end, 5)
    took = socket.gettime() - start
    assert.is_true(took > 1.5 and took < 3.5, took)
    server:check_log()
  end)

  it("has no run stop a worker that drives stacks, but in a thread of its own", function()
    server = nginx.start { http = WORLD, main = "thread_pool labs threads=1;", path = "spec/?.lua;" }
    for _, run in ipairs { "netstack.run(print)", 'require("netstack.lab").new():run(print)' } do
      assert.matches("^spec:1: netstack.run in an nginx worker that drives stacks: .*: ngx.run_worker_thread",
        server:run("return select(2, pcall(function() " .. run .. " end))"))
    end
    assert.equal("true 100000 100000", server:run [[
      local thread = ngx.thread.spawn(function()
        return ngx.run_worker_thread("labs", "resty_lab", "download", 100000)
      end)
      local socket = resty.tcp(a) -- meanwhile
      assert(socket:connect("10.0.0.2", 80) and socket:send("give 100000\n"))
      local data = socket:receive(100000)
      local _, ok, size = ngx.thread.wait(thread)
      return tostring(ok) .. " " .. size .. " " .. #data
    ]])
    server:stop()
    -- Where nothing is driven it does what it does elsewhere.
    server = nginx.start { http = 'init_by_lua_block { lab = require("spec.resty_lab") size = lab.download(1000) }' }
    assert.equal("1000 2000", server:run [[ return size .. " " .. lab.download(2000) ]])
  end)

  it("times out although nothing but TIME-WAIT was left to be driven", function()
    server = nginx.start { http = [[
      init_worker_by_lua_block {
        netstack, resty = require "netstack", require "netstack.resty"
        a, b = netstack.pair()
        udp = a:udp()
        udp:setsockname("*", 53)
        udp:settimeout(2.3)
      }
    ]] }
    server:run [[
      local listener, socket = resty.listen(b, "*", 80), resty.tcp(a)
      assert(socket:connect("10.0.0.2", 80))
      local peer = listener:accept()
      socket:close()
      peer:receive()
      peer:close()
      listener:close()
      return 1
    ]]
    nginx.eventually(function() return server:run "return ngx.timer.running_count()" == "0" end, 1)
    local start = socket.gettime()
    assert.equal("timeout", server:run "return (select(2, udp:receive()))")
    assert.is_true(socket.gettime() - start < 2.6, socket.gettime() - start)
  end)

  it("says what is wrong with how it is used", function()
    server = nginx.start { main = "thread_pool default threads=1;", path = "spec/?.lua;", http = WORLD .. [[
      init_by_lua_block {
        local netstack, resty = require "netstack", require "netstack.resty"
        local stack = netstack.pair()
        local results = { { resty.start(stack) }, { resty.listen(stack, "*", 80) },
          { resty.tcp(stack):connect("10.0.0.2", 80) }, { resty.udp(stack):setpeername("10.0.0.2", 80) } }
        for i = 1, #results do results[i] = tostring(results[i][1]) .. " " .. results[i][2] end
        spec = { init = table.concat(results, ", ") }
      }
    ]] }
    assert.equal(("nil not supported, "):rep(3) .. "nil not supported", server:run "return spec.init")
    -- A socket ends with its request; another one may connect it anew.
    assert.equal("1", server:run 'spec.socket = resty.tcp(a) return spec.socket:connect("10.0.0.2", 80)')
    assert.equal("closed 1", server:run [[
      local _, err = spec.socket:send("x\n")
      return err .. " " .. spec.socket:connect("10.0.0.2", 80)
    ]])
    -- Who accepts and fails accepts no more, which nginx logs; what it had accepted is closed.
    assert.equal("closed", server:run [[
      local listener = resty.listen(b, "*", 81)
      ngx.timer.at(0, function() error("not " .. tostring(listener:accept():receive())) end)
      local socket = resty.tcp(a)
      assert(socket:connect("10.0.0.2", 81) and socket:send("x\n"))
      local _, err = socket:receive()
      listener:close()
      return err
    ]])
    assert.is_truthy(server:log():find("not x", 1, true))
    for code, why in pairs {
      ["resty.listen(b, nil, 80)"] = "bad argument #2 to 'listen' (string expected, got nil)",
      ["resty.listen(b, '*', 70000)"] = "bad argument #3 to 'listen' (out of range: 0 to 65535)",
      ["error((select(2, resty.listen(b, '*', 80))))"] = "address already in use",
      ["error((select(2, resty.listen(b, '10.9.9.9', 82))))"] = "cannot assign requested address",
      ["resty.tcp(a).connect('10.0.0.2', 80)"] = "calling 'connect' on bad self (socket expected, got string)",
      ["resty.tcp()"] = "bad argument #1 to 'tcp' (stack expected, got nil)",
    } do
      assert.equal("spec:1: " .. why, server:run("return select(2, pcall(function() " .. code .. " end))"))
    end
    assert.equal("netstack.resty: this is no nginx worker with ngx_lua (OpenResty), where alone it can be used",
      server:run 'return select(2, ngx.run_worker_thread("default", "resty_lab", "require_resty"))')
  end)

  it("holds no more memory after many requests than after some", function()
    server = nginx.start { http = WORLD, locations = [[
      keepalive_requests 1000000;
      location = /round_trip { content_by_lua_block {
        local socket = resty.tcp(a)
        assert(socket:connect("10.0.0.2", 80) and socket:send("hello\n") and socket:receive() == "hello")
        if math.random(2) == 1 then socket:setkeepalive() else socket:close() end
        ngx.header.content_length = 2
        ngx.print("ok")
      } }
    ]] }
    local connection = assert(socket.connect("127.0.0.1", server.port))
    connection:settimeout(10)
    local function ask(count)
      local BATCH = 100
      for _ = 1, count / BATCH do
        assert(connection:send(("GET /round_trip HTTP/1.1\r\nHost: x\r\n\r\n"):rep(BATCH)))
        for _ = 1, BATCH do
          assert.equal("HTTP/1.1 200 OK", connection:receive())
          repeat local line = assert(connection:receive()) until line == ""
          assert.equal("ok", connection:receive(2))
        end
      end
    end
    local function memory()
      return server:resident(), tonumber(server:run "collectgarbage() collectgarbage() return collectgarbage 'count'")
    end
    ask(6000)
    local resident, lua = memory()
    ask(10000)
    local resident_later, lua_later = memory()
    assert.is_true(lua_later - lua < 100, lua_later .. " KB after " .. lua)
    assert.is_true(resident_later - resident < 4000, resident_later .. " KB after " .. resident)
    connection:close()
  end)

  it("leaves no Lua state behind without lua_code_cache", function()
    server = nginx.start { http = "lua_code_cache off;" }
    local path = server.folder .. "/closed"
    for _ = 1, 10 do
      assert.equal("hello", server:run(nginx.witness(path) .. [[
        local netstack, resty = require "netstack", require "netstack.resty"
        app = { netstack.pair() } -- held by the Lua state
        assert(resty.start(app[1]) == 1)
        local listener = resty.listen(app[2], "*", 80)
        ngx.thread.spawn(function()
          local peer = listener:accept()
          peer:send(peer:receive() .. "\n")
          peer:close()
        end)
        local socket = resty.tcp(app[1])
        socket:connect("10.0.0.2", 80)
        socket:send("hello\n")
        local line = socket:receive()
        socket:close()
        return line
      ]]))
    end
    nginx.eventually(function() return nginx.read(path) == ("x"):rep(10) end, 1)
    assert.equal("0", server:run [[ return ngx.timer.running_count() + ngx.timer.pending_count() ]])
  end)

  it("goes on when a callback fails, and logs that", function()
    server = nginx.start { http = WORLD }
    assert.equal("hello", server:run [[
      b:trace(function() error("in a callback", 0) end)
      local socket = resty.tcp(a)
      local ok = socket:connect("10.0.0.2", 80)
      b:trace(nil)
      if not ok then socket:connect("10.0.0.2", 80) end
      socket:send("hello\n")
      return (socket:receive())
    ]])
    assert.is_truthy(server:log():find("netstack: in a callback", 1, true))
  end)

  it("does what the README says, from an empty configuration", function()
    local conf = nginx.read("README.md"):match("\n```nginx\n(.-)\n```\n")
    server = nginx.start { text = conf }
    local function say(line)
      local status, body = server:request("/say?line=" .. line)
      return status .. " " .. tostring(body)
    end
    assert.equal("200 you said hello, 0\n", say("hello"))
    assert.equal("200 you said again, 1\n", say("again"))
  end)

  it("begins anew when a crash has taken the worker", function()
    server = nginx.start { http = WORLD }
    local old = server:workers()[1]
    local requests = begin()
    socket.sleep(0.1)
    nginx.capture("kill -SEGV " .. old) -- as a fault of a C module does
    for _, request in ipairs(requests) do assert.is_nil((request:wait())) end
    nginx.eventually(function() return server:workers()[1] and server:workers()[1] ~= old end)
    assert.equal("hello", server:run [[
      local socket = resty.tcp(a)
      socket:connect("10.0.0.2", 80)
      socket:send("hello\n")
      return (socket:receive())
    ]])
    assert.matches("%[alert%][^\n]*exited on signal 11", server:log())
  end)

  it("gives each worker stacks of its own", function()
    server = nginx.start { http = WORLD, workers = 2 }
    local pids, count = {}, 0
    nginx.eventually(function()
      local pid = server:run [[
        local socket = resty.tcp(a)
        socket:connect("10.0.0.2", 80)
        socket:send("hello\n")
        assert(socket:receive() == "hello")
        socket:setkeepalive()
        return ngx.worker.pid()
      ]]
      if not pids[pid] then pids[pid], count = true, count + 1 end
      return count == 2
    end)
    local start = socket.gettime()
    server:signal("QUIT")
    nginx.eventually(function() return server:ended() end, 5)
    assert.is_true(socket.gettime() - start < 1.5)
  end)
end)
