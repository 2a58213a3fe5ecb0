local netstack = require "netstack"
local packets = require "spec.packets"

local run, now, sleep, spawn = netstack.run, netstack.now, netstack.sleep, netstack.spawn
local failure = packets.failure

describe("A pipe driven by hand", function()
  it("carries packets both ways, whole and in order", function()
    local a, b = netstack.pipe()
    assert.same({ 1500, "ip", 1500, "ip" }, { a:mtu(), a:medium(), b:mtu(), b:medium() })
    assert.same({ nil, "empty" }, { a:receive() })
    for i = 1, 5 do assert.equal(1, a:send("packet " .. i)) end
    assert.equal(1, b:send("x\0y"))
    for i = 1, 5 do assert.equal("packet " .. i, b:receive()) end
    assert.same({ nil, "empty" }, { b:receive() })
    assert.equal("x\0y", a:receive())
  end)

  it("is full at its capacity, each way for itself", function()
    local a, b = netstack.pipe { capacity = 2 }
    assert.same({ true, false }, { a:tx_ready(), b:rx_ready() })
    assert.equal(1, a:send("1"))
    assert.equal(1, a:send("2"))
    assert.same({ nil, "full" }, { a:send("3") })
    assert.same({ false, true }, { a:tx_ready(), b:rx_ready() })
    assert.is_true(b:tx_ready())
    assert.equal("1", b:receive())
    assert.is_true(a:tx_ready())
    assert.equal(1, a:send("3"))
    assert.equal("2", b:receive())
    assert.equal("3", b:receive())
    assert.is_false(b:rx_ready())
  end)

  it("of capacity 0 is unbounded", function()
    local a, b = netstack.pipe { capacity = 0 }
    for i = 1, 5000 do assert.equal(1, a:send(tostring(i))) end
    for i = 1, 5000 do assert.equal(tostring(i), b:receive()) end
  end)

  it("waits with a timeout, as sockets do", function()
    run(function()
      local a, b = netstack.pipe { capacity = 1 }
      assert.same({ nil, "empty" }, { b:receive(1.5) })
      assert.equal(1.5, now())
      assert.same({ nil, "empty" }, { b:receive(0) })
      assert.equal(1, a:send("1"))
      assert.same({ nil, "full" }, { a:send("2", 0.5) })
      assert.equal(2, now())
      spawn(function()
        sleep(1)
        assert.equal("1", b:receive())
      end)
      assert.equal(1, a:send("2", 10))
      assert.equal(3, now())
      assert.equal("2", b:receive(10))
      spawn(function()
        sleep(1)
        a:send("3")
      end)
      assert.equal("3", b:receive(10))
      assert.equal(4, now())
    end)
  end)

  it("serves those who wait in the order in which they came", function()
    run(function()
      local a, b = netstack.pipe()
      local got = {}
      for i = 1, 3 do
        spawn(function()
          local packet = b:receive(10)
          got[#got + 1] = i .. ":" .. tostring(packet)
        end)
      end
      sleep(1)
      for i = 1, 3 do
        a:send("packet " .. i)
        sleep(1)
      end
      assert.same({ "1:packet 1", "2:packet 2", "3:packet 3" }, got)
    end)
  end)

  it("tells who waits that it is closed", function()
    run(function()
      local a, b = netstack.pipe { capacity = 1 }
      assert.equal(1, a:send("1"))
      local sender = spawn(function() return a:send("2", 10) end)
      local receiver = spawn(function() return a:receive(10) end)
      sleep(1)
      assert.equal(1, b:close())
      assert.equal(1, sender:join()) -- into a closed end: dropped
      assert.same({ nil, "closed" }, { receiver:join() })
      assert.equal(1, now())
      local own = spawn(function() return a:receive(10) end)
      assert.same({ nil, "closed" }, { own:join() })
      a:close()
      assert.same({ nil, "closed" }, { a:receive(10) })
    end)
  end)

  it("drops and counts packets into a closed end", function()
    local a, b = netstack.pipe { capacity = 3 }
    a:send("12345")
    b:send("1234")
    assert.equal(1, b:close())
    assert.equal("1234", a:receive()) -- what came before is still there
    assert.same({ nil, "closed" }, { a:receive() })
    for _ = 1, 5 do assert.equal(1, a:send("x")) end
    assert.is_true(a:tx_ready())
    local stats = a:stats()
    assert.same({ 6, 10, 5, 1, 4, 0 }, { stats.tx_packets, stats.tx_bytes, stats.tx_dropped, stats.rx_packets,
      stats.rx_bytes, stats.rx_dropped })
    assert.equal(1, b:close())
    for _, call in ipairs { "receive", "mtu", "medium", "stats", "rx_ready", "tx_ready" } do
      assert.same({ nil, "closed" }, { b[call](b) })
    end
    assert.same({ nil, "closed" }, { b:send("x") })
    assert.equal("device (closed)", tostring(b))
    assert.equal(1, a:close())
  end)

  it("counts what passes", function()
    local a, b = netstack.pipe { capacity = 1 }
    a:send("12345")
    a:send("1")
    b:receive()
    b:send("123")
    assert.same({ tx_packets = 1, tx_bytes = 5, tx_dropped = 0, rx_packets = 0, rx_bytes = 0, rx_dropped = 0 },
      a:stats())
    assert.same({ tx_packets = 1, tx_bytes = 3, tx_dropped = 0, rx_packets = 1, rx_bytes = 5, rx_dropped = 0 },
      b:stats())
  end)

  it("takes packets from one byte to the mtu", function()
    local a, b = netstack.pipe { mtu = 100 }
    assert.matches("^spec/pipe_spec.lua:%d+: bad argument #1 to 'send' %(empty packet%)",
      failure(function() a:send("") end))
    assert.equal(1, a:send("x"))
    assert.equal(1, a:send(("x"):rep(100)))
    assert.same({ nil, "message too long" }, { a:send(("x"):rep(101)) })
    assert.equal("x", b:receive())
    assert.equal(100, #b:receive())
  end)

  it("may be of Ethernet frames, whose headers its mtu does not count", function()
    local a, b = netstack.pipe { medium = "ethernet", mtu = 1500 }
    assert.equal("ethernet", a:medium())
    assert.equal(1, a:send(("x"):rep(1514)))
    assert.same({ nil, "message too long" }, { a:send(("x"):rep(1515)) })
    assert.equal(1514, #b:receive())
  end)

  it("checks its options", function()
    local function wrong(...)
      local options = ...
      return failure(function() netstack.pipe(options) end)
    end
    assert.matches("^spec/pipe_spec.lua:%d+: bad argument #1 to 'pipe' %(table expected, got number%)", wrong(1))
    assert.matches("bad argument #1 to 'pipe' %(unknown option 'size'%)", wrong { size = 1 })
    assert.matches("%(option 'mtu': out of range: 68 to 65535%)", wrong { mtu = 67 })
    assert.matches("%(option 'mtu': out of range: 68 to 65535%)", wrong { mtu = 65536 })
    assert.matches("%(option 'mtu': number has no integer representation%)", wrong { mtu = 1500.5 })
    assert.matches("%(option 'capacity': out of range", wrong { capacity = -1 })
    assert.matches("%(option 'medium': 'ip' or 'ethernet' expected, got air%)", wrong { medium = "air" })
    assert.matches("%(option 'checksum': boolean expected, got number%)", wrong { checksum = 1 })
    local a = netstack.pipe()
    assert.matches("^spec/pipe_spec.lua:%d+: bad argument #2 to 'send' %(number expected, got string%)",
      failure(function() a:send("x", "y") end))
    assert.matches("bad argument #1 to 'receive' %(number expected, got table%)", failure(function() a:receive({}) end))
    assert.matches("bad argument #1 to 'send' %(string expected, got nil%)", failure(function() a:send(nil) end))
    assert.matches("bad argument #1 to 'send' %(string expected, got boolean%)", failure(function() a:send(true) end))
  end)
end)

describe("A pipe with a stack on it", function()
  it("cannot be driven by hand where it is attached", function()
    local stack, far = netstack.piped()
    local near, other = netstack.pipe()
    local second = netstack.new()
    assert(second:attach(near, { addresses = { "10.9.0.1/24" } }))
    assert.same({ nil, "address already in use" }, { near:send("x") })
    assert.same({ nil, "address already in use" }, { near:receive() })
    assert.same({ nil, "address already in use" }, { near:receive(1) })
    assert.same({ nil, "address already in use" }, { stack:attach(near) })
    assert.same({ nil, "address already in use" }, { second:attach(near) })
    assert.matches(", attached%)$", tostring(near))
    assert.equal(1, other:send("x"))
    assert.is_true(far:tx_ready())
    packets.leaves_nothing(second, stack)
  end)

  it("can be detached, driven by hand, and attached again", function()
    local near, far = netstack.pipe()
    local stack = netstack.new()
    local interface = assert(stack:attach(near, { addresses = { "10.0.0.1/24" } }))
    assert.equal(1, interface:detach())
    assert.equal(1, near:send("by hand"))
    assert.equal("by hand", far:receive())
    far:send(packets.icmp("10.0.0.2", "10.0.0.1", 8, 0, "\0\0\0\0"))
    assert(stack:attach(near, { addresses = { "10.0.0.1/24" } }))
    stack:poll(0)
    assert.equal(0, packets.parse(far:receive()).payload:byte(1)) -- what lay there was not lost
    local other = netstack.new()
    stack:close()
    assert(other:attach(near, { addresses = { "10.0.0.1/24" } }))
    assert.equal(0, (other:ping("10.0.0.1")))
    packets.leaves_nothing(other)
  end)

  it("drops and counts what cannot wait when it is full", function()
    local near, far = netstack.pipe { capacity = 2 }
    local stack = netstack.new()
    local interface = assert(stack:attach(near, { addresses = { "10.0.0.1/24" } }))
    for i = 1, 2 do far:send(packets.icmp("10.0.0.2", "10.0.0.1", 8, 0, "\0\0\0" .. string.char(i))) end
    stack:poll(0)
    for i = 3, 4 do far:send(packets.icmp("10.0.0.2", "10.0.0.1", 8, 0, "\0\0\0" .. string.char(i))) end
    stack:poll(0)
    assert.equal(2, interface:stats().tx_dropped)
    assert.equal(2, #packets.drain(far))
    packets.leaves_nothing(stack)
  end)

  it("closed under its stack leaves it without a route", function()
    local a, b = netstack.pair()
    local near = netstack.pipe()
    local stack = netstack.new()
    local interface = assert(stack:attach(near, { addresses = { "10.0.0.1/24" } }))
    run(function()
      local socket = stack:udp()
      assert.equal(1, socket:sendto("x", "10.0.0.2", 1))
      near:close()
      assert.same({ nil, "no route" }, { socket:sendto("x", "10.0.0.2", 1) })
      assert.same({ nil, "closed" }, { interface:is_up() })
      assert.equal("interface (detached)", tostring(interface))
      socket:close()
    end)
    packets.leaves_nothing(stack, a, b)
  end)

  it("computes and checks checksums when told so", function()
    local a_end, far = netstack.pipe { checksum = true }
    local stack = netstack.new()
    assert(stack:attach(a_end, { addresses = { "10.0.0.1/24", "fd00::1/64" } }))
    local socket = stack:udp()
    socket:setsockname("*", 7)
    for _, family in ipairs { { "10.0.0.1", "10.0.0.2" }, { "fd00::1", "fd00::2" } } do
      local near_host, far_host = family[1], family[2]
      assert.equal(5, socket:sendto("hello", far_host, 9))
      assert.equal(packets.udp(near_host, 7, far_host, 9, "hello"):sub(-13), far:receive():sub(-13))
      local packet = packets.udp(far_host, 9, near_host, 7, "hello")
      far:send(packet)
      for at = #packet - 13 + 1, #packet do -- every byte of the datagram
        local corrupt = packet:sub(1, at - 1) .. string.char((packet:byte(at) + 1) % 256) .. packet:sub(at + 1)
        if at ~= #packet - 13 + 5 and at ~= #packet - 13 + 6 then far:send(corrupt) end -- not the length
      end
      local before = stack:stats().udp.checksum_errors
      stack:poll(0)
      assert.is_true(stack:stats().udp.checksum_errors - before >= 7)
      socket:settimeout(0)
      assert.equal("hello", socket:receive())
      assert.same({ nil, "timeout" }, { socket:receive() })
    end
    local packet = packets.udp("10.0.0.2", 9, "10.0.0.1", 7, "x")
    local before = stack:stats().ip.checksum_errors
    far:send(packet:sub(1, 8) .. "\1" .. packet:sub(10)) -- another ttl
    stack:poll(0)
    assert.equal(before + 1, stack:stats().ip.checksum_errors)
    far:send(packets.icmp("10.0.0.2", "10.0.0.1", 8, 0, "\0\1\0\0x"):sub(1, -2) .. "y")
    before = stack:stats().icmp.checksum_errors
    stack:poll(0)
    assert.equal(before + 1, stack:stats().icmp.checksum_errors)
    assert.same({ nil, "empty" }, { (select(1, far:receive())), "empty" })
    socket:close()
    packets.leaves_nothing(stack)
  end)

  it("sends zeros and checks nothing otherwise", function()
    local stack, far = netstack.piped()
    local socket = stack:udp()
    socket:setsockname("*", 7)
    socket:sendto("hello", "10.0.0.2", 9)
    local packet = packets.parse(far:receive())
    assert.same({ 0, 0 }, { packet.checksum, packet.udp_checksum })
    local corrupt = packets.udp("10.0.0.2", 9, "10.0.0.1", 7, "hello"):sub(1, -2) .. "p"
    far:send(corrupt)
    stack:poll(0)
    assert.equal("hellp", socket:receive())
    socket:close()
    packets.leaves_nothing(stack)
  end)

  it("works with checksums both ways, TCP too", function()
    local a, b = netstack.pair(nil, { checksum = true })
    run(function()
      for _, host in ipairs { "10.0.0.2", "fd00::2" } do
        local listener = b:bind(host, 80)
        local client = assert(a:connect(host, 80))
        local server = listener:accept()
        client:send("hello\n")
        assert.equal("hello", server:receive())
        client:close()
        assert.same({ nil, "closed", "" }, { server:receive() })
        server:close()
        listener:close()
        assert.is_number(a:ping(host))
      end
      sleep(1000)
    end)
    assert.equal(0, a:stats().tcp.checksum_errors + b:stats().tcp.checksum_errors)
    packets.leaves_nothing(a, b)
  end)
end)
