-- Path MTU: routers that say "packet too big" or "fragmentation needed" (RFC 8201, RFC 1191), and those that lie.
local netstack = require "netstack"
local helper = require "spec.helper"
local packets = require "spec.packets"

local ACK = helper.ACK
local run, sleep = netstack.run, netstack.sleep
local u16 = packets.u16

-- What a router says of a packet that it quotes: the way takes `mtu`.
local function too_big(family, quoted, mtu)
  if family.name == "IPv6" then
    return packets.icmp("fd00::99", family.a, 2, 0, "\0\0" .. u16(mtu) .. quoted:sub(1, 1200))
  end
  return packets.icmp("10.0.0.99", family.a, 3, 4, "\0\0" .. u16(mtu) .. quoted:sub(1, 28))
end

local function is_uncut(packet)
  return packets.parse(packet).fragment == 0x4000 -- DF
end

-- Everything in the far end, after the stack has done what it can.
local function drained(far)
  sleep(0.001)
  return packets.drain(far)
end

for _, family in ipairs(helper.families) do
  local ipv6 = family.name == "IPv6"
  local narrow = ipv6 and 1400 or 1000

  describe("Path MTU, " .. family.name .. ",", function()
    after_each(helper.nothing_left)

    -- A connection that has 10,000 bytes on their way, in segments of the pipe's mtu.
    local function sending(name, fn)
      it(name, function()
        run(function()
          local socket, peer, stack = helper.by_hand(family, { seed = 1 })
          assert(socket:send(("x"):rep(10000)))
          local flight = drained(peer.far)
          assert.equal(1500, #flight[1])
          fn(socket, peer, stack, flight)
          socket:abort()
        end)
      end)
    end

    sending("is heeded: what was too long is sent again, and nothing longer after it (RFC 8201 5.4, RFC 1191 §6)",
      function(socket, peer, _, flight)
        if not ipv6 then assert.is_true(is_uncut(flight[1])) end
        peer.far:send(too_big(family, flight[1], narrow))
        local again = drained(peer.far)
        local data = 0
        for i, packet in ipairs(again) do
          assert.is_true(#packet <= narrow)
          if not ipv6 then assert.is_true(is_uncut(packet)) end
          if i == 1 then assert.equal(helper.parse(flight[1]).seq, helper.parse(packet).seq) end
          data = data + #helper.parse(packet).data
        end
        assert.equal(narrow, #again[1])
        assert.is_true(data >= 2 * 1440)
        assert.equal(narrow - (ipv6 and 60 or 40), socket:info().mss)
        local last = peer.ack + 10000
        peer.ack = peer.ack + data
        peer:send(ACK)
        while peer.ack < last do
          local segment = peer:take(5)
          if segment.seq == peer.ack then peer.ack = peer.ack + #segment.data end
          peer:send(ACK)
        end
        sleep(1)
        assert(socket:send(("y"):rep(5000)))
        assert.equal(narrow, #drained(peer.far)[1])
      end)

    sending("holds for the next connection to that host, for ten minutes (RFC 8201 §4)",
      function(_, peer, stack, flight)
        peer.far:send(too_big(family, flight[1], narrow))
        drained(peer.far)
        assert.equal(1, stack:stats().path_mtus)
        local function mss_of_another(port)
          local other = helper.peer(peer.far, family, port)
          local listener = stack:bind("*", port)
          other:connect(port)
          local accepted = listener:accept()
          local mss = accepted:info().mss
          accepted:abort()
          listener:close()
          packets.drain(peer.far)
          return mss
        end
        assert.equal(narrow - (ipv6 and 60 or 40), mss_of_another(5000))
        sleep(590)
        packets.drain(peer.far)
        assert.equal(narrow - (ipv6 and 60 or 40), mss_of_another(5001))
        sleep(20)
        packets.drain(peer.far)
        assert.equal(1460, mss_of_another(5002) + (ipv6 and 20 or 0))
      end)

    sending("believes nobody who quotes what is not on its way (RFC 5927 §4, RFC 8201 §4) #guarded",
      function(socket, peer, stack, flight)
        local before = socket:info().mss
        local start = (ipv6 and 40 or 20) + 4
        local function with_sequence(off)
          local packet = flight[1]
          local seq = (helper.parse(packet).seq + off) % 2 ^ 32
          return packet:sub(1, start) .. u16(math.floor(seq / 65536)) .. u16(seq % 65536) .. packet:sub(start + 5)
        end
        for _, off in ipairs { -1, 10000, 2 ^ 30 } do
          peer.far:send(too_big(family, with_sequence(off), narrow))
          assert.same({}, drained(peer.far))
        end
        assert.equal(3, stack:stats().icmp_ignored)
        -- Another port, another host.
        peer.far:send(too_big(family, flight[1]:sub(1, start - 4) .. "\1\2" .. flight[1]:sub(start - 1), narrow))
        local elsewhere = packets.bytes(family.nobody)
        local at = ipv6 and 24 or 16
        peer.far:send(too_big(family, flight[1]:sub(1, at) .. elsewhere .. flight[1]:sub(at + #elsewhere + 1), narrow))
        assert.same({}, drained(peer.far))
        assert.equal(5, stack:stats().icmp_ignored)
        assert.equal(0, stack:stats().path_mtus)
        assert.equal(before, socket:info().mss)
      end)

    sending("never gets wider by a word, nor unusably narrow", function(socket, peer, stack, flight)
      peer.far:send(too_big(family, flight[1], narrow))
      peer.far:send(too_big(family, flight[1], 1499))
      drained(peer.far)
      assert.equal(narrow - (ipv6 and 60 or 40), socket:info().mss)
      for _, mtu in ipairs { 0, 48, 55, 68, 296, ipv6 and 1279 or 551 } do
        peer.far:send(too_big(family, flight[1], mtu))
      end
      local again = drained(peer.far)
      if ipv6 then -- RFC 8201 §4: ignored
        assert.equal(narrow - 60, socket:info().mss)
      else -- no narrower than 552, but routers may cut
        assert.is_true(#again > 0)
        assert.equal(552 - 40, socket:info().mss)
        for _, packet in ipairs(again) do assert.is_false(is_uncut(packet)) end
      end
      assert.is_nil(stack:stats().cause)
    end)

    it("is what a datagram that must not be cut has to fit in", function()
      run(function()
        local stack, far = helper.piped()
        local socket = stack:udp()
        socket:setoption("dont-fragment", true)
        assert.equal(1400, socket:sendto(("x"):rep(1400), family.b, 9))
        local sent = drained(far)
        far:send(too_big(family, sent[1], ipv6 and 1300 or 1000))
        sleep(0.001)
        assert.same({ nil, "message too long" }, { socket:sendto(("x"):rep(1400), family.b, 9) })
        assert.equal(900, socket:sendto(("x"):rep(900), family.b, 9))
        assert.equal(1400, socket:sendto(("x"):rep(1400), family.nobody, 9)) -- another way
        drained(far)
        socket:setoption("dont-fragment", false)
        assert.equal(1400, socket:sendto(("x"):rep(1400), family.b, 9))
        local pieces = drained(far)
        assert.equal(ipv6 and 2 or 1, #pieces)
        socket:close()
      end)
    end)

    it("is remembered for a bounded number of hosts, the last ones", function()
      run(function()
        local stack, far = helper.piped()
        local socket = stack:udp()
        for i = 1, 300 do
          local host = (ipv6 and "fd00::1:%x" or "10.0.1.%d"):format(i % 250)
          if i > 250 then host = (ipv6 and "fd00::2:%x" or "10.0.2.%d"):format(i - 250) end
          socket:sendto(("x"):rep(1400), host, 9)
          sleep(0.001)
          far:send(too_big(family, far:receive(), 1300))
          sleep(0.001)
          while far:receive() do end
        end
        assert.equal(256, stack:stats().path_mtus)
        socket:close()
      end)
    end)

    -- Two stacks and a router between them that takes packets of no more than `mtu` and says so, or does not.
    local function narrow_link(mtu, says)
      local devices, stacks, counts = {}, {}, { told = 0, cut = 0 }
      local function forward(from, packet)
        if #packet <= mtu then return devices[3 - from]:input(packet) end
        if not ipv6 and not is_uncut(packet) then -- a router may cut; the other end here takes longer ones as well
          counts.cut = counts.cut + 1
          return devices[3 - from]:input(packet)
        end
        counts.told = counts.told + 1
        if not says then return end
        local to = from == 1 and family.a or family.b
        if ipv6 then
          devices[from]:input(packets.icmp("fd00::99", to, 2, 0, "\0\0" .. u16(mtu) .. packet:sub(1, 1200)))
        else
          devices[from]:input(packets.icmp("10.0.0.99", to, 3, 4, "\0\0" .. u16(mtu) .. packet:sub(1, 28)))
        end
      end
      for i = 1, 2 do
        devices[i] = netstack.device { mtu = 1500, transmit = function(packet) forward(i, packet) end }
        stacks[i] = helper.watch(netstack.new { seed = i })
        stacks[i]:attach(devices[i], { addresses = { "10.0.0." .. i .. "/24", "fd00::" .. i .. "/64" } })
      end
      return stacks[1], stacks[2], counts
    end

    it("is found when the narrow way's router is silent (RFC 2923 2.1)", function()
      local a, b, counts = narrow_link(narrow + 20, false)
      run(function()
        local client, server = helper.connection(a, b, family)
        helper.exchange(client, server, 2 ^ 20)
        sleep(5)
        assert.is_true(counts.told > 0)
        assert.is_true(netstack.now() < 60, netstack.now())
      end)
    end)

    it("lets megabytes through a narrow way, both ways", function()
      local a, b, counts = narrow_link(narrow, true)
      run(function()
        local client, server = helper.connection(a, b, family)
        helper.exchange(client, server, 2 ^ 20)
        sleep(5)
        assert.is_true(counts.told > 0 and counts.told < 200, counts.told)
        assert.is_true(netstack.now() < 30)
      end)
    end)
  end)
end
