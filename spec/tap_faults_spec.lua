-- An Ethernet on a TAP device when something is in the way: the interface or its other side is no more, comes back, or
-- says what makes no sense.
local helper = require "spec.helper"
local netns = require "spec.netns"
local netstack = require "netstack"

local run, spawn, sleep = netstack.run, netstack.spawn, netstack.sleep
local with, keep, eventually = netns.specs(it, pending), netns.keep, netns.eventually
local REAL = { clock = "real", timeout = 60 } -- also while no stack is attached

-- The stack gets 10.1.0.2 on a TAP device from a DHCP server beyond it.
-- @return the interface, the server
local function lease(stack, namespace, device)
  local server = namespace:dnsmasq { "interface=" .. device:name(), "dhcp-range=10.1.0.2,10.1.0.2,2m",
    "host-record=four.test,10.9.0.4" }
  local interface = assert(stack:attach(device, { dhcp = true, mac = "02:00:00:00:00:07",
    addresses = { "fd01::2/64" } }))
  eventually(function() return interface:lease().state == "BOUND" end)
  return interface, server
end

-- @return stack, namespace, device, interface, server
local function leased()
  local namespace = netns.new()
  local device = keep(namespace:tun(1, { mode = "tap" }))
  namespace:ip("addr add 192.0.2.1/32 dev lo")
  local stack = helper.watch(assert(netstack.new()))
  return stack, namespace, device, lease(stack, namespace, device)
end

describe("a TAP device in trouble", function()
  after_each(netns.finish)

  with({ "dnsmasq", "nc", "ss" }, "that is deleted ends what waits, at once; another takes its place", function()
    run(function()
      local stack, namespace, device, interface, server = leased()
      local nc = namespace:start("nc -l fd01::1 5001")
      namespace:listens(5001)
      local socket = assert(stack:connect("fd01::1", 5001))
      local reader = spawn(function() return socket:receive() end)
      local seekers = {}
      for i, host in ipairs { "10.1.0.9", "fd01::9" } do -- neighbours that are not there
        seekers[i] = spawn(function() return stack:connect(host, 80) end)
      end
      sleep(0.1)
      namespace:ip("link del " .. device:name())
      local start = netstack.now()
      assert.same({ nil, "connection aborted", "" }, { reader:join(5) })
      for _, seeker in ipairs(seekers) do assert.is_nil((seeker:join(5))) end
      assert.is_true(netstack.now() - start < 3)
      assert.is_false(interface:is_up())
      assert.same({}, interface:addresses())
      assert.same({ state = "SELECTING", ignored = 0 }, interface:lease()) -- there is nobody to ask, though
      assert.same({ nil, "no route" }, { stack:ping("192.0.2.1") })
      assert.same({ nil, "host not found" }, { stack:resolve("four.test") })
      local clock = os.clock()
      sleep(1)
      assert.is_true(os.clock() - clock < 0.1)
      socket:close()
      nc:signal("KILL")
      server:signal("TERM")
      server:wait()

      local again = keep(namespace:tun(1, { mode = "tap" }))
      assert.equal(1, interface:detach())
      interface = lease(stack, namespace, again)
      assert.same({ "10.1.0.2/24", "fd01::2/64" }, interface:addresses())
      assert.is_true(stack:ping("192.0.2.1", { timeout = 5 }) < 5)
      assert.equal("10.9.0.4", stack:resolve("four.test"))
    end, REAL)
  end)

  with({ "dnsmasq", "nc", "ss" }, "whose interface is down drops and counts, and goes on when it is up", function()
    run(function()
      local stack, namespace, device, interface = leased()
      for _, host in ipairs { "10.1.0.1", "fd01::1" } do
        local folder = netns.folder()
        local sink = namespace:start(("nc -N -l %s 5001 >%s/got"):format(host, folder))
        namespace:listens(5001)
        local socket = assert(stack:connect(host, 5001))
        helper.send_stream(socket, 3, 65536)
        local dropped = device:stats().tx_dropped
        namespace:ip(("link set %s down"):format(device:name()))
        helper.send_stream(socket, 3, 65536)
        assert.same({ nil, "timeout" }, { stack:ping(host, { timeout = 0.05 }) })
        assert.is_true(device:stats().tx_dropped > dropped)
        assert.equal("BOUND", interface:lease().state)
        namespace:ip(("link set %s up"):format(device:name()))
        -- The kernel forgets an IPv6 address with the link.
        namespace:ip("addr replace fd01::1/64 dev " .. device:name() .. " nodad")
        socket:close()
        assert.equal(0, (sink:wait()))
        assert.equal(2 * 65536, #netns.read(folder .. "/got"))
        assert.is_true(assert(stack:ping(host, { timeout = 5 })) < 5)
      end
    end, REAL)
  end)
end)
