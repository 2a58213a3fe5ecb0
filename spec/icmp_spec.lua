-- ICMP and ICMPv6 errors, and which sockets they reach: RFC 1122 3.2.2.1, RFC 4443 §3, RFC 5927.
local netstack = require "netstack"
local helper = require "spec.helper"
local packets = require "spec.packets"

local run, sleep, spawn = netstack.run, netstack.sleep, netstack.spawn

-- type, code and what a socket is told
local kinds = {
  IPv4 = {
    { 3, 0, "host unreachable" }, { 3, 1, "host unreachable" }, { 3, 2, "port unreachable" },
    { 3, 3, "port unreachable" }, { 3, 5, "host unreachable" }, { 3, 9, "host unreachable" },
    { 3, 10, "host unreachable" }, { 3, 13, "host unreachable" }, { 11, 0, "host unreachable" },
    { 11, 1, "host unreachable" },
  },
  IPv6 = {
    { 1, 0, "host unreachable" }, { 1, 1, "host unreachable" }, { 1, 2, "host unreachable" },
    { 1, 3, "host unreachable" }, { 1, 4, "port unreachable" }, { 3, 0, "host unreachable" },
    { 3, 1, "host unreachable" }, { 4, 1, "port unreachable" },
  },
}

for _, family in ipairs(helper.families) do
  local ipv6 = family.name == "IPv6"
  local router = ipv6 and "fd00::99" or "10.0.0.99"

  local function report(kind, quoted)
    return packets.icmp(router, family.a, kind[1], kind[2], "\0\0\0\0" .. quoted:sub(1, ipv6 and 1200 or 28))
  end

  describe("An ICMP error, " .. family.name .. ",", function()
    after_each(helper.nothing_left)

    it("tells of a closed port at any address of an interface", function()
      local a, b = helper.pair()
      local more = ipv6 and "fd00::77" or "10.0.0.77"
      local known = b:addresses()
      known[#known + 1] = more .. (ipv6 and "/64" or "/24")
      b:set_addresses(known)
      run(function()
        for _, host in ipairs { family.b, more } do
          local socket = a:udp()
          socket:setpeername(host, 9)
          socket:settimeout(1)
          socket:send("x")
          assert.same({ nil, "port unreachable" }, { socket:receive() })
          socket:close()
        end
      end)
    end)

    it("reaches the connected UDP socket that it is about, once", function()
      run(function()
        local stack, far = helper.piped()
        local socket, other, open = stack:udp(), stack:udp(), stack:udp()
        assert(socket:setpeername(family.b, 9))
        assert(other:setpeername(family.b, 10))
        assert(open:setsockname("*", 7))
        for _, each in ipairs { socket, other, open } do each:settimeout(0) end
        for _, kind in ipairs(kinds[family.name]) do
          socket:send("x")
          sleep(0.001)
          far:send(report(kind, far:receive()))
          sleep(0.001)
          assert.same({ nil, kind[3] }, { socket:receive() }, kind[1] .. "/" .. kind[2])
          for _, each in ipairs { socket, other, open } do assert.same({ nil, "timeout" }, { each:receive() }) end
        end
        local others = ipv6 and { { 2, 0 }, { 4, 0 }, { 100, 0 } } or { { 3, 4 }, { 12, 0 }, { 5, 0 }, { 4, 0 } }
        for _, kind in ipairs(others) do -- nothing to tell
          socket:send("x")
          sleep(0.001)
          far:send(report(kind, far:receive()))
          sleep(0.001)
          assert.same({ nil, "timeout" }, { socket:receive() })
        end
        for _, each in ipairs { socket, other, open } do each:close() end
      end)
    end)

    it("ends a connect, told by its kind, when it quotes the SYN #guarded", function()
      run(function()
        local stack, far = helper.piped()
        for _, kind in ipairs(kinds[family.name]) do
          local task = spawn(function() return stack:connect(family.b, 80) end)
          sleep(0.001)
          local syn = far:receive()
          local start = ipv6 and 40 or 20
          local wrong = syn:sub(1, start + 4) .. string.char((syn:byte(start + 5) + 1) % 256) .. syn:sub(start + 6)
          far:send(report(kind, wrong))
          sleep(0.001)
          assert.same({ nil, "timeout" }, { task:join(0) })
          far:send(report(kind, syn))
          local told = kind[3] == "port unreachable" and "connection refused" or kind[3]
          assert.same({ nil, told }, { task:join() })
          packets.drain(far)
        end
      end)
    end)

    it("does not end an open connection (RFC 5461 §4)", function()
      run(function()
        local socket, peer = helper.by_hand(family)
        for _, kind in ipairs(kinds[family.name]) do
          assert(socket:send("x"))
          local segment = peer:expect("PSH ACK", 1)
          peer.far:send(report(kind, segment.packet))
          sleep(0.001)
          peer:send(helper.ACK)
        end
        peer:send(helper.ACK + helper.PSH, "still")
        assert.equal("still", socket:receive(5))
        socket:abort()
      end)
    end)

    it("with a wrong checksum is ignored where checksums count", function()
      run(function()
        local stack = helper.watch(netstack.new())
        local near, far = netstack.pipe { checksum = true }
        stack:attach(near, { addresses = { family.a .. (ipv6 and "/64" or "/24") } })
        local socket = stack:udp()
        assert(socket:setpeername(family.b, 9))
        socket:settimeout(0)
        socket:send("x")
        sleep(0.001)
        local good = report(kinds[family.name][1], far:receive())
        local at = (ipv6 and 40 or 20) + 4
        far:send(good:sub(1, at - 1) .. string.char((good:byte(at) + 1) % 256) .. good:sub(at + 1))
        sleep(0.001)
        assert.same({ nil, "timeout" }, { socket:receive() })
        far:send(good)
        sleep(0.001)
        assert.same({ nil, "host unreachable" }, { socket:receive() })
        socket:close()
      end)
    end)

    it("about a datagram that was cut reaches its socket by the first piece only", function()
      run(function()
        local stack, far = helper.piped()
        local socket = stack:udp()
        assert(socket:setpeername(family.b, 9))
        socket:settimeout(0)
        socket:send(("x"):rep(3000))
        sleep(0.001)
        local pieces = packets.drain(far)
        assert.is_true(#pieces > 1)
        far:send(report(kinds[family.name][1], pieces[2]))
        sleep(0.001)
        assert.same({ nil, "timeout" }, { socket:receive() })
        far:send(report(kinds[family.name][1], pieces[1]))
        sleep(0.001)
        assert.same({ nil, "host unreachable" }, { socket:receive() })
        socket:close()
      end)
    end)
  end)
end
