-- TCP sockets by method: what each gives and takes.
local netstack = require "netstack"
local helper = require "spec.helper"

local spawn, sleep, now = netstack.spawn, netstack.sleep, netstack.now

local function results(...)
  return { ... }
end

local function failure(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  return err
end

describe("TCP socket", function()
  after_each(helper.nothing_left)

  for _, family in ipairs(helper.families) do
    -- A spec with a connection in a run.
    local function spec(name, fn, config)
      it(name .. ", " .. family.name, function()
        local a, b = helper.pair(config or { seed = 1 })
        netstack.run(function()
          local client, server = helper.connection(a, b, family)
          fn(client, server, a, b)
          client:close()
          server:close()
        end, { timeout = 10000 })
      end)
    end

    describe("receive", function()
      spec("takes lines, with and without their ends", function(client, server)
        client:send("one\ntwo\r\n\n\r\nth\rree\r\nfour\r\nfive\nsix")
        client:shutdown("send")
        sleep(0.1)
        assert.equal("one", server:receive())
        assert.equal("two", server:receive("*l"))
        assert.equal("", server:receive("l"))
        assert.equal("", server:receive("*l"))
        assert.equal("three", server:receive("*l")) -- as LuaSocket: every carriage return goes
        assert.equal("four\r\n", server:receive("*L"))
        assert.equal("five\n", server:receive("L"))
        assert.same({ nil, "closed", "six" }, results(server:receive("*L")))
        assert.same({ nil, "closed", "" }, results(server:receive("*L")))
        assert.same({ nil, "closed", "" }, results(server:receive("*a")))
      end)

      spec("takes a number of bytes, and none", function(client, server)
        assert.equal("", server:receive(0))
        client:send("0123456789")
        assert.equal("012", server:receive(3))
        assert.equal("", server:receive(0))
        assert.equal("3456", server:receive("4"))
        spawn(function()
          for _ = 1, 3 do
            sleep(1)
            client:send("abc")
          end
        end)
        assert.equal("789abcabc", server:receive(9))
        assert.equal("abc", server:receive_some(1000))
        client:shutdown("send")
        assert.same({ nil, "closed", "" }, results(server:receive(1)))
        assert.equal("", server:receive(0))
        assert.same({ nil, "closed" }, results(server:receive_some()))
      end)

      spec("takes all until the end", function(client, server)
        spawn(function()
          for i = 1, 5 do
            client:send(i .. "\n")
            sleep(1)
          end
          client:shutdown("send")
        end)
        assert.equal("1\n2\n3\n4\n5\n", server:receive("*a"))
        assert.same({ nil, "closed", "" }, results(server:receive("a")))
      end)

      spec("puts the prefix in front", function(client, server)
        client:send("line\n12345rest")
        assert.equal("a line", server:receive("*l", "a "))
        assert.equal("ab123", server:receive(5, "ab"))
        assert.equal("abcdef", server:receive(3, "abcdef")) -- that much is there already
        assert.equal("6", server:receive(1, 6))
        client:shutdown("send")
        assert.equal("the 45rest", server:receive("*a", "the "))
        assert.same({ nil, "closed", "x" }, results(server:receive(2, "x")))
        assert.same({ nil, "closed", "x" }, results(server:receive("*l", "x")))
      end)

      spec("hands back what came before a timeout; as prefix it goes on", function(client, server)
        for _, mode in ipairs { "b", "t" } do
          server:settimeout(nil, mode == "b" and "t" or "b")
          server:settimeout(0.9, mode)
          for _, case in ipairs { { "*l", "some text\r\n", "some text" }, { 9, "nine chrs", "nine chrs" },
            { "*L", "x\r\n", "x\r\n" } } do
            local pattern, data, expected = case[1], case[2], case[3]
            spawn(function()
              for i = 1, #data do
                sleep(1)
                client:send(data, i, i)
              end
            end)
            local timeouts = 0
            local got, err, partial = server:receive(pattern)
            while not got do
              assert.equal("timeout", err)
              assert.equal(data:sub(1, #partial), partial)
              timeouts = timeouts + 1
              got, err, partial = server:receive(pattern, partial)
            end
            assert.equal(expected, got)
            assert.is_true(timeouts >= #data - 1)
          end
        end
      end)

      spec("loses no byte by timeouts, whenever they come", function(client, server)
        local total = 300000
        spawn(function()
          local bytes = helper.stream(5)
          for _ = 1, 300 do
            client:send(bytes(1000))
            sleep(0.007)
          end
          client:shutdown("send")
        end)
        server:settimeout(0.005)
        local expected, got = helper.stream(5), 0
        local err
        repeat
          local data, why, partial = server:receive(777)
          local part = data or partial
          err = why
          assert.is_true(part == expected(#part))
          got = got + #part
        until err == "closed"
        assert.equal(total, got)
      end)

      spec("refuses other patterns", function(_, server)
        assert.matches("bad argument #1 to 'receive'", failure(server.receive, server, "*x"))
        assert.matches("bad argument #1 to 'receive'", failure(server.receive, server, -1))
        assert.matches("bad argument #1 to 'receive'", failure(server.receive, server, 1.5))
        assert.matches("bad argument #1 to 'receive'", failure(server.receive, server, {}))
        assert.matches("bad argument #2 to 'receive'", failure(server.receive, server, 1, {}))
        assert.matches("bad argument #1 to 'receive_some'", failure(server.receive_some, server, 0))
      end)

      spec("may be called by two tasks at once", function(client, server)
        local one = spawn(function() return server:receive(3) end)
        local two = spawn(function() return server:receive(3) end)
        sleep(1)
        client:send("123456")
        assert.same({ "123", "456" }, { one:join(), (two:join()) })
      end)
    end)

    describe("send", function()
      spec("sends a part, and says the last index", function(client, server)
        assert.equal(10, client:send("0123456789"))
        assert.equal(10, client:send("0123456789", 5))
        assert.equal(7, client:send("0123456789", 5, 7))
        assert.equal(9, client:send("0123456789", -3, -2))
        assert.equal(0, client:send(""))
        assert.equal(4, client:send("0123456789", 5, 4))
        assert.equal("0123456789" .. "456789" .. "456" .. "78", server:receive(21))
        assert.matches("bad argument #1 to 'send'", failure(client.send, client, {}))
        assert.matches("bad argument #1 to 'send'", failure(client.send, client))
      end)

      spec("says how far it came in time, and goes on from there", function(client, server)
        local data = ("0123456789abcdef"):rep(40000)
        local start = now()
        client:settimeout(2, "t")
        local ok, err, last = client:send(data)
        assert.is_nil(ok)
        assert.equal("timeout", err)
        assert.is_true(last > 500000 and last < #data, last)
        assert.is_true(math.abs(now() - start - 2) < 0.01)
        local reader = spawn(function() return server:receive(#data) end)
        while last < #data do
          ok, err, last = client:send(data, last + 1)
          if ok then break end
          assert.equal("timeout", err)
        end
        assert.is_true(reader:join() == data)
      end)

      spec("sends small pieces at once without Nagle's algorithm, together with it", function(client, server, a)
        local function segments(nodelay)
          client:setoption("tcp-nodelay", nodelay)
          local before = a:stats().out_packets
          for _ = 1, 100 do client:send("x") end
          server:receive(100)
          return a:stats().out_packets - before
        end
        assert.is_true(segments(true) >= 100)
        assert.is_true(segments(false) < 20)
      end)
    end)

    describe("tells", function()
      spec("its addresses", function(client, server, a, b)
        local host, port, inet = client:getsockname()
        assert.equal(family.a, host)
        assert.is_true(port >= 1024 and port <= 65535)
        assert.equal(family.inet, inet)
        assert.same({ family.b, 80, family.inet }, results(client:getpeername()))
        assert.same({ family.b, 80, family.inet }, results(server:getsockname()))
        assert.same({ family.a, port, family.inet }, results(server:getpeername()))

        local socket = a:tcp()
        assert.same({ nil, "not connected" }, results(socket:getsockname()))
        assert.same({ nil, "not connected" }, results(socket:getpeername()))
        for text, expected in pairs { ["*"] = "unspec", [family.any] = family.inet, [family.b] = family.inet } do
          local listener = b:bind(text, 1234)
          assert.same({ text, 1234, expected }, results(listener:getsockname()))
          assert.same({ nil, "not connected" }, results(listener:getpeername()))
          listener:close()
        end
        local listener = b:bind(family.any, 0)
        assert.is_true(select(2, listener:getsockname()) >= 1024)
        -- Bound to any, connected from one.
        assert.equal(1, socket:bind("*", 5000))
        assert.same({ "*", 5000, "unspec" }, results(socket:getsockname()))
        assert.equal(1, socket:connect(family.b, (select(2, listener:getsockname()))))
        assert.same({ family.a, 5000, family.inet }, results(socket:getsockname()))
        socket:close()
        listener:close()
      end)

      spec("what it is", function(client, server)
        assert.equal("tcp (ESTABLISHED)", tostring(client))
        client:send("12345")
        assert.equal(5, client:info().unacked)
        sleep(0.1)
        assert.is_true(server:dirty())
        assert.is_false(client:dirty())
        local info = client:info()
        for _, name in ipairs { "rtt", "rttvar", "rto", "cwnd", "ssthresh", "snd_wnd", "rcv_wnd", "mss", "retransmits",
          "unacked" } do
          assert.is_number(info[name], name)
        end
        assert.equal("ESTABLISHED", info.state)
        assert.equal(0, info.unacked)
        assert.equal(0, info.retransmits)
        assert.equal(1500 - family.header - 20, info.mss)
        assert.equal(262144, info.rcv_wnd)
        assert.equal(262144 - 5, server:info().rcv_wnd)
        assert.is_true(info.rto >= 0.2 and info.rto <= 1)
        server:receive(5)
        assert.is_false(server:dirty())
        sleep(1)
        local received, sent, age = client:getstats()
        assert.same({ 0, 5 }, { received, sent })
        assert.is_true(math.abs(age - 1.1) < 0.01)
        assert.same({ 5, 0 }, { (server:getstats()), (select(2, server:getstats())) })
        client:close()
        assert.equal("tcp (closed)", tostring(client))
      end)
    end)

    describe("options", function()
      spec("are set and told", function(client)
        local defaults = { ["tcp-nodelay"] = false, keepalive = false, ["tcp-keepidle"] = 7200, ["tcp-keepintvl"] = 75,
          ["tcp-keepcnt"] = 9, reuseaddr = false, ["ipv6-v6only"] = false, ["ip-tos"] = 0 }
        for name, value in pairs(defaults) do assert.equal(value, client:getoption(name), name) end
        assert.same({ on = false, timeout = 0 }, client:getoption("linger"))
        for name, value in pairs { ["tcp-nodelay"] = true, keepalive = true, ["tcp-keepidle"] = 12.5,
          ["tcp-keepintvl"] = 3, ["tcp-keepcnt"] = 2, reuseaddr = true, ["ip-ttl"] = 5, ["ip-tos"] = 16,
          ["ipv6-unicast-hops"] = 7 } do
          assert.equal(1, client:setoption(name, value), name)
          assert.equal(value, client:getoption(name), name)
        end
        assert.matches("bad argument #1 to 'setoption' %(unknown option 'nodelay'%)",
          failure(client.setoption, client, "nodelay", true))
        assert.matches("bad argument #1 to 'getoption' %(unknown option 'x'%)", failure(client.getoption, client, "x"))
        for name, value in pairs { ["tcp-nodelay"] = 1, ["ip-ttl"] = 0, ["ip-tos"] = 256, linger = true,
          ["tcp-keepidle"] = -1, ["tcp-keepcnt"] = 1.5, keepalive = "yes" } do
          assert.matches("bad argument #2 to 'setoption'", failure(client.setoption, client, name, value))
        end
        assert.matches("bad argument #2 to 'setoption'", failure(client.setoption, client, "linger", { timeout = -1 }))
        client:close()
        assert.same({ nil, "closed" }, results(client:setoption("keepalive", true)))
        assert.same({ nil, "closed" }, results(client:getoption("keepalive")))
        assert.matches("unknown option", failure(client.setoption, client, "x", true))
      end)

      it("reach the packets, " .. family.name, function()
        netstack.run(function()
          local socket, peer = helper.by_hand(family)
          socket:setoption(family.name == "IPv4" and "ip-ttl" or "ipv6-unicast-hops", 3)
          socket:setoption("ip-tos", 16)
          socket:send("x")
          local segment = peer:take(1)
          assert.equal(3, segment.ttl)
          assert.equal(16, segment.tos)
          socket:abort()
        end)
      end)

      spec("and timeouts are not inherited but for TCP's", function(_, _, a, b)
        local listener = b:bind("*", 90)
        listener:settimeout(1)
        listener:setoption("tcp-nodelay", true)
        listener:setoption("linger", { on = true, timeout = 0 })
        local client = a:connect(family.b, 90)
        local server = listener:accept()
        assert.same({}, results(server:gettimeout()))
        assert.is_true(server:getoption("tcp-nodelay"))
        assert.is_false(server:getoption("linger").on)
        local reader = spawn(function() return server:receive(1) end)
        sleep(1000)
        client:send("x")
        assert.equal("x", reader:join())
        client:close()
        server:close()
        listener:close()
      end)
    end)

    describe("timeouts", function()
      spec("count each wait, or the call", function(client, server)
        local function receive(seconds, mode)
          server:settimeout(nil, "b")
          server:settimeout(nil, "t")
          assert.equal(1, server:settimeout(seconds, mode))
          local start = now()
          local data, err = server:receive(5)
          return data, err, math.floor((now() - start) * 10 + 0.5) / 10
        end
        assert.same({ nil, "timeout", 2 }, results(receive(2)))
        assert.same({ nil, "timeout", 2 }, results(receive(2, "b")))
        assert.same({ nil, "timeout", 2 }, results(receive(2, "t")))
        assert.same({ nil, "timeout", 0 }, results(receive(0)))
        server:settimeout(3, "b")
        server:settimeout(7, "t")
        assert.same({ 3, 7 }, results(server:gettimeout()))
        server:settimeout(-1)
        assert.same({ nil, 7 }, { server:gettimeout() })
        assert.matches("bad argument #2 to 'settimeout'", failure(server.settimeout, server, 1, "x"))
        assert.matches("bad argument #1 to 'settimeout'", failure(server.settimeout, server, "1"))
        client:send("12345")
        assert.equal("12345", server:receive(5))
      end)

      -- API.md: "each wait, or the whole call".
      spec("of each wait begin anew with what comes", function(client, server)
        spawn(function()
          for i = 1, 5 do
            sleep(1)
            client:send(tostring(i))
          end
        end)
        server:settimeout(1.5, "b")
        assert.equal("12345", server:receive(5))
        spawn(function()
          for i = 1, 5 do
            sleep(1)
            client:send(tostring(i))
          end
        end)
        server:settimeout(3.5, "t")
        assert.same({ nil, "timeout", "123" }, results(server:receive(5)))
        server:settimeout(nil, "t")
        assert.equal("45", server:receive(2))
      end)
    end)

    it("drops SYNs beyond the backlog, " .. family.name, function()
      local a, b = helper.pair { seed = 1 }
      netstack.run(function()
        local listener = b:bind("*", 80, 3)
        local clients = {}
        for i = 1, 3 do clients[i] = assert(a:connect(family.b, 80)) end
        local late = spawn(function() return assert(a:connect(family.b, 80)) end)
        sleep(2)
        assert.equal(2, b:stats().tcp.syn_dropped)
        assert.equal(3, b:sockets()[1].queues.accept)
        local first = listener:accept()
        assert.equal(select(2, clients[1]:getsockname()), select(2, first:getpeername())) -- the oldest
        clients[4] = late:join()
        assert.is_true(math.abs(now() - 3) < 0.01) -- at its third SYN
        assert.equal(1, listener:listen(10)) -- changes the backlog
        for i = 5, 11 do clients[i] = assert(a:connect(family.b, 80)) end
        first:close()
        for _ = 1, 10 do listener:accept():close() end
        for _, client in ipairs(clients) do client:close() end
        listener:close()
      end)
    end)
  end

  it("binds as its address says", function()
    local a, b = helper.pair { seed = 1 }
    netstack.run(function()
      local taken, other = { nil, "address already in use" }, { nil, "address not available" }
      for first, rest in pairs {
        ["*"] = { ["*"] = taken, ["0.0.0.0"] = taken, ["::"] = taken, ["10.0.0.2"] = taken, ["fd00::2"] = taken },
        ["0.0.0.0"] = { ["*"] = taken, ["0.0.0.0"] = taken, ["10.0.0.2"] = taken, ["::"] = 1, ["fd00::2"] = 1 },
        ["::"] = { ["*"] = taken, ["::"] = taken, ["fd00::2"] = taken, ["0.0.0.0"] = 1, ["10.0.0.2"] = 1 },
        ["10.0.0.2"] = { ["*"] = taken, ["0.0.0.0"] = taken, ["10.0.0.2"] = taken, ["::"] = 1 },
      } do
        local listener = assert(b:bind(first, 80))
        for second, expected in pairs(rest) do
          local socket, err = b:bind(second, 80)
          if expected == 1 then socket:close() else assert.same(expected, { socket, err }, first .. " " .. second) end
        end
        listener:close()
      end
      assert.same(other, results(b:bind("10.0.0.1", 80)))
      assert.same({ nil, "invalid address" }, results(b:bind("10.0.0", 80)))
      assert.matches("bad argument #2 to 'bind'", failure(b.bind, b, "*", 70000))
      assert.matches("bad argument #2 to 'bind'", failure(b.bind, b, "*", 1.5))
      collectgarbage() -- what the error left

      -- Only its own family gets through.
      for text, reached in pairs { ["0.0.0.0"] = "10.0.0.2", ["::"] = "fd00::2", ["10.0.0.2"] = "10.0.0.2" } do
        local listener = assert(b:bind(text, 80))
        for _, host in ipairs { "10.0.0.2", "fd00::2" } do
          local client, err = a:connect(host, 80)
          if host == reached then
            client:close()
            listener:accept():close()
          else
            assert.equal("connection refused", err)
          end
        end
        listener:close()
      end
      local only = b:tcp()
      only:setoption("ipv6-v6only", true)
      assert.equal(1, only:bind("*", 80))
      assert.same({ "::", 80, "inet6" }, results(only:getsockname()))
      only:close()
    end)
  end)

  it("reaches its own stack", function()
    local stack = helper.watch(netstack.new { seed = 1, loopback = true })
    netstack.run(function()
      for _, family in ipairs(helper.families) do
        local listener = assert(stack:bind("*", 80))
        local client = assert(stack:connect(family.loopback, 80))
        local server = assert(listener:accept())
        helper.exchange(client, server, 4 * 1024 * 1024)
        listener:close()
      end
    end)
  end)
end)
