-- Masquerading: RFC 4787 (UDP), RFC 5382 (TCP), RFC 5508 (ICMP), RFC 7857.

local helper = require "spec.helper"
local netstack = require "netstack"
local packet = require "netstack.packet"
local packets = require "spec.packets"

local rep = string.rep
local dissect, drain = packet.dissect, packets.drain

local OUTSIDE, REMOTE, OTHER = "192.0.2.1", "192.0.2.9", "192.0.2.10"
local ALICE, BOB = "10.1.0.8", "10.1.0.9"

-- A router, 10.1.0.0/24 inside and 192.0.2.0/24 outside, both driven by hand. IPv6 is not translated.
local function router(near_options, far_options, seed)
  local near_inner, near = netstack.pipe(near_options or { checksum = true })
  local far_inner, far = netstack.pipe(far_options or { checksum = true })
  local stack = helper.watch(netstack.new { forwarding = true, seed = seed or 1, name = "nat" })
  local inside = assert(stack:attach(near_inner, { addresses = { "10.1.0.1/24", "fd01::1/64" } }))
  local outside = assert(stack:attach(far_inner,
    { addresses = { OUTSIDE .. "/24", "192.0.2.2/24", "fd02::1/64" }, masquerade = true }))
  local world = { stack = stack, near = near, far = far, inside = inside, outside = outside, time = 0 }

  function world.poll(seconds)
    world.time = world.time + (seconds or 0)
    stack:poll(world.time)
  end

  -- What comes out of one end when these go into the other, taken apart.
  local function through(into, out, ...)
    for i = 1, select("#", ...) do assert(into:send((select(i, ...)))) end
    world.poll()
    local all = drain(out)
    for i, data in ipairs(all) do all[i] = assert(dissect(data)) end
    return (table.unpack or unpack)(all) -- luacheck: ignore 143
  end
  function world.leave(...) return through(near, far, ...) end
  function world.enter(...) return through(far, near, ...) end
  return world
end

local function tcp(from, from_port, to, to_port, flags, data)
  return (assert(packet.build { ipv4 = { source = from, destination = to },
    tcp = { source_port = from_port, destination_port = to_port, seq = 1, ack = 1, flags = flags },
    payload = data or "" }))
end

local function echo(from, to, identifier, reply)
  return (assert(packet.build { ipv4 = { source = from, destination = to },
    icmp = { type = reply and 0 or 8, code = 0, identifier = identifier, sequence = 1 }, payload = "ping" }))
end

local function ends(parts)
  if not parts then return nil end
  local ports = parts.tcp or parts.udp or { source_port = parts.icmp.identifier }
  return parts.ipv4.source, ports.source_port, parts.ipv4.destination, ports.destination_port
end

local function assert_sums(parts)
  assert.is_true(parts.ipv4.checksum_ok)
  assert.is_true((parts.tcp or parts.udp or parts.icmp).checksum_ok)
end

local function mapping_of(interface, host, protocol)
  for _, one in ipairs(interface:mappings()) do
    if one.host == host and one.protocol == (protocol or one.protocol) then return one end
  end
end

describe("Masquerading", function()
  after_each(helper.nothing_left)

  it("gives packets the interface's first address, and answers back, for TCP, UDP and pings", function()
    local w = router()
    for name, build in pairs { tcp = tcp, udp = packets.udp } do
      local there = w.leave(build(ALICE, 1000, REMOTE, 80, name == "tcp" and "S" or "hello"))
      assert.same({ OUTSIDE, 1000, REMOTE, 80 }, { ends(there) }) -- the port stays (RFC 4787 4.2.1)
      assert_sums(there)
      assert.equal(63, there.ipv4.ttl)
      local back = w.enter(build(REMOTE, 80, OUTSIDE, 1000, name == "tcp" and "SA" or "answer"))
      assert.same({ REMOTE, 80, ALICE, 1000 }, { ends(back) })
      assert_sums(back)
      assert.equal(63, back.ipv4.ttl)
    end
    local there = w.leave(echo(ALICE, REMOTE, 77))
    assert.same({ OUTSIDE, 77, REMOTE }, { ends(there) })
    assert_sums(there)
    local back = w.enter(echo(REMOTE, OUTSIDE, 77, true))
    assert.same({ REMOTE, 77, ALICE }, { ends(back) })
    assert_sums(back)
    assert.equal(3, #w.outside:mappings())
  end)

  it("is only for what leaves through it: not within, not for IPv6", function()
    local w = router()
    local there = w.leave(packets.udp("fd01::9", 1, "fd02::9", 2, "x"))
    assert.equal("fd01::9", there.ipv6.source)
    assert.equal("fd02::9", w.enter(packets.udp("fd02::9", 2, "fd01::9", 1, "x")).ipv6.source)
    local third, far = netstack.pipe { checksum = true }
    w.stack:attach(third, { addresses = { "10.3.0.1/24" } })
    w.leave(packets.udp(ALICE, 1, "10.3.0.9", 2, "x"))
    assert.equal(ALICE, dissect(drain(far)[1]).ipv4.source)
    assert.same({}, w.outside:mappings())
  end)

  it("tells hosts with one port apart, and gives one port of a host one outside for everybody", function()
    local w = router()
    local one, two = w.leave(packets.udp(ALICE, 500, REMOTE, 1, "a"), packets.udp(BOB, 500, REMOTE, 1, "b"))
    local port = two.udp.source_port
    assert.equal(500, one.udp.source_port)
    assert.is_true(port ~= 500 and port >= 1024)
    one, two = w.leave(packets.udp(ALICE, 500, OTHER, 9, "a"), packets.udp(BOB, 500, OTHER, 9, "b")) -- RFC 4787 REQ-1
    assert.same({ 500, port }, { one.udp.source_port, two.udp.source_port })
    one, two = w.enter(packets.udp(REMOTE, 1, OUTSIDE, port, "b"), packets.udp(OTHER, 9, OUTSIDE, 500, "a"))
    assert.same({ REMOTE, 1, BOB, 500 }, { ends(one) })
    assert.same({ OTHER, 9, ALICE, 500 }, { ends(two) })
    assert.same({ 2, 4 }, { w.stack:stats().nat.mappings, w.stack:stats().nat.sessions })
    one, two = w.leave(echo(ALICE, REMOTE, 5), echo(BOB, REMOTE, 5))
    assert.equal(5, one.icmp.identifier)
    assert.are_not.equal(5, two.icmp.identifier)
    assert.equal(BOB, w.enter(echo(REMOTE, OUTSIDE, two.icmp.identifier, true)).ipv4.destination)
  end)

  it("tells ids of hosts apart, too, where they matter", function() -- RFC 6864 5.3.1
    local w = router()
    local function with(host, fragment)
      return packets.ipv4(host, REMOTE, 17, packets.parse(packets.udp(host, 1, REMOTE, 2, "x")).payload,
        { id = 7, fragment = fragment })
    end
    local one, two = w.leave(with(ALICE), with(BOB))
    assert.are_not.equal(one.ipv4.id, two.ipv4.id)
    one, two = w.leave(with(ALICE, 0x4000), with(BOB, 0x4000))
    assert.same({ 7, 7 }, { one.ipv4.id, two.ipv4.id })
  end)

  it("lets in only what a host inside has asked for, and answers the rest itself", function()
    local w = router()
    w.leave(packets.udp(ALICE, 500, REMOTE, 1, "a"), tcp(ALICE, 500, REMOTE, 1, "S"), echo(ALICE, REMOTE, 9))
    local causes = packets.drops(w.stack, function()
      for _, one in ipairs { packets.udp(REMOTE, 2, OUTSIDE, 500, "x"), packets.udp(OTHER, 1, OUTSIDE, 500, "x"),
        tcp(OTHER, 1, OUTSIDE, 500, "S") } do
        assert.is_nil(w.enter(one))
      end
      assert.is_nil(w.enter(echo(OTHER, OUTSIDE, 9, true)))
    end)
    local cause = "nobody inside asked for it"
    assert.same({ cause, cause, cause }, { causes[1], causes[2], causes[3] })
    assert.equal(3, w.stack:stats().nat.filtered)
    assert.equal(0, #drain(w.far)) -- silently (RFC 5382 REQ-4)
    -- Nothing of it is anybody's inside: the stack's own answers.
    w.enter(echo(REMOTE, OUTSIDE, 9), packets.udp(REMOTE, 1, OUTSIDE, 501, "x"), tcp(REMOTE, 1, OUTSIDE, 501, "S"),
      tcp(REMOTE, 1, "192.0.2.2", 500, "S"))
    local answers = drain(w.far)
    assert.equal(4, #answers)
    assert.equal(0, dissect(answers[1]).icmp.type)
    assert.equal(3, dissect(answers[2]).icmp.code)
    assert.is_true(dissect(answers[3]).tcp.flags.rst)
    assert.equal("192.0.2.2", dissect(answers[4]).ipv4.source)
  end)

  it("lets nobody outside reach hosts inside by their own addresses", function()
    local w = router()
    w.leave(packets.udp(ALICE, 500, REMOTE, 1, "a"))
    local causes = packets.drops(w.stack, function()
      assert.is_nil(w.enter(packets.udp(REMOTE, 1, ALICE, 500, "x")))
    end)
    assert.same({ "past the address outside" }, causes)
  end)

  it("lets nothing out that it cannot translate, and says so", function() -- RFC 5508 REQ-8
    local w = router()
    local causes = packets.drops(w.stack, function()
      assert.is_nil(w.leave(packets.ipv4(ALICE, REMOTE, 47, "gre?gre?")))
      assert.is_nil(w.leave(echo(ALICE, REMOTE, 1, true)))
      assert.is_nil(w.leave(packets.icmp(ALICE, REMOTE, 5, 0, "redirect redirect redirect redirect")))
    end)
    assert.same({ "not to be translated", "belongs to no session", "not to be translated" }, causes)
    assert.equal(3, w.stack:stats().nat.unmatched)
    local told = dissect(drain(w.near)[1])
    assert.same({ 3, 13 }, { told.icmp.type, told.icmp.code })
    assert.same({}, w.outside:mappings())
  end)

  it("carries connections of whole stacks, and their pings", function()
    local w = router()
    local a, b = helper.watch(netstack.new { name = "a" }, netstack.new { name = "b" })
    a:attach(w.near, { addresses = { ALICE .. "/24" }, gateway = "10.1.0.1" })
    b:attach(w.far, { addresses = { REMOTE .. "/24" } })
    netstack.run(function()
      local client, server = helper.connection(a, b, { b = REMOTE })
      assert.equal(OUTSIDE, (server:getpeername()))
      helper.exchange(client, server, 200000)
      assert(a:ping(REMOTE))
      assert.same({ nil, "host unreachable" }, { a:ping(REMOTE, { ttl = 1 }) })
      assert.same({ nil, "connection refused" }, { a:connect(REMOTE, 9) })
      assert.same({ nil, "connection refused" }, { b:connect(OUTSIDE, 9) })
      assert(b:ping(OUTSIDE))
      local socket = a:udp()
      assert(socket:setpeername(REMOTE, 9))
      assert(socket:send("anybody?"))
      assert.same({ nil, "port unreachable" }, { socket:receive() }) -- an error, translated
      socket:close()
    end)
    assert.equal(0, b:stats().tcp.checksum_errors + b:stats().udp.checksum_errors + a:stats().icmp.checksum_errors)
  end)

  it("translates the errors of routers beyond, with what they quote", function() -- RFC 5508 REQ-4
    local w = router()
    local function ping(from, identifier, to) return echo(from, to, identifier) end
    for _, build in ipairs { packets.udp, tcp, ping } do
      w.leave(packets.udp(BOB, 33000, OTHER, 1, "in the way"), tcp(BOB, 33000, OTHER, 1, "S"), echo(BOB, OTHER, 33000))
      w.near:send(build(ALICE, 33000, REMOTE, 33434, build == tcp and "S" or build == packets.udp and "probe"))
      w.poll()
      local probe = drain(w.far)[1]
      assert.are_not.equal(33000, (select(2, ends(dissect(probe)))))
      for _, kind in ipairs { { 11, 0 }, { 3, 4 }, { 3, 1 }, { 12, 0 } } do
        for _, quoted in ipairs { probe, probe:sub(1, 28) } do
          local error = w.enter(packets.icmp(OTHER, OUTSIDE, kind[1], kind[2], "\0\0\5\120" .. quoted))
          assert.same({ OTHER, ALICE, kind[1] }, { error.ipv4.source, error.ipv4.destination, error.icmp.type })
          assert_sums(error)
          local inner = assert(dissect(error.payload))
          assert.same({ ALICE, REMOTE, true }, { inner.ipv4.source, inner.ipv4.destination, inner.ipv4.checksum_ok })
          assert.equal(33000, packets.get16(error.payload, build == packets.udp and 21 or build == tcp and 21 or 25))
          if #quoted == #probe then assert_sums(inner) end
        end
      end
      -- Of what nobody sent, or with a wrong sum, nothing comes through.
      local nobodys = packets.udp(OUTSIDE, 9, REMOTE, 33434, "")
      assert.is_nil(w.enter(packets.icmp(OTHER, OUTSIDE, 11, 0, "\0\0\0\0" .. nobodys)))
      assert.is_nil(w.enter(packets.icmp(OTHER, OUTSIDE, 11, 0, "\0\0\0\0" .. probe:sub(1, 20))))
      local bad = packets.icmp(OTHER, OUTSIDE, 11, 0, "\0\0\0\0" .. probe)
      local causes = packets.drops(w.stack, function() assert.is_nil(w.enter(bad:sub(1, -2) .. "?")) end)
      assert.same({ "bad checksum" }, causes)
    end
  end)

  it("translates the errors of hosts inside", function() -- RFC 5508 REQ-5
    local w = router()
    w.leave(packets.udp(BOB, 700, OTHER, 53, ""))
    local port = w.leave(packets.udp(ALICE, 700, REMOTE, 53, "?")).udp.source_port
    local answer = packets.udp(REMOTE, 53, OUTSIDE, port, "too late")
    w.far:send(answer)
    w.poll()
    local error = w.leave(packets.icmp(ALICE, REMOTE, 3, 3, "\0\0\0\0" .. drain(w.near)[1]))
    assert.same({ OUTSIDE, REMOTE, 3 }, { error.ipv4.source, error.ipv4.destination, error.icmp.type })
    assert_sums(error)
    local inner = assert(dissect(error.payload))
    assert.same({ REMOTE, 53, OUTSIDE, port }, { ends(inner) })
    assert_sums(inner)
  end)

  it("says what is wrong with packets as their senders know them", function()
    local w = router(nil, { mtu = 1300, checksum = true })
    local long = packets.udp(ALICE, 1, REMOTE, 2, rep("x", 1400))
    w.near:send(packets.ipv4(ALICE, REMOTE, 17, packets.parse(long).payload, { fragment = 0x4000 }))
    w.poll()
    assert.same({ ALICE, 1, REMOTE, 2 }, { ends(dissect(dissect(drain(w.near)[1]).payload)) })
    w.leave(packets.udp(ALICE, 1, REMOTE, 2, "x"))
    local last_hop = packets.ipv4(REMOTE, OUTSIDE, 17, packets.parse(packets.udp(REMOTE, 2, OUTSIDE, 1, "x")).payload,
      { ttl = 1 })
    assert.is_nil(w.enter(last_hop))
    local told = dissect(drain(w.far)[1])
    assert.same({ OUTSIDE, 11, last_hop }, { told.ipv4.source, told.icmp.type, told.payload })
  end)

  it("translates fragments, whatever their order", function()
    local w = router({ mtu = 4000, checksum = true }, { mtu = 1500, checksum = true })
    local function pieces(whole, id)
      local from, to = whole:sub(13, 16), whole:sub(17, 20)
      local function text(address) return ("%d.%d.%d.%d"):format(address:byte(1, 4)) end
      local body = packets.parse(whole).payload
      return packets.ipv4(text(from), text(to), 17, body:sub(1, 1200), { id = id, fragment = 0x2000 }),
        packets.ipv4(text(from), text(to), 17, body:sub(1201), { id = id, fragment = 150 })
    end
    local data = rep("0123456789", 300)
    local first, second = pieces(packets.udp(ALICE, 900, REMOTE, 53, data), 7)
    local causes = packets.drops(w.stack, function() assert.is_nil(w.leave(second)) end)
    assert.same({}, causes)
    local out = { w.leave(first) }
    assert.equal(3, #out)
    local text, at = "", 0
    for _, piece in ipairs(out) do
      assert.same({ OUTSIDE, at }, { piece.ipv4.source, piece.ipv4.fragment_offset })
      assert.is_true(piece.ipv4.checksum_ok)
      text = text .. packet.build(piece):sub(21)
      at = #text
    end
    assert_sums(dissect(packets.ipv4(OUTSIDE, REMOTE, 17, text)))
    assert.equal(data, dissect(packets.ipv4(OUTSIDE, REMOTE, 17, text)).payload)
    first, second = pieces(packets.udp(REMOTE, 53, OUTSIDE, 900, rep("x", 1400)), 9)
    local back = w.enter(second, first)
    assert.same({ REMOTE, 53, ALICE, 900 }, { ends(back) })
    assert_sums(back)
  end)

  it("keeps checksums right, between devices with and without", function()
    for _, sums in ipairs { { true, true }, { false, true }, { true, false }, { false, false } } do
      local w = router({ checksum = sums[1] }, { checksum = sums[2] })
      local a, b = helper.watch(netstack.new { name = "a" }, netstack.new { name = "b" })
      a:attach(w.near, { addresses = { ALICE .. "/24" }, gateway = "10.1.0.1" })
      b:attach(w.far, { addresses = { REMOTE .. "/24" } })
      netstack.run(function()
        local client, server = helper.connection(a, b, { b = REMOTE })
        helper.exchange(client, server, 20000)
        assert(a:ping(REMOTE))
        local here, there = a:udp(), b:udp()
        assert(there:setsockname("*", 53))
        for _, size in ipairs { 0, 1, 1473, 9000 } do
          assert(here:sendto(rep("x", size), REMOTE, 53))
          local data, host, port = there:receivefrom()
          assert.same({ size, OUTSIDE }, { #data, host })
          assert(there:sendto(rep("y", size), host, port))
          assert.equal(size, #here:receive())
        end
        here:close()
        there:close()
      end, { timeout = 60 })
      for _, stack in ipairs { a, b, w.stack } do
        local stats = stack:stats()
        assert.equal(0, stats.ip.checksum_errors + stats.tcp.checksum_errors + stats.udp.checksum_errors +
          stats.tcp.retransmits)
      end
      for _, stack in ipairs { a, b, w.stack } do stack:close() end
    end
    -- No checksum stays none (RFC 768), and a sum of 0 is written as what is not none.
    local w = router()
    local none = packets.udp(ALICE, 1, REMOTE, 2, "none")
    local out = w.leave(none:sub(1, 26) .. "\0\0" .. none:sub(29))
    assert.equal(0, out.udp.checksum)
    for i = 0, 65535, 251 do -- one of them has it; all are right
      local data = packets.u16(i)
      out = w.leave(packets.udp(ALICE, 1, REMOTE, 2, data))
      assert.is_true(out.udp.checksum_ok and out.udp.checksum ~= 0)
    end
    local sum = dissect(packets.udp(OUTSIDE, 1, REMOTE, 2, "\0\0")).udp.checksum
    assert.equal(0xffff, w.leave(packets.udp(ALICE, 1, REMOTE, 2, packets.u16(sum))).udp.checksum)
  end)

  it("gives hosts inside a way to each other over the address outside", function() -- RFC 4787 REQ-9
    local w = router()
    assert(w.outside:map("udp", 8053, BOB, 53))
    w.leave(packets.udp(ALICE, 1000, REMOTE, 1, "x"))
    w.near:send(packets.udp(ALICE, 1000, OUTSIDE, 8053, "?"))
    w.poll()
    local asked = dissect(drain(w.near)[1])
    assert.same({ OUTSIDE, 1000, BOB, 53 }, { ends(asked) })
    assert_sums(asked)
    w.near:send(packets.udp(BOB, 53, OUTSIDE, 1000, "!"))
    w.poll()
    local answered = dissect(drain(w.near)[1])
    assert.same({ OUTSIDE, 8053, ALICE, 1000 }, { ends(answered) })
    assert_sums(answered)
    -- An error in answer, both its ends translated.
    w.near:send(packets.icmp(ALICE, OUTSIDE, 3, 3, "\0\0\0\0" .. packet.build(answered)))
    w.poll()
    local error = dissect(drain(w.near)[1])
    assert.same({ OUTSIDE, BOB }, { error.ipv4.source, error.ipv4.destination })
    assert_sums(error)
    assert.same({ BOB, 53, OUTSIDE, 1000 }, { ends(dissect(error.payload)) })
    -- What a host has not asked for it does not get this way, either, until it has.
    w.near:send(packets.udp(BOB, 600, OUTSIDE, 1000, "unasked"))
    w.poll()
    assert.equal(0, #drain(w.near))
    w.near:send(packets.udp(ALICE, 1000, OUTSIDE, 600, "asked"))
    w.near:send(packets.udp(BOB, 600, OUTSIDE, 1000, "now"))
    w.poll()
    assert.equal(2, #drain(w.near))
    assert.equal(0, #drain(w.far))
  end)

  it("forgets datagrams after five minutes without one from inside, pings after one", function() -- RFC 4787 REQ-5, 6
    local w = router()
    w.leave(packets.udp(ALICE, 1, REMOTE, 2, "x"), echo(ALICE, REMOTE, 7))
    assert.equal(2, #w.outside:mappings())
    w.poll(59)
    assert.equal(2, #w.outside:mappings())
    w.poll(1)
    assert.is_nil(mapping_of(w.outside, ALICE, "icmp"))
    w.poll(200)
    w.leave(packets.udp(ALICE, 1, REMOTE, 2, "x")) -- again
    w.poll(299)
    assert.is_table(w.enter(packets.udp(REMOTE, 2, OUTSIDE, 1, "x"))) -- does not count
    w.poll(0.5)
    assert.is_table(w.enter(packets.udp(REMOTE, 2, OUTSIDE, 1, "x")))
    assert.is_nil(w.stack:poll_delay(w.time)) -- nobody is woken for it
    w.poll(0.5)
    assert.is_nil(w.enter(packets.udp(REMOTE, 2, OUTSIDE, 1, "x")))
    assert.same({}, w.outside:mappings())
    assert.same({ 0, 0 }, { w.stack:stats().nat.mappings, w.stack:stats().nat.sessions })
  end)

  it("remembers connections for two hours, and those that begin or end for four minutes", function() -- RFC 5382 REQ-5
    local function lasts(segments)
      local w = router()
      for _, one in ipairs(segments) do
        local flags, out = one:match "^(%a+)(>?)"
        if out == ">" then assert.is_table(w.leave(tcp(ALICE, 5, REMOTE, 6, flags)))
        else assert.is_table(w.enter(tcp(REMOTE, 6, OUTSIDE, 5, flags))) end
      end
      local time = 0
      for _, at in ipairs { 239, 240, 7439, 7440 } do
        if #w.outside:mappings() > 0 then
          w.poll(at - time)
          time = at
        end
      end
      assert.same({}, w.outside:mappings())
      w.stack:close()
      return time
    end
    local SHORT, LONG = 240, 7440
    assert.equal(SHORT, lasts { "S>" })
    assert.equal(SHORT, lasts { "S>", "SA<" })
    assert.equal(LONG, lasts { "S>", "SA<", "A>" })
    assert.equal(LONG, lasts { "S>", "S<", "SA>", "SA<" }) -- both at once
    assert.equal(LONG, lasts { "A>", "A<" }) -- one that began before
    assert.equal(LONG, lasts { "S>", "SA<", "A>", "FA>", "A<" })
    assert.equal(SHORT, lasts { "S>", "SA<", "A>", "FA>", "FA<", "A>" })
    assert.equal(SHORT, lasts { "S>", "SA<", "A>", "R<" })
    assert.equal(SHORT, lasts { "S>", "RA<" })
    assert.equal(LONG, lasts { "S>", "SA<", "A>", "R<", "A>" }) -- nobody heeded it (RFC 7857 §2.2)
    assert.equal(SHORT, lasts { "S>", "SA<", "A>", "FA>", "FA<", "A>", "S>" }) -- the next one
    assert.equal(LONG, lasts { "S>", "SA<", "A>", "FA>", "FA<", "A>", "S>", "SA<", "A>" })
  end)

  it("lets both sides open a connection at once", function() -- RFC 5382 REQ-2
    local w = router()
    assert.is_nil(w.enter(tcp(REMOTE, 6, OUTSIDE, 5, "S"))) -- too early; the stack refuses it
    w.leave(tcp(ALICE, 5, REMOTE, 6, "S"))
    assert.is_table(w.enter(tcp(REMOTE, 6, OUTSIDE, 5, "S")))
  end)
end)

describe("Mapped ports", function()
  after_each(helper.nothing_left)

  it("let everybody in, without any session, and the host answer", function()
    local w = router()
    assert.equal(1, (w.outside:map("tcp", 8080, ALICE, 80)))
    assert.equal(1, (w.outside:map("udp", "53", BOB))) -- the same port
    local asked = w.enter(tcp(REMOTE, 999, OUTSIDE, 8080, "S"))
    assert.same({ REMOTE, 999, ALICE, 80 }, { ends(asked) })
    assert_sums(asked)
    local answered = w.leave(tcp(ALICE, 80, REMOTE, 999, "SA"))
    assert.same({ OUTSIDE, 8080, REMOTE, 999 }, { ends(answered) })
    assert_sums(answered)
    assert.same({ REMOTE, 1, BOB, 53 }, { ends(w.enter(packets.udp(REMOTE, 1, OUTSIDE, 53, "?"))) })
    assert.equal(8080, w.leave(tcp(ALICE, 80, OTHER, 5, "S")).tcp.source_port) -- one port for all (RFC 4787 REQ-1)
    assert.equal(0, w.stack:stats().nat.sessions)
    assert.same({ { protocol = "tcp", address = OUTSIDE, port = 8080, host = ALICE, host_port = 80, fixed = true,
      sessions = 0 }, { protocol = "udp", address = OUTSIDE, port = 53, host = BOB, host_port = 53, fixed = true,
      sessions = 0 } }, w.outside:mappings())
    w.poll(100000)
    assert.equal(2, #w.outside:mappings())
    assert.equal(1, (w.outside:unmap("tcp", 8080)))
    assert.same({ nil, "empty" }, { w.outside:unmap("tcp", 8080) })
    assert.same({ nil, "empty" }, { w.outside:unmap("tcp", 53) })
    assert.is_nil(w.enter(tcp(REMOTE, 999, OUTSIDE, 8080, "S")))
  end)

  it("carry connections from outside", function()
    local w = router()
    local a, b = helper.watch(netstack.new { name = "a" }, netstack.new { name = "b" })
    a:attach(w.near, { addresses = { ALICE .. "/24" }, gateway = "10.1.0.1" })
    b:attach(w.far, { addresses = { REMOTE .. "/24" } })
    assert(w.outside:map("tcp", 8080, ALICE, 80))
    netstack.run(function()
      local listener = assert(a:bind("*", 80))
      local client = assert(b:connect(OUTSIDE, 8080))
      local server = assert(listener:accept())
      assert.equal(REMOTE, (server:getpeername()))
      helper.exchange(client, server, 100000)
      -- Its own server, by its address outside, on a link of two.
      local own = assert(a:connect(OUTSIDE, 8080))
      server = assert(listener:accept())
      assert.equal(OUTSIDE, (server:getpeername()))
      helper.exchange(own, server, 1000)
      listener:close()
    end)
  end)

  it("are for nobody while the stack itself has the host's address", function()
    local w = router()
    assert(w.outside:map("tcp", 80, ALICE))
    w.inside:set_addresses { ALICE .. "/24" }
    local causes = packets.drops(w.stack, function() assert.is_nil(w.enter(tcp(REMOTE, 1, OUTSIDE, 80, "S"))) end)
    assert.same({ "not to be forwarded" }, causes)
    w.inside:set_addresses { "10.1.0.1/24" }
    assert.is_table(w.enter(tcp(REMOTE, 1, OUTSIDE, 80, "S")))
  end)

  it("take over what a host has begun", function()
    local w = router()
    w.leave(packets.udp(ALICE, 5060, REMOTE, 1, "x"), packets.udp(BOB, 700, REMOTE, 1, "x"))
    assert(w.outside:map("udp", 5060, ALICE))
    assert.is_table(w.enter(packets.udp(OTHER, 1, OUTSIDE, 5060, "x")))
    assert(w.outside:map("udp", 701, BOB, 700))
    assert.equal(701, w.leave(packets.udp(BOB, 700, REMOTE, 1, "x")).udp.source_port)
    assert.same({ 2, 0 }, { #w.outside:mappings(), w.stack:stats().nat.sessions })
  end)

  it("are errors where they cannot be", function()
    local w = router()
    w.leave(packets.udp(ALICE, 700, REMOTE, 1, "x"))
    local socket = assert(w.stack:bind("*", 22))
    local map = w.outside
    assert.same({ nil, "address already in use" }, { map:map("tcp", 22, ALICE) }) -- a socket
    assert.same({ nil, "address already in use" }, { map:map("udp", 700, BOB) }) -- a host's mapping
    assert(map:map("tcp", 80, ALICE))
    assert.same({ nil, "address already in use" }, { map:map("tcp", 80, BOB) })
    assert.same({ nil, "address already in use" }, { map:map("tcp", 81, ALICE, 80) }) -- it has its port outside
    assert(map:map("udp", 80, ALICE))
    for _, bad in ipairs { "", "nonsense", "10.1.0.1", OUTSIDE, "0.0.0.0", "127.0.0.1", "224.0.0.1", "*" } do
      assert.same({ nil, "invalid address" }, { map:map("tcp", 5, bad) }, bad)
    end
    assert.same({ nil, "wrong ip version" }, { map:map("tcp", 5, "fd01::9") })
    assert.same({ nil, "not supported" }, { w.inside:map("tcp", 5, ALICE) })
    assert.same({ nil, "empty" }, { w.inside:unmap("tcp", 5) })
    assert.same({}, w.inside:mappings())
    w.outside:set_addresses {}
    assert.same({ nil, "address not available" }, { map:map("tcp", 5, ALICE) })
    for _, bad in ipairs { { "icmp", 1, ALICE }, { 6, 1, ALICE }, { "tcp", 0, ALICE }, { "tcp", 70000, ALICE },
      { "tcp", 1.5, ALICE }, { "tcp", 1, true }, { "tcp", 1, ALICE, 0 }, { "tcp", 1, ALICE, {} }, { "tcp" }, {} } do
      assert.matches("bad argument", packets.failure(map.map, map, bad[1], bad[2], bad[3], bad[4]))
    end
    assert.matches("bad argument #1 to 'masquerade'", packets.failure(map.masquerade, map))
    socket:close()
    map:detach()
    assert.same({ nil, "closed" }, { map:map("tcp", 5, ALICE) })
    assert.same({ nil, "closed" }, { map:unmap("tcp", 5) })
    assert.same({ nil, "closed" }, { map:mappings() })
    assert.same({ nil, "closed" }, { map:masquerade(true) })
    local plain = helper.watch(netstack.new())
    local interface = assert(plain:attach((netstack.pipe())))
    assert.same({ nil, "not supported" }, { interface:masquerade(true) })
    assert.same({ nil, "not supported" }, { plain:attach((netstack.pipe()), { masquerade = true }) })
  end)

  it("and sockets of the stack's own never have a port twice", function()
    local w = router()
    local socket = w.stack:udp()
    assert(socket:setsockname("*", 600))
    assert.are_not.equal(600, w.leave(packets.udp(ALICE, 600, REMOTE, 1, "x")).udp.source_port)
    w.leave(packets.udp(ALICE, 601, REMOTE, 1, "x"), tcp(ALICE, 601, REMOTE, 1, "S"))
    for _, host in ipairs { "*", "0.0.0.0", OUTSIDE } do
      local other = w.stack:udp()
      assert.same({ nil, "address already in use" }, { other:setsockname(host, 601) })
      other:close()
      assert.same({ nil, "address already in use" }, { w.stack:bind(host, 601) })
    end
    netstack.run(function()
      netstack.sleep(301)
      local other = assert(w.stack:bind(OUTSIDE, 601)) -- they are over, though nobody has looked yet
      other:close()
    end)
    w.leave(tcp(ALICE, 601, REMOTE, 1, "S"))
    for _, host in ipairs { "10.1.0.1", "192.0.2.2", "::" } do -- of another address
      local other = assert(w.stack:bind(host, 601))
      other:close()
    end
    -- Connections of its own are bound to nothing, and nobody else's.
    local b = helper.watch(netstack.new { name = "b" })
    b:attach(w.far, { addresses = { REMOTE .. "/24" } })
    netstack.run(function()
      local client, server = helper.connection(w.stack, b, { b = REMOTE })
      local port = tonumber((select(2, client:getsockname())))
      w.near:send(tcp(BOB, port, REMOTE, 80, "S"))
      w.near:send(tcp("10.1.0.10", port, OTHER, 80, "S"))
      netstack.sleep(0.1)
      assert.are_not.equal(port, mapping_of(w.outside, BOB, "tcp").port)
      assert.equal(port, mapping_of(w.outside, "10.1.0.10", "tcp").port)
      helper.exchange(client, server, 1000)
    end)
    assert.equal(0, w.stack:stats().nat.filtered)
    socket:close()
  end)
end)

describe("Mappings", function()
  after_each(helper.nothing_left)

  it("have bounds, of each host and of all", function()
    local w = router({ checksum = false, capacity = 0 }, { checksum = false, capacity = 0 })
    local function flood(host, count)
      local template = packets.udp(host, 1, REMOTE, 1, "x")
      for i = 1, count do
        w.near:send(template:sub(1, 20) .. packets.u16(1024 + i) .. template:sub(23, 26) .. "\0\0" .. template:sub(29))
      end
      w.poll()
      while w.stack:poll(w.time) do end
      drain(w.far)
      return #drain(w.near)
    end
    assert.equal(0, flood(ALICE, 4096))
    local causes = packets.drops(w.stack, function() assert.equal(2, flood(ALICE, 4098)) end) -- two more, both told
    assert.same({ "too many sessions behind the interface", "too many sessions behind the interface" }, causes)
    assert.same({ 4096, 2 }, { w.stack:stats().nat.sessions, w.stack:stats().nat.limited })
    assert.equal(0, flood(BOB, 10))
    for host = 10, 11 do flood("10.1.0." .. host, 4096) end
    assert.equal(4096 * 3 + 10, w.stack:stats().nat.sessions)
    flood("10.1.0.16", 4096)
    assert.same({ 16384, 12 }, { w.stack:stats().nat.sessions, w.stack:stats().nat.limited })
    w.poll(300)
    assert.equal(0, w.stack:stats().nat.sessions)
    for i = 1, 1024 do assert(w.outside:map("tcp", i, ALICE)) end
    assert.same({ nil, "full" }, { w.outside:map("tcp", 1025, ALICE) })
  end)

  it("go with the address, the interface, the masquerading; the user's go with the last two", function()
    local w = router()
    local function begin()
      w.leave(packets.udp(ALICE, 700, REMOTE, 1, "x"), tcp(ALICE, 700, REMOTE, 1, "S"), echo(ALICE, REMOTE, 1))
    end
    begin()
    assert(w.outside:map("tcp", 80, BOB))
    w.outside:down()
    w.outside:up()
    w.outside:set_addresses { OUTSIDE .. "/24", "192.0.2.7/24" } -- the first stays
    assert.equal(4, #w.outside:mappings())
    w.outside:set_addresses { "192.0.2.5/24" }
    assert.same({ protocol = "tcp", address = "192.0.2.5", port = 80, host = BOB, host_port = 80, fixed = true,
      sessions = 0 }, w.outside:mappings()[1])
    assert.same({ 1, 0 }, { #w.outside:mappings(), w.stack:stats().nat.sessions })
    assert.is_table(w.enter(tcp(REMOTE, 1, "192.0.2.5", 80, "S")))
    assert.equal("192.0.2.5", w.leave(packets.udp(ALICE, 700, REMOTE, 1, "x")).ipv4.source)
    -- Without an address it is not in force, nor where a socket has its port.
    w.outside:set_addresses {}
    assert.is_nil(w.outside:mappings()[1].address)
    local socket = assert(w.stack:bind("*", 80))
    w.outside:set_addresses { OUTSIDE .. "/24" }
    assert.is_nil(w.outside:mappings()[1].address)
    socket:close()
    w.outside:set_addresses { "192.0.2.5/24" }
    assert.equal("192.0.2.5", w.outside:mappings()[1].address)
    w.outside:set_addresses { OUTSIDE .. "/24" }
    begin()
    assert(w.outside:masquerade(false))
    assert.same({ {}, 0, 0 }, { w.outside:mappings(), w.stack:stats().nat.sessions, w.stack:stats().nat.mappings })
    assert.equal(ALICE, w.leave(packets.udp(ALICE, 700, REMOTE, 1, "x")).ipv4.source)
    assert(w.outside:masquerade(true))
    assert(w.outside:masquerade(true))
    begin()
    assert(w.outside:map("tcp", 80, BOB))
    w.outside:detach()
    assert.same({ 0, 0 }, { w.stack:stats().nat.sessions, w.stack:stats().nat.mappings })
    assert.is_nil(w.stack:poll_delay(w.time))
  end)

  it("go in a crash, but for the user's", function()
    local w = router()
    assert(w.outside:map("tcp", 80, BOB))
    w.leave(packets.udp(ALICE, 700, REMOTE, 1, "x"))
    w.stack:crash()
    assert.same({ 1, 0 }, { #w.outside:mappings(), w.stack:stats().nat.sessions })
    w.stack:restart()
    assert.is_nil(w.enter(packets.udp(REMOTE, 1, OUTSIDE, 700, "x")))
    assert.is_table(w.enter(tcp(REMOTE, 1, OUTSIDE, 80, "S")))
  end)

  it("of a stack with a seed are the same each time", function()
    local function ports(seed)
      local w = router(nil, nil, seed)
      local list = {}
      for host = 10, 30 do
        local out = w.leave(packets.udp("10.1.0." .. host, 5000, REMOTE, 1, "x"))
        list[#list + 1] = out.udp.source_port
      end
      w.stack:close()
      return list
    end
    local first = ports(1)
    assert.same(first, ports(1))
    assert.are_not.same(first, ports(2))
  end)

  it("belong to one of several such interfaces", function()
    local w = router()
    local inner, third = netstack.pipe { checksum = true }
    local other = w.stack:attach(inner, { addresses = { "198.51.100.1/24" }, masquerade = true })
    w.leave(packets.udp(ALICE, 700, REMOTE, 1, "x"), packets.udp(ALICE, 700, "198.51.100.9", 1, "x"))
    local out = dissect(drain(third)[1])
    assert.same({ "198.51.100.1", 700, "198.51.100.9", 1 }, { ends(out) })
    assert.same({ 1, 1 }, { #w.outside:mappings(), #other:mappings() })
    third:send(packets.udp("198.51.100.9", 1, "198.51.100.1", 700, "x"))
    w.poll()
    assert.equal(ALICE, dissect(drain(w.near)[1]).ipv4.destination)
    other:detach()
    assert.equal(1, #w.outside:mappings())
    assert.is_table(w.enter(packets.udp(REMOTE, 1, OUTSIDE, 700, "x")))
  end)
end)
