-- A stack that forwards between two TUN devices, with a kernel at the far side of each.
local helper = require "spec.helper"
local netns = require "spec.netns"
local netstack = require "netstack"

local with = netns.specs(it, pending)

describe("A router between two kernels", function()
  after_each(netns.finish)

  -- left and right: namespaces whose kernels have 10.1.0.1, fd01::1 and 10.2.0.1, fd02::1, and the router as gateway.
  local function between(options)
    local router = helper.watch(assert(netstack.new { forwarding = true }))
    local namespaces = {}
    for n = 1, 2 do
      local namespace = netns.new()
      local device = netns.keep(namespace:tun(n, n == 2 and options or nil))
      assert(router:attach(device, { addresses = { ("10.%d.0.2/24"):format(n), ("fd0%d::2/64"):format(n) } }))
      namespace:ip(("route add default via 10.%d.0.2 congctl cubic"):format(n))
      namespace:ip(("-6 route add default via fd0%d::2 congctl cubic"):format(n))
      namespaces[n] = namespace
    end
    return namespaces[1], namespaces[2], router
  end

  local function to_its_end(expected, namespace, command)
    local status, text = namespace:start(command):wait()
    assert.equal(expected, status, text)
    return text
  end

  with({ "ping" }, "passes what fits, and says what does not", function()
    local left, _, router = between { mtu = 1300 }
    netstack.run(function()
      for _, host in ipairs { "10.2.0.1", "fd02::1", "10.2.0.2", "fd02::2" } do
        netns.assert_answered(to_its_end(0, left, "ping -n -c 2 -i 0.01 -w 5 " .. host), 2)
      end
      assert.matches("ttl=63 ", to_its_end(0, left, "ping -n -c 1 -W 5 10.2.0.1"))
      assert.matches("From 10.1.0.2 .*[Ff]rag needed and DF set %(mtu = 1300%)",
        to_its_end(1, left, "ping -n -c 1 -W 2 -M do -s 1400 10.2.0.1"))
      assert.matches("From fd01::2 .*Packet too big: mtu=1300",
        to_its_end(1, left, "ping -n -c 1 -W 2 -M do -s 1400 fd02::1"))
      assert.matches(" 1 received", to_its_end(0, left, "ping -n -c 1 -W 5 -M dont -s 4000 10.2.0.1"))
      -- The kernel has learned the way's mtu by now, and cuts for it.
      assert.matches(" 1 received", to_its_end(0, left, "ping -n -c 1 -W 5 -s 4000 fd02::1"))
      assert.matches("From 10.1.0.2 .*Net Unreachable", to_its_end(1, left, "ping -n -c 1 -W 2 10.9.0.1"))
      assert.matches("From fd01::2 .*No route", to_its_end(1, left, "ping -n -c 1 -W 2 fd09::1"))
      assert.matches("From 10.1.0.2 .*Time to live exceeded", to_its_end(1, left, "ping -n -c 1 -W 2 -t 1 10.2.0.1"))
    end)
    assert.is_true(router:stats().forwarded >= 20)
    assert.equal(0, router:stats().icmp_limited)
  end)

  with({ "traceroute" }, "is a hop that traceroute sees", function()
    local left = between()
    netstack.run(function()
      for _, probe in ipairs { "", "-I ", "-T -p 9 " } do
        local text = to_its_end(0, left, ("traceroute -n -q 1 -w 5 %s10.2.0.1"):format(probe))
        assert.matches("\n 1  10.1.0.2  [%d.]+ ms\n 2  10.2.0.1  [%d.]+ ms\n$", text)
        text = to_its_end(0, left, ("traceroute -6 -n -q 1 -w 5 %sfd02::1"):format(probe))
        assert.matches("\n 1  fd01::2  [%d.]+ ms\n 2  fd02::1  [%d.]+ ms\n$", text)
      end
      assert.matches("\n 1  10.1.0.2  [%d.]+ ms !N\n", to_its_end(0, left, "traceroute -n -q 1 -w 5 10.9.0.1"))
    end)
  end)

  with({ "iperf3", "ss" }, "carries connections, and tells them of a narrow link", function()
    local left, right, router = between { mtu = 1300 }
    netstack.run(function()
      for _, host in ipairs { "10.2.0.1", "fd02::1" } do
        local server = right:start("iperf3 -s -1")
        right:listens(5201)
        assert.is_nil(to_its_end(0, left, "iperf3 -C cubic -n 4M -c " .. host):find "error")
        assert.equal(0, (server:wait()))
      end
    end)
    assert.is_true(router:stats().forwarded > 2 * 4 * 2 ^ 20 / 1300)
  end)
end)
