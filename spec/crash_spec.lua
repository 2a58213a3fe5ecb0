-- The crash of a stack: what it forgets, what others hear of it (nothing), and how they find out once it is restarted.
local core = require "netstack.core"
local netstack = require "netstack"
local crashes = require "spec.crashes"
local helper = require "spec.helper"
local packets = require "spec.packets"

local rep = string.rep
local run, sleep, spawn, now = netstack.run, netstack.sleep, netstack.spawn, netstack.now
local unpack = table.unpack or unpack -- luacheck: ignore 143

local closed, pair, assert_empty = crashes.closed, crashes.pair, crashes.assert_empty

-- A SYN of a host that does not exist, so that the connection stays half-open, sent over a raw socket.
local function send_syn(raw, family, port, from_port)
  local u16 = packets.u16
  local options = "\2\4\5\180"
  local segment = u16(from_port) .. u16(port) .. "\0\0\3\232\0\0\0\0\96\2\255\255\0\0\0\0" .. options
  local source, destination = packets.bytes(family.nobody), packets.bytes(family.a)
  local sum = packets.checksum(source .. destination .. "\0\6" .. u16(#segment) .. segment)
  segment = segment:sub(1, 16) .. u16(sum) .. segment:sub(19)
  assert(raw:send(packets.ip(family.nobody, family.a, 6, segment)))
end

local function states(stack)
  local list = {}
  for i, socket in ipairs(stack:sockets()) do list[i] = socket.protocol .. " " .. socket.state end
  table.sort(list)
  return list
end

for _, medium in ipairs { "ip", "ethernet" } do
  for _, family in ipairs(helper.families) do
    describe(("A crash (%s, %s)"):format(medium, family.name), function()
      after_each(helper.nothing_left)

      -- Connections of stack a in all the states in which they last, and sockets of all kinds with something in them.
      local function crowd(a, b)
        local sockets = {}
        local function keep(socket)
          sockets[#sockets + 1] = socket
          return socket
        end
        local listener = keep(assert(a:bind("*", 80, 8)))
        local theirs = keep(assert(b:bind("*", 81, 8)))
        local forger = keep(assert(b:raw(family.name:lower(), 6)))
        -- 1: data that nobody has read, and that nobody acknowledges the reading of
        local client = keep(assert(b:connect(family.a, 80)))
        local server = keep(assert(listener:accept()))
        client:send(rep("x", 50000))
        server:settimeout(0)
        -- 2: TIME_WAIT, 3: FIN_WAIT_2, 4: CLOSE_WAIT
        for i = 2, 4 do
          local near = assert(a:connect(family.b, 81))
          local far = assert(theirs:accept())
          if i < 4 then near:close() else keep(near) end
          if i == 2 or i == 4 then far:close() else keep(far) end
        end
        -- 5: nobody has accepted it
        keep(assert(b:connect(family.a, 80)))
        send_syn(forger, family, 80, 5000)
        local datagrams = keep(assert(a:udp()))
        datagrams:setsockname("*", 53)
        local sender = keep(assert(b:udp()))
        for _ = 1, 3 do sender:sendto("question", family.a, 53) end
        keep(assert(a:raw(family.name:lower(), 17)))
        sender:sendto("to both", family.a, 53)
        sleep(0.01)
        return sockets, { client = client, server = server, listener = listener, datagrams = datagrams }
      end

      it("forgets all in all states, without a word", function()
        run(function()
          local a, b, _, device = pair(medium)
          local sockets, by_name = crowd(a, b)
          assert.same({ "raw OPEN", "tcp CLOSE-WAIT", "tcp ESTABLISHED", "tcp ESTABLISHED", "tcp FIN-WAIT-2",
            "tcp LISTEN", "tcp SYN-RECEIVED", "tcp TIME-WAIT", "udp BOUND" }, states(a))
          assert.is_true(a:stats().memory.blocks > 0)
          if medium == "ethernet" then assert.equal(1, a:stats().neighbours.incomplete) end
          local sent, dropped = device:stats().tx_packets, a:stats().interfaces
          assert.equal(1, a:crash())
          assert.is_true(a:crashed())
          assert.equal("stack a (crashed)", tostring(a))
          assert_empty(a)
          sleep(100)
          assert.equal(sent, device:stats().tx_packets)
          assert.same(dropped, a:stats().interfaces)
          closed(by_name.server:receive(1))
          closed(by_name.server:send("x"))
          closed(by_name.server:getpeername())
          closed(by_name.server:shutdown("send"))
          closed(by_name.server:info())
          closed(by_name.listener:accept())
          closed(by_name.listener:getsockname())
          closed(by_name.datagrams:receivefrom())
          closed(by_name.datagrams:sendto("x", family.b, 53))
          closed(by_name.datagrams:setoption("broadcast", true))
          assert.equal(1, by_name.server:close())
          for _, socket in ipairs(sockets) do socket:close() end
          sleep(600) -- b's retransmissions are over
          assert.equal(sent, device:stats().tx_packets)
        end)
      end)

      it("wakes whoever waits", function()
        run(function()
          local a, b, _, device = pair(medium, { command_channel_capacity = 1 })
          local listener = assert(a:bind(family.a, 80))
          local client = assert(b:connect(family.a, 80))
          local server = assert(listener:accept())
          local udp, raw, channel = a:udp(), a:raw(family.name:lower(), 200), a:channel()
          udp:setsockname("*", 53)
          local answers = {}
          local function waits(name, fn, ...)
            local arguments = { ... }
            spawn(function()
              local result = { fn(unpack(arguments)) }
              answers[name] = { result[1] == nil, result[2], now() }
            end)
          end
          waits("accept", listener.accept, listener)
          waits("connect", a.connect, a, family.nobody, 81)
          waits("receive", server.receive, server, 10)
          waits("line", server.receive, server)
          waits("send", server.send, server, rep("x", 2 ^ 20)) -- the client reads nothing
          waits("udp", udp.receivefrom, udp)
          waits("raw", raw.receive, raw)
          waits("ping", a.ping, a, family.nobody, { timeout = 100 })
          local pending = assert(channel:submit("udp.recv", { handle = udp.handle }))
          sleep(0.5)
          assert.is_false(pending:done())
          local queued = assert(channel:submit("tcp.listen", { host = "*", port = 8080 }))
          waits("room", channel.request, channel, "udp.bind", { host = "*", port = 5353 })
          local time = now()
          spawn(function()
            assert.equal(time, now())
            a:crash()
          end):join()
          closed(pending:result())
          closed(queued:result())
          sleep(0)
          for _, name in ipairs { "accept", "connect", "receive", "line", "send", "udp", "raw", "ping", "room" } do
            assert.same({ true, "closed", time }, answers[name], name)
          end
          assert_empty(a)
          local sent = device:stats().tx_packets
          sleep(10)
          assert.equal(sent, device:stats().tx_packets)
          client:abort()
        end)
      end)

      it("is found out by the peer's timeout; after a restart by a reset", function()
        run(function()
          local a, b, interface, device = pair(medium)
          local listener = assert(a:bind("*", 80))
          local silent, heard, quiet = b:connect(family.a, 80), b:connect(family.a, 80), b:connect(family.a, 80)
          for _ = 1, 3 do assert(listener:accept()):send("hello\n") end
          for _, client in ipairs { silent, heard, quiet } do assert.equal("hello", (client:receive())) end
          a:crash()
          local sent, start = device:stats().tx_packets, now()
          assert.equal(4, silent:send("data"))
          assert.same({ nil, "timeout", "" }, { silent:receive() })
          assert.is_true(now() - start > 60)
          assert.equal(sent, device:stats().tx_packets)
          assert.is_true(interface:stats().rx_dropped > 2)
          assert.equal(1, a:restart())
          assert.is_false(a:crashed())
          sleep(2)
          start = now()
          assert.equal(4, heard:send("data"))
          assert.same({ nil, "connection reset", "" }, { heard:receive() })
          assert.same({ nil, "closed", "" }, { heard:receive() })
          assert.is_true(now() - start < 1)
          assert.equal(1, b:stats().tcp.connections) -- who says nothing learns nothing
          assert.equal("ESTABLISHED", quiet:info().state)
          quiet:shutdown("send")
          assert.same({ nil, "connection reset", "" }, { quiet:receive() })
          closed(listener:accept())
          local again = assert(a:bind("*", 80))
          local client = assert(b:connect(family.a, 80))
          client:send("new\n")
          local server = assert(again:accept())
          assert.equal("new", (server:receive()))
          for _, socket in ipairs { silent, heard, quiet, again, client, server } do socket:close() end
        end)
      end)

      it("leaves old handles dead when the stack restarts at once", function()
        run(function()
          local a, b = pair(medium, { command_channel_capacity = 1 })
          local fresh, bound, listener = a:tcp(), a:udp(), assert(a:bind("*", 80))
          bound:setsockname("*", 53)
          local client = assert(b:connect(family.a, 80))
          local server = assert(listener:accept())
          local channel = a:channel()
          local task = spawn(function() return server:receive(1) end)
          local listens = spawn(function() return channel:request("tcp.accept", { handle = listener.handle }) end)
          sleep(0.1)
          local queued = channel:submit("udp.bind", { host = "*", port = 5353 })
          local room = spawn(channel.request, channel, "udp.bind", { host = "*", port = 5354 })
          spawn(function()
            assert.same({ nil, "full" }, { channel:submit("udp.bind", { host = "*", port = 5355 }) })
            a:crash()
            a:restart()
          end):join()
          sleep(0.1)
          closed(task:join())
          closed(listens:join())
          closed(queued:result())
          closed(room:join())
          client:send("x")
          sleep(2)
          closed(fresh:bind("*", 81))
          closed(fresh:connect(family.b, 80))
          closed(fresh:setoption("keepalive", true))
          closed(fresh:listen())
          closed(bound:setpeername(family.b, 9))
          closed(bound:getsockname())
          closed(channel:submit("udp.send", { handle = bound.handle, host = family.b, port = 9, data = "x" }))
          closed(channel:request("tcp.recv", { handle = server.handle }))
          assert.same({}, a:sockets())
          assert.is_true(a:ping(family.b) < 1)
          assert.same({ nil, "connection reset", "" }, { client:receive() })
          client:close()
        end)
      end)

      it("loses nothing of the configuration", function()
        run(function()
          local a, b, interface = pair(medium, { hosts = { peer = family.b }, forwarding = true })
          assert(interface:set_gateway(family.b))
          assert(a:add_route("10.7.0.0/16", "10.0.0.2"))
          assert(a:add_route("fd07::/16", interface))
          local function config()
            return { a:addresses(), a:routes(), interface:is_up(), interface:link_local(), a:name(),
              a:resolve("peer") }
          end
          local before, mac = config(), interface:mac()
          a:crash()
          assert.same({ before[1], before[2] }, { a:addresses(), a:routes() })
          a:restart()
          sleep(2)
          assert.same(before, config())
          assert.equal(mac, (interface:mac()))
          assert.is_true(a:ping("peer") < 1)
          assert.is_true(b:ping(family.a) < 1)
          interface:down()
          a:crash()
          a:restart()
          assert.is_false(interface:is_up())
          assert.same({ nil, "no route" }, { a:ping(family.b) })
          interface:up()
          sleep(2)
          assert.is_true(a:ping(family.b) < 1)
        end)
      end)
    end)
  end
end

describe("A crash", function()
  after_each(helper.nothing_left)

  it("is harmless twice, and so is a restart of what runs; both tell of a stack that is closed", function()
    run(function()
      local a, b = pair("ip")
      assert.is_false(a:crashed())
      assert.equal(1, a:restart())
      assert.is_true(a:ping("10.0.0.2") < 1)
      local socket = a:udp()
      assert.equal(1, a:restart())
      assert.is_string((select(2, socket:getsockname()))) -- "not connected": it lives
      assert.is_not.equal("closed", (select(2, socket:getsockname())))
      assert.equal(1, a:crash())
      assert.equal(1, a:crash())
      assert.equal(1, a:restart())
      assert.equal(1, a:restart())
      assert.is_true(a:ping("10.0.0.2") < 1)
      a:crash()
      assert.equal(1, a:close())
      assert.equal(1, a:close())
      closed(a:crash())
      closed(a:restart())
      closed(a:crashed())
      assert.equal("stack a (closed)", tostring(a))
      b:close()
      closed(b:crash())
      closed(b:restart())
      assert.has_error(function() a.crash({}) end)
      assert.has_error(function() a.crash() end)
      assert.has_error(function() a.restart(1) end)
    end)
  end)

  it("may come from the functions for events and for wakes, from a device in Lua, and from within a loop", function()
    run(function()
      local a, b = pair("ip")
      local listener = assert(a:bind("*", 80))
      local seen = 0
      a:trace(function()
        seen = seen + 1
        a:crash()
      end)
      local socket = b:tcp()
      socket:settimeout(0.5)
      assert.equal(1, socket:connect("10.0.0.1", 80)) -- the crash follows the answer
      socket:send("x")
      assert.same({ nil, "timeout", "" }, { socket:receive() })
      assert.is_true(seen > 0)
      closed(listener:accept())
      assert.is_true(a:crashed())
      a:trace(function() a:restart() end) -- the next SYN that is dropped has it go on
      assert.same({ nil, "connection refused" }, { b:connect("10.0.0.1", 80) })
      a:trace(nil)
      local wakes = 0
      a:on_wake(function(stack)
        wakes = wakes + 1
        stack:crash()
        stack:restart()
      end)
      assert.is_true(b:ping("10.0.0.1") < 1)
      assert.is_true(wakes > 0)
      a:on_wake(nil)
      socket:close()

      local stack
      local device = netstack.device { mtu = 1500, transmit = function() stack:crash() end }
      stack = helper.watch(netstack.new())
      stack:attach(device, { addresses = { "10.5.0.1/24" } })
      closed(stack:connect("10.5.0.2", 80))
      assert.is_true(stack:crashed())
      stack:restart()
      closed(stack:ping("10.5.0.2"))
    end)
  end)

  it("frees connections that still sent in the background, so that run does not wait for them", function()
    local a, b
    run(function()
      a, b = pair("ip")
      local listener = assert(b:bind("*", 80))
      local client = assert(a:connect("10.0.0.2", 80))
      local server = assert(listener:accept())
      client:send(rep("x", 200000))
      client:close()
      assert.is_true(core.unsettled() > 0)
      a:crash()
      assert.equal(0, core.unsettled())
      server:abort()
      listener:close()
    end)
  end)

  it("forgets what waits for room, and what the stack has sent to itself", function()
    run(function()
      local near, far = netstack.pipe { capacity = 3 }
      local stack = helper.watch(netstack.new { seed = 1, loopback = true })
      local interface = assert(stack:attach(near, { addresses = { "10.0.0.1/24", "fd00::1/64" } }))
      local udp, other = stack:udp(), stack:udp()
      assert(udp:sendto(rep("x", 20000), "10.0.0.2", 9)) -- in pieces
      other:settimeout(0)
      assert.same({ nil, "timeout" }, { other:sendto("behind", "10.0.0.2", 9) })
      local listener = assert(stack:bind("*", 80))
      local selves = { assert(stack:connect("127.0.0.1", 80)), assert(stack:connect("::1", 80)) }
      for _, socket in ipairs(selves) do socket:send(rep("x", 2000)) end
      assert.is_true(interface:stats().waiting > 10)
      stack:crash()
      assert.equal(0, interface:stats().waiting)
      assert_empty(stack)
      assert.equal(3, #packets.drain(far)) -- they were on their way
      sleep(1)
      assert.same({}, packets.drain(far))
      closed(listener:accept())
      stack:restart()
      sleep(1)
      assert.same({}, packets.drain(far))
      listener = assert(stack:bind("*", 80))
      for _, host in ipairs { "127.0.0.1", "::1", "10.0.0.1", "fd00::1" } do
        local socket = assert(stack:connect(host, 80))
        local server = assert(listener:accept())
        socket:send("hello\n")
        assert.equal("hello", (server:receive()))
        socket:close()
        server:close()
      end
      listener:close()
    end)
  end)

  it("of a router forgets nothing that a connection through it needs", function()
    run(function()
      local hosts, router = {}, helper.watch(netstack.new { forwarding = true, seed = 9 })
      for i = 1, 2 do
        local inner, outer = netstack.pipe { medium = i == 1 and "ip" or "ethernet", checksum = true }
        hosts[i] = helper.watch(netstack.new { seed = i })
        router:attach(inner, { addresses = { ("10.%d.0.1/24"):format(i) } })
        hosts[i]:attach(outer, { addresses = { ("10.%d.0.2/24"):format(i) }, gateway = ("10.%d.0.1"):format(i) })
      end
      local listener = assert(hosts[2]:bind("*", 80))
      local client = assert(hosts[1]:connect("10.2.0.2", 80))
      local server = assert(listener:accept())
      router:crash()
      assert.same({ nil, "timeout" }, { hosts[1]:ping("10.2.0.2", { timeout = 0.5 }) })
      client:send("through\n")
      local start = now()
      spawn(function()
        sleep(5)
        router:restart()
      end)
      assert.equal("through", (server:receive()))
      assert.is_true(now() - start >= 5)
      client:close()
      server:close()
      listener:close()
    end)
  end)

  it("ends lookups that are under way, and forgets their answers", function()
    run(function()
      local a, b = pair("ip", { dns = { "10.0.0.2" } })
      local server, questions = b:udp(), 0
      server:setsockname("*", 53)
      local silent = false
      netstack.daemon(function()
        while true do
          local query, host, port = server:receivefrom()
          if not query then return end
          questions = questions + 1
          local type = query:byte(-3)
          local answer = type == 1 and "\192\12\0\1\0\1\0\0\0\60\0\4\10\9\9\9" or ""
          if not silent then
            server:sendto(query:sub(1, 2) .. "\129\128\0\1" .. packets.u16(#answer > 0 and 1 or 0) .. "\0\0\0\0" ..
              query:sub(13) .. answer, host, port)
          end
        end
      end)
      assert.equal("10.9.9.9", (a:resolve("host.test")))
      local asked = questions
      assert.equal("10.9.9.9", (a:resolve("host.test")))
      assert.equal(asked, questions)
      a:crash()
      a:restart()
      assert.equal("10.9.9.9", (a:resolve("host.test")))
      assert.equal(2 * asked, questions)
      silent = true
      for _, restarts in ipairs { false, true } do
        local lookup = spawn(function() return a:resolve("other.test") end)
        local ping = spawn(function() return a:ping("third.test") end)
        sleep(1)
        local time = now()
        a:crash()
        if restarts then a:restart() end
        closed(lookup:join())
        closed(ping:join())
        assert.equal(time, now())
        a:restart()
      end
      server:close()
    end)
  end)
end)
