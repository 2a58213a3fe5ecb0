local netstack = require "netstack"
local core = require "netstack.core"
local packets = require "spec.packets"

local run, spawn, sleep = netstack.run, netstack.spawn, netstack.sleep
local failure = packets.failure

-- A stack whose pipe's far end is in our hand, with addresses of our choice.
local function attached(addresses, options)
  local near, far = netstack.pipe(options)
  local stack = netstack.new()
  local interface = assert(stack:attach(near, { addresses = addresses }))
  return stack, interface, far
end

-- Whether the stack answers a ping to its address.
local function answers(stack, far, host, from)
  far:send(packets.icmp(from, host, from:find(":", 1, true) and 128 or 8, 0, "\0\0\0\1"))
  stack:poll(0)
  local packet = far:receive()
  if not packet then return false end
  local p = packets.parse(packet)
  return p.source == packets.bytes(host) and p.destination == packets.bytes(from)
end

describe("Addresses as text", function()
  -- What an interface says of a prefix it was given.
  local function written(text)
    local stack, interface = attached()
    local ok, err = interface:set_addresses { text }
    local result = ok and interface:addresses()[1]
    stack:close()
    if not ok then return nil, err end
    return result
  end

  it("are written as RFC 5952 says", function()
    for text, expected in pairs {
      ["2001:0DB8:0000:0000:0000:0000:0002:0001/64"] = "2001:db8::2:1/64",
      ["2001:db8:0:1:1:1:1:1/64"] = "2001:db8:0:1:1:1:1:1/64",
      ["2001:db8:0:0:1:0:0:1/64"] = "2001:db8::1:0:0:1/64",
      ["2001:0:0:1:0:0:0:1/64"] = "2001:0:0:1::1/64",
      ["fd00::ABCD"] = "fd00::abcd/128",
      ["fe80::1/64"] = "fe80::1%eth0/64",
      ["fe80::1%eth0/64"] = "fe80::1%eth0/64",
      ["10.0.0.1/24"] = "10.0.0.1/24",
      ["10.0.0.1"] = "10.0.0.1/32",
      ["10.0.0.1/0"] = "10.0.0.1/0",
      ["fd00::1/0"] = "fd00::1/0",
    } do
      assert.equal(expected, written(text))
    end
  end)

  it("that are none are refused", function()
    for _, text in ipairs { "", "10", "10.0.0", "10.0.0.256", "10.0.0.1.1", "10.0.0.01", " 10.0.0.1", "10.0.0.1 ",
      "10.0.0.1/33", "10.0.0.1/", "10.0.0.1/-1", "10.0.0.1/a", "10.0.0.1/24/24", "10.0.0.1/0024", "10.0.0.1%eth0",
      "fd00::1/129", "fd00:::1", "fd00::1::2", "fd00::12345", "fd00", "fd00::1%eth0", "fe80::1%eth9", "fe80::1%", "*",
      "localhost", "10.0.0.1\0", "10.0.0.1/24\0", ("1"):rep(1000), "::ffff:10.0.0.256" } do
      assert.same({ nil, "invalid address" }, { written(text) })
    end
  end)

  it("of link-local sockets name their interface", function()
    local stack, interface, far = attached({ "fe80::1/64", "fd00::1/64" })
    assert.same({ "fe80::1%eth0/64", "fd00::1/64" }, interface:addresses())
    local socket = stack:udp()
    assert.equal(1, socket:setsockname("fe80::1%eth0", 7))
    assert.same({ "fe80::1%eth0", 7, "inet6" }, { socket:getsockname() })
    assert.equal(1, socket:sendto("x", "fe80::2%eth0", 9))
    local p = packets.parse(far:receive())
    assert.same({ packets.bytes("fe80::1"), packets.bytes("fe80::2") }, { p.source, p.destination })
    far:send(packets.udp("fe80::2", 9, "fe80::1", 7, "y"))
    stack:poll(0)
    assert.same({ "y", "fe80::2%eth0", 9 }, { socket:receivefrom() })
    assert.same({ nil, "invalid address" }, { socket:sendto("x", "fe80::2%eth7", 9) })
    assert.is_true(answers(stack, far, "fe80::1", "fe80::2"))
    assert.is_number((stack:ping("fe80::1%eth0")))
    socket:close()
    packets.leaves_nothing(stack)
  end)

  it("are read by the core without a stack", function()
    assert.equal("\10\0\0\1", core.parse_address("10.0.0.1"))
    assert.equal("", core.parse_address("*"))
    assert.equal(16, #core.parse_address("::"))
    assert.same({ nil, "invalid address" }, { core.parse_address("x") })
  end)
end)

describe("An interface", function()
  it("has up to 8 IPv4 and 8 IPv6 addresses, and answers on each", function()
    local list = {}
    for i = 1, 8 do
      list[#list + 1] = "10.0." .. i .. ".1/24"
      list[#list + 1] = "fd00:" .. i .. "::1/64"
    end
    local stack, interface, far = attached(list)
    assert.same(list, interface:addresses())
    assert.same(list, stack:addresses())
    for i = 1, 8 do
      assert.is_true(answers(stack, far, "10.0." .. i .. ".1", "10.0." .. i .. ".2"))
      assert.is_true(answers(stack, far, "fd00:" .. i .. "::1", "fd00:" .. i .. "::2"))
    end
    local nine = {}
    for i = 1, 9 do nine[i] = "10.1." .. i .. ".1/24" end
    assert.same({ nil, "full" }, { interface:set_addresses(nine) })
    for i = 1, 9 do nine[i] = "fd01:" .. i .. "::1/64" end
    assert.same({ nil, "full" }, { interface:set_addresses(nine) })
    for i = 1, 40 do nine[i] = "fd01:" .. i .. "::1/64" end
    assert.same({ nil, "full" }, { interface:set_addresses(nine) })
    assert.same(list, interface:addresses()) -- unchanged
    assert.equal(1, interface:set_addresses { "10.9.0.1/24" })
    assert.is_false(answers(stack, far, "10.0.1.1", "10.0.1.2"))
    assert.is_true(answers(stack, far, "10.9.0.1", "10.9.0.2"))
    assert.equal(1, interface:set_addresses {})
    assert.is_false(answers(stack, far, "10.9.0.1", "10.9.0.2"))
    packets.leaves_nothing(stack)
  end)

  it("sends from the address of the destination's prefix", function()
    local stack, _, far = attached { "10.0.1.1/24", "10.0.2.1/24", "fd00:1::1/64", "fd00:2::1/64" }
    local socket = stack:udp()
    for _, way in ipairs { { "10.0.1.1", "10.0.1.9" }, { "10.0.2.1", "10.0.2.9" }, { "fd00:1::1", "fd00:1::9" },
      { "fd00:2::1", "fd00:2::9" }, { "10.0.1.1", "192.168.0.1" } } do
      socket:sendto("x", way[2], 9)
      assert.equal(packets.bytes(way[1]), packets.parse(far:receive()).source)
    end
    socket:close()
    packets.leaves_nothing(stack)
  end)

  it("needs an mtu of 1280 for IPv6", function()
    local stack, interface = attached({ "10.0.0.1/24" }, { mtu = 1279 })
    assert.same({ nil, "not supported" }, { interface:set_addresses { "fd00::1/64" } })
    assert.same({ "10.0.0.1/24" }, interface:addresses())
    stack:close()
    stack = attached({ "fd00::1/64" }, { mtu = 1280 })
    packets.leaves_nothing(stack)
  end)

  it("is up from the start; down it carries nothing, and sockets survive", function()
    local a, b = netstack.pair()
    local near, far = netstack.pipe()
    a:close()
    a = netstack.new()
    local interface = assert(a:attach(near, { addresses = { "10.0.0.1/24" } }))
    b:close()
    b = netstack.new()
    assert(b:attach(far, { addresses = { "10.0.0.2/24" } }))
    run(function()
      assert.is_true(interface:is_up())
      assert.matches("^interface eth0 of stack%d+ %(up%)$", tostring(interface))
      local listener = b:bind("*", 80)
      local client = a:connect("10.0.0.2", 80)
      local server = listener:accept()
      local socket = a:udp()
      socket:setsockname("*", 7)
      assert.equal(1, interface:down())
      assert.is_false(interface:is_up())
      assert.matches("%(down%)$", tostring(interface))
      assert.same({ nil, "no route" }, { socket:sendto("x", "10.0.0.2", 9) })
      assert.same({ nil, "timeout" }, { b:ping("10.0.0.1", { timeout = 0.1 }) })
      server:send("while down\n")
      client:settimeout(0.1)
      assert.same({ nil, "timeout", "" }, { client:receive() })
      assert.is_true(interface:stats().rx_dropped >= 2)
      assert.equal(1, interface:up())
      client:settimeout(100)
      assert.equal("while down", client:receive())
      assert.equal(1, socket:sendto("x", "10.0.0.2", 9))
      assert.is_number(b:ping("10.0.0.1"))
      for _, one in ipairs { client, server, listener, socket } do one:close() end
      sleep(1000)
    end)
    packets.leaves_nothing(a, b)
  end)

  it("sends what the stack wrote while it was down", function()
    local stack, interface, far = attached { "10.0.0.1/24" }
    local channel = stack:channel()
    interface:down()
    local ticket = channel:submit("tcp.connect", { host = "10.0.0.2", port = 80 })
    stack:poll(0)
    assert.same({ nil, "no route" }, { ticket:result() })
    interface:up()
    ticket = channel:submit("tcp.connect", { host = "10.0.0.2", port = 80 })
    stack:poll(0)
    assert.equal(2, packets.parse(far:receive()).flags)
    interface:down()
    stack:poll(2) -- a retransmission that goes nowhere
    interface:up()
    stack:poll(20)
    assert.equal(2, packets.parse(far:receive()).flags)
    ticket:cancel()
    packets.leaves_nothing(stack)
  end)

  it("counts", function()
    local stack, interface, far = attached { "10.0.0.1/24" }
    assert.is_true(answers(stack, far, "10.0.0.1", "10.0.0.2"))
    far:send("x")
    stack:poll(0)
    local stats = interface:stats()
    assert.same({ rx_packets = 2, rx_bytes = 29, tx_packets = 1, tx_bytes = 28, rx_dropped = 1, tx_dropped = 0,
      guarded = { ["neither IPv4 nor IPv6"] = 1 }, waiting = 0 }, stats)
    packets.leaves_nothing(stack)
  end)

  it("answers closed once it is detached", function()
    local stack, interface = attached { "10.0.0.1/24" }
    assert.equal(1, interface:detach())
    assert.equal("interface (detached)", tostring(interface))
    for _, name in ipairs { "addresses", "up", "down", "is_up", "stats", "detach" } do
      assert.same({ nil, "closed" }, { interface[name](interface) })
    end
    assert.same({ nil, "closed" }, { interface:set_addresses {} })
    assert.same({ nil, "closed" }, { interface:set_gateway("10.0.0.9") })
    assert.same({}, stack:addresses())
    assert.same({ nil, "no route" }, { stack:set_addresses { "10.0.0.1/24" } })
    assert.same({}, stack:routes())
    stack:close()
  end)

  it("ends connections whose address goes", function()
    local a, b = netstack.pair()
    run(function()
      local listener = b:bind("*", 80)
      local kept, lost = a:connect("10.0.0.2", 80), a:connect("fd00::2", 80)
      local server_kept, server_lost = listener:accept(), listener:accept()
      local waits = spawn(function() return lost:receive() end)
      sleep(1)
      assert.equal(1, a:set_addresses { "10.0.0.1/24" })
      local ok, err = waits:join()
      assert.same({ nil, "connection aborted" }, { ok, err })
      kept:send("still here\n")
      assert.equal("still here", server_kept:receive())
      for _, socket in ipairs { kept, lost, server_kept, server_lost, listener } do socket:abort() end
    end)
    packets.leaves_nothing(a, b)
  end)

  it("is refused what it cannot do, and leaves nothing attached", function()
    local stack = netstack.new()
    local near = netstack.pipe()
    assert.same({ nil, "not supported" }, { stack:attach(near, { dhcp = true }) }) -- it is Ethernet's
    assert.same({ nil, "not supported" }, { stack:attach(near, { mac = "02:00:00:00:00:01" }) })
    assert.same({ nil, "invalid address" }, { stack:attach(near, { addresses = { "x" } }) })
    assert.same({ nil, "no route" }, { stack:attach(near, { addresses = { "10.0.0.1/24" }, gateway = "10.1.0.1" }) })
    assert.same({ nil, "invalid address" },
      { stack:attach(near, { addresses = { "10.0.0.1/24" }, gateway = "gateway" }) })
    assert.same({ nil, "wrong ip version" },
      { stack:attach(near, { addresses = { "10.0.0.1/24" }, gateway = "fd00::9" }) })
    assert(stack:attach(near, { name = "uplink0", addresses = { "10.0.0.1/24" } }))
    assert.same({ nil, "address already in use" }, { stack:attach((netstack.pipe()), { name = "uplink0" }) })
    local function wrong(...)
      local device, options = ...
      return failure(function() stack:attach(device, options) end)
    end
    assert.matches("^spec/interface_spec.lua:%d+: bad argument #1 to 'attach' %(device expected, got nil%)", wrong())
    assert.matches("bad argument #1 to 'attach' %(device expected", wrong(io.stdout))
    assert.matches("bad argument #1 to 'attach' %(device expected, got nil%)", wrong(nil, "permission denied"))
    assert.matches("^spec/interface_spec.lua:%d+: bad argument #2 to 'attach' %(unknown option 'adresses'%)",
      wrong(near, { adresses = {} }))
    assert.matches("%(option 'name': ", wrong(near, { name = "a b" }))
    assert.matches("%(option 'name': ", wrong(near, { name = ("x"):rep(32) }))
    assert.matches("%(option 'addresses': ", wrong(near, { addresses = "10.0.0.1" }))
    assert.matches("%(option 'addresses': ", wrong(near, { addresses = { 1 } }))
    near:close()
    assert.same({ nil, "closed" }, { stack:attach(near) })
    stack:close()
    assert.same({ nil, "closed" }, { stack:attach((netstack.pipe())) })
  end)
end)

describe("Routes", function()
  it("go to the longest prefix, are listed so, replaced and removed", function()
    local stack, interface = attached { "10.0.0.1/24", "fd00::1/64" }
    assert.equal(1, stack:add_route("0.0.0.0/0", "10.0.0.9"))
    assert.equal(1, stack:add_route("10.8.0.0/16", "10.0.0.8"))
    assert.equal(1, stack:add_route("10.8.1.0/24", interface))
    assert.equal(1, stack:add_route("10.8.1.1", "10.0.0.7"))
    assert.equal(1, stack:add_route("::/0", "fd00::9"))
    assert.same({
      { prefix = "fd00::1/64", interface = "eth0" },
      { prefix = "10.8.1.1/32", interface = "eth0", gateway = "10.0.0.7" },
      { prefix = "10.0.0.1/24", interface = "eth0" },
      { prefix = "10.8.1.0/24", interface = "eth0" },
      { prefix = "10.8.0.0/16", interface = "eth0", gateway = "10.0.0.8" },
      { prefix = "0.0.0.0/0", interface = "eth0", gateway = "10.0.0.9" },
      { prefix = "::/0", interface = "eth0", gateway = "fd00::9" },
    }, stack:routes())
    assert.equal(1, stack:add_route("10.8.0.0/16", "10.0.0.5"))
    assert.equal(7, #stack:routes())
    assert.equal(1, stack:remove_route("10.8.0.0/16"))
    assert.equal(6, #stack:routes())
    assert.same({ nil, "no route" }, { stack:remove_route("10.8.0.0/16") })
    assert.same({ nil, "no route" }, { stack:add_route("10.7.0.0/16", "192.168.0.1") })
    assert.same({ nil, "invalid address" }, { stack:add_route("10.7.0.0/40", "10.0.0.9") })
    assert.same({ nil, "invalid address" }, { stack:add_route("10.7.0.0/16", "gateway") })
    assert.same({ nil, "invalid address" }, { stack:add_route("10.7.0.0/16", "*") })
    assert.same({ nil, "invalid address" }, { stack:remove_route("x") })
    assert.same({ nil, "wrong ip version" }, { stack:add_route("10.7.0.0/16", "fd00::9") })
    local other, foreign = attached { "10.0.0.1/24" }
    assert.same({ nil, "no route" }, { stack:add_route("10.7.0.0/16", foreign) })
    assert.matches("^spec/interface_spec.lua:%d+: bad argument #2 to 'add_route' ",
      failure(function() stack:add_route("10.7.0.0/16", {}) end))
    assert.matches("^spec/interface_spec.lua:%d+: bad argument #1 to 'add_route' ",
      failure(function() stack:add_route(nil, "10.0.0.9") end))
    packets.leaves_nothing(stack, other)
  end)

  it("default goes by set_gateway", function()
    local stack, interface = attached { "10.0.0.1/24", "fd00::1/64" }
    assert.equal(1, interface:set_gateway("10.0.0.9"))
    assert.equal(1, interface:set_gateway("fd00::9"))
    assert.equal(4, #stack:routes())
    assert.same({ nil, "no route" }, { interface:set_gateway("10.9.0.9") })
    assert.same({ nil, "invalid address" }, { interface:set_gateway("x") })
    assert.equal(1, interface:set_gateway(nil))
    assert.equal(2, #stack:routes())
    assert.matches("^spec/interface_spec.lua:%d+: bad argument #1 to 'set_gateway' ",
      failure(function() interface:set_gateway({}) end))
    packets.leaves_nothing(stack)
    stack, interface = netstack.new(), nil
    interface = stack:attach((netstack.pipe()), { addresses = { "10.0.0.1/24", "fd00::1/64" }, gateway = "10.0.0.9",
      gateway6 = "fd00::9" })
    assert.equal(4, #stack:routes())
    assert.is_true(interface:is_up())
    stack:close()
  end)

  it("are not needed with one point-to-point interface", function()
    local stack, _, far = attached { "10.0.0.1/32" }
    local socket = stack:udp()
    assert.equal(1, socket:sendto("x", "192.168.3.4", 9))
    assert.equal(packets.bytes("192.168.3.4"), packets.parse(far:receive()).destination)
    assert.same({ nil, "no route" }, { socket:sendto("x", "fd00::2", 9) }) -- no address of that family
    assert.same({ nil, "no route" }, { socket:sendto("x", "127.0.0.1", 9) })
    socket:close()
    packets.leaves_nothing(stack)
  end)

  it("do not lead off a stack without an interface", function()
    local stack = netstack.new()
    run(function()
      assert.same({ nil, "no route" }, { stack:connect("10.0.0.2", 80) })
      assert.same({ nil, "no route" }, { stack:connect("fd00::2", 80) })
      assert.same({ nil, "no route" }, { stack:ping("10.0.0.2") })
      assert.same({}, stack:addresses())
      assert.same({}, stack:routes())
    end)
    packets.leaves_nothing(stack)
  end)
end)

describe("Loopback", function()
  for _, host in ipairs { "127.0.0.1", "::1", "10.0.0.1", "fd00::1" } do
    it("carries TCP and UDP to " .. host, function()
      local stack, far = netstack.piped { loopback = true }
      run(function()
        local listener = assert(stack:bind("*", 80))
        local client = assert(stack:connect(host, 80))
        local server = listener:accept()
        spawn(function()
          client:send(("x"):rep(500000))
          client:shutdown("send")
        end)
        assert.equal(500000, #server:receive("*a"))
        server:send("done\n")
        assert.equal("done", client:receive())
        local one, two = stack:udp(), stack:udp()
        two:setsockname("*", 53)
        assert.equal(5, one:sendto("hello", host, 53))
        local data, from, port = two:receivefrom()
        assert.equal("hello", data)
        two:sendto("yes", from, port)
        assert.equal("yes", one:receive())
        assert.is_number(stack:ping(host))
        for _, socket in ipairs { client, server, listener, one, two } do socket:close() end
        sleep(1000)
      end)
      assert.is_false(far:rx_ready())
      packets.leaves_nothing(stack)
    end)
  end

  it("is kept by set_addresses, and needs no device", function()
    local stack = netstack.new { loopback = true }
    assert.same({}, stack:addresses())
    assert.same({ nil, "no route" }, { stack:set_addresses { "10.0.0.1/24" } })
    assert.is_number(stack:ping("127.0.0.1"))
    assert(stack:attach((netstack.pipe()), { addresses = { "10.0.0.1/24" } }))
    assert.equal(1, stack:set_addresses { "10.0.0.5/24" })
    assert.same({ "10.0.0.5/24" }, stack:addresses())
    assert.is_number(stack:ping("::1"))
    packets.leaves_nothing(stack)
  end)

  it("is not there unless it is asked for", function()
    local stack = netstack.piped()
    run(function()
      assert.same({ nil, "no route" }, { stack:connect("127.0.0.1", 80) })
      assert.same({ nil, "no route" }, { stack:connect("::1", 80) })
      assert.same({ nil, "address not available" }, { stack:bind("127.0.0.1", 80) })
    end)
    packets.leaves_nothing(stack)
  end)

  it("does not keep one stack from giving others their turn", function()
    local stack = netstack.new { loopback = true }
    local one, two = stack:udp(), stack:udp()
    one:setsockname("127.0.0.1", 1)
    two:setsockname("127.0.0.1", 2)
    -- A packet from the stack's own address to itself, again and again, would never end by itself.
    run(function()
      spawn(function()
        while true do
          if not one:receive() then return end
          one:sendto("x", "127.0.0.1", 2)
        end
      end)
      local count = 0
      one:sendto("x", "127.0.0.1", 2)
      while count < 100 do
        two:receive()
        two:sendto("x", "127.0.0.1", 1)
        count = count + 1
      end
      one:close()
      two:close()
    end)
    packets.leaves_nothing(stack)
  end)

  it("takes the mtu of its device, else of the stack", function()
    local a, b = netstack.new { mtu = 9000 }, netstack.new { mtu = 576 }
    local left, right = netstack.pipe()
    assert.equal(1500, left:mtu())
    assert(a:attach(left))
    assert.equal(9000, left:mtu())
    assert.equal(9000, right:mtu()) -- a pipe has one mtu
    assert(b:attach(right))
    assert.equal(9000, right:mtu())
    local named = netstack.pipe { mtu = 1280 }
    local c = netstack.new { mtu = 9000 }
    assert(c:attach(named))
    assert.equal(1280, named:mtu())
    for _, stack in ipairs { a, b, c } do stack:close() end
  end)
end)
