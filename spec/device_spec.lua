local netstack = require "netstack"
local packets = require "spec.packets"

local run, spawn, sleep = netstack.run, netstack.spawn, netstack.sleep
local failure = packets.failure

-- A stack on a device in Lua that keeps what is sent.
local function stack_on_device(options)
  local sent = {}
  local device = netstack.device { mtu = options and options.mtu, checksum = options and options.checksum,
    transmit = function(packet) sent[#sent + 1] = packet end }
  local stack = netstack.new()
  assert(stack:attach(device, { addresses = { "10.0.0.1/24", "fd00::1/64" } }))
  return stack, device, sent
end

describe("A device in Lua", function()
  it("gets each packet that is sent, and feeds the stack", function()
    local stack, device, sent = stack_on_device()
    local socket = stack:udp()
    socket:setsockname("*", 7)
    socket:sendto("hello", "10.0.0.2", 9)
    assert.equal(0, #sent) -- not from within a method of the socket
    stack:poll(0)
    assert.equal(1, #sent)
    assert.equal(packets.udp("10.0.0.1", 7, "10.0.0.2", 9, "hello"):sub(21), sent[1]:sub(21)) -- with checksums
    assert.equal(1, device:input(packets.udp("10.0.0.2", 9, "10.0.0.1", 7, "answer")))
    stack:poll(0)
    assert.equal("answer", socket:receive())
    local stats = device:stats()
    assert.same({ 1, 33, 1, 34 }, { stats.tx_packets, stats.tx_bytes, stats.rx_packets, stats.rx_bytes })
    socket:close()
    packets.leaves_nothing(stack)
  end)

  it("joins two stacks within run", function()
    local a, b = netstack.new(), netstack.new()
    local device_a, device_b
    device_a = netstack.device { transmit = function(packet) assert(device_b:input(packet)) end }
    device_b = netstack.device { transmit = function(packet) assert(device_a:input(packet)) end }
    assert(a:attach(device_a, { addresses = { "10.0.0.1/24" } }))
    assert(b:attach(device_b, { addresses = { "10.0.0.2/24" } }))
    run(function()
      local listener = b:bind("*", 80)
      spawn(function()
        local server = listener:accept()
        server:send(server:receive("*a"):upper())
        server:close()
        listener:close()
      end)
      local client = a:connect("10.0.0.2", 80)
      client:send(("hello "):rep(10000))
      client:shutdown("send")
      assert.equal(("HELLO "):rep(10000), client:receive("*a"))
      client:close()
      sleep(1000)
    end)
    packets.leaves_nothing(a, b)
  end)

  it("may be asked to do without checksums", function()
    local stack, device, sent = stack_on_device { checksum = false }
    local socket = stack:udp()
    socket:setsockname("*", 7)
    socket:sendto("x", "10.0.0.2", 9)
    stack:poll(0)
    assert.equal(0, packets.parse(sent[1]).udp_checksum)
    socket:close()
    device:close()
    packets.leaves_nothing(stack)
  end)

  it("says what its transmit function raises to poll, run and the call outside run", function()
    local stack = netstack.new()
    local device = netstack.device { transmit = function() error({ "from transmit" }, 0) end }
    assert(stack:attach(device, { addresses = { "10.0.0.1/24" } }))
    local socket = stack:udp()
    socket:sendto("x", "10.0.0.2", 9)
    assert.same({ "from transmit" }, failure(stack.poll, stack, 0))
    stack:poll(0) -- told once
    assert.same({ "from transmit" }, failure(run, function()
      socket:sendto("x", "10.0.0.2", 9)
      sleep(1)
    end))
    assert.same({ "from transmit" }, failure(stack.ping, stack, "10.0.0.2"))
    socket:close()
    stack:close()
  end)

  it("may close itself, detach or close the stack from transmit", function()
    for _, what in ipairs { "device", "interface", "stack" } do
      local stack = netstack.new()
      local things = { stack = stack }
      things.device = netstack.device { transmit = function()
        if what == "interface" then things.interface:detach() else things[what]:close() end
        things.device = nil
        collectgarbage()
      end }
      things.interface = assert(stack:attach(things.device, { addresses = { "10.0.0.1/24" } }))
      local socket = stack:udp()
      for _ = 1, 3 do socket:sendto("x", "10.0.0.2", 9) end
      stack:poll(0)
      socket:close()
      stack:close()
    end
  end)

  it("may wait in transmit", function()
    local stack
    local sent = {}
    local device = netstack.device { transmit = function(packet)
      sleep(1)
      sent[#sent + 1] = packet
    end }
    stack = netstack.new()
    assert(stack:attach(device, { addresses = { "10.0.0.1/24" } }))
    run(function()
      local socket = stack:udp()
      socket:sendto("x", "10.0.0.2", 9)
      sleep(3)
      assert.equal(1, #sent)
      socket:close()
    end)
    stack:close()
  end)

  it("drops and counts input while no stack is attached, and once it is closed", function()
    local device = netstack.device { transmit = function() end }
    assert.equal(1, device:input("x"))
    assert.equal(1, device:stats().rx_dropped)
    assert.equal(1, device:close())
    assert.same({ nil, "closed" }, { device:input("x") })
    assert.equal(1, device:close())
  end)

  it("takes input from one byte to the mtu", function()
    local stack, device = stack_on_device { mtu = 1400 }
    assert.equal(1400, device:mtu())
    assert.matches("^spec/device_spec.lua:%d+: bad argument #1 to 'input' %(empty packet%)",
      failure(function() device:input("") end))
    assert.equal(1, device:input("\69"))
    assert.same({ nil, "message too long" }, { device:input(("\69"):rep(1401)) })
    stack:poll(0)
    packets.leaves_nothing(stack)
  end)

  it("is not driven by hand like a pipe, and a pipe has no input", function()
    local device = netstack.device { transmit = function() end }
    assert.same({ nil, "not supported" }, { device:send("x") })
    assert.same({ nil, "not supported" }, { device:receive() })
    assert.same({ nil, "not supported" }, { device:receive(1) })
    local pipe = netstack.pipe()
    assert.same({ nil, "not supported" }, { pipe:input("x") })
  end)

  it("checks its options", function()
    local function wrong(...)
      local options = ...
      return failure(function() netstack.device(options) end)
    end
    assert.matches("^spec/device_spec.lua:%d+: bad argument #1 to 'device' %(table expected, got nil%)", wrong())
    assert.matches("bad argument #1 to 'device' %(option 'transmit': function expected, got nil%)", wrong {})
    assert.matches("%(option 'transmit': function expected, got string%)", wrong { transmit = "x" })
    assert.matches("%(unknown option 'receive'%)", wrong { transmit = print, receive = print })
    assert.matches("%(option 'mtu': out of range", wrong { transmit = print, mtu = 1 })
  end)
end)
