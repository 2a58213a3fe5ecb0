-- Fragments, both families, played in through a pipe end: RFC 791 3.2, RFC 8200 §4.5, RFC 5722, RFC 6946, RFC 7112.
local netstack = require "netstack"
local helper = require "spec.helper"
local packets = require "spec.packets"

local run, sleep = netstack.run, netstack.sleep
local u16 = packets.u16
local UDP, PORT = 17, 7

local all = helper.stream(3)(65536)
local function text(length)
  return all:sub(1, length)
end

for _, family in ipairs(helper.families) do
  local ipv6 = family.name == "IPv6"

  -- A UDP datagram as it lies behind the IP header.
  local function datagram(data)
    return u16(4000) .. u16(PORT) .. u16(8 + #data) .. "\0\0" .. data
  end

  -- One piece of it. fields: id, protocol, source
  local function piece(whole, from, length, more, fields)
    fields = fields or {}
    local source, id, protocol = fields.source or family.b, fields.id or 77, fields.protocol or UDP
    local data = whole:sub(from + 1, from + length)
    if ipv6 then return packets.fragment6(source, family.a, protocol, id, from, more, data) end
    return packets.ipv4(source, family.a, protocol, data, { id = id, fragment = from / 8 + (more and 0x2000 or 0) })
  end

  -- All pieces, in order.
  local function pieces(whole, size, fields)
    local list = {}
    for from = 0, #whole - 1, size do
      list[#list + 1] = piece(whole, from, size, from + size < #whole, fields)
    end
    return list
  end

  describe("Reassembly, " .. family.name .. ",", function()
    after_each(helper.nothing_left)

    -- A stack with a UDP socket; `feed(packets)` plays packets in, `got()` is what arrived.
    local function spec(name, fn, options)
      it(name, function()
        run(function()
          local stack = helper.watch(netstack.new { seed = 1 })
          local near, far = netstack.pipe { mtu = options and options.mtu or 1500, capacity = 0 }
          local interface = stack:attach(near, { addresses = { "10.0.0.1/16", "fd00::1/64" } })
          local socket = stack:udp()
          assert(socket:setsockname("*", PORT))
          socket:settimeout(0)
          local function feed(list)
            for _, packet in ipairs(list) do assert(far:send(packet)) end
            sleep(0.001)
          end
          fn(feed, function() return (socket:receive()) end, stack, far, interface)
          socket:close()
          sleep(61) -- what is incomplete goes
          packets.drain(far)
          assert.same({ 0, 0 }, { stack:stats().reassembly.datagrams, stack:stats().reassembly.bytes })
        end)
      end)
    end

    spec("puts together what comes in order, in reverse, and mixed", function(feed, got)
      local data = text(4000)
      local list = pieces(datagram(data), 1000)
      feed(list)
      assert.is_true(got() == data)
      feed { list[5], list[4], list[3], list[2], list[1] }
      assert.is_true(got() == data)
      feed { list[2], list[5], list[1], list[4], list[3] }
      assert.is_true(got() == data)
      assert.is_nil(got())
    end)

    spec("takes pieces of eight bytes", function(feed, got)
      local data = text(16000)
      local list = pieces(datagram(data), 8)
      feed(list)
      assert.is_true(got() == data)
      local random = helper.random(1)
      for i = #list, 2, -1 do
        local j = random(i) + 1
        list[i], list[j] = list[j], list[i]
      end
      feed(list)
      assert.is_true(got() == data)
    end)

    spec("takes the largest datagram", function(feed, got)
      local data = text(ipv6 and 65487 or 65507)
      feed(pieces(datagram(data), 1024))
      assert.is_true(got() == data)
    end)

    spec("drops what would be larger than 65,535 bytes #guarded", function(feed, got, _, _, interface)
      local data = text(65000)
      feed { piece(datagram(data), 0, 1024, true), (piece(("x"):rep(65600), 65520, 16, false)) }
      assert.is_nil(got())
      assert.equal(1, interface:stats().guarded["impossible fragment"])
    end)

    spec("keeps datagrams apart by id, source and protocol", function(feed, got)
      local a, b, c = text(2000), text(2000):reverse(), ("c"):rep(2000)
      local pa, pb = pieces(datagram(a), 1000, { id = 1 }), pieces(datagram(b), 1000, { id = 2 })
      local pc = pieces(datagram(c), 1000, { id = 1, source = family.nobody })
      feed { pa[1], pb[1], pc[1], pb[2], pa[2], pc[2] }
      feed { pc[3], pa[3], pb[3] }
      assert.is_true(got() == c)
      assert.is_true(got() == a)
      assert.is_true(got() == b)
    end)

    spec("ignores a piece that comes twice, the last one too (RFC 8200 §4.5)", function(feed, got, stack)
      local data = text(3000)
      local list = pieces(datagram(data), 1000)
      feed { list[1], list[1], list[4], list[4], list[2], list[1], list[3] }
      assert.is_true(got() == data)
      assert.equal(0, stack:stats().reassembly.contradictions)
      feed { list[3], list[3] } -- a late copy begins a datagram that nobody completes
      assert.is_nil(got())
    end)

    -- Pieces of 3,000 bytes that do not fit each other: where, and how many bytes.
    for _, odd in ipairs {
      { "its head", 992, 1000 }, { "its tail", 1800, 1000 }, { "the middle of one", 1200, 400 },
      { "several", 800, 1600 }, { "one, with other bytes", 1000, 1000 },
    } do
      spec("drops the whole datagram for a piece that overlaps " .. odd[1] .. " (RFC 5722 §3) #guarded",
        function(feed, got, stack)
          local data = text(2992)
          local whole = datagram(data)
          local list = pieces(whole, 1000)
          local other = piece(("y"):rep(#whole), odd[2], odd[3], true)
          feed { list[1], list[2], other, list[3] }
          assert.is_nil(got())
          assert.equal(1, stack:stats().reassembly.contradictions)
          if not ipv6 then sleep(16) end
          feed { list[1], list[2], list[3] }
          if ipv6 then -- "including those not yet received"
            assert.is_nil(got())
            sleep(61)
            feed { list[1], list[2], list[3] }
          end
          assert.is_true(got() == data)
        end, { mtu = 4000 })
    end

    spec("drops the whole datagram when its ends contradict", function(feed, got, stack)
      local whole = datagram(text(3000))
      local list = pieces(whole, 1000)
      feed { (piece(whole, 1000, 1000, false)), list[3], list[1] }
      assert.is_nil(got())
      assert.equal(1, stack:stats().reassembly.contradictions)
      feed { (piece(whole, 2000, 8, false, { id = 5 })), (piece(whole, 1000, 8, false, { id = 5 })) }
      assert.equal(2, stack:stats().reassembly.contradictions)
      assert.is_nil(got())
    end)

    spec("gives up after " .. (ipv6 and "60" or "15") .. " s, and says so to who sent the first piece",
      function(feed, got, stack, far)
        local whole = datagram(text(3000))
        local list = pieces(whole, 1000)
        feed { list[1], list[2] }
        feed(pieces(whole, 1000, { id = 9 }), nil)
        assert.is_true(got() ~= nil)
        feed { (piece(whole, 1000, 1000, true, { id = 10 })) } -- no first piece: nobody is told
        sleep(ipv6 and 59 or 14)
        assert.is_nil(far:receive())
        assert.equal(2, stack:stats().reassembly.datagrams)
        sleep(2)
        local told = packets.drain(far)
        assert.equal(1, #told)
        local p = packets.parse(told[1])
        -- RFC 4443 §3.3, RFC 792
        assert.same(ipv6 and { 58, 3, 1 } or { 1, 11, 1 }, { p.protocol, p.payload:byte(1, 2) })
        assert.equal(list[1]:sub(1, 28), p.payload:sub(9, 36))
        assert.equal(0, stack:stats().reassembly.datagrams)
        assert.equal(3, stack:stats()[ipv6 and "ip6_frag" or "ip_frag"].dropped)
        feed { list[3] }
        assert.is_nil(got())
        assert.equal(2, stack:stats().reassembly.timeouts)
      end)

    spec("says nothing of an error's pieces, or of what was for a group (RFC 1122 3.2.2, RFC 4443 §2.4(e))",
      function(feed, _, stack, far)
        local quoted = packets.udp(family.a, 7, family.b, 4000, text(1000))
        local error = (ipv6 and "\1\0" or "\3\1") .. ("\0"):rep(6) .. quoted
        feed { (piece(error, 0, 800, true, { protocol = ipv6 and 58 or 1 })) }
        local group = packets.bytes(ipv6 and "ff02::1" or "224.0.0.1")
        local packet = piece(datagram(text(3000)), 0, 1000, true)
        local at = ipv6 and 24 or 16
        feed { packet:sub(1, at) .. group .. packet:sub(at + #group + 1) }
        assert.equal(2, stack:stats().reassembly.datagrams)
        sleep(61)
        assert.equal(2, stack:stats().reassembly.timeouts)
        assert.is_nil(far:receive())
      end)

    spec("tells the trace what became of each piece", function(feed, _, stack)
      local causes = {}
      stack:trace(function(event)
        if event.type == "drop" then causes[#causes + 1] = event.cause .. " " .. #event.packet end
      end)
      local whole = datagram(text(3000))
      local list = pieces(whole, 1000)
      local header = ipv6 and 48 or 20
      feed { list[1], list[2], list[2] }
      feed(pieces(whole, 1000, { id = 5 }))
      assert.same({ ("fragment came twice %d"):format(1000 + header) }, causes)
      sleep(61)
      local late = ("other fragments did not come in time %d"):format(1000 + header)
      assert.same({ causes[1], late, late }, causes)
    end)

    spec("has nothing to wait for when nothing is incomplete", function(feed, _, stack)
      feed(pieces(datagram(text(3000)), 1000))
      assert.is_nil(stack:poll_delay(netstack.now()))
    end)

    spec("drops a first piece without the headers (RFC 7112, RFC 1858) #guarded", function(feed, _, stack)
      local tcp = u16(4000) .. u16(80) .. ("\0"):rep(8) .. "\80\2\255\255" .. "\0\0\0\0"
      local causes = {}
      stack:trace(function(event) if event.type == "drop" then causes[#causes + 1] = event.cause end end)
      feed { (piece(tcp, 0, 8, true, { protocol = 6 })), (piece(tcp, 8, 12, false, { protocol = 6 })) }
      assert.same({ "first fragment without the headers" }, causes)
      assert.equal(1, stack:stats()[ipv6 and "ip6_frag" or "ip_frag"].dropped)
    end)

    spec("looks at the whole as at any packet #guarded", function(feed, _, _, _, interface)
      local bad = u16(4000) .. u16(PORT) .. u16(9000) .. "\0\0" .. ("x"):rep(2000) -- a UDP length beyond the packet
      feed(pieces(bad, 1000))
      assert.same({ ["transport header that does not add up"] = 1 }, interface:stats().guarded)
    end)

    spec("gives raw sockets the whole packet, once", function(feed, _, stack)
      local raw = stack:raw(ipv6 and "ipv6" or "ipv4", 253)
      raw:settimeout(0)
      feed(pieces(text(2000), 800, { protocol = 253 }))
      local packet = raw:receive()
      assert.equal(2000 + (ipv6 and 40 or 20), #packet)
      local p = packets.parse(packet)
      assert.same({ #packet, 253 }, { p.length, p.protocol })
      assert.is_true(p.payload == text(2000))
      assert.is_nil((raw:receive()))
      raw:close()
    end)

    spec("ignores fragments for others", function(feed, _, stack)
      local other = packets.bytes(family.nobody)
      local at = ipv6 and 24 or 16
      local list = pieces(datagram(text(2000)), 1000)
      for i, packet in ipairs(list) do list[i] = packet:sub(1, at) .. other .. packet:sub(at + #other + 1) end
      feed(list)
      assert.equal(0, stack:stats().reassembly.datagrams)
    end)

    -- ------------------------------------------------------------------------------------------------ bounds

    local function host(i)
      return ipv6 and ("fd00::5:%x"):format(i) or ("10.0.%d.%d"):format(1 + math.floor(i / 250), 1 + i % 250)
    end

    spec("bounds what one source may leave, at its own cost #guarded", function(feed, got, stack)
      local honest = text(3000)
      local list = pieces(datagram(honest), 1000)
      feed { list[1], list[2] }
      for i = 1, 3000 do feed { (piece(("x"):rep(2000), 0, 1400, true, { id = 1000 + i, source = family.nobody })) } end
      local stats = stack:stats().reassembly
      assert.is_true(stats.bytes <= 520 * 1024, stats.bytes)
      assert.is_true(stats.limited > 2500)
      feed { list[3], list[4] }
      assert.is_true(got() == honest)
    end)

    spec("bounds how many datagrams one source may leave, at its own cost #guarded", function(feed, got, stack)
      local honest = text(3000)
      local list = pieces(datagram(honest), 1000)
      feed { list[1], list[2] }
      for i = 1, 3000 do feed { (piece(("x"):rep(88), 80, 8, true, { id = 1000 + i, source = family.nobody })) } end
      assert.equal(129, stack:stats().reassembly.datagrams)
      assert.equal(3000 - 128, stack:stats().reassembly.limited)
      feed { list[3], list[4] }
      assert.is_true(got() == honest)
    end)

    spec("evicts nothing for a piece of what is there already", function(feed, got, stack)
      local honest = text(3000)
      local list = pieces(datagram(honest), 1000)
      feed { list[1] } -- the oldest
      for i = 1, 1023 do feed { (piece(("x"):rep(88), 80, 8, true, { source = host(i) })) } end
      assert.equal(1024, stack:stats().reassembly.datagrams)
      feed { list[3], list[2], list[3], list[4] }
      assert.is_true(got() == honest)
      assert.equal(0, stack:stats().reassembly.limited)
    end)

    spec("bounds what all may leave, a connection and others' datagrams go on #guarded", function(feed, got, stack, far)
      local listener = stack:bind("*", 80)
      local peer = helper.peer(far, family, 999)
      peer:connect(80)
      local socket = listener:accept()
      local honest = text(3000)
      for round = 1, 10 do
        for i = 1, 600 do
          feed { (piece(("x"):rep(2000), 0, 1400, true, { id = i, source = host(i + round * 600) })) }
        end
        feed(pieces(datagram(honest), 1000, { id = 4000 + round }))
        assert.is_true(got() == honest)
        packets.drain(far)
        peer:send(helper.ACK, "ping")
        assert.equal("ping", socket:receive(4))
      end
      local stats = stack:stats().reassembly
      assert.is_true(stats.datagrams <= 1024 and stats.bytes <= 4 * 1024 * 1024, stats.bytes)
      assert.is_true(stats.limited > 3000)
      packets.drain(far)
      socket:abort()
      listener:close()
    end)

    -- ------------------------------------------------------------------------------------------------ what we send

    it("tells the pieces of what we send apart by ids that nobody foretells (RFC 7739) #guarded", function()
      local function ids(seed)
        local list = {}
        run(function()
          local stack, far = helper.piped { seed = seed }
          local socket = stack:udp()
          for i = 1, 200 do
            socket:sendto(text(3000), family.b, 9)
            sleep(0.001)
            for j, packet in ipairs(packets.drain(far)) do
              local id = packets.get16(packet, ipv6 and 47 or 5)
              if j == 1 then list[i] = id end
              assert.equal(list[i], id)
            end
          end
          socket:close()
        end)
        return list
      end
      local list = ids(1)
      local steps, again = {}, 0
      for i = 2, #list do
        local step = list[i] - list[i - 1]
        again = again + (steps[step] and 1 or 0)
        steps[step] = true
      end
      assert.is_true(again < 5, again)
      assert.same(list, ids(1))
      assert.is_not.same(list, ids(2))
    end)

    it("leaves the ids alone that a raw socket's user chose", function()
      run(function()
        local stack, far = helper.piped { seed = 1 }
        local raw = stack:raw(ipv6 and "ipv6" or "ipv4", UDP)
        for _, offset in ipairs { 0, 80 } do
          local data = text(80)
          local packet = ipv6 and packets.fragment6(family.a, family.b, UDP, 7, offset, true, data) or
            packets.ipv4(family.a, family.b, UDP, data, { id = 7, fragment = 0x2000 + offset / 8 })
          raw:send(packet)
          sleep(0.001)
          assert.equal(packet, far:receive())
        end
        local ids, seen = {}, {}
        for i = 1, 4 do -- what it leaves to us is random
          raw:send(packets.ip(family.a, family.b, UDP, text(2000)))
          sleep(0.001)
          for _, packet in ipairs(packets.drain(far)) do
            local id = packet:sub(ipv6 and 45 or 5, ipv6 and 48 or 6)
            ids[i] = ids[i] or id
            assert.equal(ids[i], id)
          end
          assert.is_nil(seen[ids[i]])
          seen[ids[i]] = true
        end
        raw:close()
      end)
    end)

    it("brings what one stack cut together at another", function()
      local a, b = helper.pair({ seed = 1 }, { checksum = true })
      run(function()
        local from, to = a:udp(), b:udp()
        to:setsockname("*", PORT)
        for _, length in ipairs { 1500, 1473, 3000, 30000, ipv6 and 65487 or 65507 } do
          local data = text(length)
          assert.equal(length, from:sendto(data, family.b, PORT))
          assert.is_true(to:receive() == data)
        end
        from:close()
        to:close()
      end)
    end)
  end)
end

describe("IPv4 identification", function()
  after_each(helper.nothing_left)

  it("counts nothing, of segments and of what we answer (RFC 6864) #guarded", function()
    run(function()
      local socket, peer, stack = helper.by_hand(helper.IPV4, { seed = 1 })
      local last, steps, again = {}, {}, 0
      for i = 1, 300 do
        if i % 2 == 0 then socket:send("x")
        else peer.far:send(packets.icmp("10.0.0.2", "10.0.0.1", 8, 0, "\0\0\0\0")) end
        sleep(0.001)
        local packet = peer.far:receive()
        local p, id = packets.parse(packet), packets.get16(packet, 5)
        if p.protocol == 6 then
          peer.ack = peer.ack + #p.data
          peer:send(helper.ACK)
        end
        local step = last[p.protocol] and p.protocol .. " " .. id - last[p.protocol]
        if step and steps[step] then again = again + 1 end
        if step then steps[step] = true end
        last[p.protocol] = id
      end
      assert.is_true(again < 5, again)
      socket:abort()
      stack:close()
    end)
  end)
end)

describe("Fragments of IPv6", function()
  after_each(helper.nothing_left)

  -- Headers in front of the fragment header, and behind it.
  it("may have headers on both sides of the fragment header (RFC 8200 §4.5)", function()
    run(function()
      local stack, far = helper.piped()
      local socket = stack:udp()
      socket:setsockname("*", PORT)
      local data = text(1992)
      -- Destination options, then the datagram.
      local whole = "\17\0\1\4\0\0\0\0" .. u16(4000) .. u16(PORT) .. u16(8 + #data) .. "\0\0" .. data
      for from = 0, #whole - 1, 1000 do
        local more = from + 1000 < #whole
        local fragment = "\60\0" .. u16(from + (more and 1 or 0)) .. "\0\0\0\9" .. whole:sub(from + 1, from + 1000)
        far:send(packets.ipv6("fd00::2", "fd00::1", 0, "\44\0\1\4\0\0\0\0" .. fragment)) -- behind hop-by-hop options
      end
      assert.is_true(socket:receive() == data)
      socket:close()
    end)
  end)

  it("that are atomic stand alone (RFC 6946)", function()
    run(function()
      local stack, far = helper.piped()
      local socket = stack:udp()
      socket:setsockname("*", PORT)
      local data = text(2000)
      local function udp(bytes) return u16(4000) .. u16(PORT) .. u16(8 + #bytes) .. "\0\0" .. bytes end
      local whole = udp(data)
      far:send(packets.fragment6("fd00::2", "fd00::1", 17, 5, 0, true, whole:sub(1, 1000)))
      far:send(packets.fragment6("fd00::2", "fd00::1", 17, 5, 0, false, udp("atomic")))
      assert.equal("atomic", socket:receive())
      far:send(packets.fragment6("fd00::2", "fd00::1", 17, 5, 1000, false, whole:sub(1001)))
      assert.is_true(socket:receive() == data)
      assert.equal(0, stack:stats().reassembly.contradictions)
      socket:close()
    end)
  end)
end)
