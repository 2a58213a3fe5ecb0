local WORLD = require "spec.resty_world"
local nginx = require "spec.nginx"

describe("netstack.resty", function()
  if nginx.absent(it, pending) then return end
  local server

  describe("in a worker", function()
    setup(function()
      server = nginx.start { http = WORLD, locations = [[
        location = /log { return 204; log_by_lua_block {
          local socket = resty.tcp(a)
          ngx.log(ngx.NOTICE, "in log: ", (select(2, socket:connect("10.0.0.2", 80))))
        } }
        location = /filter { header_filter_by_lua_block {
          ngx.header.answer = select(2, resty.udp(a):setpeername("10.0.0.2", 80)) } return 204; }
        location = /phases {
          rewrite_by_lua_block {
            local socket = resty.tcp(a)
            ngx.ctx.rewrite = socket:connect("10.0.0.2", 80) and socket:send("rewrite\n") and socket:receive()
          }
          access_by_lua_block {
            local socket = resty.tcp(a)
            ngx.ctx.access = socket:connect("10.0.0.2", 80) and socket:send("access\n") and socket:receive()
          }
          content_by_lua_block { ngx.print(ngx.ctx.rewrite, " ", ngx.ctx.access) }
        }
      ]] }
    end)

    teardown(nginx.finish)

    local function run(code) return server:run(code) end

    it("talks between two stacks of a worker", function()
      assert.equal("1 6 hello 0 1 nil closed", run [[
        local socket = resty.tcp(a)
        local results = { socket:connect("10.0.0.2", 80), socket:send("hello\n"), socket:receive(),
          socket:getreusedtimes(), socket:close() }
        return table.concat(results, " ") .. " " .. tostring(socket:close()) .. " " .. select(2, socket:close())
      ]])
      assert.equal("a name, nil closed, ESTABLISHED 1460\n", run [[
        local socket = resty.tcp(a)
        local none, why = socket:info()
        assert(socket:connect("server", 80))
        socket:send("a name, " .. tostring(none) .. " " .. why .. ", ")
        socket:send { socket:info().state, " ", socket:info().mss, "\n" }
        return { socket:receive(), "\n" }
      ]])
    end)

    it("waits in the phases that can, and refuses in the others", function()
      local status, body = server:request("/phases")
      assert.same({ 200, "rewrite access" }, { status, body })
      assert.equal("timer", run [[
        local semaphore, line = require("ngx.semaphore").new(), nil
        ngx.timer.at(0, function()
          local socket = resty.tcp(a)
          socket:connect("fd00::2", 80)
          socket:send("timer\n")
          line = socket:receive()
          semaphore:post()
        end)
        semaphore:wait(5)
        return line
      ]])
      server:request("/log")
      nginx.eventually(function() return server:log():find("in log: not supported", 1, true) end)
      local request = server:open("/filter")
      assert.matches("answer: not supported", (request.connection:receive("*a")))
      request:abort()
      -- Where a C function is beneath, Lua cannot yield.
      assert.equal("not supported", run [[
        local why
        table.sort({ 2, 1 }, function()
          why = select(2, resty.tcp(a):connect("10.0.0.2", 80))
          return false
        end)
        return why
      ]])
    end)

    it("sends what cosockets send", function()
      assert.equal("a1.5truenil-nested2 20", run [[
        local socket = resty.tcp(a)
        socket:connect("10.0.0.2", 80)
        local count = socket:send { "a", 1.5, { true, { nil, "-nested" } }, 2, "\n" }
        return socket:receive() .. " " .. count
      ]])
      assert.equal("3 0 4 nil true", run [[
        local socket = resty.tcp(a)
        socket:connect("10.0.0.2", 80)
        local counts = { socket:send(nil), socket:send(""), socket:send(true) }
        socket:send("\n")
        local line = socket:receive()
        return table.concat(counts, " ") .. " " .. line:gsub("niltrue", "nil true")
      ]])
      assert.matches("bad argument #1 to 'send' %(string, number, boolean, nil, or array table expected", run [[
        local socket = resty.tcp(a)
        socket:connect("10.0.0.2", 80)
        return select(2, pcall(socket.send, socket, { "x", print }))
      ]])
      assert.equal("closed closed closed", run [[
        local socket = resty.tcp(a)
        return { select(2, socket:send("x")), " ", select(2, socket:receive()), " ", select(2, socket:setkeepalive()) }
      ]])
    end)

    it("receives lines, sizes, whatever is there, and all", function()
      assert.equal("one|two|thr|ee|4|rest|nil closed|nil closed|1", run [[
        local socket = resty.tcp(a)
        socket:connect("10.0.0.2", 80)
        socket:send("say o%0dne%0d%0atwo%0athree%0a4\nsay rest\nclose\n")
        local got = { socket:receive(), socket:receive("*l"), socket:receive(3), socket:receive("2") }
        assert(socket:receive(0) == "" and socket:receive() == "")
        got[5] = socket:receiveany(1)
        got[6] = socket:receive("*a")
        got[7] = "nil " .. select(2, socket:receive(1))
        got[8] = "nil " .. select(2, socket:receive(1))
        got[9] = socket:close()
        return table.concat(got, "|")
      ]])
      assert.equal("closed|part", run [[
        local socket = resty.tcp(a)
        socket:connect("10.0.0.2", 80)
        socket:send("say part\nclose\n")
        local _, err, partial = socket:receive(10)
        return err .. "|" .. partial
      ]])
      for _, argument in ipairs { "'*x'", "-1", "{}", "0/0" } do
        assert.matches("bad argument #1 to 'receive'", run(([[
          local socket = resty.tcp(a)
          socket:connect("10.0.0.2", 80)
          return select(2, pcall(socket.receive, socket, %s))
        ]]):format(argument)))
      end
    end)

    it("receives until a pattern, whole and in pieces", function()
      local function until_it(stream, pattern, calls, options)
        return run(([[
          local socket = resty.tcp(a)
          socket:settimeout(50)
          socket:connect("10.0.0.2", 80)
          for byte in (%q):gmatch(".") do -- each in a segment of its own
            socket:send("say " .. byte .. "\n")
          end
          local reader = socket:receiveuntil(%q, %s)
          local got = {}
          for i, size in ipairs %s do
            local data, err, partial
            if size then data, err, partial = reader(size) else data, err, partial = reader() end
            got[i] = tostring(data) .. (err and ":" .. err .. ":" .. tostring(partial) or "")
          end
          return table.concat(got, "|")
        ]]):format(stream, pattern, options or "nil", calls))
      end
      assert.equal("hello, world|rest:--", until_it("hello, world--Xrest:----X", "--X", "{ false, false }"))
      assert.equal("hello--X|nil:timeout:rest",
        until_it("hello--Xrest", "--X", "{ false, false }", "{ inclusive = true }"))
      assert.equal("hell|o, w|orl|nil|next", until_it("hello, worl--Xnext--X", "--X", "{ 4, 4, 4, 4, 4 }"))
      assert.equal("orld||nil", until_it("orld--X", "--X", "{ 4, 4, 4 }"))
      assert.equal("aabab|nil|c", until_it("aabababacc", "ababac", "{ 9, 9, 1 }"):gsub("aab|", "aabab|"))
      assert.equal("nil:timeout:ab|-cd", until_it("ab-", "--", "{ false }") .. "|" .. run [[
        local socket = resty.tcp(a)
        socket:settimeout(50)
        socket:connect("10.0.0.2", 80)
        socket:send("say ab-\n")
        local reader = socket:receiveuntil("--")
        assert(select(2, reader()) == "timeout")
        socket:send("say cd\n")
        return socket:receive(3)
      ]])
      assert.equal("pattern is empty", run [[ return (select(2, resty.tcp(a):receiveuntil(""))) ]])
    end)

    it("keeps timeouts in milliseconds, and the socket after a read's", function()
      assert.equal("timeout abc later 1", run [[
        local socket = resty.tcp(a)
        socket:settimeouts(1000, 1000, 40)
        socket:connect("10.0.0.2", 80)
        socket:send("say abc\nwait 0.3\n")
        ngx.update_time()
        local start = ngx.now()
        local _, err, partial = socket:receive(4)
        ngx.update_time()
        local took = ngx.now() - start
        assert(took >= 0.035 and took < 0.25, took)
        socket:settimeout(1000)
        assert(socket:receive() == "waited")
        socket:send("later\n")
        return err .. " " .. partial .. " " .. socket:receive() .. " " .. socket:close()
      ]])
      assert.equal("timeout", run [[
        local socket = resty.tcp(a)
        local far = netstack.new()
        far:attach(netstack.device { transmit = function() end }, { addresses = { "10.9.0.1/24" } })
        socket = resty.tcp(far)
        socket:settimeout(30)
        return (select(2, socket:connect("10.9.0.2", 80)))
      ]])
      assert.matches("bad argument #1 to 'settimeout' %(bad timeout value%)", run [[
        return (select(2, pcall(function() resty.tcp(a):settimeout(-1) end)))
      ]])
    end)

    it("tells errors as cosockets do", function()
      local function connect(arguments)
        return run("local s = resty.tcp(a) s:settimeout(200) return (select(2, s:connect(" .. arguments .. ")))")
      end
      assert.equal("connection refused", connect "'10.0.0.2', 81")
      assert.equal("nobody could not be resolved (3: Host not found)", connect "'nobody', 81")
      assert.equal("missing the port number", connect "'10.0.0.2'")
      assert.equal("bad port number: 70000", connect "'10.0.0.2', 70000")
      assert.equal("not supported", connect "'unix:/tmp/socket'")
      assert.equal("network is unreachable", run [[
        return (select(2, resty.tcp(netstack.new()):connect("10.0.0.2", 80)))
      ]])
      assert.equal("bad address 1", run [[
        local socket = resty.tcp(a)
        return select(2, socket:bind("nowhere")) .. " " .. socket:bind("10.0.0.1")
      ]])
      assert.equal("not supported", run [[
        local socket = resty.tcp(a)
        socket:connect("10.0.0.2", 80)
        assert(socket:setoption("tcp-nodelay", true) == true and socket:setoption("keepalive", 1) == true)
        assert(select(2, socket:setoption("colour", 1)) == "unsupported option colour")
        return (select(2, socket:sslhandshake()))
      ]])
      assert.equal("socket busy reading|socket busy reading|hello", run [[
        local socket = resty.tcp(a)
        socket:connect("10.0.0.2", 80)
        local reader = ngx.thread.spawn(function() return socket:receive() end)
        local busy, closing = select(2, socket:receive()), select(2, socket:close())
        socket:send("hello\n")
        local _, line = ngx.thread.wait(reader)
        return busy .. "|" .. closing .. "|" .. line
      ]])
      assert.matches("stack expected, got string", run [[ return (select(2, pcall(resty.tcp, "x"))) ]])
    end)

    it("keeps connections in pools", function()
      assert.equal("0 1 2 0", run [[
        local counts = {}
        for i = 1, 3 do
          local socket = resty.tcp(a)
          assert(socket:connect("10.0.0.2", 80))
          counts[i] = socket:getreusedtimes()
          socket:send("x\n")
          assert(socket:receive() == "x")
          assert(socket:setkeepalive(30) == 1)
          assert(select(2, socket:send("x")) == "closed")
        end
        ngx.sleep(0.06) -- its time is over
        local socket = resty.tcp(a)
        assert(socket:connect("10.0.0.2", 80))
        counts[4] = socket:getreusedtimes()
        return table.concat(counts, " ")
      ]])
      assert.equal("unread data in buffer|connection in dubious state|closed|0", run [[
        local results = {}
        local socket = resty.tcp(a)
        socket:connect("10.0.0.2", 80, { pool = "dubious" })
        socket:send("say ab-rest\n")
        socket:receiveuntil("-")()
        results[1] = select(2, socket:setkeepalive())
        assert(socket:receive(4) == "rest")
        socket:send("say more\n")
        ngx.sleep(0.02)
        results[2] = select(2, socket:setkeepalive())
        results[3] = select(2, socket:receive())
        socket:connect("10.0.0.2", 80, { pool = "dubious" })
        socket:send("wait 0.02\nclose\n")
        assert(socket:receive())
        socket:setkeepalive()
        ngx.sleep(0.03) -- the peer has closed it
        socket:connect("10.0.0.2", 80, { pool = "dubious" })
        results[4] = socket:getreusedtimes()
        return table.concat(results, "|")
      ]])
      -- One too many: the one that was used longest ago goes.
      assert.equal("1 1 0", run [[
        local sockets, counts = {}, {}
        for i = 1, 3 do
          sockets[i] = resty.tcp(a)
          sockets[i]:connect("10.0.0.2", 80, { pool = "two", pool_size = 2 })
        end
        for i = 1, 3 do sockets[i]:setkeepalive() end
        for i = 1, 3 do
          sockets[i]:connect("10.0.0.2", 80, { pool = "two" })
          counts[i] = sockets[i]:getreusedtimes()
        end
        return table.concat(counts, " ")
      ]])
    end)

    it("bounds connections by a backlog", function()
      assert.equal("too many waiting connect operations|1 1|timeout", run [[
        local options, sockets = { pool = "one", pool_size = 1, backlog = 1 }, {}
        for i = 1, 3 do
          sockets[i] = resty.tcp(a)
          sockets[i]:settimeout(50)
        end
        assert(sockets[1]:connect("10.0.0.2", 80, options))
        local second = ngx.thread.spawn(function() return sockets[2]:connect("10.0.0.2", 80, options) end)
        local full = select(2, sockets[3]:connect("10.0.0.2", 80, options))
        sockets[1]:setkeepalive()
        local _, ok = ngx.thread.wait(second)
        local reused = sockets[2]:getreusedtimes()
        local slow = select(2, sockets[3]:connect("10.0.0.2", 80, options))
        sockets[2]:close()
        assert(sockets[3]:connect("10.0.0.2", 80, options) and sockets[3]:getreusedtimes() == 0)
        sockets[3]:close()
        return full .. "|" .. ok .. " " .. reused .. "|" .. slow
      ]])
      -- Who is dropped while it queues is not let in.
      assert.equal("1", run [[
        local options = { pool = "dropped", pool_size = 1, backlog = 2 }
        local first, dropped, last = resty.tcp(a), resty.tcp(a), resty.tcp(a)
        first:connect("10.0.0.2", 80, options)
        local thread = ngx.thread.spawn(function() return dropped:connect("10.0.0.2", 80, options) end)
        local waits = ngx.thread.spawn(function() return last:connect("10.0.0.2", 80, options) end)
        ngx.thread.kill(thread)
        first:close()
        last:settimeout(1000)
        local _, ok = ngx.thread.wait(waits)
        return tostring(ok)
      ]])
      assert.matches('bad "pool_size" option value: 0', run [[
        local socket = resty.tcp(a)
        return (select(2, pcall(socket.connect, socket, "10.0.0.2", 80, { pool_size = 0 })))
      ]])
    end)

    it("has UDP sockets", function()
      assert.equal("closed|1|1|pong|po|timeout|connection refused|1 closed", run [[
        local peer = b:udp()
        peer:setsockname("*", 53)
        local thread = ngx.thread.spawn(function()
          for i = 1, 2 do
            local data, host, port = peer:receivefrom()
            peer:sendto((data:gsub("i", "o")), host, port)
          end
        end)
        local socket, results = resty.udp(a), {}
        results[1] = select(2, socket:send("ping"))
        results[2] = socket:setpeername("server", 53)
        results[3] = socket:send { "p", { "ing" } }
        results[4] = socket:receive()
        socket:send("ping")
        results[5] = socket:receive(2)
        socket:settimeout(20)
        results[6] = select(2, socket:receive())
        peer:close()
        socket:setpeername("10.0.0.2", 54)
        socket:send("anybody?")
        results[7] = select(2, socket:receive())
        results[8] = socket:close() .. " " .. select(2, socket:close())
        return table.concat(results, "|")
      ]])
    end)
  end)
end)
