-- Packets of all kinds that stacks send, with virtual times, for specs of what looks at packets. The stacks have seeds.
local assert = require "luassert"
local helper = require "spec.helper"
local netstack = require "netstack"

local M = {}

-- Two devices with a wire between them that records, and loses the packets that `lose(data)` names a cause for.
local function wire(list, medium, names, delay, lose)
  local devices = {}
  for i = 1, 2 do
    devices[i] = netstack.device {
      mtu = 1500, medium = medium,
      transmit = function(data)
        local cause = lose and lose(data)
        list[#list + 1] = { time = netstack.now(), from = names[i], to = names[3 - i], data = data, link = medium,
          dropped = cause }
        if cause then return end
        netstack.daemon(function()
          netstack.sleep(delay)
          devices[3 - i]:input(data)
        end)
      end,
    }
  end
  return devices[1], devices[2]
end
M.wire = wire

local function talk(a, b, family, weather)
  local client, server = helper.connection(a, b, family)
  client:setoption("ip-tos", 40)
  weather.bad = true
  helper.exchange(client, server, 20000)
  weather.bad = false
  client, server = helper.connection(a, b, family, 81)
  client:send("x")
  client:abort()
  server:receive()
  server:close()
  assert(a:connect(family.b, 82) == nil) -- nobody listens
  local udp = a:udp()
  for _, size in ipairs { 0, 1, 4000 } do udp:sendto(("u"):rep(size), family.b, 9) end
  udp:close()
  assert.is_number(a:ping(family.b))
  assert.is_number(a:ping(family.b, { size = 3000 }))
end

-- TCP that loses a tenth of its full packets, UDP, ICMP in both families, between two stacks.
local function direct(list, medium)
  local n, weather = 0, {}
  local near, far = wire(list, medium, { "a", "b" }, 0.01, function(data)
    if #data < 1400 or not weather.bad then return nil end
    n = n + 1
    return n % 10 == 5 and "loss" or nil
  end)
  local a, b = netstack.new { seed = 1, name = "a" }, netstack.new { seed = 2, name = "b" }
  helper.watch(a, b)
  local ethernet = medium == "ethernet"
  a:attach(near, { addresses = { "10.0.0.1/24", "fd00::1/64" }, mac = ethernet and "02:00:00:00:00:01" or nil })
  b:attach(far, { addresses = { "10.0.0.2/24", "fd00::2/64" }, mac = ethernet and "02:00:00:00:00:02" or nil })
  for _, family in ipairs(helper.families) do talk(a, b, family, weather) end
  a:ping("10.0.0.9", { timeout = 0.1 })
end

-- Through a router: forwarded packets, a TTL that ends there; names asked for in vain; a host that looks for DHCP.
local function routed(list)
  local a_end, r1 = wire(list, "ip", { "a", "router" }, 0.001)
  local r2, b_end = wire(list, "ip", { "router", "b" }, 0.001)
  local a = netstack.new { seed = 3, name = "a", dns = { "10.2.0.2" } }
  local router = netstack.new { seed = 4, name = "router", forwarding = true }
  local b = netstack.new { seed = 5, name = "b" }
  helper.watch(a, router, b)
  a:attach(a_end, { addresses = { "10.1.0.2/24", "fd01::2/64" } })
  router:attach(r1, { addresses = { "10.1.0.1/24", "fd01::1/64" } })
  router:attach(r2, { addresses = { "10.2.0.1/24", "fd02::1/64" } })
  b:attach(b_end, { addresses = { "10.2.0.2/24", "fd02::2/64" } })
  for _, host in ipairs { "10.2.0.2", "fd02::2" } do
    assert.is_number(a:ping(host))
    assert.is_nil((a:ping(host, { ttl = 1 })))
  end
  assert.is_nil((a:resolve("nobody.test")))
  local c_end = wire(list, "ethernet", { "c", "nobody" }, 0.001)
  local c = helper.watch(netstack.new { seed = 6, name = "c" })
  c:attach(c_end, { dhcp = true, mac = "02:00:00:00:00:03" })
  netstack.sleep(2)
end

--- What they send: a list of `{ time, from, to, data, link, dropped }`. In no run; no stack is left.
function M.everything()
  local list = {}
  netstack.run(function()
    direct(list, "ip")
    direct(list, "ethernet")
    routed(list)
  end)
  local count = #list
  helper.nothing_left()
  for i = #list, count + 1, -1 do list[i] = nil end
  return list
end

return M
