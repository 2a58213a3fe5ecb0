-- Neighbours: what is believed of them, when they are asked, what an address says before it is surely ours, and bounds.
local netstack = require "netstack"
local frames = require "spec.frames"
local helper = require "spec.helper"
local packets = require "spec.packets"

local rep = string.rep
local run, sleep, spawn = netstack.run, netstack.sleep, netstack.spawn
local u16, bytes = packets.u16, packets.bytes
local OWN, PEER, OTHER, ALL, ALL_NODES = frames.OWN, frames.PEER, frames.OTHER, frames.ALL, frames.ALL_NODES
local arp, nd, kind, data_of = frames.arp, frames.nd, frames.kind, frames.data
local answer, next_frame, solicited_node = frames.answer, frames.next, frames.solicited_node

local function spec(name, fn, options)
  it(name, function()
    run(function()
      local stack, far, interface = frames.by_hand(options)
      fn(stack, far, interface)
      stack:close()
    end)
  end)
end

-- Somebody says it had one of our addresses.
local function claim(far, target)
  far:send(nd { type = 136, flags = 0x20, source = target, destination = ALL_NODES, target = target,
    to = "\51\51\0\0\0\1", options = "\2\1" .. OTHER })
  sleep(0.001)
end

-- Somebody says it were the peer: ARP's answer or the advertisement that would follow a question.
local function claim_peer(far, ipv6, station)
  if ipv6 then
    far:send(nd { type = 136, flags = 0x60, source = "fd00::2", destination = bytes "fd00::1", target = "fd00::2",
      from = station, options = "\2\1" .. station })
  else
    far:send(arp { operation = 2, station = station, host = "10.0.0.2", target = "10.0.0.1", target_station = OWN })
  end
  sleep(0.001)
end

describe("An address that is new", function()
  after_each(helper.nothing_left)

  spec("may be lost for a second, and no other with it (RFC 4862 5.4) #guarded", function(stack, far, interface)
    interface:set_addresses { "10.0.0.1/24", "fd00::1/64", "fd00::5/64" }
    claim(far, "fd00::1")
    claim(far, "fe80::ff:fe00:1")
    assert.same({ "10.0.0.1/24", "fd00::1/64", "fd00::5/64" }, interface:addresses())
    assert.equal("fe80::ff:fe00:1%eth0", interface:link_local())
    claim(far, "fd00::5")
    assert.same({ "10.0.0.1/24", "fd00::1/64" }, interface:addresses())
    interface:set_addresses { "10.0.0.1/24", "fd00::1/64", "fd00::5/64" } -- tried again
    sleep(1)
    claim(far, "fd00::5")
    assert.equal(3, #interface:addresses())
    assert.equal(1, stack:stats().neighbours.duplicates)
  end)

  spec("is kept from the second's start by who looks for the same at the same time", function(_, far, interface)
    far:send(nd { destination = solicited_node "fd00::1", target = "fd00::1", to = "\51\51\255\0\0\1" })
    sleep(0.001)
    assert.same({ "10.0.0.1/24", "10.0.0.3/24" }, interface:addresses())
    far:send(nd { source = "fd00::2", target = "fd00::1", options = "\1\1" .. PEER })
    assert.is_nil(next_frame(far))
  end, { detecting = true })

  spec("takes no neighbour's packets from another owner (RFC 4429 §3)", function(stack, far)
    local socket = stack:udp()
    socket:sendto("x", "fd00::2", 9)
    local asked = next_frame(far)
    assert.equal("solicitation", kind(asked))
    assert.equal(14 + 40 + 24, #asked) -- without the option that names our station
    far:send(nd { source = "fd00::7", target = "fd00::1", options = "\1\1" .. OTHER })
    local told = next_frame(far)
    assert.same({ "advertisement", 0x40 }, { kind(told), told:byte(59) }) -- solicited; overrides nothing
    -- The peer, which cannot know us by then, is answered where its question came from.
    far:send(nd { source = "fd00::2", target = "fd00::1" })
    told = next_frame(far)
    assert.same({ "advertisement", PEER }, { kind(told), told:sub(1, 6) })
    answer(far, asked)
    assert.equal("x", data_of(next_frame(far)))
    sleep(1)
    socket:sendto("y", "fd00::3", 9)
    assert.equal("\1\1" .. OWN, next_frame(far):sub(-8))
    far:send(nd { source = "fd00::7", target = "fd00::1", options = "\1\1" .. OTHER })
    assert.equal(0x60, next_frame(far):byte(59))
    socket:close()
  end, { detecting = true })

  spec("is asked with by its elder sister", function(stack, far, interface)
    interface:set_addresses { "10.0.0.1/24", "fd07::1/64" }
    packets.drain(far)
    local socket = stack:udp()
    socket:sendto("x", "fd07::2", 9)
    local asked = next_frame(far)
    assert.equal(bytes "fe80::ff:fe00:1", asked:sub(23, 38))
    assert.equal("\1\1" .. OWN, asked:sub(-8))
    socket:close()
  end)
end)

describe("A neighbour", function()
  after_each(helper.nothing_left)

  for _, family in ipairs(helper.families) do
    local ipv6 = family.name == "IPv6"

    spec("that answered is not replaced by an answer that nobody asked for, " .. family.name .. " #guarded",
      function(stack, far)
        local socket = stack:udp()
        local function send(text)
          socket:sendto(text, family.b, 9)
          return next_frame(far)
        end
        answer(far, send "a")
        assert.equal("a", data_of(next_frame(far)))
        for _ = 1, 5 do claim_peer(far, ipv6, OTHER) end
        -- The first one is asked, once, and what we send goes on to it.
        assert.equal(PEER, send("b"):sub(1, 6))
        assert.equal(PEER, next_frame(far):sub(1, 6))
        assert.is_nil(next_frame(far))
        claim_peer(far, ipv6, PEER)
        sleep(8)
        assert.is_nil(far:receive()) -- it has answered
        assert.equal(PEER, send("c"):sub(1, 6))
        -- Three questions without an answer, and everybody is asked.
        claim_peer(far, ipv6, OTHER)
        sleep(4)
        assert.equal(3, #packets.drain(far))
        answer(far, send "d", OTHER)
        assert.equal(OTHER, next_frame(far):sub(1, 6))
        -- After a long silence another may be it, or the same, but nobody is who was not asked.
        for _, station in ipairs { PEER, PEER } do
          sleep(31)
          claim_peer(far, ipv6, station)
          assert.equal(station, send("e"):sub(1, 6))
          local asked = far:receive(6)
          assert.equal(station, asked:sub(1, 6))
          answer(far, asked, station)
          sleep(8)
          assert.is_nil(far:receive())
        end
        socket:close()
      end)

    spec("is not asked while its connections show that it is there (RFC 4861 7.3.1), " .. family.name,
      function(stack, far)
        local peer_sequence, frames_to = 1000, {}
        local connecting = spawn(function() return stack:connect(family.b, 80) end)
        answer(far, far:receive(0.01))
        local syn = helper.parse(next_frame(far):sub(15))
        local acked = syn.seq + 1
        local function tell(flags)
          far:send(frames.ip(helper.build(family, { from_port = 80, to_port = syn.from_port, seq = peer_sequence,
            ack = acked, flags = flags })))
        end
        tell(helper.SYN + helper.ACK)
        peer_sequence = peer_sequence + 1
        local socket = assert(connecting:join())
        packets.drain(far)
        for _ = 1, 10 do
          sleep(20)
          socket:send("x")
          local data = next_frame(far)
          frames_to[#frames_to + 1] = data:sub(1, 6)
          acked = acked + 1
          tell(helper.ACK)
          claim_peer(far, ipv6, OTHER)
          claim_peer(far, ipv6, OTHER)
          packets.drain(far) -- the question whether it is still there
          socket:send("y")
          assert.equal(PEER, next_frame(far):sub(1, 6))
          acked = acked + 1
          tell(helper.ACK) -- is as good as an answer
          sleep(5)
          assert.is_nil(far:receive())
        end
        assert.equal(rep(PEER, 10), table.concat(frames_to))
        socket:abort()
      end)

    spec("is answered when the device has room, and else not, " .. family.name .. " #guarded",
      function(_, far, interface)
        for _ = 1, 1000 do
          if ipv6 then
            far:send(nd { source = "fd00::2", target = "fd00::1", options = "\1\1" .. PEER })
          else
            far:send(arp { operation = 1, host = "10.0.0.2", target = "10.0.0.1", to = ALL })
          end
          sleep(0.001)
        end
        local stats = interface:stats()
        assert.same({ 0, 992 }, { stats.waiting, stats.tx_dropped })
        assert.equal(8, #packets.drain(far))
      end, { capacity = 8 })
  end

  it("has at most 4 MiB wait for it and for all others", function()
    run(function()
      local stack = helper.watch(netstack.new { seed = 1 })
      local near, far = netstack.pipe { medium = "ethernet", mtu = 65535, capacity = 0 }
      local interface = assert(stack:attach(near, { addresses = { "10.0.0.1/8" } }))
      local socket = stack:udp()
      for i = 1, 200 do assert(socket:sendto(rep("x", 65000), ("10.0.%d.2"):format(i), 9)) end
      local stats = stack:stats().neighbours
      assert.same({ 64, 136 }, { stats.waiting, stats.dropped })
      assert.equal(136, interface:stats().tx_dropped)
      packets.drain(far)
      socket:close()
      sleep(10)
      assert.equal(0, stack:stats().neighbours.waiting)
    end)
  end)

  spec("waits a moment for the device: what was asked for is sent when there is room", function(stack, far)
    local socket = stack:udp()
    socket:sendto("x", "10.0.0.2", 9)
    socket:sendto("y", "10.0.0.2", 9)
    local asked = far:receive()
    for i = 4, 8 do socket:sendto("z", "10.0.0." .. i, 9) end -- questions take all places
    answer(far, asked)
    sleep(0.001)
    for _ = 1, 5 do assert.equal("arp request", kind(far:receive())) end
    sleep(0.001)
    assert.equal("x", data_of(far:receive()))
    assert.equal("y", data_of(far:receive()))
    socket:close()
  end, { capacity = 5 })
end)

describe("An Ethernet interface", function()
  after_each(helper.nothing_left)

  spec("that is down sends nothing; up again it announces its addresses", function(stack, far, interface)
    local socket = stack:udp()
    socket:sendto("x", "10.0.0.2", 9)
    assert.equal("arp request", kind(far:receive()))
    assert.equal(1, interface:down())
    assert.equal(0, stack:stats().neighbours.entries)
    assert.equal(1, interface:set_addresses { "10.0.0.1/24", "fd00::7/64" })
    far:send(arp { operation = 1, host = "10.0.0.2", target = "10.0.0.1", to = ALL })
    sleep(10)
    assert.is_nil(far:receive())
    interface:up()
    local kinds = {}
    for i, data in ipairs(packets.drain(far)) do kinds[i] = kind(data) end
    assert.same({ "report", "report", "solicitation", "arp request", "solicitation" }, kinds)
    claim(far, "fd00::7")
    assert.same({ "10.0.0.1/24" }, interface:addresses())
    assert.equal("done", kind(next_frame(far))) -- with the group that it was asked for in
    interface:up()
    assert.is_nil(next_frame(far)) -- it was up
    socket:close()
  end)

  spec("has two hosts and no broadcast in a prefix of 31 bits (RFC 3021)", function(stack, far)
    local socket = stack:udp()
    assert.equal(1, socket:sendto("x", "10.0.0.1", 9))
    local asked = next_frame(far)
    assert.same({ "arp request", bytes "10.0.0.1" }, { kind(asked), asked:sub(39, 42) })
    socket:close()
  end, { addresses = { "10.0.0.0/31" } })

  spec("reaches far hosts through a link-local gateway", function(stack, far, interface)
    assert.equal(1, interface:set_gateway("fe80::9%eth0"))
    local routes = stack:routes()
    assert.same({ prefix = "::/0", interface = "eth0", gateway = "fe80::9%eth0" }, routes[#routes])
    assert.same({ nil, "invalid address" }, { stack:add_route("fd01::/16", "fe80::9%eth1") })
    assert.same({ nil, "no route" }, { stack:add_route("fd01::/16", "fe80::9") })
    local socket = stack:udp()
    socket:sendto("far", "2001:db8::1", 9)
    local asked = next_frame(far)
    assert.equal(solicited_node "fe80::9", asked:sub(39, 54))
    far:send(nd { type = 136, flags = 0x60, source = "fe80::9", destination = bytes "fe80::ff:fe00:1",
      target = "fe80::9", options = "\2\1" .. PEER }) -- a router that answers
    local data = next_frame(far)
    assert.same({ PEER, "far" }, { data:sub(1, 6), data_of(data) })
    socket:close()
  end)

  spec("sends what is for a link-local host there, whatever the gateway", function(stack, far)
    assert.equal(1, stack:add_route("::/0", "fd00::9"))
    local socket = stack:udp()
    socket:sendto("near", "fe80::7%eth0", 9)
    assert.equal(solicited_node "fe80::7", next_frame(far):sub(39, 54))
    socket:close()
  end)

  it("finds that another stack has its address, and yields or insists, once", function()
    run(function()
      local ends = { netstack.pipe { medium = "ethernet" } }
      local a, b = helper.watch(netstack.new { seed = 1 }, netstack.new { seed = 2 })
      local first = assert(a:attach(ends[1], { addresses = { "10.0.0.1/24", "fd00::1/64" } }))
      sleep(5)
      local second = assert(b:attach(ends[2], { addresses = { "10.0.0.1/24", "fd00::1/64", "fd00::2/64" } }))
      sleep(60)
      assert.same({ "10.0.0.1/24", "fd00::1/64" }, first:addresses())
      assert.same({ "10.0.0.1/24", "fd00::2/64" }, second:addresses())
      assert.same({ 1, 0 }, { b:stats().neighbours.duplicates, a:stats().neighbours.duplicates })
      assert.is_true(a:stats().neighbours.conflicts >= 1)
      -- Their own announcements, one answer each to the other's, what is said of IPv6 addresses and of their groups.
      assert.is_true(first:stats().tx_packets + second:stats().tx_packets < 18)
    end)
  end)

  spec("is not impressed by neighbour discovery that it sent to itself", function(stack, far, interface)
    local raw = stack:raw("ipv6", 58)
    raw:send(nd { type = 136, source = "fd00::1", target = "fd00::1", options = "\2\1" .. OTHER }:sub(15))
    sleep(0.1)
    assert.equal(3, #interface:addresses())
    assert.same({ ["neighbour discovery that breaks its rules"] = 1 }, interface:stats().guarded)
    assert.same({}, packets.drain(far))
    raw:close()
  end, { detecting = true })

  spec("drops and counts what has a wrong checksum", function(stack, far, interface)
    local told = nd { source = "fd00::2", target = "fd00::1", options = "\1\1" .. PEER }
    far:send(told:sub(1, 56) .. "\1\2" .. told:sub(59))
    assert.is_nil(next_frame(far))
    assert.same({ 1, 0 }, { interface:stats().rx_dropped, stack:stats().neighbours.entries })
    far:send(told .. rep("\0", 10)) -- padded
    assert.equal("advertisement", kind(next_frame(far)))
  end, { checksum = true })

  it("has an mtu that counts the packets in its frames", function()
    run(function()
      local a, b = helper.watch(netstack.new { seed = 1, mtu = 1400 }, netstack.new { seed = 2, mtu = 1400 })
      local longest, ends = 0, {}
      for i = 1, 2 do
        ends[i] = netstack.device { medium = "ethernet", transmit = function(data)
          longest = math.max(longest, #data)
          ends[3 - i]:input(data)
        end }
      end
      assert(a:attach(ends[1], { addresses = { "10.0.0.1/24", "fd00::1/64" } }))
      assert(b:attach(ends[2], { addresses = { "10.0.0.2/24", "fd00::2/64" } }))
      assert.same({ 1400, "ethernet" }, { ends[1]:mtu(), ends[1]:medium() })
      for _, family in ipairs(helper.families) do
        local client, server = helper.connection(a, b, family)
        helper.exchange(client, server, 100000)
      end
      assert.equal(1414, longest)
      assert.same({ nil, "message too long" }, { ends[1]:input(rep("x", 1415)) })
      sleep(10)
    end)
  end)

  it("says the same again with the same seed, its station too", function()
    local function story()
      local said = {}
      run(function()
        local stack = netstack.new { seed = 7 }
        local near, far = netstack.pipe { medium = "ethernet" }
        local interface = assert(stack:attach(near, { addresses = { "10.0.0.1/24", "fd00::1/64" } }))
        said[1] = interface:mac()
        stack:ping("10.0.0.2", { timeout = 5 })
        for _, data in ipairs(packets.drain(far)) do said[#said + 1] = data end
        stack:close()
      end)
      return table.concat(said, "|")
    end
    local first = story()
    assert.equal(first, story())
    assert.matches("^[0-9a-f][26ae]:", first)
  end)
end)

describe("A flood", function()
  after_each(helper.nothing_left)

  spec("of pings from hosts that never answer leaves room for who does #guarded", function(stack, far)
    local socket = stack:udp()
    for i = 1, 3000 do
      far:send(frames.ip(packets.icmp(("10.0.0.%d"):format(4 + i % 250), "10.0.0.1", 8, 0, u16(i) .. "\0\1")))
      far:send(frames.ip(packets.icmp(("fd00::5:%x"):format(i), "fd00::1", 128, 0, u16(i) .. "\0\1")))
      if i % 50 == 0 then
        sleep(0.001)
        packets.drain(far)
      end
    end
    local stats = stack:stats().neighbours
    assert.is_true(stats.entries <= 256, stats.entries)
    assert.is_true(stats.waiting <= 1024, stats.waiting)
    assert.is_true(stats.evicted > 2000)
    socket:sendto("still", "10.0.0.2", 9)
    answer(far, next_frame(far))
    assert.equal("still", data_of(next_frame(far)))
    sleep(5)
    assert.is_nil(stack:poll_delay(netstack.now()))
    socket:close()
  end)
end)
