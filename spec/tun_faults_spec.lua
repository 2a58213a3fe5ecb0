-- TUN devices when something is in the way: no room, no rights, an interface or a namespace that is no more.

local helper = require "spec.helper"
local netns = require "spec.netns"
local netstack = require "netstack"
local packets = require "spec.packets"

local run, spawn, sleep = netstack.run, netstack.spawn, netstack.sleep
local with, keep, connected = netns.specs(it, pending), netns.keep, netns.connected
local MIB = 1024 * 1024

-- A script for a process of its own, which says what went wrong.
local function script(text)
  local path = netns.folder() .. "/script.lua"
  local file = assert(io.open(path, "w"))
  file:write('local netstack = require "netstack"\n', text)
  file:close()
  return ("%s %s"):format(netns.quote(netns.lua()), path)
end

-- Without a device of our own the clock has to be told.
local function run_real(fn)
  return run(fn, { clock = "real" })
end

describe("a TUN device in trouble", function()
  after_each(netns.finish)

  with({ "nc", "ss" }, "that is deleted ends what uses it, at once", function()
    local stack, namespace, device, interface = connected()
    run(function()
      local server = namespace:start("nc -l 10.1.0.1 5001")
      namespace:listens(5001)
      local socket = assert(stack:connect("10.1.0.1", 5001))
      local datagrams = stack:udp()
      datagrams:setsockname("*", 7)
      local reader = spawn(function() return socket:receive() end)
      local writer = spawn(function()
        local block = ("x"):rep(65536)
        local sent, err
        repeat sent, err = socket:send(block) until not sent
        return err
      end)
      sleep(0.05)
      namespace:ip("link del " .. device:name())
      local start = netstack.now()
      assert.same({ nil, "connection aborted", "" }, { reader:join(5) })
      assert.is_true(writer:join(5) ~= "timeout")
      assert.is_true(netstack.now() - start < 1)
      assert.is_false(interface:is_up())
      assert.same({}, interface:addresses())
      assert.equal("tun tun0 (mtu 1500, attached, gone)", tostring(device))
      assert.same({ nil, "no route" }, { stack:ping("10.1.0.1") })
      assert.same({ nil, "no route" }, { stack:connect("10.1.0.1", 5001) })
      assert.same({ nil, "no route" }, { datagrams:sendto("x", "10.1.0.1", 9) })
      assert.is_nil(stack:pollfd())
      -- Time does not begin to jump, nor the processor to spin.
      local clock, cpu = os.time(), os.clock()
      sleep(1)
      assert.is_true(os.time() > clock)
      assert.is_true(os.clock() - cpu < 0.1)
      socket:close()
      server:signal("TERM")
      datagrams:settimeout(0.1)
      assert.same({ nil, "timeout" }, { datagrams:receive() })
      datagrams:close()
      -- A new one takes its place.
      local again = keep(namespace:tun(1))
      assert.equal(1, interface:detach())
      assert(stack:attach(again, { addresses = { "10.1.0.2/24" } }))
      assert.is_true(stack:ping("10.1.0.1") < 1)
    end)
  end)

  with({}, "that is deleted leaves no wait that nothing can end", function()
    local stack, namespace, device = connected()
    local socket = stack:udp()
    socket:setsockname("*", 7)
    local ok, err = pcall(run, function()
      spawn(function()
        sleep(0.05)
        namespace:ip("link del " .. device:name())
      end)
      socket:receive()
    end)
    assert.is_false(ok)
    assert.matches("^deadlock: ", err)
    socket:close()
  end)

  with({ "nc", "ss" }, "whose interface is down drops and counts, and goes on when it is up", function()
    local stack, namespace, device = connected()
    local folder, total = netns.folder(), 8 * MIB
    run(function()
      local server = namespace:start(("nc -N -l 10.1.0.1 5001 >%s/got"):format(folder))
      namespace:listens(5001)
      local socket = assert(stack:connect("10.1.0.1", 5001))
      local done = false
      local writer = spawn(function()
        helper.send_stream(socket, 3, total, 4096)
        socket:shutdown("send")
        done = true
      end)
      sleep(0.002)
      namespace:ip(("link set %s down"):format(device:name()))
      assert.is_false(done)
      sleep(0.3)
      assert.same({ nil, "timeout" }, { stack:ping("10.1.0.1", { timeout = 0.05 }) })
      assert.is_true(device:stats().tx_dropped > 0)
      assert.is_false(done)
      namespace:ip(("link set %s up"):format(device:name()))
      writer:join()
      assert.equal(0, (server:wait()))
      socket:close()
    end)
    local next_bytes, text = helper.stream(3), netns.read(folder .. "/got")
    assert.equal(total, #text)
    for i = 1, total, 4096 do assert.is_true(text:sub(i, i + 4095) == next_bytes(4096)) end
  end)

  with({}, "whose namespace was removed by name goes on, and nobody can open another there", function()
    local stack, namespace, device = connected()
    namespace:delete()
    assert.is_true(stack:ping("10.1.0.1") < 1) -- the descriptor holds what the name stood for
    local none, err, message = netstack.tun { netns = namespace.name }
    assert.same({ nil, "address not available" }, { none, err })
    assert.matches("there is no network namespace " .. namespace.name, message, 1, true)
    device:close()
    -- A name that outlived its namespace.
    local path = "/run/netns/" .. namespace.name
    assert(io.open(path, "w")):close()
    none, err, message = netstack.tun { netns = namespace.name }
    os.remove(path)
    assert.same({ nil, "address not available" }, { none, err })
    assert.matches("is no network namespace any more", message, 1, true)
  end)

  with({ "nc", "ss" }, "does not disturb the other, in another namespace", function()
    local folder, ends = netns.folder(), {}
    for n = 1, 2 do
      local stack, namespace = connected(n, { name = "same" })
      ends[n] = { stack = stack, namespace = namespace, host = ("10.%d.0.1"):format(n) }
    end
    run(function()
      for n, far in ipairs(ends) do
        far.server = far.namespace:start(("nc -N -l %s 5001 >%s/got%d"):format(far.host, folder, n))
        far.namespace:listens(5001)
        far.task = spawn(function()
          local socket = assert(far.stack:connect(far.host, 5001))
          helper.send_stream(socket, n, 4 * MIB)
          socket:close()
        end)
      end
      for n, far in ipairs(ends) do
        far.task:join()
        assert.equal(0, (far.server:wait()))
        local next_bytes, text = helper.stream(n), netns.read(("%s/got%d"):format(folder, n))
        assert.equal(4 * MIB, #text)
        for i = 1, #text, 65536 do assert.is_true(text:sub(i, i + 65535) == next_bytes(65536)) end
      end
      assert.same({ nil, "timeout" }, { ends[1].stack:ping("10.2.0.1", { timeout = 0.1 }) })
    end)
  end)

  -- Nothing of the process is left in the other namespace: it would see the interfaces of that.
  with({}, "leaves this process in its own namespace", function()
    local before = netns.read("/proc/self/net/dev")
    local namespace = netns.new()
    local device = keep(assert(netstack.tun { netns = namespace.name, name = "elsewhere" }))
    assert.is_nil(netns.read("/proc/self/net/dev"):find("elsewhere", 1, true))
    assert.is_nil(netns.read("/proc/thread-self/net/dev"):find("elsewhere", 1, true))
    assert.is_nil(before:find("elsewhere", 1, true))
    assert.matches("elsewhere", namespace:ip("link"))
    device:close()
  end)

  with({ "setpriv" }, "tells whom to ask for permission", function()
    local code = 'print(netstack.tun { name = "mine" })'
    local status, text
    run_real(function()
      -- Root in all but name; to others the build may not be readable.
      status, text = netns.start("setpriv --bounding-set=-net_admin --inh-caps=-all " .. script(code)):wait()
    end)
    assert.equal(0, status, text)
    assert.matches("^nil\tpermission denied\trun as root or with CAP_NET_ADMIN, or let root once make the interface " ..
      "for you: ip tuntap add dev mine mode tun user 0\n$", text)
    run_real(function()
      local name = netns.new().name
      code = ('print(netstack.tun { netns = %q, mode = "tap" })'):format(name)
      status, text = netns.start("setpriv --bounding-set=-net_admin,-sys_admin --inh-caps=-all " .. script(code)):wait()
      assert.equal(0, status, text)
      assert.matches("^nil\tpermission denied\tentering network namespace " .. name .. " takes root", text)
    end)
  end)

  -- As on most systems, where everybody may open /dev/net/tun; here it may be root's alone.
  local function with_open_node(command)
    local folder = netns.folder() .. "/dev"
    local text = "mkdir -p %s && mount -t tmpfs tmpfs %s && mknod -m 666 %s/tun c 10 200 && " ..
      "mount --bind %s/tun /dev/net/tun && exec %s"
    return "unshare -m sh -c " .. netns.quote(text:format(folder, folder, folder, folder, command))
  end
  local NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups "

  -- What a process of nobody's says; nil and why when there can be none.
  local function as_nobody(before, code)
    local command = script(code)
    os.execute("chmod 755 " .. netns.folder())
    local status, text = netns.start(with_open_node(before .. command)):wait()
    if status ~= 0 and (text:find("module 'netstack", 1, true) or text:find("unshare: ", 1, true)) then
      return nil, text
    end
    assert.equal(0, status, text)
    return text
  end

  with({ "setpriv", "unshare" }, "is for others when root has made the interface for them", function()
    local namespace = netns.new()
    namespace:ip("tuntap add dev mine mode tun user 65534")
    namespace:ip("addr add 10.1.0.1/24 dev mine")
    namespace:ip("link set mine up")
    local enter = ("ip netns exec %s %s"):format(namespace.name, NOBODY)
    run_real(function()
      local text, why = as_nobody(enter, 'print(netstack.tun { name = "other" })')
      if not text then return pending(why) end
      assert.matches("^nil\tpermission denied\t.*ip tuntap add dev other mode tun user 65534\n$", text)
      assert.equal("1400 true\n", (as_nobody(enter, [[
        local device = assert(netstack.tun { name = "mine", mtu = 1400 }) -- the kernel's stays as it is
        local stack = netstack.new()
        assert(stack:attach(device, { addresses = { "10.1.0.2/24" } }))
        for _ = 1, 5 do -- the kernel takes a second to see that there is a carrier
          local rtt = stack:ping("10.1.0.1")
          if rtt then io.write(device:mtu(), " ", tostring(rtt < 1), "\n") break end
        end
      ]])))
    end)
  end)

  with({ "setpriv", "unshare" }, "needs no privileges in a user namespace", function()
    local status, text
    local code = [[
      local device = assert(netstack.tun { name = "mine" })
      os.execute("unset LD_PRELOAD; ip addr add 10.1.0.1/24 dev mine && ip link set mine up")
      local stack = netstack.new()
      assert(stack:attach(device, { addresses = { "10.1.0.2/24" } }))
      print(stack:ping("10.1.0.1") < 1)
    ]]
    run_real(function()
      status, text = netns.start("unshare -Urn " .. script(code)):wait()
      if status ~= 0 and text:find("unshare: ", 1, true) then return end
      assert.same({ 0, "true\n" }, { status, text })
      text = as_nobody(NOBODY .. "unshare -Urn ", code)
    end)
    if status ~= 0 or not text then return pending("no user namespaces, or nobody cannot read the build") end
    assert.equal("true\n", text)
  end)
end)

-- A datagram socket is a device that is full after a few packets, as a TUN is only with a small send buffer.
describe("a device whose descriptor is full", function()
  after_each(netns.finish)

  local function sockets()
    local ok, unix = pcall(require, "socket.unix")
    if not ok or type(unix) ~= "table" or not unix.dgram then return nil end
    local ends, paths = { unix.dgram(), unix.dgram() }, {}
    for i = 1, 2 do
      paths[i] = netns.folder() .. "/" .. i
      assert(ends[i]:bind(paths[i]))
    end
    for i = 1, 2 do assert(ends[i]:connect(paths[3 - i])) end
    return ends
  end

  it("pushes back: nothing is lost, and room is waited for only then", function()
    local ends = sockets()
    if not ends then return pending("LuaSocket has no unix datagram sockets here") end
    local stacks, own = {}, {}
    for i = 1, 2 do
      own[i] = keep(assert(netstack.tun { fd = ends[i]:getfd(), mtu = 9000 }))
      ends[i]:close()
      assert.same({ nil, "not supported" }, { own[i]:name() })
      stacks[i] = helper.watch(assert(netstack.new()))
      assert(stacks[i]:attach(own[i], { addresses = { ("10.0.0.%d/24"):format(i), ("fd00::%d/64"):format(i) } }))
    end
    run(function()
      for _, family in ipairs(helper.families) do
        local client, server = helper.connection(stacks[1], stacks[2], family)
        helper.exchange(client, server, 4 * MIB)
      end
    end, { timeout = 60 })
    for i = 1, 2 do
      assert.equal(0, own[i]:stats().tx_dropped)
      assert.equal(0, own[i]:stats().rx_dropped)
      assert.equal(own[i]:stats().tx_packets, own[3 - i]:stats().rx_packets)
      assert.equal("r", stacks[i]:events())
    end

    -- Full: nobody reads at the other end.
    stacks[2]:close()
    packets.drain(own[2])
    local socket, count = stacks[1]:udp(), 0
    socket:settimeout(0)
    while socket:sendto(("x"):rep(1000), "10.0.0.2", 9) do count = count + 1 end
    assert.equal("rw", stacks[1]:events())
    -- A wait for room costs no time of the processor.
    socket:settimeout(0.5)
    local before = os.clock()
    assert.same({ nil, "timeout" }, { socket:sendto("x", "10.0.0.2", 9) })
    assert.is_true(os.clock() - before < 0.1)
    assert.equal(count - 1, #packets.drain(own[2])) -- one more waits in the device
    stacks[1]:poll(stacks[1]:stats().time)
    assert.equal("r", stacks[1]:events())
    assert.equal(1, #packets.drain(own[2]))
    assert.equal(0, own[1]:stats().tx_dropped)
    socket:close()
  end)
end)
