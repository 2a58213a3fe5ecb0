-- Several interfaces on one stack: which of them packets take, and what they share.
local helper = require "spec.helper"
local netstack = require "netstack"
local packets = require "spec.packets"

local drain, parse = packets.drain, packets.parse

-- A stack with one pipe for each list of addresses; their far ends, the interfaces.
local function with_interfaces(lists, config)
  local stack = helper.watch(assert(netstack.new(config or { seed = 1 })))
  local ends, interfaces = {}, {}
  for i, addresses in ipairs(lists) do
    local near
    near, ends[i] = netstack.pipe { checksum = true }
    interfaces[i] = assert(stack:attach(near, { addresses = addresses }))
  end
  return stack, ends, interfaces
end

-- Which of the far ends a datagram to a host comes out of, and the source it has; nil and an error.
local function way(stack, ends, host, from)
  local socket = stack:udp()
  if from then assert(socket:setsockname(from, 0)) end
  if host:find("255", 1, true) then assert(socket:setoption("broadcast", true)) end
  local ok, err = socket:sendto("x", host, 9)
  stack:poll(stack:stats().time)
  local found, source
  for i, far in ipairs(ends) do
    for _, packet in ipairs(drain(far)) do found, source = i, parse(packet).source end
  end
  socket:close()
  if not ok then return nil, err end
  return found, source
end

describe("Several interfaces", function()
  after_each(helper.nothing_left)

  it("have names of their own", function()
    local stack, _, interfaces = with_interfaces { {}, {}, {} }
    assert.matches("eth0.*eth1.*eth2", tostring(interfaces[1]) .. tostring(interfaces[2]) .. tostring(interfaces[3]))
    interfaces[2]:detach()
    assert.matches("eth1", tostring((stack:attach((netstack.pipe())))))
    assert.same({ nil, "address already in use" }, { stack:attach((netstack.pipe()), { name = "eth2" }) })
  end)

  it("take what their prefixes say, the longest first, with their own address", function()
    local stack, ends, interfaces = with_interfaces {
      { "10.1.0.1/16", "fd01::1/48" }, { "10.1.2.1/24", "fd01:0:0:2::1/64" }, { "10.3.0.1/24", "fd03::1/64" } }
    for host, expected in pairs {
      ["10.1.9.9"] = { 1, "10.1.0.1" }, ["10.1.2.9"] = { 2, "10.1.2.1" }, ["10.3.0.9"] = { 3, "10.3.0.1" },
      ["fd01::9"] = { 1, "fd01::1" }, ["fd01:0:0:2::9"] = { 2, "fd01:0:0:2::1" }, ["fd03::9"] = { 3, "fd03::1" },
    } do
      local i, source = way(stack, ends, host)
      assert.same({ expected[1], packets.bytes(expected[2]) }, { i, source }, host)
    end
    -- One that is down makes way for a shorter prefix.
    interfaces[2]:down()
    assert.equal(1, (way(stack, ends, "10.1.2.9")))
    interfaces[1]:down()
    assert.same({ nil, "no route" }, { way(stack, ends, "10.1.2.9") })
    interfaces[2]:up()
    assert.equal(2, (way(stack, ends, "10.1.2.9")))
  end)

  it("need a route for what none of them has", function()
    local stack, ends, interfaces = with_interfaces { { "10.1.0.1/24" }, { "10.2.0.1/24" } }
    assert.same({ nil, "no route" }, { way(stack, ends, "10.9.0.9") })
    assert.equal(1, stack:add_route("10.9.0.0/16", "10.2.0.9"))
    assert.equal(2, (way(stack, ends, "10.9.0.9")))
    assert.equal(1, stack:add_route("10.9.9.0/24", interfaces[1]))
    assert.equal(1, (way(stack, ends, "10.9.9.9")))
    interfaces[1]:detach()
    assert.equal(2, (way(stack, ends, "10.9.9.9")))
    assert.same({ nil, "no route" }, { stack:add_route("10.9.9.0/24", interfaces[1]) })
  end)

  it("may each have a gateway; the first one leads, while it is up", function()
    local stack, ends, interfaces = with_interfaces { { "10.1.0.1/24" }, { "10.2.0.1/24" } }
    assert.same({ nil, "no route" }, { interfaces[1]:set_gateway("10.2.0.9") })
    assert.equal(1, interfaces[2]:set_gateway("10.2.0.9"))
    assert.equal(1, interfaces[1]:set_gateway("10.1.0.9"))
    assert.equal(2, (way(stack, ends, "10.9.0.9")))
    interfaces[2]:down()
    assert.equal(1, (way(stack, ends, "10.9.0.9")))
    interfaces[2]:up()
    assert.equal(2, (way(stack, ends, "10.9.0.9")))
    assert.equal(1, stack:add_route("0.0.0.0/0", "10.1.0.8")) -- a route of the user's goes before
    assert.equal(1, (way(stack, ends, "10.9.0.9")))
    assert.equal(1, stack:remove_route("0.0.0.0/0"))
    assert.equal(1, interfaces[2]:set_gateway(nil))
    assert.equal(1, (way(stack, ends, "10.9.0.9")))
    assert.equal(3, #stack:routes())
  end)

  it("may share a prefix: the first one leads, and either goes on alone", function()
    local stack, ends, interfaces = with_interfaces { { "10.1.0.1/24" }, { "10.1.0.2/24" } }
    assert.equal(1, (way(stack, ends, "10.1.0.9")))
    interfaces[1]:down()
    assert.equal(2, (way(stack, ends, "10.1.0.9")))
    interfaces[1]:up()
    interfaces[2]:detach()
    assert.equal(1, (way(stack, ends, "10.1.0.9")))
  end)

  it("answer for each other's addresses, and reach them without a wire", function()
    for _, family in ipairs { { "10.1.0.1", "10.1.0.129", "10.1.0.9", "/24", "/25" },
      { "fd01::1", "fd01::ffff", "fd01::9", "/64", "/65" } } do
      -- The second interface's prefix is the longer one for the first one's address.
      local stack, ends = with_interfaces { { family[1] .. family[4] }, { family[2] .. family[5] } }
      netstack.run(function()
        assert(stack:ping(family[1]))
        assert(stack:ping(family[2]))
      end)
      assert.same({ 0, 0 }, { #drain(ends[1]), #drain(ends[2]) })
      ends[1]:send(packets.icmp(family[3], family[2], family[1]:find(":") and 128 or 8, 0, "\0\1\0\1data"))
      stack:poll(stack:stats().time)
      assert.equal(packets.bytes(family[2]), parse(drain(ends[1])[1]).source)
    end
  end)

  it("refuse packets from each other's addresses", function()
    local stack, ends, interfaces = with_interfaces { { "10.1.0.1/24", "fd01::1/64" }, { "10.2.0.1/24", "fd02::1/64" } }
    ends[1]:send(packets.udp("10.2.0.1", 1, "10.1.0.1", 2, "x"))
    ends[1]:send(packets.udp("fd02::1", 1, "fd01::1", 2, "x"))
    stack:poll(stack:stats().time)
    assert.equal(2, interfaces[1]:stats().guarded["impossible source"])
  end)

  it("take what is for a whole link from the address that it is sent from", function()
    local stack, ends = with_interfaces { { "10.1.0.1/24" }, { "10.2.0.1/24" } }
    assert.same({ nil, "no route" }, { way(stack, ends, "255.255.255.255") })
    assert.equal(1, (way(stack, ends, "255.255.255.255", "10.1.0.1")))
    assert.equal(2, (way(stack, ends, "255.255.255.255", "10.2.0.1")))
  end)

  it("tell link-local hosts apart by their zone", function()
    local stack, ends = with_interfaces { { "fe80::1/64" }, { "fe80::1/64" } }
    assert.equal(1, (way(stack, ends, "fe80::9%eth0")))
    assert.equal(2, (way(stack, ends, "fe80::9%eth1")))
    assert.same({ nil, "no route" }, { way(stack, ends, "fe80::9") })
    assert.same({ "fe80::1%eth0/64", "fe80::1%eth1/64" }, { stack:routes()[1].prefix, stack:routes()[2].prefix })
  end)

  it("are 255 at most, each with its first IPv4 address", function()
    local stack = helper.watch(netstack.new())
    local last
    for i = 1, 255 do
      last = assert(stack:attach((netstack.pipe()), { addresses = { ("10.0.%d.1/24"):format(i % 256) } }))
    end
    assert.same({ nil, "full" }, { stack:attach((netstack.pipe())) })
    assert.same({ nil, "full" }, { last:set_addresses { "10.0.1.7/24", "10.0.1.8/24" } })
    assert.same({ "10.0.255.1/24" }, last:addresses())
    last:detach()
    last = assert(stack:attach((netstack.pipe()), { addresses = { "10.0.255.1/24", "fd00::1/64" } }))
    assert.equal(1, last:set_addresses { "10.0.255.2/24" })
    -- The loopback is one of them.
    stack = helper.watch(netstack.new { loopback = true })
    for _ = 1, 254 do assert(stack:attach((netstack.pipe()))) end
    assert.same({ nil, "full" }, { stack:attach((netstack.pipe())) })
  end)

  it("are served in turn, and cost nothing while nothing comes", function()
    local lists = {}
    for i = 1, 40 do lists[i] = { ("10.%d.0.1/24"):format(i) } end
    local stack, ends = with_interfaces(lists)
    local socket = stack:udp()
    socket:setsockname("*", 7)
    socket:settimeout(0)
    for i, far in ipairs(ends) do
      for n = 1, 3 do far:send(packets.udp(("10.%d.0.9"):format(i), n, ("10.%d.0.1"):format(i), 7, "x")) end
    end
    stack:poll(stack:stats().time)
    local counts = {}
    local data, host = socket:receivefrom()
    while data do
      counts[host] = (counts[host] or 0) + 1
      data, host = socket:receivefrom()
    end
    for i = 1, 40 do assert.equal(3, counts[("10.%d.0.9"):format(i)]) end
    socket:close()
  end)

  it("come and go while connections last", function()
    local a, b = helper.watch(netstack.new(), netstack.new())
    local left, right = netstack.pipe()
    a:attach(left, { addresses = { "10.1.0.1/24" } })
    b:attach(right, { addresses = { "10.1.0.2/24" } })
    netstack.run(function()
      local client, server = helper.connection(a, b, { b = "10.1.0.2" })
      for i = 1, 20 do
        local interface = assert(a:attach((netstack.pipe()), { addresses = { "10.2.0.1/24" } }))
        client:send(i .. "\n")
        assert.equal(tostring(i), server:receive())
        interface:detach()
        server:send(i .. "\n")
        assert.equal(tostring(i), client:receive())
      end
      client:close()
      server:close()
    end)
  end)
end)
