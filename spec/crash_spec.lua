-- The crash of a stack and its restart: what it forgets, what it keeps, what others hear of it (nothing), and how they
-- find out.
local core = require "netstack.core"
local netstack = require "netstack"
local frames = require "spec.frames"
local helper = require "spec.helper"
local packets = require "spec.packets"

local rep = string.rep
local run, sleep, spawn, now = netstack.run, netstack.sleep, netstack.spawn, netstack.now
local unpack = table.unpack or unpack -- luacheck: ignore 143

local MEDIA = { "ip", "ethernet" }

local function closed(...)
  assert.same({ nil, "closed" }, { (...), (select(2, ...)) })
end

-- Two stacks like those of netstack.pair, on that medium, once their addresses are surely theirs; and a's interface
-- with the end of the pipe that it is on.
local function pair(medium, config, pipe)
  local stacks, options = {}, { medium = medium, checksum = true }
  for key, value in pairs(pipe or {}) do options[key] = value end
  local ends, interfaces = { netstack.pipe(options) }, {}
  for i, name in ipairs { "a", "b" } do
    local own = { seed = i, name = name }
    for key, value in pairs(config or {}) do own[key] = value end
    stacks[i] = helper.watch(assert(netstack.new(own)))
    interfaces[i] = assert(stacks[i]:attach(ends[i], {
      addresses = { ("10.0.0.%d/24"):format(i), ("fd00::%d/64"):format(i) } }))
  end
  sleep(2)
  return stacks[1], stacks[2], interfaces[1], ends[1]
end

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

-- That nothing of what programs and peers have left is there any more.
local function assert_empty(stack)
  local stats = stack:stats()
  assert.same({}, stack:sockets())
  assert.same({ 0, 0, 0, 0, 0, 0, 0, 0 }, { stats.sockets, stats.tcp.connections, stats.tcp.time_wait,
    stats.queued_commands, stats.reassembly.datagrams, stats.reassembly.bytes, stats.path_mtus, stats.groups.entries })
  assert.same({ 0, 0, 0 }, { stats.neighbours.entries, stats.neighbours.incomplete, stats.neighbours.waiting })
  assert.same({ 0, 0 }, { stats.memory.blocks, stats.memory.bytes })
  stack:poll(stats.time)
  assert.is_nil(stack:poll_delay(stats.time))
end

for _, medium in ipairs(MEDIA) do
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

  describe("A crashed stack (" .. medium .. ")", function()
    after_each(helper.nothing_left)

    it("makes no sockets and runs no commands", function()
      run(function()
        local a, b, _, device = pair(medium, { hosts = { peer = "10.0.0.2" }, dns = { "10.0.0.2" } })
        local channel = a:channel()
        a:crash()
        local sent = device:stats().tx_packets
        closed(a:tcp())
        closed(a:udp())
        closed(a:raw("ipv4", 1))
        closed(a:connect("10.0.0.2", 80))
        closed(a:bind("*", 80))
        closed(a:ping("10.0.0.2"))
        closed(a:ping("peer"))
        closed(a:resolve("peer"))
        closed(a:resolve("elsewhere"))
        closed(channel:submit("tcp.connect", { host = "10.0.0.2", port = 80 }))
        closed(channel:post("udp.bind", { host = "*", port = 80 }))
        closed(channel:request("tcp.listen", { host = "*", port = 80 }))
        closed(channel:request("stack.set_addresses", { addresses = {} }))
        closed(channel:tcp())
        closed(channel:connect("10.0.0.2", 80))
        closed(a:channel():submit("raw.open", { family = "ipv4", protocol = 1 }))
        assert.equal(0, a:process_commands())
        assert_empty(a)
        a:restart()
        sleep(2)
        assert(channel:request("tcp.listen", { host = "*", port = 80 }))
        assert.is_nil(b:connect("10.0.0.1", 81))
        assert.is_true(a:ping("peer") < 1)
        if medium == "ip" then assert.is_true(device:stats().tx_packets - sent <= 3) end
        a:crash()
      end)
    end)

    it("drops what comes, counts it, and tells the trace", function()
      run(function()
        local a, b, interface, device = pair(medium)
        a:ping("10.0.0.2")
        local causes, others = {}, 0
        a:crash()
        a:trace(function(event)
          if event.type == "drop" and event.interface == "eth0" and #event.packet > 0 then
            causes[#causes + 1] = event.cause
          else
            others = others + 1
          end
        end)
        local sent, dropped = device:stats().tx_packets, interface:stats().rx_dropped
        local udp = b:udp()
        for _ = 1, 3 do udp:sendto("x", "10.0.0.1", 53) end
        b:ping("10.0.0.1", { timeout = 0.5 })
        assert.same({ "stack crashed", "stack crashed", "stack crashed", "stack crashed" }, causes)
        assert.equal(0, others)
        assert.equal(dropped + 4, interface:stats().rx_dropped)
        assert.equal(sent, device:stats().tx_packets)
        a:restart()
        a:trace(nil)
        udp:close()
      end)
    end)

    it("can be looked at and configured, and stays silent", function()
      run(function()
        local a, b, interface, device = pair(medium)
        local near, far = netstack.pipe { medium = medium }
        a:crash()
        local sent = device:stats().tx_packets
        assert(interface:set_addresses { "10.0.0.7/24", "fd00::7/64" })
        assert.same({ "10.0.0.7/24", "fd00::7/64" }, a:addresses())
        assert(a:add_route("10.9.0.0/16", "10.0.0.2"))
        assert(a:remove_route("10.9.0.0/16"))
        assert(a:add_route("10.8.0.0/16", "10.0.0.2"))
        assert(interface:set_gateway("10.0.0.2"))
        assert(interface:down())
        assert.is_false(interface:is_up())
        assert(interface:up())
        assert.is_true(interface:is_up())
        assert.is_table(interface:stats().guarded)
        local second = assert(a:attach(near, { addresses = { "10.1.0.1/24", "fd01::1/64" } }))
        assert.equal("a", a:name())
        assert.is_false((a:poll(now())))
        sleep(10)
        assert.equal(sent, device:stats().tx_packets)
        assert.same({}, packets.drain(far))
        assert.is_nil(a:poll_delay(now()))
        a:restart()
        sleep(2)
        assert.is_true(b:ping("10.0.0.7") < 1)
        assert.is_true(b:ping("fd00::7") < 1)
        assert.is_true(second:is_up())
        assert.equal(medium == "ethernet", #packets.drain(far) > 0) -- its addresses are announced there
        local found
        for _, route in ipairs(a:routes()) do found = found or route.prefix == "10.8.0.0/16" end
        assert.is_true(found)
        assert(second:detach())
        a:crash()
        assert(interface:detach())
        a:restart()
        assert.same({}, a:addresses())
      end)
    end)

    it("forgets what was not put together, and what is known of ways", function()
      run(function()
        local a, b = pair(medium)
        local raw = b:raw("ipv4", 17)
        local datagram = packets.udp("10.0.0.2", 9, "10.0.0.1", 9, rep("x", 2000))
        raw:send(packets.ipv4("10.0.0.2", "10.0.0.1", 17, datagram:sub(21, 1020), { id = 7, fragment = 0x2000 }))
        local client = assert(a:udp())
        client:setpeername("10.0.0.2", 9)
        client:send(rep("y", 1000))
        local wide = packets.ipv4("10.0.0.1", "10.0.0.2", 17,
          packets.udp("10.0.0.1", select(2, client:getsockname()), "10.0.0.2", 9, rep("y", 1000)):sub(21, 48))
        local icmp = b:raw("ipv4", 1)
        icmp:send(packets.icmp("10.0.0.2", "10.0.0.1", 3, 4, "\0\0" .. packets.u16(700) .. wide))
        sleep(0.1)
        assert.equal(1, a:stats().reassembly.datagrams)
        assert.equal(1, a:stats().path_mtus)
        a:crash()
        assert_empty(a)
        a:restart()
        sleep(100)
        assert.equal(0, a:stats().reassembly.timeouts)
        raw:close()
        icmp:close()
      end)
    end)

    it("draws other numbers than before", function()
      run(function()
        local a, b = pair(medium)
        local raw = b:raw("ipv4", 6)
        local function connect()
          local socket = a:tcp()
          socket:bind("*", 4000)
          socket:settimeout(0)
          socket:connect("10.0.0.2", 80)
          raw:settimeout(5)
          return helper.parse(assert(raw:receive())).seq
        end
        local first = connect()
        a:crash()
        a:restart()
        local second = connect()
        assert.is_not.equal(first, second)
        a:crash()
        raw:close()
      end)
    end)

    it("keeps its memberships no longer, and nobody hears that it left", function()
      run(function()
        local a, b, _, device = pair(medium)
        local member, sender = a:udp(), b:udp()
        member:setsockname("*", 53)
        assert(member:setoption("ip-add-membership", { multiaddr = "224.5.6.7" }))
        assert(member:setoption("ipv6-add-membership", { multiaddr = "ff02::1:5" }))
        sleep(20)
        sender:sendto("x", "224.5.6.7", 53)
        sleep(0.1)
        assert.equal("x", (member:receive()))
        local sent, leaves = device:stats().tx_packets, a:stats().groups.leaves
        a:crash()
        assert_empty(a)
        assert.equal(leaves, a:stats().groups.leaves)
        assert.equal(sent, device:stats().tx_packets)
        a:restart()
        sleep(2)
        local unwanted = a:stats().groups.unwanted
        sender:sendto("x", "224.5.6.7", 53)
        sleep(0.1)
        assert.equal(unwanted + 1, a:stats().groups.unwanted)
        sender:close()
      end)
    end)
  end)
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

describe("On an Ethernet, a restart", function()
  after_each(helper.nothing_left)

  it("begins as attaching does: with announcements, and without neighbours", function()
    run(function()
      local stack, far, _, announced = frames.by_hand { checksum = true }
      local function kinds(list)
        local names = {}
        for i, frame in ipairs(list) do names[i] = frames.kind(frame) end
        table.sort(names)
        return names
      end
      packets.drain(far)
      local udp = stack:udp()
      udp:sendto("x", "10.0.0.2", 9)
      sleep(0.001)
      assert.equal("arp request", frames.kind(frames.next(far)))
      frames.answer(far, frames.arp { operation = 1, host = "10.0.0.1", target = "10.0.0.2" })
      sleep(0.001)
      assert.equal("ipv4", frames.kind(frames.next(far)))
      assert.equal(1, stack:stats().neighbours.entries)
      stack:crash()
      assert.equal(0, stack:stats().neighbours.entries)
      assert(far:send(frames.arp { operation = 1, host = "10.0.0.2", target = "10.0.0.1" }))
      sleep(5)
      assert.same({}, packets.drain(far))
      stack:restart()
      sleep(0.001)
      assert.same(kinds(announced), kinds(packets.drain(far)))
      sleep(2)
      packets.drain(far)
      local again = stack:udp()
      again:sendto("x", "10.0.0.2", 9)
      sleep(0.001)
      assert.equal("arp request", frames.kind(frames.next(far)))
      stack:crash()
    end)
  end)

  it("makes the address of the link again that it had given up", function()
    run(function()
      local stack, far, interface = frames.by_hand { checksum = true, detecting = true }
      local own = interface:link_local():match("^[^%%]*")
      assert(far:send(frames.nd { type = 136, flags = 0x20, source = own, destination = frames.ALL_NODES, target = own,
        options = "\2\1" .. frames.OTHER, to = "\51\51\0\0\0\1" }))
      sleep(0.01)
      assert.same({ nil, "not supported" }, { interface:link_local() })
      stack:crash()
      stack:restart()
      sleep(2)
      assert.equal(own, interface:link_local():match("^[^%%]*"))
    end)
  end)

  it("asks for another lease, of which nothing is left, and nobody was told", function()
    run(function()
      local stack = helper.watch(netstack.new { seed = 1 })
      local near, far = netstack.pipe { medium = "ethernet", capacity = 0, checksum = true }
      local interface = assert(stack:attach(near, { mac = "02:00:00:00:00:01", dhcp = true,
        addresses = { "10.9.0.1/24" } }))
      -- The DHCP message in the next frame that has one: its type and id.
      local function hear(timeout)
        local frame
        repeat
          frame = far:receive(timeout)
          local p = frame and frames.kind(frame) == "ipv4" and packets.parse(frame:sub(15))
          if p and p.destination_port == 67 then return p.data:byte(243), p.data:sub(5, 8) end
        until not frame
      end
      local function say(kind, xid)
        local message = "\2\1\6\0" .. xid .. rep("\0", 8) .. packets.bytes "10.0.0.50" .. rep("\0", 8) ..
          frames.OWN .. rep("\0", 202) .. "\99\130\83\99\53\1" .. kind .. "\54\4\10\0\0\2" ..
          "\1\4\255\255\255\0\3\4\10\0\0\2\6\4\10\0\0\2\51\4\0\0\14\16\255"
        far:send(frames.ip(packets.udp("10.0.0.2", 67, "255.255.255.255", 68, message), frames.ALL))
        sleep(0.001)
      end
      local function bind()
        local kind, xid = hear(1)
        assert.equal(1, kind)
        say("\2", xid)
        assert.equal(3, (hear(1)))
        say("\5", xid)
        assert.equal("BOUND", interface:lease().state)
        return xid
      end
      local first = bind()
      assert.same({ "10.0.0.50/24", "10.9.0.1/24" }, interface:addresses())
      assert.same({ "10.0.0.2" }, core.learned_dns(stack))
      assert.equal("10.0.0.2", stack:routes()[3].gateway)
      local udp = assert(stack:udp())
      udp:setsockname("10.0.0.50", 53)
      sleep(1)
      packets.drain(far)
      stack:crash()
      assert.same({ "10.9.0.1/24" }, interface:addresses())
      assert.equal(1, #stack:routes())
      assert.is_nil(core.learned_dns(stack))
      assert.equal("SELECTING", interface:lease().state)
      assert.is_nil(interface:lease().address)
      assert.is_nil(stack:poll_delay(now()))
      sleep(10000)
      assert.same({}, packets.drain(far))
      stack:restart()
      local time = now()
      assert.is_not.equal(first, bind())
      assert.is_true(now() - time < 0.1)
      stack:close()
    end)
  end)
end)

for _, medium in ipairs(MEDIA) do
  describe("What routers have said (" .. medium .. ")", function()
    after_each(helper.nothing_left)

    it("is forgotten by a crash, and asked for again after the restart", function()
      run(function()
        local stack = helper.watch(netstack.new { seed = 1 })
        local near, far = netstack.pipe { medium = medium, capacity = 0, checksum = true, mtu = 1500 }
        local interface = assert(stack:attach(near, { slaac = true, addresses = { "fd0a::1/64" },
          mac = medium == "ethernet" and "02:00:00:00:00:01" or nil }))
        local own = interface:link_local()
        local function say()
          local frame = frames.router { options = frames.prefix "2001:db8::" .. frames.servers(600, "fd00::53") ..
            frames.link_mtu(1400) }
          assert(far:send(medium == "ethernet" and frame or frame:sub(15)))
          sleep(1.5)
        end
        local function solicits()
          local count = 0
          for _, data in ipairs(packets.drain(far)) do
            local packet = medium == "ethernet" and data:sub(15) or data
            if packet:byte(1) == 0x60 and packet:byte(7) == 58 and packet:byte(41) == 133 then count = count + 1 end
          end
          return count
        end
        sleep(1.5)
        assert.is_true(solicits() > 0)
        say()
        local learned = interface:addresses()
        assert.equal(2, #learned)
        assert.equal("BOUND", interface:slaac().state)
        assert.is_string(interface:slaac().gateway)
        assert.same({ "fd00::53" }, core.learned_dns(stack))
        packets.drain(far)
        local routes = #stack:routes()
        stack:crash()
        local slaac = interface:slaac()
        assert.same({ "fd0a::1/64" }, interface:addresses())
        assert.same({ "SOLICITING", {}, {}, {} }, { slaac.state, slaac.addresses, slaac.routers, slaac.dns })
        assert.same({}, { slaac.gateway, slaac.mtu })
        assert.is_true(#stack:routes() < routes)
        say() -- nobody listens
        sleep(10000)
        assert.same({}, interface:slaac().routers)
        assert.equal(0, solicits())
        assert.is_nil(stack:poll_delay(now()))
        stack:restart()
        sleep(1.5)
        assert.is_true(solicits() > 0)
        assert.equal(own, interface:link_local())
        say()
        assert.same(learned, interface:addresses())
        assert.equal(routes, #stack:routes())
        stack:close()
      end)
    end)
  end)
end
