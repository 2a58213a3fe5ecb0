-- Devices on the host's kernel, which is the far side of each of these specs, in namespaces of its own.

local helper = require "spec.helper"
local netns = require "spec.netns"
local netstack = require "netstack"
local packets = require "spec.packets"

local run, spawn, sleep = netstack.run, netstack.spawn, netstack.sleep
local failure = packets.failure

local MIB = 1024 * 1024
local FAMILIES = { { name = "IPv4", kernel = "10.1.0.1", stack = "10.1.0.2" },
  { name = "IPv6", kernel = "fd01::1", stack = "fd01::2" } }

local with, keep, connected = netns.specs(it, pending), netns.keep, netns.connected
local write_stream, assert_stream = netns.write_stream, netns.assert_stream

describe("netstack.tun", function()
  after_each(netns.finish)

  with({}, "attaches a stack to the kernel, which tells its name and mtu", function()
    local stack, namespace, device, interface = connected(1, { name = "tun7" })
    assert.equal("tun7", device:name())
    assert.equal("ip", device:medium())
    assert.equal(1500, device:mtu())
    assert.equal(device:fd(), stack:pollfd())
    assert.equal("r", stack:events())
    assert.equal("tun tun7 (mtu 1500, attached)", tostring(device))
    assert.is_true(interface:is_up())
    assert.matches("mtu 1500.* qlen 4096", namespace:ip("link show tun7"))
    assert.same({ nil, "not supported" }, { netstack.pipe():fd() })
    assert.same({ nil, "not supported" }, { netstack.pipe():name() })
    device:close()
    for _, method in ipairs { "fd", "name", "mtu", "medium", "stats" } do
      assert.same({ nil, "closed" }, { device[method](device) })
    end
    assert.equal(1, device:close())
    assert.equal("device (closed)", tostring(device))
  end)

  with({ "ping" }, "answers the kernel's pings and pings the kernel", function()
    local stack, namespace, device = connected()
    run(function()
      for _, family in ipairs(FAMILIES) do
        for _, size in ipairs { 56, 4000 } do -- the larger ones in fragments
          local program = namespace:start(("ping -n -c 5 -i 0.05 -w 5 -s %d %s"):format(size, family.stack))
          local status, text = program:wait()
          assert.equal(0, status, text)
          netns.assert_answered(text, 5)
          assert.is_true(assert(stack:ping(family.kernel, { size = size })) < 0.5)
        end
      end
    end)
    local stats = device:stats()
    assert.equal(0, stats.tx_dropped)
    assert.is_true(stats.rx_packets >= 24 and stats.tx_packets >= 24)
    assert.is_true(stats.syscalls > stats.rx_packets + stats.tx_packets)
  end)

  for _, family in ipairs(FAMILIES) do
    with({ "nc", "ss" }, "moves 10 MiB each way at once over TCP, byte for byte, " .. family.name, function()
      local stack, namespace, device = connected()
      local folder, total = netns.folder(), 10 * MIB
      write_stream(folder .. "/up", 1, total)
      run(function()
        local function serve(socket) -- 2 up to the kernel, 1 down from it
          -- Without an end of ours before theirs: `nc -l` leaves then, whatever it has still to send.
          local writer = spawn(helper.send_stream, socket, 2, total)
          assert.equal(total, helper.receive_stream(socket, 1))
          writer:join()
          socket:close()
        end
        -- The kernel connects.
        local listener = stack:bind("*", 5000)
        local client = namespace:start(("nc -N %s 5000 <%s/up >%s/down1"):format(family.stack, folder, folder))
        serve(assert(listener:accept()))
        listener:close()
        assert.same({ 0, "" }, { client:wait() })
        -- The stack connects.
        local server = namespace:start(("nc -N -l %s 5001 <%s/up >%s/down2"):format(family.kernel, folder, folder))
        namespace:listens(5001)
        serve(assert(stack:connect(family.kernel, 5001)))
        assert.same({ 0, "" }, { server:wait() })
      end)
      for _, name in ipairs { "/down1", "/down2" } do assert_stream(folder .. name, 2, total) end
      assert.equal(0, device:stats().tx_dropped)
      local stats = stack:stats()
      assert.equal(0, stats.tcp.checksum_errors)
      assert.equal(0, stats.ip.checksum_errors)
    end)
  end

  with({ "nc", "ss" }, "carries datagrams, also those that take fragments", function()
    local stack, namespace = connected()
    local text = ("0123456789"):rep(500)
    run(function()
      for _, family in ipairs(FAMILIES) do
        local folder = netns.folder()
        local server = assert(stack:udp())
        assert(server:setsockname("*", 7))
        netstack.daemon(function()
          while true do
            local data, host, port = server:receivefrom()
            if not data then break end
            server:sendto(data:reverse(), host, port)
          end
        end)
        local file = io.open(folder .. "/datagram", "w")
        file:write(text)
        file:close()
        local client = namespace:start(("nc -u -w 1 %s 7 <%s/datagram"):format(family.stack, folder))
        client:expect("9876543210$")
        assert.equal(text:reverse(), client:output())
        client:signal("TERM")
        server:close()

        local sink = namespace:start(("nc -u -l %s 9"):format(family.kernel))
        namespace:listens(9, "udp")
        local socket = stack:udp()
        assert.equal(#text, (socket:sendto(text, family.kernel, 9)))
        sink:expect("0123456789$")
        sleep(0.05)
        assert.equal(text, sink:output())
        socket:close()
        sink:signal("TERM")
        sink:wait()
        -- What nobody listens for comes back as an error.
        socket = stack:udp()
        socket:setpeername(family.kernel, 10)
        socket:settimeout(5)
        socket:send("x")
        assert.same({ nil, "port unreachable" }, { socket:receive() })
        socket:close()
      end
    end)
  end)

  with({ "ping" }, "takes the mtu from the kernel or tells it ours", function()
    local namespace = netns.new()
    namespace:ip("tuntap add dev own mode tun")
    namespace:ip("link set own mtu 1300")
    local device = keep(assert(netstack.tun { netns = namespace.name, name = "own" }))
    assert.equal(1300, device:mtu())
    device:close()
    assert.matches("mtu 1300.* qlen 500", namespace:ip("link show own")) -- which persists: it was not ours to make

    local stack, far, mine, interface = connected(1, { name = "mine", mtu = 1400 })
    assert.equal(1400, mine:mtu())
    assert.matches("mtu 1400", far:ip("link show mine"))
    far:ip("link set mine mtu 1500")
    run(function()
      local fits = far:start("ping -n -c 1 -M do -s 1372 10.1.0.2")
      assert.equal(0, (fits:wait()))
      local long = far:start("ping -n -c 1 -W 1 -M do -s 1373 10.1.0.2")
      assert.equal(1, (long:wait()))
    end)
    assert.equal(1, interface:stats().guarded["longer than the mtu"])
    assert.is_true(stack:ping("10.1.0.1") < 1)
  end)

  with({ "ping", "nc", "ss" }, "is an Ethernet with mode tap", function()
    local namespace = netns.new()
    local device = keep(namespace:tun(1, { mode = "tap", name = "tap7" }))
    assert.same({ "ethernet", 1500, "tap tap7 (mtu 1500)" }, { device:medium(), device:mtu(), tostring(device) })
    local stack = helper.watch(assert(netstack.new()))
    assert(stack:attach(device, { mac = "02:00:00:00:00:07", addresses = { "10.1.0.2/24", "fd01::2/64" } }))
    local folder = netns.folder()
    write_stream(folder .. "/up", 1, MIB)
    run(function()
      for _, family in ipairs(FAMILIES) do
        assert.is_true(assert(stack:ping(family.kernel)) < 1)
        local status, text = namespace:start("ping -n -c 3 -i 0.05 -s 4000 " .. family.stack):wait()
        assert.equal(0, status, text)
        local listener = stack:bind("*", 5000)
        local client = namespace:start(("nc -N %s 5000 <%s/up >%s/down"):format(family.stack, folder, folder))
        local socket = assert(listener:accept())
        local writer = spawn(helper.send_stream, socket, 2, MIB)
        assert.equal(MIB, helper.receive_stream(socket, 1))
        writer:join()
        socket:close()
        listener:close()
        assert.same({ 0, "" }, { client:wait() })
        assert_stream(folder .. "/down", 2, MIB)
      end
      assert.matches("02:00:00:00:00:07", namespace:ip("neighbour show 10.1.0.2"))
      assert.same({ nil, "host unreachable" }, { stack:ping("10.1.0.9", { timeout = 5 }) })
    end)
    local none, err = netstack.tun { netns = namespace.name, name = "tap7", mode = "tap" }
    assert.same({ nil, "address already in use" }, { none, err })
  end)

  with({}, "frees the name when it is closed or collected", function()
    local namespace = netns.new()
    local options = { netns = namespace.name, name = "once" }
    local first = keep(assert(netstack.tun(options)))
    local device, err, message = netstack.tun(options)
    assert.same({ nil, "address already in use" }, { device, err })
    assert.matches("^once is open already", message)
    first:close()
    assert.is_nil(namespace:ip("link"):find("once", 1, true))
    assert(netstack.tun(options))
    collectgarbage()
    collectgarbage()
    keep(assert(netstack.tun(options))):close()

    options.name = "lo"
    device, err, message = netstack.tun(options)
    assert.same({ nil, "address already in use" }, { device, err })
    assert.matches("^lo is an interface already", message)

    options.name = "many%d" -- the kernel counts
    assert.equal("many0", keep(assert(netstack.tun(options))):name())
    assert.equal("many1", keep(assert(netstack.tun(options))):name())
  end)

  with({}, "duplicates an open descriptor", function()
    local namespace = netns.new()
    local original = keep(namespace:tun(1, { name = "given" }))
    local device = keep(assert(netstack.tun { fd = original:fd(), netns = namespace.name }))
    assert.is_true(device:fd() ~= original:fd())
    assert.same({ "given", 1500, "ip" }, { device:name(), device:mtu(), device:medium() })
    local none, err, message = netstack.tun { fd = original:fd(), mode = "tap" }
    assert.same({ nil, "not supported" }, { none, err })
    assert.matches("is a TUN device$", message)
    original:close()
    local stack = helper.watch(netstack.new())
    assert(stack:attach(device, { addresses = { "10.1.0.2/24" } }))
    assert.is_true(stack:ping("10.1.0.1") < 1)
    device:close()
    assert.is_nil(namespace:ip("link"):find("given", 1, true))

    none, err, message = netstack.tun { fd = 1000000 }
    assert.same({ nil, "closed" }, { none, err })
    assert.matches("Bad file descriptor", message)
    none, err, message = netstack.tun { fd = 0 }
    assert.same({ nil, "not supported" }, { none, err })
    assert.matches("neither a TUN or TAP device nor a datagram socket$", message)
  end)

  with({}, "is driven by hand when no stack is attached", function()
    local namespace = netns.new()
    local device = keep(namespace:tun(1))
    packets.drain(device) -- what IPv6 sends of its own accord
    assert.is_false(device:rx_ready())
    assert.is_true(device:tx_ready())
    assert.equal(1, device:send(packets.icmp("10.1.0.2", "10.1.0.1", 8, 0, "\0\1\0\2")))
    local answer
    repeat answer = assert(device:receive(1)) until answer:byte(1) == 0x45
    assert.equal("\0\0", answer:sub(21, 22)) -- an echo reply
    run(function() -- a task waits on the real clock
      spawn(function()
        sleep(0.05)
        device:send(packets.icmp("10.1.0.2", "10.1.0.1", 8, 0, "\0\1\0\2"))
      end)
      repeat answer = assert(device:receive(1)) until answer:byte(1) == 0x45
      assert.is_true(netstack.now() >= 0.05 and netstack.now() < 0.5)
      packets.drain(device)
      repeat local more, err = device:receive(0.01) until not more and assert.equal("empty", err)
    end)
    assert.equal(1, device:send(("\0"):rep(20))) -- which the kernel refuses
    assert.equal(1, device:stats().tx_dropped)
    namespace:ip("link del " .. device:name())
    assert.same({ nil, "closed" }, { device:receive(1) })
    assert.same({ nil, "closed" }, { device:send("x") })
  end)

  it("checks its options", function()
    local function wrong(options)
      return failure(function() netstack.tun(options) end)
    end
    assert.matches("^spec/tun_spec.lua:%d+: bad argument #1 to 'tun' %(table expected, got string%)", wrong "tun0")
    assert.matches("%(unknown option 'device'%)", wrong { device = "tun0" })
    assert.matches("%(option 'name': 1 to 15 characters", wrong { name = "sixteen-letters-" })
    for _, name in ipairs { "", ".", "..", "a/b", "a b", "a:b", "a\0b" } do
      assert.matches("%(option 'name': ", wrong { name = name })
    end
    for _, name in ipairs { "", ".", "..", "a/b", "a\0b" } do
      assert.matches("%(option 'netns': ", wrong { netns = name })
    end
    assert.matches("%(option 'mode': 'tun' or 'tap' expected, got ip%)", wrong { mode = "ip" })
    assert.matches("%(option 'mtu': out of range: 68 to 65535%)", wrong { mtu = 67 })
    assert.matches("%(option 'fd': number has no integer representation%)", wrong { fd = 1.5 })
    assert.matches("%(option 'fd': out of range", wrong { fd = -1 })
    assert.matches("%(options 'fd' and 'name' exclude each other%)", wrong { fd = 0, name = "x" })
  end)
end)
