local frames = require "spec.frames"
local helper = require "spec.helper"
local netstack = require "netstack"
local packets = require "spec.packets"

local char, rep = string.char, string.rep
local drain, parse, u16 = packets.drain, packets.parse, packets.u16

local FAMILIES = {
  { name = "IPv4", near = "10.1.0.9", far = "10.2.0.9", router = "10.1.0.1", beyond = "10.9.0.9", hops = 9,
    icmp = 1, too_many_hops = { 11, 0 }, no_route = { 3, 0 }, host = { 3, 1 }, too_long = { 3, 4 }, header = 20 },
  { name = "IPv6", near = "fd01::9", far = "fd02::9", router = "fd01::1", beyond = "fd09::9", hops = 8,
    icmp = 58, too_many_hops = { 3, 0 }, no_route = { 1, 0 }, host = { 1, 3 }, too_long = { 2, 0 }, header = 40 },
}

-- A router between two links whose far ends are driven by hand: 10.1.0.0/24 and fd01::/64, 10.2.0.0/24 and fd02::/64.
-- IPv6 only where the mtu allows it.
local function router(near_options, far_options, forwarding)
  local near_inner, near = netstack.pipe(near_options or { checksum = true })
  local far_inner, far = netstack.pipe(far_options or { checksum = true })
  local stack = helper.watch(netstack.new { forwarding = forwarding ~= false, seed = 1, name = "router" })
  local left = assert(stack:attach(near_inner, { addresses = { "10.1.0.1/24", "fd01::1/64" } }))
  local right = assert(stack:attach(far_inner, {
    addresses = { "10.2.0.1/24", far:mtu() >= 1280 and "fd02::1/64" or nil } }))
  return stack, near, far, left, right
end

-- Hands packets to one end of the router; what comes out of the ends.
local function through(stack, near, far, ...)
  for i = 1, select("#", ...) do assert(near:send((select(i, ...)))) end
  stack:poll(stack:stats().time)
  return drain(far), drain(near)
end

local function udp(family, options)
  local packet = packets.udp(family.near, 1000, (options or {}).to or family.far, 2000, (options or {}).data or "hello")
  if options and options.ttl then
    packet = packet:sub(1, family.hops - 1) .. char(options.ttl) .. packet:sub(family.hops + 1)
    if family.hops == 9 then
      packet = packet:sub(1, 10) .. "\0\0" .. packet:sub(13)
      packet = packet:sub(1, 10) .. u16(packets.checksum(packet:sub(1, 20))) .. packet:sub(13)
    end
  end
  return packet
end

-- An ICMP error: its type and code, whether its sums are right, what it quotes, what stands before that.
local function error_of(packet, family)
  local p = parse(packet)
  local pseudo = p.version == 6 and p.source .. p.destination .. "\0\0" .. u16(#p.payload) .. "\0\0\0\58" or ""
  assert.equal(family.icmp, p.protocol)
  assert.equal(0, packets.checksum(pseudo .. p.payload))
  if p.version == 4 then assert.equal(0, packets.checksum(packet:sub(1, 20))) end
  return { p.payload:byte(1, 2) }, p.payload:sub(9), packets.get16(p.payload, 7), p
end

for _, family in ipairs(FAMILIES) do
  describe("A router, " .. family.name .. ",", function()
    after_each(helper.nothing_left)

    it("passes packets on, one hop less", function() -- RFC 1812 5.3.1, RFC 8200 §3
      local stack, near, far = router()
      local sent = udp(family, { ttl = 7 })
      local passed, back = through(stack, near, far, sent)
      assert.same({ 1, 0 }, { #passed, #back })
      assert.equal(udp(family, { ttl = 6 }), passed[1])
      assert.equal(1, stack:stats().forwarded)
    end)

    it("is none unless asked", function()
      local stack, near, far = router(nil, nil, false)
      local passed, back
      local causes = packets.drops(stack, function() passed, back = through(stack, near, far, udp(family)) end)
      assert.same({ 0, 0, { "not for us" } }, { #passed, #back, causes })
    end)

    it("drops what has no hop left, and says so", function() -- RFC 1812 5.3.1, RFC 4443 §3.3
      local stack, near, far = router()
      for _, ttl in ipairs { 1, 0 } do
        local sent = udp(family, { ttl = ttl })
        local passed, back = through(stack, near, far, sent)
        assert.same({ 0, 1 }, { #passed, #back })
        local kind, quoted, _, p = error_of(back[1], family)
        assert.same(family.too_many_hops, kind)
        assert.equal(sent, quoted)
        assert.same({ packets.bytes(family.router), packets.bytes(family.near) }, { p.source, p.destination })
      end
      assert.equal(0, stack:stats().forwarded)
    end)

    it("tells when it knows no way", function() -- RFC 1812 5.2.7.1, RFC 4443 §3.1
      local stack, near, far, _, right = router()
      local _, back = through(stack, near, far, udp(family, { to = family.beyond }))
      assert.same(family.no_route, (error_of(back[1], family)))
      right:down()
      _, back = through(stack, near, far, udp(family))
      assert.same(family.no_route, (error_of(back[1], family)))
    end)

    it("tells no error of errors", function() -- RFC 1122 3.2.2, RFC 4443 §2.4(e)
      local stack, near, far = router()
      local refused = udp(family, { to = family.beyond })
      local _, back = through(stack, near, far,
        packets.icmp(family.near, family.beyond, family.no_route[1], 0, "\0\0\0\0" .. refused))
      assert.equal(0, #back)
    end)

    it("does not send packets to and fro on a link of two", function() -- RFC 4443 §3.1
      local stack, near, far = router()
      local passed, back = through(stack, near, far, udp(family, { to = (family.near:gsub("9$", "8")) }))
      assert.equal(0, #passed)
      assert.same(family.host, (error_of(back[1], family)))
    end)

    it("keeps to itself what belongs to one link or to everybody", function() -- RFC 1812 5.3.7, RFC 4291 §2
      local stack, near, far = router()
      local places = family.icmp == 1 and { "169.254.1.1", "224.0.0.251", "239.1.1.1", "240.0.0.1", "255.255.255.255",
        "0.0.0.0", "127.0.0.1" } or { "fe80::1", "ff02::fb", "ff05::1", "::1", "::" }
      for _, to in ipairs(places) do
        local passed = through(stack, near, far, udp(family, { to = to }))
        assert.equal(0, #passed, to)
      end
      -- Nor what comes from there: from its own address, too, whichever interface has that.
      for _, from in ipairs { family.icmp == 1 and "169.254.1.1" or "fe80::1", family.far:gsub("9$", "1"), nil } do
        local packet = packets.udp(from, 1, family.far, 2, "x")
        assert.equal(0, #(through(stack, near, far, packet)), from)
      end
    end)

    it("drops what the device has no room for, and counts it", function()
      local stack, near, far, left, right = router(nil, { capacity = 2, checksum = true })
      local sent = udp(family)
      assert.equal(2, #(through(stack, near, far, sent, sent, sent, sent, sent)))
      assert.equal(3, right:stats().tx_dropped)
      assert.equal(0, left:stats().tx_dropped)
      assert.equal(2, #(through(stack, near, far, sent, sent)))
    end)

    it("carries connections, and answers for itself on either side", function()
      local a, b = helper.watch(netstack.new { name = "a" }, netstack.new { name = "b" })
      local stack, near, far = router()
      a:attach(near, { addresses = { family.near .. (family.icmp == 1 and "/24" or "/64") },
        [family.icmp == 1 and "gateway" or "gateway6"] = family.router })
      b:attach(far, { addresses = { family.far .. (family.icmp == 1 and "/24" or "/64") } }) -- one link: no gateway
      netstack.run(function()
        assert(a:ping(family.far))
        assert(a:ping(family.router))
        assert(a:ping((family.far:gsub("9$", "1"))))
        assert.same({ nil, "host unreachable" }, { a:ping(family.far, { ttl = 1 }) })
        assert.same({ nil, "host unreachable" }, { a:ping(family.beyond) })
        local client, server = helper.connection(a, b, { b = family.far })
        helper.exchange(client, server, 500000)
        assert.same({ nil, "connection refused" }, { a:connect(family.far, 9) })
      end)
      assert.equal(0, stack:stats().icmp_limited)
    end)

    it("completes checksums on the way to a device that wants them, also of pieces", function()
      for _, data in ipairs { "hello", rep("x", 3000) } do
        local a = helper.watch(netstack.new { name = "a", seed = 3 })
        local stack, near, far = router({ checksum = false })
        a:attach(near, { addresses = { family.near .. (family.icmp == 1 and "/24" or "/64") } })
        netstack.run(function()
          local socket = a:udp()
          assert(socket:sendto(data, family.far, 2000))
          netstack.sleep(0.001)
          socket:close()
        end)
        local passed = drain(far)
        assert.equal(#data > 1500 and 3 or 1, #passed)
        -- A stack that checks them takes them all.
        local receiver = helper.watch(netstack.new { name = "receiver" })
        local inner, outer = netstack.pipe { checksum = true }
        receiver:attach(inner, { addresses = { family.far } })
        local socket = receiver:udp()
        socket:setsockname("*", 2000)
        for _, packet in ipairs(passed) do
          assert.is_true(#packet <= (family.icmp == 1 and 1500 or 1280)) -- whatever way is behind
          outer:send(packet)
        end
        assert.equal(data, socket:receive())
        assert.equal(0, receiver:stats().udp.checksum_errors)
        socket:close()
        stack:close()
      end
    end)

    it("checks checksums on the way to a device without, where nobody else would", function()
      local stack, near, far, left = router(nil, { checksum = false })
      local good = udp(family)
      local bad = good:sub(1, -2) .. "\0"
      local passed
      local causes = packets.drops(stack, function() passed = through(stack, near, far, bad, good) end)
      assert.same({ 1, { "bad checksum" } }, { #passed, causes })
      assert.equal(1, left:stats().rx_dropped)
      assert.equal(parse(good).payload, parse(passed[1]).payload)
      -- Between two that both have them nobody looks: the receiver does.
      stack:close()
      stack, near, far = router()
      assert.equal(1, #(through(stack, near, far, bad)))
    end)

    it("takes off what a link put behind a packet", function()
      local stack, near, far = router()
      local passed = through(stack, near, far, udp(family) .. "padding")
      assert.equal(#udp(family), #passed[1])
    end)
  end)
end

describe("A router and sizes:", function()
  after_each(helper.nothing_left)

  it("an IPv4 packet that must not be cut, and an IPv6 packet, are answered with the next link's mtu", function()
    for _, family in ipairs(FAMILIES) do -- RFC 1191 §4, RFC 4443 §3.2
      local stack, near, far = router(nil, { mtu = 1300, checksum = true })
      local sent = udp(family, { data = rep("x", 1400) })
      if family.icmp == 1 then
        sent = packets.ipv4(family.near, family.far, 17, parse(sent).payload, { fragment = 0x4000 })
      end
      local passed, back = through(stack, near, far, sent)
      assert.same({ 0, 1 }, { #passed, #back })
      local kind, quoted, mtu = error_of(back[1], family)
      assert.same({ family.too_long, 1300 }, { kind, mtu })
      assert.equal(sent:sub(1, #quoted), quoted)
      assert.is_true(#back[1] <= (family.icmp == 1 and 576 or 1280))
      stack:close()
    end
  end)

  -- a - one - two - b, the link in the middle narrower than the others; a knows nothing of it.
  local function chain()
    local one, two, a, b = helper.watch(netstack.new { forwarding = true }, netstack.new { forwarding = true },
      netstack.new(), netstack.new())
    local function link(n, x, y, mtu)
      local left, right = netstack.pipe { mtu = mtu, checksum = true }
      local function side(last)
        return { ("10.%d.0.%d/24"):format(n, last), ("fd0%d::%d/64"):format(n, last) }
      end
      return x:attach(left, { addresses = side(1) }), y:attach(right, { addresses = side(2) })
    end
    link(1, a, one)
    local to_two, to_one = link(2, one, two, 1300)
    link(3, two, b)
    to_two:set_gateway("10.2.0.2")
    to_two:set_gateway("fd02::2")
    to_one:set_gateway("10.2.0.1")
    to_one:set_gateway("fd02::1")
    return a, b, one, two
  end

  it("TCP connections find the way's mtu by that", function()
    for _, host in ipairs { "10.3.0.2", "fd03::2" } do
      local a, b, one, two = chain()
      netstack.run(function()
        local client, server = helper.connection(a, b, { b = host })
        helper.exchange(client, server, 200000)
      end)
      assert.same({ 1, 1 }, { a:stats().path_mtus, b:stats().path_mtus })
      assert.is_true(one:stats().forwarded + two:stats().forwarded > 2 * 2 * 200000 / 1300)
    end
  end)

  it("and in a circle packets go round until their hops are used up", function()
    local a, _, one, two = chain()
    for _, host in ipairs { "10.9.0.9", "fd09::9" } do -- each router has the other for its gateway
      netstack.run(function()
        assert.same({ nil, "host unreachable" }, { a:ping(host, { ttl = 200 }) })
      end)
    end
    assert.equal(2 * 199 + 2, one:stats().forwarded + two:stats().forwarded)
  end)

  it("an IPv4 packet that may be cut is, and so are its pieces", function() -- RFC 791 3.2
    local stack, near, far = router({ mtu = 4000, checksum = true }, { mtu = 576, checksum = true })
    local family = FAMILIES[1]
    local data = rep("0123456789", 300)
    local whole = udp(family, { data = data })
    for _, sent in ipairs { { whole }, -- the same in two pieces
      { packets.ipv4(family.near, family.far, 17, parse(whole).payload:sub(1, 1600), { id = 7, fragment = 0x2000 }),
        packets.ipv4(family.near, family.far, 17, parse(whole).payload:sub(1601), { id = 7, fragment = 200 }) } } do
      local passed, back = through(stack, near, far, (table.unpack or unpack)(sent)) -- luacheck: ignore 143
      assert.equal(0, #back)
      local pieces = {}
      for i, packet in ipairs(passed) do
        local p = parse(packet)
        assert.is_true(#packet <= 576)
        assert.equal(0, packets.checksum(packet:sub(1, 20)))
        assert.equal(i < #passed, p.fragment >= 0x2000)
        pieces[p.fragment % 0x2000] = p.payload
      end
      local text, at = "", 0
      while pieces[at] do
        text = text .. pieces[at]
        at = #text / 8
      end
      assert.equal(parse(whole).payload, text)
    end
  end)

  it("pieces behind the first repeat only those options that say so", function() -- RFC 791 3.1
    local stack, near, far = router({ mtu = 4000, checksum = true }, { mtu = 576, checksum = true })
    local security, timestamp = "\130\4\1\2", "\68\8\5\0\0\0\0\0"
    local plain = udp(FAMILIES[1], { data = rep("x", 792) })
    local packet = "\72" .. plain:sub(2, 2) .. u16(832) .. plain:sub(5, 10) .. "\0\0" .. plain:sub(13, 20) ..
      timestamp .. security .. plain:sub(21)
    packet = packet:sub(1, 10) .. u16(packets.checksum(packet:sub(1, 32))) .. packet:sub(13)
    local passed = through(stack, near, far, packet)
    assert.equal(2, #passed)
    assert.equal(timestamp .. security, passed[1]:sub(21, 32))
    assert.same({ 0x46, security }, { passed[2]:byte(1), passed[2]:sub(21, 24) })
    for _, piece in ipairs(passed) do assert.equal(0, packets.checksum(piece:sub(1, piece:byte(1) % 16 * 4))) end
  end)

  it("nobody is told of a piece behind the first", function() -- RFC 1122 3.2.2
    local stack, near, far = router()
    local _, back = through(stack, near, far,
      packets.ipv4("10.1.0.9", "10.9.0.9", 17, rep("x", 16), { id = 7, fragment = 100 }))
    assert.equal(0, #back)
  end)
end)

describe("A router drops", function()
  after_each(helper.nothing_left)

  it("an IPv4 packet with a bad header checksum", function() -- RFC 1812 5.2.2
    local stack, near, far = router()
    local bad = udp(FAMILIES[1])
    bad = bad:sub(1, 10) .. "\1\2" .. bad:sub(13)
    local causes = packets.drops(stack, function() assert.equal(0, #(through(stack, near, far, bad))) end)
    assert.same({ "bad checksum" }, causes)
  end)

  it("source routes", function() -- RFC 7126 §4.3
    local stack, near, far = router()
    for _, option in ipairs { 131, 137 } do
      local plain = udp(FAMILIES[1])
      local packet = "\71" .. plain:sub(2, 2) .. u16(#plain + 8) .. plain:sub(5, 10) .. "\0\0" .. plain:sub(13, 20) ..
        "\1" .. char(option) .. "\7\4\10\2\0\9" .. plain:sub(21)
      packet = packet:sub(1, 10) .. u16(packets.checksum(packet:sub(1, 28))) .. packet:sub(13)
      local causes = packets.drops(stack, function() assert.equal(0, #(through(stack, near, far, packet))) end)
      assert.same({ "source route" }, causes)
    end
  end)
end)

describe("A router on Ethernet", function()
  after_each(helper.nothing_left)

  local function ethernet_router()
    return router({ checksum = true }, { medium = "ethernet", checksum = true })
  end

  it("finds the host first, and tells when that does not answer", function() -- RFC 1812 5.2.7.1, RFC 4861 7.2.2
    for _, family in ipairs(FAMILIES) do
      local stack, near, far, _, right = ethernet_router()
      stack:poll(1) -- its own announcements
      drain(far)
      near:send(udp(family))
      stack:poll(1)
      local asked = drain(far)
      assert.equal(family.icmp == 1 and "arp request" or "solicitation", frames.kind(asked[1]))
      for now = 2, 6 do stack:poll(now) end
      local back = drain(near)
      assert.equal(1, #back)
      assert.same(family.host, (error_of(back[1], family)))
      assert.is_string(right:mac())
      stack:close()
    end
  end)

  it("passes on only what came to its own station", function() -- RFC 1812 5.3.4
    local stack, near, far, _, right = ethernet_router()
    local station = right:mac():gsub("(%x%x):?", function(byte) return char(tonumber(byte, 16)) end)
    local packet = packets.udp("10.2.0.9", 1, "10.1.0.9", 2, "x")
    stack:poll(1)
    drain(far)
    far:send(frames.ip(packet, frames.ALL))
    stack:poll(1)
    assert.equal(0, #drain(near))
    far:send(frames.ip(packet, station))
    stack:poll(1)
    assert.equal(1, #drain(near))
  end)
end)
