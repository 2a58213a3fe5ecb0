local netstack = require "netstack"
local packets = require "spec.packets"

local run, spawn, sleep = netstack.run, netstack.spawn, netstack.sleep

local families = {
  ipv4 = { protocol = 1, request = 8, reply = 0, near = "10.0.0.1", far = "10.0.0.2", header = 20 },
  ipv6 = { protocol = 58, request = 128, reply = 129, near = "fd00::1", far = "fd00::2", header = 40 },
}

-- What a raw socket receives of an echo, after the IP header.
local function message(packet, family)
  return packet:sub(family.header + 1)
end

for _, name in ipairs { "ipv4", "ipv6" } do
  local family = families[name]
  describe("A raw socket of " .. name, function()
    it("sends an echo request built by hand and receives the reply, header and all", function()
      local a, b = netstack.pair()
      run(function()
        local socket = assert(a:raw(name, family.protocol))
        local packet = packets.icmp(family.near, family.far, family.request, 0, "\18\52\0\1payload")
        assert.equal(#packet, socket:send(packet))
        socket:settimeout(1)
        local reply = assert(socket:receive())
        local parsed = packets.parse(reply)
        assert.same({ family.protocol, packets.bytes(family.far), packets.bytes(family.near) },
          { parsed.protocol, parsed.source, parsed.destination })
        assert.equal(#reply, parsed.length)
        assert.equal(family.reply, parsed.payload:byte(1))
        assert.equal("\18\52\0\1payload", parsed.payload:sub(5))
        socket:settimeout(0)
        assert.same({ nil, "timeout" }, { socket:receive() })
        socket:close()
      end)
      packets.leaves_nothing(a, b)
    end)

    it("gets a copy only: the stack still answers", function()
      local stack, far = netstack.piped()
      local one, two = stack:raw(name, family.protocol), stack:raw(name, family.protocol)
      local other = stack:raw(name, 99)
      local packet = packets.icmp(family.far, family.near, family.request, 0, "\0\0\0\1x")
      assert(far:send(packet))
      stack:poll(0)
      one:settimeout(0)
      two:settimeout(0)
      other:settimeout(0)
      assert.equal(packet, one:receive())
      assert.equal(packet, two:receive())
      assert.same({ nil, "timeout" }, { other:receive() })
      assert.equal(family.reply, packets.parse(far:receive()).payload:byte(1))
      for _, socket in ipairs { one, two, other } do socket:close() end
      packets.leaves_nothing(stack)
    end)

    it("cuts a packet and tells its length", function()
      local stack, far = netstack.piped()
      local socket = stack:raw(name, 99)
      local packet = packets.ip(family.far, family.near, 99, ("x"):rep(100))
      for _ = 1, 3 do far:send(packet) end
      stack:poll(0)
      assert.same({ packet:sub(1, 30), family.header + 100 }, { socket:receive(30) })
      assert.same({ packet }, { socket:receive(family.header + 100) })
      assert.same({ packet }, { socket:receive() })
      socket:close()
      packets.leaves_nothing(stack)
    end)

    it("receives a packet that came in fragments whole", function()
      local stack, far = netstack.piped()
      local socket = stack:raw(name, 99)
      local data = ("01234567"):rep(300)
      if name == "ipv4" then
        far:send(packets.ipv4(family.far, family.near, 99, data:sub(1, 1200), { id = 7, fragment = 0x2000 }))
        far:send(packets.ipv4(family.far, family.near, 99, data:sub(1201), { id = 7, fragment = 150 }))
      else
        far:send(packets.fragment6(family.far, family.near, 99, 7, 0, true, data:sub(1, 1200)))
        far:send(packets.fragment6(family.far, family.near, 99, 7, 1200, false, data:sub(1201)))
      end
      stack:poll(0)
      local packet = assert(socket:receive())
      local parsed = packets.parse(packet)
      assert.same({ #packet, 99 }, { parsed.length, parsed.protocol })
      assert.is_true(data == parsed.payload)
      socket:settimeout(0)
      assert.same({ nil, "timeout" }, { socket:receive() })
      socket:close()
      packets.leaves_nothing(stack)
    end)

    it("reassembles a large ping for itself and its answer", function()
      local a, b = netstack.pair()
      run(function()
        assert.is_number(a:ping(family.far, { size = 5000 }))
      end)
      packets.leaves_nothing(a, b)
    end)

    it("counts what its full queue drops", function()
      local stack, far = netstack.piped { raw_message_count = 2 }
      local socket = stack:raw(name, 99)
      for i = 1, 5 do far:send(packets.ip(family.far, family.near, 99, "packet " .. i)) end
      stack:poll(0)
      assert.equal(3, stack:stats().raw.queue_full)
      assert.equal(3, stack:sockets()[1].queues.dropped)
      assert.equal("packet 1", message(socket:receive(), family))
      assert.equal("packet 2", message(socket:receive(), family))
      socket:close()
      packets.leaves_nothing(stack)
    end)

    it("refuses what is no packet of its family, or too long", function()
      local stack = netstack.piped()
      local socket = stack:raw(name, 99)
      local other = packets.ip(families[name == "ipv4" and "ipv6" or "ipv4"].near, families[name == "ipv4" and "ipv6"
        or "ipv4"].far, 99, "x")
      assert.same({ nil, "wrong ip version" }, { socket:send(other) })
      assert.same({ nil, "wrong ip version" }, { socket:send("x") })
      assert.same({ nil, "message too long" },
        { socket:send(packets.ip(family.near, family.far, 99, ("x"):rep(70000))) })
      if name == "ipv4" then
        assert.same({ nil, "message too long" },
          { socket:send(packets.ipv4(family.near, family.far, 99, ("x"):rep(1481), { fragment = 0x4000 })) })
      end
      assert.matches("^spec/raw_spec.lua:%d+: bad argument #1 to 'send' %(empty packet%)",
        packets.failure(function() socket:send("") end))
      socket:close()
      packets.leaves_nothing(stack)
    end)

    it("sends a packet larger than the mtu in fragments", function()
      local a, b = netstack.pair()
      run(function()
        local sender, receiver = a:raw(name, 99), b:raw(name, 99)
        local data = ("01234567"):rep(1000)
        local packet = packets.ip(family.near, family.far, 99, data)
        assert.equal(#packet, sender:send(packet))
        assert.is_true(data == message(receiver:receive(), family))
        assert.equal(6, a:stats().out_packets)
        sender:close()
        receiver:close()
      end)
      packets.leaves_nothing(a, b)
    end)

    it("waits while the device is full", function()
      local a, b = netstack.pair(nil, { capacity = 1 })
      run(function()
        local sender, receiver = a:raw(name, 99), b:raw(name, 99)
        spawn(function()
          for i = 1, 10 do assert(sender:send(packets.ip(family.near, family.far, 99, "packet " .. i))) end
          sender:close()
        end)
        for i = 1, 10 do assert.equal("packet " .. i, message(receiver:receive(), family)) end
        receiver:close()
      end)
      packets.leaves_nothing(a, b)
    end)

    it("answers closed once it is closed", function()
      local stack = netstack.piped()
      run(function()
        local socket = stack:raw(name, 99)
        assert.equal("raw (" .. name .. " protocol 99)", tostring(socket))
        local task = spawn(function() return socket:receive() end)
        sleep(1)
        assert.equal(1, socket:close())
        assert.same({ nil, "closed" }, { task:join() })
        assert.equal(1, socket:close())
        assert.same({ nil, "closed" }, { socket:send("x") })
        assert.same({ nil, "closed" }, { socket:receive() })
      end)
      packets.leaves_nothing(stack)
    end)
  end)
end

describe("A raw socket", function()
  it("fills in an IPv4 header's length and checksum of 0, and nothing else", function()
    local stack, far = netstack.piped()
    local socket = stack:raw("ipv4", 99)
    local whole = packets.ipv4("10.0.0.1", "10.0.0.2", 99, "data", { id = 77, ttl = 9 })
    local packet = packets.ipv4("10.0.0.1", "10.0.0.2", 99, "data", { id = 77, ttl = 9, checksum = 0 })
    assert.equal(24, socket:send(packet:sub(1, 2) .. "\0\0" .. packet:sub(5)))
    assert.equal(whole, far:receive())
    local wrong = packets.ipv4("10.0.0.1", "10.0.0.2", 99, "data", { checksum = 0x1234, length = 30 })
    assert.equal(24, socket:send(wrong))
    assert.equal(wrong, far:receive())
    socket:close()
    packets.leaves_nothing(stack)
  end)

  it("is of IPv6's first next header", function()
    local stack, far = netstack.piped()
    local hop, last = stack:raw("ipv6", 0), stack:raw("ipv6", 99)
    -- hop-by-hop options with a PadN of 4, then protocol 99
    local packet = packets.ipv6("fd00::2", "fd00::1", 0, "\99\0\1\4\0\0\0\0data")
    far:send(packet)
    stack:poll(0)
    hop:settimeout(0)
    last:settimeout(0)
    assert.equal(packet, hop:receive())
    assert.same({ nil, "timeout" }, { last:receive() })
    hop:close()
    last:close()
    packets.leaves_nothing(stack)
  end)

  it("has no route without a device", function()
    local stack = netstack.new()
    local socket = stack:raw("ipv4", 99)
    assert.same({ nil, "no route" }, { socket:send(packets.ipv4("10.0.0.1", "10.0.0.2", 99, "x")) })
    socket:close()
    packets.leaves_nothing(stack)
  end)

  it("checks its family and protocol", function()
    local stack = netstack.new()
    local function wrong(...)
      local family, protocol = ...
      return packets.failure(function() stack:raw(family, protocol) end)
    end
    assert.matches("^spec/raw_spec.lua:%d+: bad argument #1 to 'raw' %(\"ipv4\" or \"ipv6\" expected%)", wrong("ip", 1))
    assert.matches("bad argument #1 to 'raw' %(string expected, got nil%)", wrong(nil, 1))
    assert.matches("bad argument #2 to 'raw' %(out of range: 0 to 255%)", wrong("ipv4", 256))
    assert.matches("bad argument #2 to 'raw' %(number has no integer representation%)", wrong("ipv4", 1.5))
    assert.matches("bad argument #2 to 'raw' %(number expected, got nil%)", wrong("ipv4"))
    stack:close()
  end)
end)
