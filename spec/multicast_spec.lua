-- Multicast: who is in a group gets what is sent to it, and the link is told. In virtual time; with a kernel, its
-- bridge and its sockets in multicast_kernel_spec.lua.
local netstack = require "netstack"
local frames = require "spec.frames"
local helper = require "spec.helper"
local packets = require "spec.packets"

local rep = string.rep
local run, sleep, now = netstack.run, netstack.sleep, netstack.now
local bytes, failure, group_message = packets.bytes, packets.failure, packets.group_message

local GROUP, HOSTS, ROUTERS = "239.1.2.3", "224.0.0.1", "224.0.0.2"
local families = {
  { name = "IPv4", a = "10.0.0.1", b = "10.0.0.2", group = GROUP, other = "239.1.2.4", any = "0.0.0.0",
    add = "ip-add-membership", drop = "ip-drop-membership", ttl = "ip-multicast-ttl", loop = "ip-multicast-loop",
    all = HOSTS, routers = ROUTERS, nobody = "0.0.0.0", query = 0x11, report = 0x16, leave = 0x17,
    second = 10, peer = "10.0.0.2", groups = "239.9.%d.%d" },
  { name = "IPv6", a = "fd00::1", b = "fd00::2", group = "ff05::1:3", other = "ff05::1:4", any = "::",
    add = "ipv6-add-membership", drop = "ipv6-drop-membership", ttl = "ipv6-multicast-hops",
    loop = "ipv6-multicast-loop", all = "ff02::1", routers = "ff02::2", nobody = "::", query = 130, report = 131,
    leave = 132, second = 1000, peer = "fe80::2", groups = "ff05::%x:%x" },
}

-- A socket bound to port 5000, shared, in the group unless it is false.
local function member(stack, family, group, interface)
  local socket = assert(stack:udp())
  socket:setoption("reuseaddr", true)
  assert(socket:setsockname("*", 5000))
  socket:settimeout(0)
  if group ~= false then
    assert.equal(1, socket:setoption(family.add, { multiaddr = group or family.group, interface = interface }))
  end
  return socket
end

local function close(...)
  for i = 1, select("#", ...) do select(i, ...):close() end
end

local function text(socket)
  return (socket:receive())
end

-- In a run: a stack 10.0.0.1, fd00::1 on the end of a pipe that is driven by hand.
local function by_hand(fn, options)
  run(function()
    local stack = helper.watch(netstack.new { seed = 1, loopback = options and options.loopback })
    local near, far = netstack.pipe { checksum = true, mtu = 1500 }
    local interface = assert(stack:attach(near, { addresses = { "10.0.0.1/24", "fd00::1/64" } }))
    assert.is_nil(far:receive()) -- attaching sends nothing
    fn(stack, far, interface)
    stack:close()
  end)
end

-- What came until `time` from now, each with its time.
local function watch(far, time)
  local start, seen = now(), {}
  repeat
    local packet = far:receive(start + time - now())
    if packet then seen[#seen + 1] = { packet, now() - start } end
  until not packet
  return seen
end

for _, family in ipairs(families) do
  for _, medium in ipairs { "ip", "ethernet" } do
    describe(("Multicast over %s, %s,"):format(family.name, medium), function()
      after_each(helper.nothing_left)

      local function pair(name, fn)
        it(name, function()
          run(function()
            local a, b = helper.pair({ seed = 1 }, { medium = medium, checksum = true })
            sleep(2)
            fn(a, b)
          end)
        end)
      end

      pair("gives each member on the port a copy, and nobody else", function(a, b)
        local one, two, other = member(b, family), member(b, family), member(b, family, family.other)
        local bystander, sender = member(b, family, false), a:udp()
        local unwanted = b:stats().groups.unwanted -- what the other station said to groups of its own
        assert.equal(5, sender:sendto("hello", family.group, 5000))
        sleep(1)
        for _, socket in ipairs { one, two } do
          local data, host, port = socket:receivefrom()
          assert.same({ "hello", family.a }, { data, host })
          assert.equal(select(2, sender:getsockname()), port)
        end
        for _, socket in ipairs { one, two, other, bystander } do assert.is_nil(text(socket)) end
        sender:sendto("to all", family.all, 5000) -- every host is in that group
        sleep(1)
        for _, socket in ipairs { one, two, other, bystander } do assert.equal("to all", text(socket)) end
        sender:sendto("elsewhere", family.group, 5001)
        sender:sendto("unheard of", family.groups:format(1, 1), 5000)
        sleep(1)
        assert.equal(unwanted + 1, b:stats().groups.unwanted)
        assert.equal(1, b:stats().udp.protocol_errors)
        for _, socket in ipairs { one, two, other, bystander } do assert.is_nil(text(socket)) end
        assert.equal(1, one:setoption(family.drop, { multiaddr = family.group }))
        sender:sendto("again", family.group, 5000)
        sleep(1)
        assert.same({ "again" }, { text(two), text(one) })
        close(one, two, other, bystander, sender)
        sleep(1)
        sender = a:udp()
        sender:sendto("x", family.group, 5000)
        sleep(1)
        assert.equal(unwanted + 2, b:stats().groups.unwanted)
        sender:close()
      end)

      pair("carries fragments", function(a, b)
        local socket, sender = member(b, family), a:udp()
        local data = rep("0123456789", 3000)
        assert.equal(#data, sender:sendto(data, family.group, 5000))
        sleep(1)
        assert.is_true(text(socket) == data)
        close(socket, sender)
      end)

      pair("is heard on the sender's own stack, unless it does not want that", function(a, b)
        local here, there, sender = member(a, family), member(b, family), a:udp()
        sender:sendto("both", family.group, 5000)
        sleep(1)
        assert.same({ "both", "both" }, { text(here), text(there) })
        assert.is_true(sender:getoption(family.loop))
        assert.equal(1, sender:setoption(family.loop, false))
        sender:sendto("others", family.group, 5000)
        sleep(1)
        assert.same({ "others" }, { text(there), text(here) })
        sender:setoption(family.loop, true)
        assert.equal(1, sender:setoption(family.ttl, 0)) -- and this nobody else gets (RFC 1112 §6.1)
        sender:sendto("here", family.group, 5000)
        here:sendto("to itself", family.group, 5000)
        sleep(1)
        assert.same({ "here", "to itself", "to itself" }, { text(here), text(here), text(there) })
        close(here, there, sender)
      end)

      pair("is heard by who is bound to the group, and by who is connected to its sender", function(a, b)
        local sender, bound, connected = a:udp(), b:udp(), b:udp()
        assert(sender:setsockname(family.a, 6000))
        for _, socket in ipairs { bound, connected } do socket:setoption("reuseaddr", true) end
        assert.equal(1, bound:setsockname(family.group, 5000))
        assert.equal(1, bound:setoption(family.add, { multiaddr = family.group }))
        assert.equal(1, bound:setoption(family.add, { multiaddr = family.other }))
        assert.equal(1, bound:setpeername(family.a, 6000))
        assert.equal(1, bound:settimeout(0))
        assert(connected:setsockname("*", 5000))
        assert(connected:setpeername(family.a, 6000)) -- from then on it has an address of its own
        assert.equal(1, connected:setoption(family.add, { multiaddr = family.group }))
        connected:settimeout(0)
        sender:sendto("group", family.group, 5000)
        sender:sendto("other", family.other, 5000)
        local stranger = a:udp()
        stranger:sendto("stranger", family.group, 5000)
        sleep(1)
        assert.same({ "group" }, { text(bound), text(bound), text(connected) })
        bound:send("answer") -- not from the group
        local data, host, port = sender:receivefrom()
        assert.same({ "answer", family.b, 5000 }, { data, host, port })
        close(sender, bound, connected, stranger)
      end)
    end)
  end

  describe("A membership, " .. family.name .. ",", function()
    after_each(helper.nothing_left)

    local function report(kind, source)
      return group_message(source or (family.nobody == "::" and "::" or family.a),
        kind == family.leave and family.routers or family.group, kind, family.group, { fragment = 0x4000 })
    end

    it("is reported at once and once more, and its end told (RFC 2236 §3, RFC 2710 §4)", function()
      by_hand(function(stack, far)
        local one = member(stack, family)
        local seen = watch(far, 100)
        assert.equal(2, #seen)
        assert.same({ report(family.report), 0 }, seen[1])
        assert.equal(report(family.report), seen[2][1])
        assert.is_true(seen[2][2] > 0 and seen[2][2] <= 10)
        assert.is_nil(stack:poll_delay(now()))
        local two = member(stack, family)
        assert.equal(1, one:setoption(family.drop, { multiaddr = family.group }))
        assert.same({}, watch(far, 100)) -- the group still has a member
        two:close()
        assert.same({ { report(family.leave), 0 } }, watch(far, 100))
        one:setoption(family.add, { multiaddr = family.group })
        one = nil -- luacheck: ignore 311 (collected)
        collectgarbage() collectgarbage()
        seen = watch(far, 100)
        assert.equal(report(family.leave), seen[#seen][1])
        assert.equal(0, stack:stats().groups.entries)
      end)
    end)

    it("is not reported of the group that every host is in", function()
      by_hand(function(stack, far)
        local socket = member(stack, family, family.all)
        socket:close()
        assert.same({}, watch(far, 100))
      end)
    end)

    it("ends with the interface, quietly", function()
      by_hand(function(stack, far, interface)
        local socket = member(stack, family)
        socket:setoption("ip-multicast-if", "eth0")
        assert.equal("10.0.0.1", socket:getoption("ip-multicast-if"))
        interface:detach()
        packets.drain(far)
        assert.equal(0, stack:stats().groups.entries)
        assert.same({ nil, "address not available" }, { socket:setoption(family.drop, { multiaddr = family.group }) })
        assert.same({ nil, "no route" }, { socket:setoption(family.add, { multiaddr = family.group }) })
        assert.same({ nil, "no route" }, { socket:sendto("x", family.group, 5000) })
        socket:close()
        assert.same({}, packets.drain(far))
      end)
    end)

    it("is reported again when the interface is up again", function()
      by_hand(function(stack, far, interface)
        local socket = member(stack, family)
        watch(far, 20)
        interface:down()
        far:send(group_message(family.peer, family.all, family.query, family.nobody, { within = family.second }))
        sleep(20)
        assert.same({}, packets.drain(far))
        interface:up()
        local seen = watch(far, 20)
        assert.same({ report(family.report), report(family.report) }, { seen[1][1], seen[2][1] })
        interface:down()
        socket:close()
        assert.same({}, packets.drain(far))
      end)
    end)

    it("is sent with a ttl of 1, or what was asked for", function()
      by_hand(function(stack, far)
        local socket = stack:udp()
        assert.equal(1, socket:getoption(family.ttl))
        socket:sendto("x", family.group, 5000)
        assert.equal(1, packets.parse(far:receive()).ttl)
        assert.equal(1, socket:setoption(family.ttl, 7))
        socket:sendto("x", family.group, 5000)
        assert.same({ 7, 7 }, { packets.parse(far:receive()).ttl, socket:getoption(family.ttl) })
        socket:sendto("x", family.b, 5000)
        assert.equal(255, packets.parse(far:receive()).ttl)
        socket:close()
      end)
    end)

    -- Memberships in two groups, reported, and what answers a query.
    local function asked(query, fn, options)
      by_hand(function(stack, far)
        local socket, other = member(stack, family), member(stack, family, family.other)
        watch(far, 20)
        for _ = 1, options and options.times or 1 do far:send(query) end
        fn(watch(far, 30), stack)
        close(socket, other)
      end)
    end

    it("is reported when a querier asks, at a random time", function()
      local query = group_message(family.peer, family.all, family.query, family.nobody, { within = family.second * 5 })
      asked(query, function(seen, stack)
        assert.equal(2, #seen)
        local groups = {}
        for _, s in ipairs(seen) do
          assert.is_true(s[2] > 0 and s[2] <= 5)
          groups[s[1]:sub(family.a == "10.0.0.1" and -4 or -16)] = true
        end
        assert.same({ [bytes(family.group)] = true, [bytes(family.other)] = true }, groups)
        assert.is_true(seen[1][2] ~= seen[2][2])
        assert.equal(1, stack:stats().groups.queries)
      end)
    end)

    it("is reported when a querier asks for the group, soon", function()
      local query = group_message(family.peer, family.group, family.query, family.group, { within = family.second })
      asked(query, function(seen)
        assert.equal(1, #seen)
        assert.equal(report(family.report), seen[1][1])
        assert.is_true(seen[1][2] <= 1)
      end)
    end)

    it("is reported to queriers of the next version, too (RFC 3376 7.2, RFC 3810 §8)", function()
      local query = group_message(family.peer, family.all, family.query, family.nobody,
        { within = family.second, rest = "\2\20\0\0" })
      asked(query, function(seen) assert.equal(2, #seen) end)
    end)

    it("is reported a bounded number of times, however often somebody asks", function()
      local query = group_message(family.peer, family.all, family.query, family.nobody, { within = 1 })
      by_hand(function(stack, far)
        local socket = member(stack, family)
        watch(far, 20)
        for _ = 1, 100 do -- in one second
          far:send(query)
          sleep(0.01)
        end
        local seen = packets.drain(far)
        assert.is_true(#seen >= 10 and #seen < 40, #seen)
        assert.equal(100, stack:stats().groups.queries)
        socket:close()
      end)
    end)

    local within = { within = family.second }
    local function but(changes)
      changes.within = family.second
      return changes
    end
    local general = group_message(family.peer, family.all, family.query, family.nobody, within)
    local bad = {
      { "with a ttl of 2", group_message(family.peer, family.all, family.query, family.nobody, but { ttl = 2 }) },
      { "with a wrong checksum", general:sub(1, -2) .. "\1" },
      { "that is cut off", family.nobody == "::" and packets.icmp(family.peer, family.all, 130, 0, rep("\0", 12)) or
        packets.ipv4(family.peer, family.all, 2, "\17\100\238", { ttl = 1 }) },
      { "for all groups, to one", group_message(family.peer, family.group, family.query, family.nobody, within) },
      { "for a host", group_message(family.peer, family.a, family.query, family.group, within) },
    }
    if family.nobody == "::" then
      bad[#bad + 1] = { "from another link", group_message("fd00::2", family.all, 130, "::", within) }
      bad[#bad + 1] = { "from nowhere", group_message("::", family.all, 130, "::", within) }
    end
    for _, case in ipairs(bad) do
      it("is not reported to a query " .. case[1], function()
        asked(case[2], function(seen, stack)
          assert.same({}, seen)
          assert.same({ 1, 0 }, { stack:stats().groups.ignored, stack:stats().groups.queries })
        end)
      end)
    end

    it("is not silenced by others' reports, and raw sockets see these", function()
      by_hand(function(stack, far)
        local raw = stack:raw(family.nobody == "::" and "ipv6" or "ipv4", family.nobody == "::" and 0 or 2)
        local socket = member(stack, family)
        watch(far, 20)
        far:send(general)
        local theirs = group_message(family.peer, family.group, family.report, family.group)
        far:send(theirs)
        assert.equal(1, #watch(far, 20))
        assert.same({ general, theirs }, { raw:receive(), raw:receive() })
        assert.equal(0, stack:stats().groups.ignored)
        close(raw, socket)
      end)
    end)

    it("provokes no answers (RFC 1122 3.2.2, RFC 4443 §2.4)", function()
      by_hand(function(stack, far)
        local socket, listener = member(stack, family), assert(stack:bind("*", 80))
        watch(far, 20)
        for _, to in ipairs { family.group, family.other, family.all } do
          far:send(packets.udp(family.b, 9, to, 4999, "x"))
          far:send(packets.icmp(family.b, to, family.nobody == "::" and 128 or 8, 0, "\0\1\0\1ping"))
          far:send(packets.ip(family.b, to, 6, "\0\9\0\80" .. rep("\0", 8) .. "\80\2\255\255" .. rep("\0", 4)))
          far:send(packets.ip(family.b, to, 253, "?"))
        end
        assert.same({}, watch(far, 20))
        close(socket, listener)
      end)
    end)

    it("has its limits", function()
      by_hand(function(stack, far)
        local sockets, socket = {}, nil
        for i = 0, 255 do
          if i % 20 == 0 then
            socket = stack:udp()
            sockets[#sockets + 1] = socket
          end
          assert.equal(1, socket:setoption(family.add, { multiaddr = family.groups:format(2, i) }))
        end
        assert.same({ nil, "full" }, { socket:setoption(family.add, { multiaddr = family.groups:format(3, 1) }) })
        assert.equal(1, socket:setoption(family.add, { multiaddr = family.groups:format(2, 1) })) -- no new one
        assert.same({ nil, "full" }, { sockets[1]:setoption(family.add, { multiaddr = family.groups:format(2, 99) }) })
        assert.equal(256, stack:stats().groups.entries)
        watch(far, 20)
        for _ = 1, 50 do far:send(general) end -- bounded work, one report for each
        assert.equal(256, #watch(far, 20))
        close((table.unpack or unpack)(sockets)) -- luacheck: ignore 143
        assert.equal(0, stack:stats().groups.entries)
      end)
    end)

    it("says what is wrong", function()
      by_hand(function(stack)
        local socket = member(stack, family)
        local function try(name, value)
          return { socket:setoption(name, value) }
        end
        assert.same({ nil, "address already in use" }, try(family.add, { multiaddr = family.group }))
        assert.same({ nil, "address already in use" },
          try(family.add, { multiaddr = family.group, interface = "eth0" }))
        for _, address in ipairs { family.a, "nonsense", "", "*", families[family.a == "10.0.0.1" and 2 or 1].group } do
          assert.same({ nil, "invalid address" }, try(family.add, { multiaddr = address }))
          assert.same({ nil, "invalid address" }, try(family.drop, { multiaddr = address }))
        end
        for _, interface in ipairs { "eth1", "10.0.0.7", "fd00::7", 2 } do
          assert.same({ nil, "no route" }, try(family.add, { multiaddr = family.other, interface = interface }))
          assert.same({ nil, "no route" }, try("ip-multicast-if", interface))
        end
        assert.same({ nil, "address not available" }, try(family.drop, { multiaddr = family.other }))
        for _, value in ipairs { true, "239.1.1.1", {}, { multiaddr = 5 },
          { multiaddr = family.other, interface = true }, { multiaddr = family.other, interface = 1.5 } } do
          assert.matches("^spec/multicast_spec.lua:%d+: bad argument #2 to 'setoption'", failure(function()
            socket:setoption(family.add, value)
          end))
        end
        assert.matches("bad argument #2 to 'setoption'", failure(try, "ip-multicast-if", {}))
        assert.matches("bad argument #2 to 'setoption' %(out of range", failure(try, family.ttl, 256))
        assert.matches("bad argument #1 to 'getoption'", failure(socket.getoption, socket, family.add))
        for _, interface in ipairs { "eth0", family.a, 1, "*", family.any, 0 } do
          assert.same({ 1 }, try(family.add, { multiaddr = family.other, interface = interface }))
          assert.same({ 1 }, try(family.drop, { multiaddr = family.other, interface = interface }))
          assert.same({ 1 }, try("ip-multicast-if", interface))
        end
        assert.equal("0.0.0.0", socket:getoption("ip-multicast-if"))
        local bound = stack:udp()
        bound:setsockname(family.any == "::" and "0.0.0.0" or "::", 5001)
        assert.same({ nil, "wrong ip version" }, { bound:setoption(family.add, { multiaddr = family.other }) })
        close(bound, socket)
        assert.same({ nil, "closed" }, try(family.add, { multiaddr = family.other }))
        local alone = helper.watch(netstack.new())
        local nowhere = alone:udp()
        assert.same({ nil, "no route" }, { nowhere:setoption(family.add, { multiaddr = family.other }) })
        nowhere:close()
      end)
    end)

    it("is of one interface", function()
      by_hand(function(stack, far)
        local lo, eth, sender = member(stack, family, nil, "lo"), member(stack, family, nil, "eth0"), stack:udp()
        watch(far, 20)
        assert.equal(1, sender:setoption("ip-multicast-if", "127.0.0.1"))
        assert.equal("127.0.0.1", sender:getoption("ip-multicast-if"))
        assert.equal(5, sender:sendto("inner", family.group, 5000))
        sleep(1)
        assert.same({ "inner" }, { text(lo), text(eth) })
        assert.is_nil(far:receive())
        sender:setoption("ip-multicast-if", "*")
        assert.equal(5, sender:sendto("outer", family.group, 5000))
        sleep(1)
        assert.same({ "outer" }, { text(eth), text(lo) })
        assert.equal("outer", packets.parse(far:receive()).data)
        close(lo, eth, sender)
      end, { loopback = true })
    end)

    it("lets no packet for other groups in, and the trace tells", function()
      by_hand(function(stack, far)
        local causes, socket = {}, member(stack, family)
        watch(far, 20)
        stack:trace(function(event)
          if event.type == "drop" then causes[#causes + 1] = event.cause end
        end)
        far:send(packets.udp(family.b, 9, family.other, 5000, "x"))
        far:send(packets.udp(family.b, 9, family.group, 5001, "x"))
        local wrong = packets.udp(family.b, 9, family.group, 5000, "x")
        far:send(wrong:sub(1, -2) .. "y")
        sleep(1)
        stack:trace(nil)
        assert.same({ "group that nobody joined", "nobody's", "bad checksum" }, causes)
        assert.is_nil(text(socket))
        socket:close()
      end)
    end)
  end)
end

describe("An Ethernet's groups", function()
  after_each(helper.nothing_left)

  local LINK_LOCAL = "fe80::ff:fe00:1"

  local function report(source, group, kind)
    return group_message(source, kind and "ff02::2" or group, kind or 131, group)
  end

  local function spec(name, fn, options)
    it(name, function()
      run(function()
        local stack, far, interface, announced = frames.by_hand(options)
        fn(stack, far, interface, announced)
        stack:close()
      end)
    end)
  end

  spec("have stations of their own (RFC 1112 §6.4, RFC 2464 §7)", function(stack, far)
    local four, six = member(stack, families[1]), member(stack, families[2])
    local to = { far:receive():sub(1, 14), far:receive():sub(1, 14) }
    assert.same({ "\1\0\94\1\2\3" .. frames.OWN .. "\8\0", "\51\51\0\1\0\3" .. frames.OWN .. "\134\221" }, to)
    far:send("\1\0\94\1\2\3" .. frames.PEER .. "\8\0" .. packets.udp("10.0.0.2", 9, GROUP, 5000, "four"))
    far:send("\51\51\0\1\0\3" .. frames.PEER .. "\134\221" .. packets.udp("fd00::2", 9, "ff05::1:3", 5000, "six"))
    sleep(1)
    assert.same({ "four", "six" }, { text(four), text(six) })
    close(four, six)
  end, { checksum = true })

  spec("are those that neighbours ask for its addresses in, too (RFC 4861 7.2.1)", function(stack, far, interface,
      announced)
    -- Tentative addresses ask nothing of anybody (RFC 3590).
    assert.equal("\51\51\255\0\0\1" .. frames.OWN .. "\134\221" .. report("::", "ff02::1:ff00:1"), announced[1])
    interface:set_addresses { "fd00::1/64", "fd00::2:3/64", "fd00:1::2:3/64" }
    local kinds, sent = {}, packets.drain(far)
    for i, data in ipairs(sent) do kinds[i] = frames.kind(data) end
    assert.same({ "report", "solicitation", "solicitation" }, kinds)
    assert.equal(report(LINK_LOCAL, "ff02::1:ff02:3"), sent[1]:sub(15))
    sleep(2)
    interface:set_addresses { "fd00::1/64", "fd00:1::2:3/64" }
    assert.is_nil(frames.next(far))
    far:send("\51\51\0\0\0\1" .. frames.PEER .. "\134\221" ..
      group_message("fe80::2", "ff02::1", 130, "::", { within = 1000 }))
    local seen = watch(far, 5)
    table.sort(seen, function(x, y) return x[1] < y[1] end)
    assert.same({ report(LINK_LOCAL, "ff02::1:ff00:1"), report(LINK_LOCAL, "ff02::1:ff02:3") },
      { seen[1][1]:sub(15), seen[2][1]:sub(15) })
    interface:set_addresses { "fd00::1/64" }
    assert.equal("\51\51\0\0\0\2" .. frames.OWN .. "\134\221" .. report(LINK_LOCAL, "ff02::1:ff02:3", 132),
      frames.next(far))
    local socket = member(stack, families[2], "ff02::1:ff00:1") -- a socket may be in one of these as well
    assert.same({}, watch(far, 20))
    socket:close()
    assert.same({}, watch(far, 20))
  end, { checksum = true })

  spec("are told of whatever the interface's own address may be (RFC 4541 2.1.1)", function(stack, far)
    local socket = member(stack, families[1], nil, "eth0")
    local sent = far:receive()
    assert.same({ "\0\0\0\0", GROUP }, { sent:sub(27, 30), GROUP })
    watch(far, 20)
    far:send("\1\0\94\0\0\1" .. frames.PEER .. "\8\0" ..
      group_message("0.0.0.0", HOSTS, 0x11, "0.0.0.0", { within = 10 })) -- a switch that only watches
    assert.equal(1, #watch(far, 5))
    socket:close()
  end, { checksum = true, addresses = {} })

  it("of a link may be named with the link", function()
    run(function()
      local a, b = helper.pair({ seed = 1 }, { medium = "ethernet" })
      local socket, sender = b:udp(), a:udp()
      assert(socket:setsockname("*", 5000))
      assert.equal(1, socket:setoption("ipv6-add-membership", { multiaddr = "ff02::5:6%eth0" }))
      assert.same({ nil, "invalid address" },
        { socket:setoption("ipv6-add-membership", { multiaddr = "ff05::1%eth0" }) })
      assert.equal(1, sender:sendto("x", "ff02::5:6%eth0", 5000))
      local _, host = socket:receivefrom()
      assert.matches("^fe80::.*%%eth0$", host)
      assert.equal(1, socket:setoption("ipv6-drop-membership", { multiaddr = "ff02::5:6%eth0" }))
      close(socket, sender)
    end)
  end)
end)

describe("LuaSocket's options of groups", function()
  after_each(helper.nothing_left)

  it("are taken by netstack.luasocket's objects", function()
    run(function()
      local a, b = helper.pair({ seed = 1 })
      local receiver = require "netstack.luasocket"(b).udp4()
      local sender = require "netstack.luasocket"(a).udp4()
      assert.equal(1, receiver:setsockname("*", 5000))
      assert.equal(1, receiver:setoption("ip-add-membership", { multiaddr = GROUP, interface = "*" }))
      assert.equal(1, sender:setoption("ip-multicast-if", "10.0.0.1"))
      assert.equal("10.0.0.1", sender:getoption("ip-multicast-if"))
      assert.equal(1, sender:setoption("ip-multicast-ttl", 3))
      assert.equal(1, sender:setoption("ip-multicast-loop", false))
      assert.equal(1, sender:sendto("x", GROUP, 5000))
      assert.equal("x", receiver:receive())
      assert.equal(1, receiver:setoption("ip-drop-membership", { multiaddr = GROUP, interface = "*" }))
      assert.is_nil((receiver:setoption("ip-drop-membership", { multiaddr = GROUP, interface = "*" })))
      close(receiver, sender)
    end)
  end)
end)
