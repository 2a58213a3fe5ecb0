-- SLAAC (RFC 4861 §6.3, RFC 4862, RFC 7559, RFC 8106): a host among routers by hand, some of which talk nonsense.
local netstack = require "netstack"
local frames = require "spec.frames"
local helper = require "spec.helper"
local packets = require "spec.packets"

local run, sleep = netstack.run, netstack.sleep
local router, prefix, servers, link_mtu = frames.router, frames.prefix, frames.servers, frames.link_mtu
local bytes = packets.bytes

local STATION = "\1\1" .. frames.PEER
local FOREVER = 4294967295
local HOUR = 3600

-- A stack that asks for routers, and the far end of its link. fields: medium, mtu, seed, forwarding, attach (more
-- options)
local function world(fields)
  fields = fields or {}
  local ethernet = fields.medium ~= "ip"
  local stack = helper.watch(netstack.new { seed = fields.seed or 1, forwarding = fields.forwarding })
  local near, far = netstack.pipe { medium = fields.medium or "ethernet", capacity = 0, checksum = true,
    mtu = fields.mtu or 1500 }
  local options = { slaac = true, mac = ethernet and "02:00:00:00:00:01" or nil }
  for key, value in pairs(fields.attach or {}) do options[key] = value end
  local interface = assert(stack:attach(near, options))
  local w = { stack = stack, far = far, interface = interface }

  -- A router says so; see frames.router.
  function w.say(o)
    local frame = router(o)
    assert(far:send(ethernet and frame or frame:sub(15)))
    sleep(0.001)
    return interface:slaac()
  end

  -- The next router solicitation within so many seconds, as an IP packet, and when it came.
  function w.hear(timeout)
    local ends = netstack.now() + timeout
    repeat
      local data = far:receive(math.max(ends - netstack.now(), 0))
      local packet = data and (ethernet and data:sub(15) or data)
      if packet and packet:byte(1) == 0x60 and packet:byte(7) == 58 and packet:byte(41) == 133 then
        return packet, netstack.now(), data
      end
    until not data
  end

  -- The next frame of a kind (frames.kind).
  function w.next(kind)
    local frame
    repeat frame = far:receive(2) until not frame or frames.kind(frame) == kind
    return frame
  end

  function w.addresses()
    return interface:addresses()
  end

  function w.routes()
    local list = {}
    for i, route in ipairs(stack:routes()) do list[i] = route.prefix .. " " .. (route.gateway or "-") end
    return list
  end
  return w
end

local function routes_to(w, wanted)
  local found = {}
  for _, route in ipairs(w.stack:routes()) do
    if route.prefix == wanted then found[#found + 1] = route.gateway or "-" end
  end
  return found
end

-- The default route's gateways.
local function gateways(w)
  return routes_to(w, "::/0")
end

local function count(list, pattern)
  local n = 0
  for _, item in ipairs(list) do n = n + (item:find(pattern) and 1 or 0) end
  return n
end

describe("SLAAC", function()
  after_each(helper.nothing_left)

  local function spec(name, fn, fields)
    it(name, function()
      run(function()
        local w = world(fields)
        fn(w)
        w.interface:detach()
        w.stack:close()
      end)
    end)
  end

  spec("asks for routers within a second, then less and less often (RFC 7559)", function(w)
    local packet, last, frame = w.hear(1)
    assert.equal("\51\51\0\0\0\2", frame:sub(1, 6))
    assert.equal("\255\2" .. ("\0"):rep(13) .. "\2", packet:sub(25, 40))
    assert.equal(bytes "fe80::ff:fe00:1", packet:sub(9, 24))
    assert.equal(255, packet:byte(8))
    assert.equal(48, #packet) -- the address may be somebody else's yet: no station (RFC 4429 §3.3)
    local wait = 4
    for _ = 1, 16 do
      local now
      packet, now = w.hear(4000)
      assert.is_true(math.abs(now - last - wait) <= wait / 10 * 1.01 + 0.01, now - last)
      wait = math.min((now - last) * 2, HOUR)
      last = now
      assert.equal(56, #packet)
      assert.equal("\1\1" .. frames.OWN, packet:sub(49))
    end
    assert.equal(HOUR, wait)
    assert.same({}, w.addresses())
    assert.equal("SOLICITING", w.interface:slaac().state)
  end)

  spec("forms an address, and takes the router for its default route and the link's prefix", function(w)
    w.hear(1)
    local state = w.say { options = { prefix "2001:db8:1::", STATION } }
    local own = w.addresses()[1]
    assert.matches("^2001:db8:1:0?:?%x+:%x+:%x+:%x+/64$", own)
    assert.is_nil(own:find("ff:fe00:1")) -- it does not tell the station (RFC 7217)
    local address = own:match("^[^/]+")
    assert.same({ own, "2001:db8:1::/64", "::/0" }, { (w.routes()[1]:gsub("/128 %-$", "/64")),
      w.routes()[2]:match("^%S+"), w.routes()[3]:match("^%S+") })
    assert.same({ "fe80::2%eth0" }, gateways(w))
    assert.near(14400, state.addresses[1].preferred, 0.01)
    assert.near(86400, state.addresses[1].expires, 0.01)
    assert.near(1800, state.routers[1].expires, 0.01)
    state.addresses[1].preferred, state.addresses[1].expires, state.routers[1].expires = nil, nil, nil
    assert.same({ state = "BOUND", addresses = { { address = address } }, gateway = "fe80::2%eth0", dns = {},
      routers = { { address = "fe80::2%eth0", reachable = true } }, ignored = 0,
      limited = { routers = 0, prefixes = 0, dns = 0 } }, state)
    -- Others may have the address: it is looked for, and used meanwhile (RFC 4429).
    local probe = w.next("solicitation")
    assert.equal(bytes(address), probe:sub(63, 78))
    assert.is_nil((w.hear(1790))) -- nobody is asked any more, until the router is gone
    assert.is_string((w.hear(13)))
    assert.same({}, gateways(w))
  end)

  spec("sends by the router, whose station it was told", function(w)
    w.say { options = { prefix "2001:db8:1::", STATION } }
    sleep(1)
    packets.drain(w.far)
    local socket = w.stack:udp()
    assert(socket:sendto("far", "2001:db8:9::1", 7))
    local frame = w.next("ipv6")
    assert.equal(frames.PEER, frame:sub(1, 6))
    assert.equal(bytes(w.addresses()[1]:match("^[^/]+")), frame:sub(23, 38))
    assert(socket:sendto("near", "2001:db8:1::99", 7)) -- on the link: it is asked for itself
    assert.equal(bytes "2001:db8:1::99", w.next("solicitation"):sub(63, 78))
    socket:close()
  end)

  spec("reaches hosts with a prefix that is not on the link by the router", function(w)
    w.say { options = { prefix("2001:db8:1::", { flags = 0x40 }), STATION } }
    assert.same({}, routes_to(w, "2001:db8:1::/64"))
    local socket = w.stack:udp()
    assert(socket:sendto("x", "2001:db8:1::99", 7))
    assert.equal(frames.PEER, w.next("ipv6"):sub(1, 6))
    socket:close()
    assert.is_true(w.stack:ping(w.addresses()[1]:match("^[^/]+")) < 1) -- and itself
  end)

  spec("knows prefixes that are on the link and not for addresses, of any length", function(w)
    w.say { options = { prefix("2001:db8:2::", { flags = 0x80, bits = 48, valid = 100 }) } }
    assert.same({}, w.addresses())
    assert.same({ "-" }, routes_to(w, "2001:db8:2::/48"))
    sleep(99)
    assert.same({ "-" }, routes_to(w, "2001:db8:2::/48"))
    sleep(2)
    assert.same({}, routes_to(w, "2001:db8:2::/48"))
    w.say { options = { prefix("2001:db8:2::", { flags = 0x80, bits = 48, valid = FOREVER }) } }
    sleep(1e6)
    assert.same({ "-" }, routes_to(w, "2001:db8:2::/48"))
    w.say { options = { prefix("2001:db8:2::", { flags = 0x80, bits = 48, valid = 0 }) } }
    assert.same({}, routes_to(w, "2001:db8:2::/48"))
  end)

  it("forms the same address again with a seed, another on another link, and others without", function()
    local function formed(fields, name)
      return run(function()
        fields.attach = { name = name }
        local w = world(fields)
        w.say { options = { prefix "2001:db8:1::", prefix "2001:db8:2::" } }
        local list = w.addresses()
        w.stack:close()
        return list[1], list[2]
      end)
    end
    local first, second = formed({ seed = 5 })
    assert.same({ first, second }, { formed({ seed = 5 }) })
    assert.is_not.equal(first:sub(-22), second:sub(-22))
    assert.is_not.equal(first, (formed({ seed = 6 })))
    assert.is_not.equal(first, (formed({ seed = 5 }, "other")))
  end)

  spec("prefers others to deprecated addresses for what is new, keeps what is open (RFC 6724 rule 3)", function(w)
    w.say { options = { prefix("2001:db8:1::", { preferred = 50, valid = 200 }),
      prefix("2001:db8:2::", { preferred = 100, valid = 200 }), STATION } }
    local one, two = w.addresses()[1]:match("^[^/]+"), w.addresses()[2]:match("^[^/]+")
    sleep(1)
    packets.drain(w.far)
    local function source()
      w.say { options = STATION } -- it has answered no question
      local socket = w.stack:udp()
      assert(socket:sendto("x", "2001:db8:9::1", 7))
      local frame = w.next("ipv6")
      socket:close()
      return frame:sub(23, 38)
    end
    local kept = w.stack:udp()
    assert(kept:setsockname(one, 7))
    assert.equal(bytes(one), source())
    sleep(50)
    assert.equal(0, w.interface:slaac().addresses[1].preferred)
    assert.equal(bytes(two), source())
    assert(kept:sendto("x", "2001:db8:9::1", 7))
    assert.equal(bytes(one), w.next("ipv6"):sub(23, 38))
    sleep(50)
    assert.equal(bytes(one), source()) -- both are, and one is better than none
    w.say { options = { prefix("2001:db8:2::", { preferred = 100, valid = 200 }) } }
    assert.equal(bytes(two), source()) -- it is preferred again
    kept:close()
    sleep(99) -- the first is over
    assert.same({ two .. "/64" }, w.addresses())
    sleep(101)
    assert.same({}, w.addresses())
    assert.equal("SOLICITING", w.interface:slaac().state)
  end)

  spec("ends connections with their address", function(w)
    w.say { options = { prefix("2001:db8:1::", { preferred = 5, valid = 5 }), STATION } }
    local task = netstack.spawn(function() return w.stack:connect("2001:db8:9::1", 80) end)
    assert.same({ nil, "connection aborted" }, { task:join() })
    assert.near(5, netstack.now(), 0.1)
  end)

  spec("lets nobody end an address before two hours are over (RFC 4862 5.5.3 (e))", function(w)
    local function left(valid, preferred)
      local state = w.say { options = { prefix("2001:db8:1::", { valid = valid, preferred = preferred or 0 }) } }
      return state.addresses[1] and state.addresses[1].expires, state.addresses[1] and state.addresses[1].preferred
    end
    assert.is_nil(left(0))
    assert.near(10 * HOUR, left(10 * HOUR), 1)
    assert.near(5 * HOUR, left(5 * HOUR), 1) -- more than two hours: as the router says
    assert.near(2 * HOUR, left(60), 1) -- at most as short as this
    sleep(HOUR)
    assert.near(HOUR, left(60), 1) -- that is left, and stays
    assert.near(HOUR, left(0), 1)
    assert.near(1.5 * HOUR, left(1.5 * HOUR), 1) -- longer is always all right
    local _, preferred = left(1.5 * HOUR, HOUR)
    assert.near(HOUR, preferred, 1)
    _, preferred = left(0, 0)
    assert.equal(0, preferred) -- may end at once
    assert.near(3 * HOUR, left(3 * HOUR), 1)
    assert.is_nil((left(FOREVER))) -- endless
    assert.equal(1, #w.addresses())
    assert.near(2 * HOUR, left(1), 1)
  end)

  spec("gives a router up that says so, or whose time is over, and asks for another", function(w)
    w.say { lifetime = 100 }
    assert.same({ "fe80::2%eth0" }, gateways(w))
    w.say { lifetime = 0 }
    assert.same({}, gateways(w))
    assert.is_table(w.interface:slaac().routers)
    assert.is_string(w.hear(1))
    w.say { lifetime = 10 }
    assert.is_nil(w.hear(9.9))
    sleep(0.2)
    assert.same({}, gateways(w))
    assert.is_string(w.hear(1))
    w.say { lifetime = 0, options = prefix "2001:db8:1::" } -- none for the default route, but heeded
    assert.equal(1, #w.addresses())
    assert.is_string(w.hear(10)) -- goes on (RFC 7559 §2.1)
  end)

  spec("chooses among routers by preference (RFC 4191), then the first", function(w)
    w.say { source = "fe80::2" }
    w.say { source = "fe80::3" }
    assert.same({ "fe80::2%eth0" }, gateways(w))
    w.say { source = "fe80::4", flags = 0x08 }
    assert.same({ "fe80::4%eth0" }, gateways(w))
    w.say { source = "fe80::4", flags = 0x18 }
    assert.same({ "fe80::2%eth0" }, gateways(w))
    w.say { source = "fe80::2", lifetime = 0 }
    assert.same({ "fe80::3%eth0" }, gateways(w))
    assert.equal("fe80::3%eth0", w.interface:slaac().gateway)
  end)

  spec("leaves a router that does not answer for one that does", function(w)
    w.say { source = "fe80::2", options = prefix "2001:db8:1::" }
    w.say { source = "fe80::3", from = frames.OTHER }
    sleep(1)
    local socket = w.stack:udp()
    local function send()
      assert(socket:sendto("x", "2001:db8:9::1", 7))
      sleep(4) -- three questions, no answer
    end
    send()
    assert.same({ "fe80::3%eth0" }, gateways(w))
    assert.is_false(w.interface:slaac().routers[1].reachable)
    send()
    assert.same({ "fe80::2%eth0" }, gateways(w)) -- neither: in turn (RFC 4861 6.3.6)
    w.say { source = "fe80::3", from = frames.OTHER }
    send()
    assert.same({ "fe80::3%eth0" }, gateways(w)) -- it has spoken, the other is silent
    w.say { source = "fe80::2" }
    assert.same({ "fe80::2%eth0" }, gateways(w))
    socket:close()
  end)

  spec("asks the name servers that routers name, in place of none, after DHCP's", function(w)
    local function known() return w.interface:slaac().dns end
    w.say { options = { servers(100, "2001:db8::53", "fe80::53"), prefix "2001:db8:1::", STATION } }
    assert.same({ "2001:db8::53", "fe80::53%eth0" }, known())
    sleep(1)
    packets.drain(w.far)
    local task = netstack.spawn(function() return w.stack:resolve("a.test") end)
    local frame = w.next("ipv6")
    assert.same({ bytes "2001:db8::53", 53 }, { frame:sub(39, 54), packets.parse(frame:sub(15)).destination_port })
    task:cancel()
    w.say { options = servers(0, "2001:db8::53") }
    assert.same({ "fe80::53%eth0" }, known())
    task = netstack.spawn(function() return w.stack:resolve("b.test") end)
    repeat frame = w.next("solicitation") until frame:sub(63, 78) == bytes "fe80::53"
    task:cancel()
    w.say { options = servers(FOREVER, "2001:db8::1", "2001:db8::2", "2001:db8::3") }
    assert.same({ "fe80::53%eth0", "2001:db8::1", "2001:db8::2" }, known())
    assert.equal(1, w.interface:slaac().limited.dns)
    sleep(101)
    assert.same({ "2001:db8::1", "2001:db8::2" }, known())
  end)

  spec("sends IPv6 packets as small as the link's mtu", function(w)
    assert.equal(1400, w.say { options = { link_mtu(1400), prefix "2001:db8:1::", STATION } }.mtu)
    sleep(1)
    packets.drain(w.far)
    local socket = w.stack:udp()
    assert(socket:sendto(("x"):rep(1400), "2001:db8:9::1", 7))
    assert.equal(14 + 1400 - (1400 - 48) % 8, #w.next("ipv6"))
    socket:close()
    for i, mtu in ipairs { 1279, 1501, 0, 4294967295 } do
      local state = w.say { options = link_mtu(mtu) }
      assert.same({ 1400, i }, { state.mtu, state.ignored })
    end
  end)

  spec("lets no IPv6 packet be longer than that, whoever made it", function(w)
    local inner, beyond = netstack.pipe { checksum = true }
    local other = assert(w.stack:attach(inner, { addresses = { "fd02::1/64" } }))
    w.say { options = { link_mtu(1400), prefix "2001:db8:1::", STATION } }
    sleep(1)
    packets.drain(w.far)
    local socket, raw = w.stack:udp(), w.stack:raw("ipv6", 253)
    assert(socket:setoption("dont-fragment", true))
    assert.same({ nil, "message too long" }, { socket:sendto(("x"):rep(1353), "2001:db8:9::1", 7) })
    assert.equal(1352, socket:sendto(("x"):rep(1352), "2001:db8:9::1", 7))
    assert.equal(14 + 1400, #w.next("ipv6"))
    assert.equal(1472, socket:sendto(("x"):rep(1472), "10.0.0.2", 7)) -- it is IPv6's alone
    local own = w.addresses()[2]:match("^[^/]+")
    assert.equal(1401, raw:send(packets.ipv6(own, "2001:db8:9::1", 253, ("x"):rep(1361))))
    local piece = packets.parse(w.next("ipv6"):sub(15))
    assert.equal(44, piece.protocol)
    assert.is_true(#piece.payload <= 1360)
    w.next("ipv6")
    assert(beyond:send(packets.udp("fd02::9", 1, "2001:db8:9::1", 7, ("x"):rep(1353))))
    assert(beyond:send(packets.udp("fd02::9", 1, "2001:db8:9::1", 7, ("x"):rep(1352))))
    local complaint = packets.parse(beyond:receive(1))
    assert.same({ 2, 1400 }, { complaint.payload:byte(1), packets.get16(complaint.payload, 7) })
    assert.equal(14 + 1400, #w.next("ipv6"))
    socket:close()
    raw:close()
    other:detach()
  end, { forwarding = true, attach = { addresses = { "10.0.0.1/24" } } })

  spec("tries another address when somebody has it, three in all (RFC 7217 §6)", function(w)
    sleep(2)
    w.say { options = prefix "2001:db8:1::" }
    local seen = {}
    for i = 1, 3 do
      local address = w.addresses()[1]:match("^[^/]+")
      assert.is_nil(seen[address])
      seen[address] = true
      assert(w.far:send(frames.nd { type = 136, flags = 0x20, source = address, target = address,
        destination = frames.ALL_NODES, to = "\51\51\0\0\0\1", options = "\2\1" .. frames.PEER }))
      sleep(0.001)
      assert.equal(i, w.stack:stats().neighbours.duplicates)
    end
    assert.same({}, w.addresses())
    w.say { options = prefix "2001:db8:1::" } -- still so
    assert.same({}, w.addresses())
    w.say { options = prefix "2001:db8:2::" }
    assert.equal(1, #w.addresses())
  end)

  spec("lives with the user's addresses and a lease, and takes none of them away", function(w)
    assert(w.interface:set_addresses { "10.0.0.1/24", "fd00::1/64" })
    w.say { options = prefix "2001:db8:1::" }
    local formed = w.addresses()[3]
    assert.same({ "10.0.0.1/24", "fd00::1/64", formed }, w.addresses())
    assert(w.interface:set_addresses { "10.0.0.3/24" })
    assert.same({ "10.0.0.3/24", formed }, w.addresses())
    assert(w.interface:set_addresses { "10.0.0.3/24", formed }) -- it is the user's from now on
    w.say { lifetime = 0, options = prefix("2001:db8:1::", { preferred = 0, valid = 1 }) }
    sleep(2 * HOUR + 1)
    assert.same({ "10.0.0.3/24", formed }, w.addresses())
    local eight = {}
    for i = 1, 8 do eight[i] = "fd00::" .. i .. "/64" end
    w.say { options = prefix "2001:db8:2::" }
    assert.equal(3, #w.addresses())
    assert(w.interface:set_addresses(eight)) -- the user's have the room
    assert.same(eight, w.addresses())
    assert.equal(1, w.say { options = prefix "2001:db8:2::" }.limited.prefixes)
    assert.same(eight, w.addresses())
    assert(w.interface:set_addresses {})
    w.say { options = prefix "2001:db8:2::" }
    assert.equal(1, #w.addresses())
    eight[9] = "fd00::9"
    assert.same({ nil, "full" }, { w.interface:set_addresses(eight) })
  end)

  spec("keeps a lease beside it", function(w)
    assert(w.interface:start_dhcp())
    w.say { options = { prefix "2001:db8:1::", servers(100, "2001:db8::53") } }
    assert.equal(1, #w.addresses())
    assert.equal("SELECTING", w.interface:lease().state)
    assert.same({ "2001:db8::53" }, w.interface:slaac().dns)
  end)

  spec("ignores and counts what makes no sense", function(w)
    local nonsense = { -- options
      prefix("fe80::"), prefix("ff02::"), prefix("::"), prefix("2001:db8::", { bits = 0 }),
      prefix("2001:db8::", { bits = 129 }), prefix("2001:db8::", { bits = 48, flags = 0x40 }),
      prefix("2001:db8::", { bits = 128, flags = 0x40 }),
      prefix("2001:db8::", { valid = 10, preferred = 11, flags = 0x40 }),
      prefix("2001:db8::"):sub(1, 1) .. "\1" .. prefix("2001:db8::"):sub(3, 8), servers(100, "::"),
      servers(100, "ff02::1"), servers(100, "::1"), servers(100), "\25\2" .. ("\0"):rep(14), "\5\2" .. ("\0"):rep(14),
    }
    for i, option in ipairs(nonsense) do
      local state = w.say { lifetime = 0, options = option }
      assert.equal(i, state.ignored, "nonsense " .. i)
      assert.same({ {}, {}, {} }, { state.addresses, state.dns, state.routers })
    end
    assert.same({}, w.routes())
    assert.equal(#nonsense + 1, w.say { source = "fe80::ff:fe00:1" }.ignored) -- from our own address
    assert.same({}, gateways(w))
    w.say { lifetime = 0, options = { prefix("2001:db8::", { flags = 0 }), "\99\1" .. ("\0"):rep(6) } } -- says nothing
    assert.equal(#nonsense + 1, w.interface:slaac().ignored)
    w.say { options = prefix("2001:db8:3::", { bits = 48 }) } -- one half of it does
    assert.same({ "-" }, routes_to(w, "2001:db8:3::/48"))
    assert.same({}, w.addresses())
  end)

  spec("drops what breaks the rules of an advertisement (RFC 4861 6.1.2) #guarded", function(w)
    local options = prefix "2001:db8:1::"
    local broken = {
      { hops = 254 }, { code = 1 }, { source = "2001:db8::1" }, { source = "fec0::1" }, { source = "::" },
      { options = "\3\0" .. ("\0"):rep(30) }, { options = options:sub(1, 24) }, { length = 15 }, { length = 8 },
      { options = options .. "\3" }, { options = "\1\1\3" .. ("\0"):rep(5) },
    }
    for i, o in ipairs(broken) do
      o.options = o.options or options
      w.say(o)
      assert.equal(i, w.interface:stats().guarded["neighbour discovery that breaks its rules"] or 0)
    end
    w.say { options = options, sum = 0x1234 }
    assert.equal(#broken + 1, w.interface:stats().rx_dropped)
    assert.same({ {}, {} }, { w.addresses(), gateways(w) })
    assert.equal(0, w.interface:slaac().ignored)
  end)

  spec("survives advertisements of any bytes", function(w)
    local random = helper.random(7)
    local options = { prefix "2001:db8:1::", servers(100, "2001:db8::53"), link_mtu(1400), STATION }
    for _ = 1, 1000 do
      local frame = router { options = options }
      for _ = 1, 1 + random(3) do
        local at = 55 + random(#frame - 54)
        frame = frame:sub(1, at - 1) .. string.char(random(256)) .. frame:sub(at + 1)
      end
      local message = frame:sub(55, 14 + 40 + 16 + random(#frame - 69))
      message = message:sub(1, 2) .. "\0\0" .. message:sub(5)
      local addresses = frame:sub(23, 54)
      local sum = packets.checksum(addresses .. "\0\0" .. packets.u16(#message) .. "\0\0\0\58" .. message)
      assert(w.far:send(frame:sub(1, 18) .. packets.u16(#message) .. frame:sub(21, 54) .. message:sub(1, 2) ..
        packets.u16(sum) .. message:sub(5)))
      sleep(0.01)
    end
    assert.is_nil(w.stack:stats().cause)
    assert.is_true(#w.addresses() <= 8 and #w.interface:slaac().dns <= 3)
  end)

  spec("bounds what a flood of advertisements can fill", function(w)
    for i = 0, 999 do
      local options = {}
      for k = 1, 8 do
        options[k] = prefix(("2001:db8:%x:%x::"):format(i, k), { preferred = 1, valid = i % 3 == 0 and 1 or FOREVER })
      end
      options[9] = servers(FOREVER, ("2001:db8::%x"):format(i + 1)) .. STATION
      w.say { source = ("fe80::%x"):format(i + 2), options = options }
    end
    local state = w.interface:slaac()
    assert.equal(8, #w.addresses())
    assert.same({ 4, 3, 8 }, { #state.routers, #state.dns, #state.addresses })
    assert.is_true(#w.routes() <= 8 + 16 + 1, #w.routes())
    assert.equal(996, state.limited.routers)
    assert.equal(997, state.limited.dns)
    assert.is_true(state.limited.prefixes >= 7900)
    assert.equal(4, w.stack:stats().neighbours.entries)
  end)

  spec("asks again when the interface comes up, and keeps what it has", function(w)
    w.say { options = prefix "2001:db8:1::", lifetime = 9000 }
    local own = w.addresses()
    assert.is_nil((w.hear(100)))
    w.interface:down()
    w.interface:up()
    assert.is_string((w.hear(1)))
    w.say { options = prefix "2001:db8:1::", lifetime = 9000 }
    w.interface:down()
    sleep(3 * HOUR)
    assert.is_nil((w.hear(0)))
    w.interface:up()
    assert.same(own, w.addresses()) -- a day is not over
    assert.same({}, gateways(w)) -- what ended meanwhile has ended
  end)

  spec("is over with its interface", function(w)
    w.say { options = prefix "2001:db8:1::" }
    local socket = w.stack:udp()
    assert(socket:setsockname(w.addresses()[1]:match("^[^/]+"), 7))
    w.interface:detach()
    assert.same({ nil, "closed" }, { w.interface:slaac() })
    assert.same({}, w.stack:routes())
    assert.is_nil(w.stack:poll_delay(netstack.now()))
    socket:close()
  end)

  it("goes with its stack when that is collected", function()
    local left = setmetatable({}, { __mode = "k" })
    run(function()
      local w = world()
      w.say { options = prefix "2001:db8:1::" }
      left[w.stack] = true
    end)
    helper.nothing_left() -- closes it, and lets it go
    collectgarbage()
    collectgarbage()
    assert.is_nil((next(left)))
  end)

  spec("tells two links apart", function(w)
    local near, far = netstack.pipe { medium = "ethernet", capacity = 0, checksum = true }
    local other = assert(w.stack:attach(near, { mac = "02:00:00:00:00:01", slaac = true }))
    w.say { source = "fe80::2", options = prefix "2001:db8:1::" }
    assert(far:send(router { source = "fe80::2", options = { prefix "2001:db8:2::", STATION } }))
    sleep(0.001)
    assert.same({ "fe80::2%eth0", "fe80::2%eth1" }, gateways(w))
    assert.same({ 1, 1 }, { count(w.addresses(), "^2001:db8:1:"), count(other:addresses(), "^2001:db8:2:") })
    w.interface:down()
    packets.drain(far)
    local socket = w.stack:udp()
    assert(socket:sendto("x", "2001:db8:9::1", 7)) -- by the other
    local frame
    repeat frame = far:receive(1) until frames.kind(frame) == "ipv6"
    assert.equal(bytes(other:addresses()[1]:match("^[^/]+")), frame:sub(23, 38))
    socket:close()
    w.interface:up()
    w.say { source = "fe80::2", lifetime = 0 }
    assert.same({ "fe80::2%eth1" }, gateways(w))
    other:detach()
    assert.same({}, gateways(w))
  end)

  describe("without an Ethernet", function()
    spec("makes a link-local address, asks, and heeds the router", function(w)
      local own = w.interface:link_local()
      assert.matches("^fe80::%x+:%x+:%x+:%x+%%eth0$", own)
      local packet = w.hear(1)
      assert.equal(48, #packet)
      assert.equal(bytes(own:match("^[^%%]+")), packet:sub(9, 24))
      assert.same({ nil, "no route" }, { w.stack:udp():sendto("x", "2001:db8:9::1", 7) }) -- not from that one
      w.say { options = prefix "2001:db8:1::" }
      assert.same({ "fe80::2%eth0" }, gateways(w))
      local socket = w.stack:udp()
      assert(socket:sendto("x", "2001:db8:9::1", 7))
      assert.equal(bytes(w.addresses()[1]:match("^[^/]+")), w.far:receive(1):sub(9, 24))
      socket:close()
      assert.is_nil((w.far:receive(1000))) -- and nothing else
    end, { medium = "ip" })

    spec("goes on dropping all other neighbour discovery #guarded", function(w)
      w.say { options = prefix "2001:db8:1::" }
      local address = w.addresses()[1]:match("^[^/]+")
      for _, kind in ipairs { 133, 135, 136, 137 } do
        assert(w.far:send(frames.nd({ type = kind, flags = 0x20, source = kind == 136 and address or "fe80::2",
          destination = bytes(address), target = address, options = "\2\1" .. frames.PEER }):sub(15)))
      end
      sleep(0.01)
      assert.equal(4, w.interface:stats().guarded["neighbour discovery where there are no neighbours"])
      assert.equal(1, #w.addresses())
    end, { medium = "ip" })

    it("needs IPv6's mtu, and to be asked for", function()
      local stack = netstack.new()
      local near, far = netstack.pipe { mtu = 1279, checksum = true }
      assert.same({ nil, "not supported" }, { stack:attach(near, { slaac = true }) })
      local interface = assert(stack:attach(near))
      assert.same({ nil, "not supported" }, { interface:slaac() })
      stack:close()
      assert.is_nil((far:receive()))
    end)
  end)
end)
