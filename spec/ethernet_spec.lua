-- Ethernet: frames, ARP (RFC 826, RFC 5227), neighbour discovery (RFC 4861) and duplicate address detection (RFC 4862),
-- between stacks and by hand.
local netstack = require "netstack"
local frames = require "spec.frames"
local helper = require "spec.helper"
local packets = require "spec.packets"

local char, rep = string.char, string.rep
local run, sleep, spawn = netstack.run, netstack.sleep, netstack.spawn
local u16, bytes = packets.u16, packets.bytes
local OWN, PEER, OTHER, ALL = frames.OWN, frames.PEER, frames.OTHER, frames.ALL
local frame, ip_frame, arp, nd, kind = frames.frame, frames.ip, frames.arp, frames.nd, frames.kind
local solicited_node, by_hand, next_frame, answer = frames.solicited_node, frames.by_hand, frames.next, frames.answer

describe("An Ethernet", function()
  after_each(helper.nothing_left)

  local function spec(name, fn, options)
    it(name, function()
      run(function()
        local stack, far, interface, announced = by_hand(options)
        fn(stack, far, interface, announced)
        stack:close()
      end)
    end)
  end

  for _, family in ipairs(helper.families) do
    it("carries streams and datagrams between two stacks, " .. family.name, function()
      local stacks, interfaces = {}, {}
      local ends = { netstack.pipe { medium = "ethernet", checksum = true } }
      run(function()
        for i = 1, 2 do
          stacks[i] = helper.watch(netstack.new { seed = i })
          interfaces[i] = assert(stacks[i]:attach(ends[i], {
            addresses = { ("10.0.0.%d/24"):format(i), ("fd00::%d/64"):format(i) } }))
        end
        local a, b = stacks[1], stacks[2]
        local client, server = helper.connection(a, b, family)
        helper.exchange(client, server, 2 ^ 20)
        local to = b:udp()
        to:setsockname("*", 7)
        local from = a:udp()
        local big = rep("x", 30000) -- fragments that wait for nobody
        assert.equal(30000, from:sendto(big, family.b, 7))
        assert.is_true(to:receive() == big)
        assert.is_true(a:ping(family.b) < 1)
        from:close()
        to:close()
        assert.matches("^[0-9a-f]2:", interfaces[1]:mac():gsub("^(.)[6ae]:", "%12:"))
        assert.is_not.equal(interfaces[1]:mac(), interfaces[2]:mac())
        assert.equal(1500, interfaces[1]:stats().tx_bytes > 0 and ends[1]:mtu())
        sleep(3)
        assert.is_nil(a:poll_delay(netstack.now())) -- who knows its neighbours has nothing to do
      end)
    end)

    it("goes through a link-local address, " .. family.name, function()
      if family.name == "IPv4" then return end
      local ends = { netstack.pipe { medium = "ethernet" } }
      run(function()
        local a, b = helper.watch(netstack.new { seed = 1 }), helper.watch(netstack.new { seed = 2 })
        local ia, ib = assert(a:attach(ends[1])), assert(b:attach(ends[2]))
        assert.matches("^fe80::.+%%eth0$", ia:link_local())
        local client, server = helper.connection(a, b, { b = ib:link_local() })
        helper.exchange(client, server, 10000)
        sleep(3)
        ia:detach()
      end)
    end)
  end

  spec("takes the mac that it is given, or says what is wrong with it", function(_, _, interface)
    assert.equal("02:00:00:00:00:01", interface:mac())
    assert.equal("fe80::ff:fe00:1%eth0", interface:link_local())
    local stack = netstack.new()
    local near = netstack.pipe { medium = "ethernet" }
    for _, mac in ipairs { "", "02:00:00:00:00", "zz:00:00:00:00:01", "01:00:00:00:00:01", 5 } do
      local failure = packets.failure(stack.attach, stack, near, { mac = mac })
      assert.matches("bad argument #2 to 'attach' %(option 'mac'", failure)
    end
    local ip = netstack.pipe()
    assert.same({ nil, "not supported" }, { stack:attach(ip, { mac = "02:00:00:00:00:01" }) })
    assert.same({ nil, "not supported" }, { stack:attach(ip):mac() })
    stack:close()
  end)

  spec("is told of each address, and asked who has it (RFC 5227 §2.3, RFC 4862 5.4.2)", function(_, _, _, announced)
    local kinds = {}
    for i, data in ipairs(announced) do kinds[i] = kind(data) end
    -- The link-local address and fd00::1 end in the same 24 bits: there is one group to report (multicast_spec.lua).
    assert.same({ "report", "solicitation", "arp request", "arp request", "solicitation" }, kinds)
    assert.equal(ALL .. OWN, announced[3]:sub(1, 12))
    assert.equal(OWN .. bytes "10.0.0.1" .. rep("\0", 6) .. bytes "10.0.0.1", announced[3]:sub(23))
    local packet = announced[5]:sub(15)
    assert.equal("\51\51\255\0\0\1", announced[5]:sub(1, 6))
    assert.equal(rep("\0", 16) .. solicited_node "fd00::1", packet:sub(9, 40))
    assert.equal(255, packet:byte(8))
    assert.equal(bytes "fd00::1", packet:sub(49))
  end, { checksum = true })

  -- ------------------------------------------------------------------------------------------------ asking

  for _, family in ipairs(helper.families) do
    local ipv6 = family.name == "IPv6"
    local question = ipv6 and "solicitation" or "arp request"

    spec("asks for a neighbour, and then sends what waited, in order, " .. family.name, function(stack, far)
      local socket = stack:udp()
      for i = 1, 5 do assert(socket:sendto("datagram " .. i, family.b, 9)) end
      local asked = next_frame(far)
      assert.equal(question, kind(asked))
      assert.equal(ipv6 and "\51\51\255\0\0\2" or ALL, asked:sub(1, 6))
      assert.is_nil(next_frame(far))
      answer(far, asked)
      for i = 1, 5 do
        local data = next_frame(far)
        assert.equal(PEER .. OWN, data:sub(1, 12))
        assert.equal("datagram " .. i, packets.parse(data:sub(15)).data)
      end
      socket:sendto("known", family.b, 9)
      assert.equal("known", packets.parse(next_frame(far):sub(15)).data)
      socket:close()
    end)

    spec("asks three times, then tells who waited (RFC 4861 7.2.2), " .. family.name, function(stack, far)
      local began = netstack.now()
      local connecting = spawn(function() return stack:connect(family.b, 80) end)
      local pinging = spawn(function() return stack:ping(family.b, { timeout = 10 }) end)
      local udp = stack:udp()
      assert(udp:setpeername(family.b, 9))
      udp:send("x")
      assert.same({ nil, "host unreachable" }, { connecting:join() })
      assert.near(3, netstack.now() - began, 0.01)
      assert.same({ nil, "host unreachable" }, { pinging:join() })
      assert.same({ nil, "host unreachable" }, { udp:receive() })
      local count = 0
      for _, data in ipairs(packets.drain(far)) do
        assert.equal(question, kind(data))
        count = count + 1
      end
      assert.equal(3, count)
      local stats = stack:stats().neighbours
      assert.same({ 1, 0, 0 }, { stats.failed, stats.entries, stats.waiting })
      udp:close()
    end)

    spec("asks again, the station itself, for one that was silent for long (RFC 4861 7.3.3), " .. family.name,
      function(stack, far)
        local socket = stack:udp()
        socket:sendto("a", family.b, 9)
        answer(far, next_frame(far))
        assert.equal("a", packets.parse(next_frame(far):sub(15)).data)
        sleep(31)
        socket:sendto("b", family.b, 9)
        assert.equal("b", packets.parse(next_frame(far):sub(15)).data) -- sent at once
        assert.is_nil(far:receive(4.9))
        local asked = far:receive(1)
        assert.same({ question, PEER }, { kind(asked), asked:sub(1, 6) })
        answer(far, asked)
        sleep(60)
        assert.is_nil(far:receive())
        socket:sendto("c", family.b, 9) -- and now nobody answers: it is forgotten, the next packet asks everybody
        sleep(5 + 3 + 1)
        assert.equal(4, #packets.drain(far))
        assert.equal(0, stack:stats().neighbours.entries)
        socket:close()
      end)

    spec("has nothing to do for neighbours that nobody sends to, " .. family.name, function(stack, far)
      stack:ping(family.b, { timeout = 0.001 })
      answer(far, packets.drain(far)[1])
      sleep(0.1)
      assert.is_nil(stack:poll_delay(netstack.now()))
    end)

    spec("lets a packet for a far host go to the gateway, " .. family.name, function(stack, far)
      if ipv6 then stack:add_route("::/0", "fd00::2") else stack:add_route("0.0.0.0/0", "10.0.0.2") end
      local socket = stack:udp()
      socket:sendto("far", family.outside, 9)
      local asked = next_frame(far)
      assert.equal(bytes(family.b), asked:sub(-4) == bytes "10.0.0.2" and asked:sub(-4) or asked:sub(63, 78))
      answer(far, asked)
      local data = next_frame(far)
      assert.equal(PEER, data:sub(1, 6))
      assert.equal(bytes(family.outside), packets.parse(data:sub(15)).destination)
      socket:close()
    end)

    spec("keeps 64 packets for a neighbour, the last ones, " .. family.name, function(stack, far)
      local socket = stack:udp()
      for i = 1, 100 do socket:sendto(tostring(i), family.b, 9) end
      answer(far, next_frame(far))
      local first = packets.parse(next_frame(far):sub(15)).data
      assert.equal("37", first)
      assert.equal(63, #packets.drain(far))
      assert.equal(36, stack:stats().neighbours.dropped)
      socket:close()
    end)
  end

  -- ------------------------------------------------------------------------------------------------ answering

  spec("answers ARP for each of its addresses, and nobody else's", function(_, far)
    for _, host in ipairs { "10.0.0.1", "10.0.0.3" } do
      far:send(arp { operation = 1, host = "10.0.0.2", target = host, to = ALL })
      local reply = next_frame(far)
      assert.equal("arp reply", kind(reply))
      assert.equal(PEER .. OWN, reply:sub(1, 12))
      assert.equal(OWN .. bytes(host) .. PEER .. bytes "10.0.0.2", reply:sub(23))
    end
    far:send(arp { operation = 1, host = "10.0.0.2", target = "10.0.0.9", to = ALL })
    far:send(arp { operation = 1, host = "10.0.0.2", target = "10.0.0.2", to = ALL })
    assert.is_nil(next_frame(far))
    far:send(arp { operation = 1, host = "0.0.0.0", target = "10.0.0.1", to = ALL }) -- a probe (RFC 5227 §2.1.1)
    assert.equal("arp reply", kind(next_frame(far)))
  end)

  spec("answers solicitations (RFC 4861 7.2.4)", function(_, far)
    for _, target in ipairs { "fd00::1", "fe80::ff:fe00:1" } do
      far:send(nd { source = "fd00::2", destination = solicited_node(target), target = target, to = "\51\51\255\0\0\1",
        options = "\1\1" .. PEER })
      local data = next_frame(far)
      assert.equal("advertisement", kind(data))
      assert.equal(PEER .. OWN, data:sub(1, 12))
      local message = data:sub(55)
      assert.equal(0x60, message:byte(5)) -- solicited, override
      assert.equal(bytes(target) .. "\2\1" .. OWN, message:sub(9))
    end
    -- Somebody who looks for an address that is ours is told so, with everybody else.
    far:send(nd { destination = solicited_node "fd00::1", target = "fd00::1", to = "\51\51\255\0\0\1" })
    local data = next_frame(far)
    assert.equal("\51\51\0\0\0\1", data:sub(1, 6))
    assert.equal(0x20, data:byte(59))
    far:send(nd { source = "fd00::2", destination = solicited_node "fd00::9", target = "fd00::9",
      options = "\1\1" .. PEER, to = "\51\51\255\0\0\9" })
    assert.is_nil(next_frame(far))
  end, { checksum = true })

  spec("knows who asked, and answers pings", function(stack, far)
    far:send(arp { operation = 1, host = "10.0.0.2", target = "10.0.0.1", to = ALL })
    next_frame(far)
    far:send(ip_frame(packets.icmp("10.0.0.2", "10.0.0.1", 8, 0, "\0\1\0\1")))
    local data = next_frame(far)
    assert.same({ "ipv4", PEER }, { kind(data), data:sub(1, 6) })
    far:send(nd { source = "fd00::2", destination = solicited_node "fd00::1", target = "fd00::1",
      options = "\1\1" .. PEER })
    next_frame(far)
    far:send(ip_frame(packets.icmp("fd00::2", "fd00::1", 128, 0, "\0\1\0\1")))
    assert.equal("pong", kind(next_frame(far)))
    assert.equal(2, stack:stats().neighbours.entries)
  end)

  spec("sends to groups and to everybody without asking (RFC 1112 §6.4, RFC 2464 §7)", function(stack, far)
    local socket = stack:udp()
    socket:setoption("broadcast", true)
    for _, row in ipairs { { "255.255.255.255", ALL }, { "10.0.0.255", ALL }, { "224.1.129.3", "\1\0\94\1\129\3" },
      { "ff02::1:2", "\51\51\0\1\0\2" } } do
      assert(socket:sendto("x", row[1], 9))
      assert.equal(row[2], next_frame(far):sub(1, 6))
    end
    socket:close()
  end)

  -- ------------------------------------------------------------------------------------------------ duplicates

  spec("gives up an address that somebody has in its first second (RFC 4862 5.4.5)", function(stack, far, interface)
    assert.equal(3, #interface:addresses())
    far:send(nd { type = 136, flags = 0x20, source = "fd00::1", destination = "\255\2" .. rep("\0", 13) .. "\1",
      target = "fd00::1", to = "\51\51\0\0\0\1", options = "\2\1" .. OTHER })
    sleep(0.1)
    assert.same({ "10.0.0.1/24", "10.0.0.3/24" }, interface:addresses())
    assert.equal(1, stack:stats().neighbours.duplicates)
  end, { detecting = true })

  spec("never gives one up after that, whatever is advertised #guarded", function(stack, far, interface)
    for _, flags in ipairs { 0x20, 0x60, 0 } do
      far:send(nd { type = 136, flags = flags, source = "fd00::2", destination = "\255\2" .. rep("\0", 13) .. "\1",
        target = "fd00::1", to = "\51\51\0\0\0\1", options = "\2\1" .. OTHER })
    end
    far:send(arp { operation = 2, station = OTHER, host = "10.0.0.1", target = "10.0.0.1", to = ALL })
    sleep(0.1)
    assert.equal(3, #interface:addresses())
    assert.equal(3, stack:stats().neighbours.conflicts) -- the other breaks the rules: solicited, and to all
    local defended = packets.drain(far)
    assert.equal(1, #defended)
    assert.equal(OWN .. bytes "10.0.0.1", defended[1]:sub(23, 32)) -- RFC 5227 §2.4
    for _ = 1, 100 do
      far:send(arp { operation = 2, station = OTHER, host = "10.0.0.1", target = "10.0.0.1", to = ALL })
    end
    sleep(0.1)
    assert.same({}, packets.drain(far)) -- at most once in ten seconds
  end)
end)

-- ------------------------------------------------------------------------------------------------ the guard

describe("The guard of frames", function()
  after_each(helper.nothing_left)

  local ping = packets.icmp("10.0.0.2", "10.0.0.1", 8, 0, "\0\1\0\1")
  local ping6 = packets.icmp("fd00::2", "fd00::1", 128, 0, "\0\1\0\1")
  local no_arp, no_nd = "arp that breaks its rules", "neighbour discovery that breaks its rules"
  local source_option = "\1\1" .. PEER

  local function solicitation(o)
    local all = { source = "fd00::2", target = "fd00::1", destination = solicited_node "fd00::1",
      options = source_option }
    for key, value in pairs(o) do all[key] = value end
    return nd(all)
  end

  local function with_byte(data, at, value)
    return data:sub(1, at - 1) .. char(value) .. data:sub(at + 1)
  end

  local function request(o)
    local all = { operation = 1, host = "10.0.0.2", target = "10.0.0.1", to = ALL }
    for key, value in pairs(o) do all[key] = value end
    return arp(all)
  end

  for _, row in ipairs {
    { "a frame that is a header only", "frame shorter than its header", OWN .. PEER .. "\8\0" },
    { "half a header", "frame shorter than its header", OWN .. "\2\0" },
    { "a VLAN's", "frame of an unknown type", frame(OWN, PEER, 0x8100, "\0\1\8\0" .. ping) },
    { "an unknown type", "frame of an unknown type", frame(OWN, PEER, 0x88cc, "whatever") },
    { "an 802.3 length", "frame of an unknown type", frame(OWN, PEER, 46, rep("x", 46)) },
    { "one for another station", "frame for another station", ip_frame(ping, OTHER) },
    { "one from a group", "frame from an impossible station", ip_frame(ping, OWN, "\1\0\94\0\0\1") },
    { "one from ourselves", "frame from an impossible station", ip_frame(ping, OWN, OWN) },
    { "a packet for us in everybody's frame", "packet for one host in a frame for many", ip_frame(ping, ALL) },
    { "a packet for us in a group's frame (IPv6)", "packet for one host in a frame for many",
      ip_frame(ping6, "\51\51\0\0\0\1") },
    { "IPv6 that says IPv4", "neither IPv4 nor IPv6", frame(OWN, PEER, 0x0800, ping6) },
    { "ARP that is too short", no_arp, request({}):sub(1, 41) },
    { "ARP of other hardware", no_arp, with_byte(request {}, 16, 2) },
    { "ARP of other protocols", no_arp, with_byte(request {}, 18, 1) },
    { "ARP with other lengths", no_arp, with_byte(request {}, 20, 16) },
    { "ARP that does neither ask nor answer", no_arp, request { operation = 3 } },
    { "ARP from another station than the frame", no_arp, request { from = OTHER } },
    { "ARP from a group of hosts", no_arp, request { host = "224.0.0.1" } },
    { "ARP from everybody", no_arp, request { host = "255.255.255.255" } },
    { "a solicitation through a router (hop limit 254)", no_nd, solicitation { hops = 254 } },
    { "a solicitation with a code", no_nd, solicitation { code = 1 } },
    { "a solicitation for a group", no_nd, solicitation { target = "ff02::1" } },
    { "an option of length 0", no_nd, solicitation { options = "\1\0" .. PEER } },
    { "an option beyond the message", no_nd, solicitation { options = "\1\2" .. PEER } },
    { "half an option", no_nd, solicitation { options = "\1\1\2\3" } },
    { "a station of 14 bytes", no_nd, solicitation { options = "\1\2" .. PEER .. rep("\0", 8) } },
    { "a station that is a group", no_nd, solicitation { options = "\1\1" .. ALL } },
    { "a search for an address that names a station", no_nd,
      nd { target = "fd00::1", destination = solicited_node "fd00::1", options = source_option } },
    { "a search for an address that is not for its group", no_nd, nd { target = "fd00::1" } },
    { "a solicited advertisement to all", no_nd,
      solicitation { type = 136, flags = 0x60, destination = "\255\2" .. rep("\0", 13) .. "\1" } },
    { "a router's advertisement", "router discovery that nobody asked for",
      nd { type = 134, source = "fe80::2", destination = "\255\2" .. rep("\0", 13) .. "\1", target = "fd00::9" } },
    { "a redirect", "router discovery that nobody asked for",
      nd { type = 137, source = "fe80::2", destination = bytes "fd00::1", target = "fd00::9" } },
    { "neighbour discovery in a fragment's clothes", no_nd, (function()
      local message = solicitation({}):sub(55)
      return ip_frame(packets.ipv6("fd00::2", "fd00::1", 60, "\58\0\1\4\0\0\0\0" .. message, { ttl = 255 }))
    end)() },
    { "a packet too big with an mtu of 48", "packet too big with an mtu below 1280",
      ip_frame(packets.icmp("fd00::2", "fd00::1", 2, 0, "\0\0\0\48" .. rep("\0", 48))) },
    { "a packet from our own address", "impossible source", ip_frame(packets.udp("10.0.0.1", 7, "10.0.0.1", 7, "x")) },
    { "a packet from our link-local address", "impossible source",
      ip_frame(packets.udp("fe80::ff:fe00:1", 7, "fd00::1", 7, "x")) },
  } do
    local bites = not row[1]:find("header") and not row[1]:find("type") and not row[1]:find("802") and
      not row[1]:find("VLAN") and not row[1]:find("short") and not row[1]:find("says IPv4")
    it("drops " .. row[1] .. (bites and " #guarded" or ""), function()
      run(function()
        local stack, far, interface = by_hand()
        far:send(row[3])
        sleep(0.001)
        assert.same({ [row[2]] = 1 }, interface:stats().guarded)
        assert.same({}, packets.drain(far))
        assert.equal(3, #interface:addresses())
        far:send(request {})
        far:send(ip_frame(ping))
        sleep(0.001)
        assert.equal(2, #packets.drain(far))
        stack:close()
      end)
    end)
  end

  it("drops neighbour discovery in pieces (RFC 6980 §5)", function()
    run(function()
      local stack, far, interface = by_hand()
      local message = solicitation({}):sub(55)
      for from = 0, #message - 1, 16 do
        far:send(ip_frame(packets.fragment6("fd00::2", "fd00::1", 58, 1, from, from + 16 < #message,
          message:sub(from + 1, from + 16))))
      end
      sleep(0.001)
      assert.same({}, packets.drain(far))
      assert.equal(1, interface:stats().guarded[no_nd])
      assert.equal(0, stack:stats().neighbours.entries)
      stack:close()
    end)
  end)

  it("takes padded frames, and messages that are unusual but sound", function()
    run(function()
      local stack, far, interface = by_hand()
      far:send(request {} .. rep("\0", 18)) -- Ethernet's least size
      assert.equal("arp reply", kind(next_frame(far)))
      far:send(ip_frame(ping) .. rep("\0", 30))
      assert.equal("ipv4", kind(next_frame(far)))
      far:send(solicitation { options = "\14\1\1\2\3\4\5\6" .. source_option }) -- a nonce (RFC 3971) first
      assert.equal("advertisement", kind(next_frame(far)))
      far:send(solicitation { options = "" }) -- no station: we have to know it, or ask
      assert.equal("advertisement", kind(next_frame(far)))
      assert.same({}, interface:stats().guarded)
      stack:close()
    end)
  end)

  it("takes nothing for an answer that nobody asked for, and no other station for one that just answered #guarded",
    function()
      run(function()
        local stack, far = by_hand()
        far:send(arp { operation = 2, host = "10.0.0.77", target = "10.0.0.1", target_station = OWN })
        far:send(arp { operation = 1, host = "10.0.0.78", target = "10.0.0.78", to = ALL })
        far:send(solicitation { type = 136, flags = 0x60, source = "fd00::77", target = "fd00::77",
          destination = bytes "fd00::1", options = "\2\1" .. PEER })
        sleep(0.001)
        assert.equal(0, stack:stats().neighbours.entries)
        local socket = stack:udp()
        local function to_peer()
          socket:sendto("x", "10.0.0.2", 9)
          return next_frame(far)
        end
        answer(far, to_peer())
        next_frame(far)
        far:send(arp { operation = 1, station = OTHER, host = "10.0.0.2", target = "10.0.0.2", to = ALL })
        local asked = next_frame(far) -- it is asked whether it is still there
        assert.same({ "arp request", PEER }, { kind(asked), asked:sub(1, 6) })
        assert.equal(PEER, to_peer():sub(1, 6))
        far:send(arp { operation = 2, host = "10.0.0.2", target = "10.0.0.1", target_station = OWN })
        sleep(0.001)
        assert.equal(PEER, to_peer():sub(1, 6))
        -- A station that is silent now has to give way.
        far:send(arp { operation = 1, station = OTHER, host = "10.0.0.2", target = "10.0.0.2", to = ALL })
        sleep(0.001)
        to_peer()
        sleep(10)
        packets.drain(far)
        answer(far, to_peer(), OTHER)
        assert.equal(OTHER, next_frame(far):sub(1, 6))
        socket:close()
        stack:close()
      end)
    end)

  for _, family in ipairs(helper.families) do
    local ipv6 = family.name == "IPv6"
    local function host(i)
      return ipv6 and ("fd00::5:%x"):format(i) or ("10.0.0.%d"):format(4 + i % 250)
    end

    -- A connection to a neighbour that is known, while others are played in.
    local function flooded(name, fn)
      it(name .. ", " .. family.name .. " #guarded", function()
        run(function()
          local stack = helper.watch(netstack.new { seed = 1 })
          local near, far = netstack.pipe { medium = "ethernet", capacity = 0 }
          assert(stack:attach(near, { mac = "02:00:00:00:00:01", addresses = { "10.0.0.1/8", "fd00::1/64" } }))
          sleep(2)
          packets.drain(far)
          local listener = stack:bind("*", 80)
          far:send(ip_frame(helper.build(family, { from_port = 999, to_port = 80, seq = 1, flags = helper.SYN })))
          local asked = next_frame(far)
          answer(far, asked)
          local syn = helper.parse(next_frame(far):sub(15))
          local sequence = 2
          local function play(data)
            far:send(ip_frame(helper.build(family, { from_port = 999, to_port = 80, seq = sequence, ack = syn.seq + 1,
              flags = helper.ACK, data = data })))
            sequence = sequence + #data
          end
          play ""
          local socket = listener:accept()
          local function works()
            packets.drain(far)
            play "ping"
            assert.equal("ping", socket:receive(4))
            local data = far:receive(0.1) -- the acknowledgement goes there, unasked
            assert.equal(PEER, data:sub(1, 6))
          end
          works()
          fn(stack, far, works)
          works()
          socket:abort()
          listener:close()
          sleep(10)
        end)
      end)
    end

    flooded("keeps a bounded number of hosts that ask", function(stack, far, works)
      for i = 1, 3000 do
        local station = "\2\1" .. u16(math.floor(i / 65536)) .. u16(i)
        if ipv6 then
          far:send(nd { source = host(i), target = "fd00::1", destination = bytes "fd00::1",
            options = "\1\1" .. station, from = station })
        else
          far:send(arp { operation = 1, station = station, host = ("10.%d.%d.2"):format(1 + i % 200, i % 251),
            target = "10.0.0.1", to = ALL })
        end
        if i % 100 == 0 then
          sleep(0.001)
          packets.drain(far)
        end
      end
      local stats = stack:stats().neighbours
      assert.is_true(stats.entries <= 257, stats.entries)
      assert.is_true(stats.evicted > 2000)
      works()
    end)

    flooded("keeps a bounded number of hosts that it asks for", function(stack, far, works)
      local socket = stack:udp()
      for i = 1, 3000 do
        socket:sendto("x", ipv6 and host(i) or ("10.%d.%d.2"):format(1 + i % 200, i % 251), 9)
        if i % 100 == 0 then packets.drain(far) end
      end
      local stats = stack:stats().neighbours
      assert.is_true(stats.entries <= 257, stats.entries)
      assert.is_true(stats.waiting <= 1024)
      works()
      socket:close()
    end)
  end
end)
