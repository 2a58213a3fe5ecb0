-- DHCP (RFC 2131, RFC 2132) on an Ethernet, against a server by hand that also talks nonsense.
local netstack = require "netstack"
local helper = require "spec.helper"
local packets = require "spec.packets"

local char, rep = string.char, string.rep
local run, sleep = netstack.run, netstack.sleep
local u16, bytes = packets.u16, packets.bytes

local OWN, SERVER, ALL = "\2\0\0\0\0\1", "\2\0\0\0\0\2", rep("\255", 6)
local OFFER, ACK, NAK = 2, 5, 6
local names = { "DISCOVER", "OFFER", "REQUEST", "DECLINE", "ACK", "NAK" }

local function u32(value)
  return u16(math.floor(value / 65536)) .. u16(value % 65536)
end

-- What the client says: {kind, xid, options, ciaddr, source, destination, to}
local function heard(frame)
  if frame:sub(13, 14) ~= "\8\0" then return nil end
  local p = packets.parse(frame:sub(15))
  if p.protocol ~= 17 or p.destination_port ~= 67 then return nil end
  local m, options, at = p.data, {}, 241
  while m:byte(at) ~= 255 do
    local length = m:byte(at + 1)
    options[m:byte(at)] = m:sub(at + 2, at + 1 + length)
    at = at + 2 + length
  end
  return { kind = names[options[53]:byte()], xid = m:sub(5, 8), ciaddr = m:sub(13, 16), chaddr = m:sub(29, 34),
    options = options, to = frame:sub(1, 6), source = p.source, destination = p.destination }
end

-- o: kind, address, server, mask, gateway, dns, lease, t1, t2, xid, chaddr, raw (options as they are)
local function says(xid, o)
  local options = char(53, 1, o.kind)
  local function add(number, value) if value then options = options .. char(number, #value) .. value end end
  add(54, o.server ~= false and bytes(o.server or "10.0.0.2") or nil)
  add(1, o.mask ~= false and bytes(o.mask or "255.255.255.0") or nil)
  add(3, o.gateway and bytes(o.gateway))
  add(6, o.dns)
  add(51, o.lease ~= false and u32(o.lease or 3600) or nil)
  add(58, o.t1 and u32(o.t1))
  add(59, o.t2 and u32(o.t2))
  local message = "\2\1\6\0" .. (o.xid or xid) .. rep("\0", 8) .. bytes(o.address or "10.0.0.50") .. rep("\0", 8) ..
    (o.chaddr or OWN) .. rep("\0", 10 + 192) .. (o.cookie or "\99\130\83\99") .. (o.raw or options .. "\255")
  local packet = packets.udp(o.server or "10.0.0.2", 67, "255.255.255.255", 68, message)
  if o.checksum == false then packet = packet:sub(1, 26) .. "\0\0" .. packet:sub(29) end -- not said
  if o.checksum == "wrong" then packet = packet:sub(1, 26) .. "\1\2" .. packet:sub(29) end
  return ALL .. SERVER .. "\8\0" .. packet
end

describe("DHCP", function()
  after_each(helper.nothing_left)

  -- An interface that asks, and the far end.
  local function spec(name, fn)
    it(name, function()
      run(function()
        local stack = helper.watch(netstack.new { seed = 1 })
        local near, far = netstack.pipe { medium = "ethernet", capacity = 0, checksum = true }
        local interface = assert(stack:attach(near, { mac = "02:00:00:00:00:01", dhcp = true }))
        -- The next message of the client within so many seconds. The server answers ARP; all else is skipped.
        local function hear(timeout)
          local ends = netstack.now() + timeout
          repeat
            local frame = far:receive(math.max(ends - netstack.now(), 0))
            if frame and frame:sub(13, 14) == "\8\6" and frame:sub(-4) == bytes "10.0.0.2" then
              far:send(OWN .. SERVER .. "\8\6\0\1\8\0\6\4\0\2" .. SERVER .. bytes "10.0.0.2" .. frame:sub(23, 32))
            end
            local m = frame and heard(frame)
            if m then
              m.time = netstack.now()
              return m
            end
          until not frame
        end
        fn({ stack = stack, far = far, interface = interface, hear = hear, say = function(xid, o)
          assert(far:send(says(xid, o)))
          sleep(0.001)
        end })
        interface:detach()
        stack:close()
      end)
    end)
  end

  local function routes(stack)
    local list = {}
    for i, route in ipairs(stack:routes()) do list[i] = route.prefix .. " " .. (route.gateway or "-") end
    return list
  end

  -- Gets a lease; the ACK has these fields.
  local function bind(w, o)
    local all = { gateway = "10.0.0.2", dns = bytes "10.0.0.2" .. bytes "10.0.0.3" }
    for key, value in pairs(o or {}) do all[key] = value end
    all.kind = OFFER
    local m = assert(w.hear(100))
    w.say(m.xid, all)
    m = assert(w.hear(10))
    assert.equal("REQUEST", m.kind)
    all.kind = ACK
    w.say(m.xid, all)
    return m
  end

  spec("gets an address, the gateway and name servers (RFC 2131 3.1)", function(w)
    local m = w.hear(1)
    assert.same({ "DISCOVER", ALL, "\0\0\0\0", "\255\255\255\255", OWN },
      { m.kind, m.to, m.source, m.destination, m.chaddr })
    assert.same({ state = "SELECTING", ignored = 0 }, w.interface:lease())
    w.say(m.xid, { kind = OFFER })
    local request = w.hear(1)
    assert.equal("REQUEST", request.kind)
    assert.equal(m.xid, request.xid)
    assert.same({ bytes "10.0.0.50", bytes "10.0.0.2" }, { request.options[50], request.options[54] })
    w.say(m.xid, { kind = ACK, gateway = "10.0.0.2", dns = bytes "10.0.0.2" .. bytes "10.0.0.3" })
    assert.same({ "10.0.0.50/24" }, w.interface:addresses())
    local lease = w.interface:lease()
    assert.near(3600, lease.expires, 0.01)
    lease.expires = nil
    assert.same({ state = "BOUND", address = "10.0.0.50", server = "10.0.0.2", gateway = "10.0.0.2", ignored = 0,
      dns = { "10.0.0.2", "10.0.0.3" } }, lease)
    assert.same({ "10.0.0.50/24 -", "0.0.0.0/0 10.0.0.2" }, routes(w.stack))
  end)

  spec("asks the servers that it was named", function(w)
    bind(w)
    local resolving = netstack.spawn(function() return w.stack:resolve("a.test") end)
    local frame
    repeat frame = w.far:receive(1) until frame:sub(13, 14) == "\8\6" and frame:sub(-4) == bytes "10.0.0.2"
    resolving:cancel()
  end)

  spec("asks again, waiting longer each time, by chance (RFC 2131 4.1)", function(w)
    local last, xid
    for _, wait in ipairs { 0, 4, 8, 16, 32, 64, 64 } do
      local m = assert(w.hear(70))
      assert.equal("DISCOVER", m.kind)
      if last then assert.is_true(math.abs(m.time - last - wait) <= 1, m.time - last) end
      assert.equal(xid or m.xid, m.xid)
      last, xid = m.time, m.xid
    end
  end)

  spec("renews at half time from its server, then from any, and loses the address in the end (RFC 2131 4.4.5)",
    function(w)
      bind(w, { lease = 1000 })
      local began = netstack.now()
      local renewals, rebindings = 0, 0
      while true do
        local m = assert(w.hear(1000))
        if m.kind == "DISCOVER" then break end
        assert.equal("REQUEST", m.kind)
        assert.equal(bytes "10.0.0.50", m.ciaddr)
        assert.is_nil(m.options[50])
        if m.destination == bytes "10.0.0.2" then
          renewals = renewals + 1
          if renewals == 1 then assert.near(500, m.time - began, 1) end
        else
          rebindings = rebindings + 1
          if rebindings == 1 then assert.near(875, m.time - began, 1) end
        end
      end
      assert.near(1000, netstack.now() - began, 1)
      assert.is_true(renewals > 1 and renewals < 8 and rebindings > 1 and rebindings < 5)
      assert.same({}, w.interface:addresses())
      assert.same({}, w.stack:routes())
    end)

  spec("keeps what is open when a lease is renewed, and loses it with the address", function(w)
    bind(w, { lease = 100, t1 = 10, t2 = 90 })
    local udp = w.stack:udp()
    assert(udp:setsockname("10.0.0.50", 7))
    local m = assert(w.hear(11))
    assert.equal(bytes "10.0.0.2", m.destination)
    w.say(m.xid, { kind = ACK, lease = 100, gateway = "10.0.0.2" })
    assert.equal("BOUND", w.interface:lease().state)
    assert.near(100, w.interface:lease().expires, 0.1)
    assert.same({ "10.0.0.50/24" }, w.interface:addresses())
    udp:close()
    m = assert(w.hear(60))
    w.say(m.xid, { kind = NAK })
    assert.same({}, w.interface:addresses())
    assert.equal("DISCOVER", w.hear(2).kind)
  end)

  spec("follows the gateway from one renewal to the next", function(w)
    bind(w, { lease = 100, t1 = 10, t2 = 90 })
    for _, gateway in ipairs { "10.0.0.3", false, "10.0.0.2" } do
      w.say(assert(w.hear(60)).xid, { kind = ACK, lease = 100, t1 = 10, t2 = 90, gateway = gateway })
      assert.same({ "10.0.0.50/24 -", gateway and "0.0.0.0/0 " .. gateway or nil }, routes(w.stack))
      assert.equal(gateway or nil, w.interface:lease().gateway)
    end
  end)

  spec("lives with gateways and name servers that cannot be", function(w)
    bind(w, { lease = 100, t1 = 10, t2 = 90, gateway = false, dns = "" })
    local cases = {
      { gateway = "10.0.0.50" }, { gateway = "127.0.0.1" }, { gateway = "224.0.0.1" }, { gateway = "0.0.0.1" },
      { gateway = "10.9.9.9", kept = true }, { gateway = "10.0.0.255", kept = true },
    }
    for _, case in ipairs(cases) do
      w.say(assert(w.hear(60)).xid, { kind = ACK, lease = 100, t1 = 10, t2 = 90, gateway = case.gateway,
        dns = bytes "127.0.0.1" .. bytes "10.0.0.50" .. "\1\2" })
      assert.equal(case.kept and case.gateway or nil, w.interface:lease().gateway)
      assert.same({ nil, case.kept and "host unreachable" or "no route" },
        { w.stack:ping("10.8.8.8", { timeout = 5 }) })
      assert.same({ "10.0.0.50" }, w.interface:lease().dns) -- ourselves: where nobody listens
      assert.same({ nil, "host not found" }, { w.stack:resolve("a.test") })
    end
  end)

  -- A server that answers each message at once must not make the client ask without end.
  for _, case in ipairs { { "offers and refuses for ever", { kind = NAK } },
    { "gives leases of a second", { kind = ACK, lease = 1 } },
    { "gives leases of two seconds", { kind = ACK, lease = 2 } } } do
    spec("asks now and then when a server " .. case[1], function(w)
      local messages, ends = 0, netstack.now() + 20
      while netstack.now() < ends and messages < 200 do
        local m = w.hear(ends - netstack.now())
        if not m then break end
        messages = messages + 1
        w.far:send(says(m.xid, m.kind == "DISCOVER" and { kind = OFFER } or case[2]))
      end
      assert.is_true(messages >= 10 and messages <= 45, messages)
    end)
  end

  spec("keeps its address beside the user's, and takes none of these away", function(w)
    bind(w, { lease = 100, t1 = 10 })
    assert(w.interface:set_addresses { "10.9.0.1/24" })
    assert.same({ "10.0.0.50/24", "10.9.0.1/24" }, w.interface:addresses())
    assert(w.interface:set_addresses { "10.0.0.50/24" }) -- it is the user's from now on
    assert.same({ "10.0.0.50/24" }, w.interface:addresses())
    w.say(assert(w.hear(11)).xid, { kind = NAK })
    assert.equal("SELECTING", w.interface:lease().state)
    assert.same({ "10.0.0.50/24" }, w.interface:addresses())
  end)

  spec("begins anew when it is refused (RFC 2131 3.1.4)", function(w)
    local m = w.hear(1)
    w.say(m.xid, { kind = OFFER })
    w.say(w.hear(1).xid, { kind = NAK })
    local again = w.hear(2)
    assert.equal("DISCOVER", again.kind)
    assert.is_not.equal(m.xid, again.xid)
  end)

  spec("gives a server up that offers and then is silent", function(w)
    local m = w.hear(1)
    w.say(m.xid, { kind = OFFER })
    for _ = 1, 4 do assert.equal("REQUEST", w.hear(70).kind) end
    assert.equal("DISCOVER", w.hear(70).kind)
  end)

  spec("has an endless lease, too", function(w)
    bind(w, { lease = 4294967295 })
    assert.is_nil(w.interface:lease().expires)
    assert.is_nil(w.hear(1e6))
  end)

  spec("takes messages without a checksum, none with a wrong one", function(w)
    local m = w.hear(1)
    w.say(m.xid, { kind = OFFER, checksum = "wrong" })
    assert.same({ state = "SELECTING", ignored = 1 }, w.interface:lease())
    w.say(m.xid, { kind = OFFER, checksum = false })
    assert.equal("REQUESTING", w.interface:lease().state)
  end)

  spec("goes by the address's class without a mask", function(w)
    bind(w, { mask = false, address = "172.16.3.4", gateway = false })
    assert.same({ "172.16.3.4/16" }, w.interface:addresses())
  end)

  spec("ignores and counts what makes no sense", function(w)
    local m = w.hear(1)
    local nonsense = {
      { address = "0.0.0.0" }, { address = "127.0.0.1" }, { address = "224.0.0.1" }, { address = "255.255.255.255" },
      { address = "10.0.0.0" }, { address = "10.0.0.255" }, { mask = "255.0.255.0" }, { mask = "0.0.0.0" },
      { server = "224.0.0.1" }, { lease = 0 }, { lease = false }, { xid = "nope" }, { chaddr = SERVER },
      { cookie = "\1\2\3\4" }, { kind = ACK }, { kind = NAK }, { kind = 99 }, { raw = "" }, { raw = "\53" },
      { raw = "\53\200\2" }, { raw = "\53\0\255" }, { raw = rep("\0", 60) },
    }
    local before = 0
    for i, o in ipairs(nonsense) do
      o.kind = o.kind or OFFER
      if o.server ~= "224.0.0.1" then w.say(m.xid, o) else before = before + 1 end -- that one the guard drops
      assert.equal(i - before, w.interface:lease().ignored, "nonsense " .. i)
      assert.equal("SELECTING", w.interface:lease().state)
    end
    local random = helper.random(3)
    for _ = 1, 500 do
      local frame = says(m.xid, { kind = OFFER })
      local at = 14 + 28 + 1 + random(#frame - 14 - 28)
      frame = frame:sub(1, at - 1) .. char(random(256)) .. frame:sub(at + 1)
      if random(4) == 0 then frame = frame:sub(1, 14 + 28 + random(#frame - 14 - 28)) end
      w.far:send(frame)
      sleep(0.001)
    end
    assert.is_nil(w.stack:stats().cause)
  end)

  it("is Ethernet's", function()
    local stack, near = netstack.new(), netstack.pipe()
    assert.same({ nil, "not supported" }, { stack:attach(near, { dhcp = true }) })
    local interface = stack:attach(near)
    assert.same({ nil, "not supported" }, { interface:lease() })
    stack:close()
  end)

  spec("stops with its interface", function(w)
    bind(w)
    w.interface:detach()
    assert.same({ nil, "closed" }, { w.interface:lease() })
    assert.is_nil(w.stack:poll_delay(netstack.now()))
  end)
end)
