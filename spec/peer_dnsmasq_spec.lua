-- dnsmasq in a namespace: a real DNS server over TUN, a real DHCP server over TAP.
local helper = require "spec.helper"
local netns = require "spec.netns"
local netstack = require "netstack"

local run = netstack.run
local with, eventually = netns.specs(it, pending), netns.eventually

-- What it knows is in lines of its own.
local function start_dns(namespace, addresses, lines)
  local all = { "log-queries", "local-ttl=60", "listen-address=" .. table.concat(addresses, ",") }
  for _, line in ipairs(lines) do all[#all + 1] = line end
  return namespace:dnsmasq(all)
end

local function count(text, pattern)
  return select(2, text:gsub(pattern, ""))
end

describe("dnsmasq, for names,", function()
  after_each(netns.finish)

  -- A stack that asks these servers.
  local function asking(servers)
    local namespace = netns.new()
    local device = netns.keep(namespace:tun(1))
    local stack = helper.watch(netstack.new { dns = servers })
    assert(stack:attach(device, { addresses = { "10.1.0.2/24", "fd01::2/64" } }))
    return stack, namespace
  end

  local KNOWN = { "host-record=both.test,10.9.0.1,fd09::1", "host-record=four.test,10.9.0.4",
    "host-record=six.test,fd09::6", "cname=alias.test,both.test", "cname=alias2.test,alias.test",
    "txt-record=text.test,x" }

  with({ "dnsmasq" }, "tells addresses of either kind, aliases, and what there is not", function()
    for _, server in ipairs { "10.1.0.1", "fd01::1" } do
      local stack, namespace = asking { server }
      run(function()
        local program = start_dns(namespace, { server }, KNOWN)
        assert.equal("10.9.0.1", stack:resolve("both.test"))
        assert.equal("10.9.0.4", stack:resolve("Four.TEST."))
        assert.equal("fd09::6", stack:resolve("six.test")) -- no data of type A
        assert.equal("10.9.0.1", stack:resolve("alias.test"))
        assert.equal("10.9.0.1", stack:resolve("alias2.test"))
        local _, about = require "netstack.luasocket"(stack).dns.toip("alias2.test")
        assert.same({ "10.9.0.1", "fd09::1" }, about.ip)
        local before = netstack.now()
        assert.same({ nil, "host not found" }, { stack:resolve("text.test") }) -- no data at all
        assert.same({ nil, "host not found" }, { stack:resolve("nobody.test") }) -- no such name
        assert.same({ nil, "host not found" }, { stack:resolve("example.com") }) -- it refuses: nobody further to ask
        assert.is_true(netstack.now() - before < 5)
        local text = program:output()
        assert.equal(1, count(text, "query%[A%] four%.test from "))
        assert.matches("config nobody%.test is NXDOMAIN", text)
        assert.matches("config text%.test is NODATA", text)
        program:signal("TERM")
        program:wait()
      end)
    end
  end)

  with({ "dnsmasq" }, "tells over TCP what is too long for a datagram", function()
    local stack, namespace = asking { "10.1.0.1" }
    run(function()
      local lines = {}
      for i = 1, 60 do lines[i] = ("10.9.1.%d many.test"):format(i) end
      local hosts = netns.folder() .. "/hosts"
      netns.write(hosts, table.concat(lines, "\n") .. "\n")
      start_dns(namespace, { "10.1.0.1" }, { "addn-hosts=" .. hosts })
      local opened = 0
      stack:trace(function(event)
        if event.type == "state" and event.state == "ESTABLISHED" then opened = opened + 1 end
      end)
      assert.matches("^10%.9%.1%.%d+$", stack:resolve("many.test"))
      local _, about = require "netstack.luasocket"(stack).dns.toip("many.test")
      assert.equal(60, #about.ip)
      stack:trace(nil)
      assert.equal(1, opened)
    end)
  end)

  with({ "dnsmasq", "nc", "ss" }, "is asked when the server before it is silent", function()
    local stack, namespace = asking { "10.1.0.3", "10.1.0.1" }
    namespace:ip("addr add 10.1.0.3/32 dev lo")
    run(function()
      -- It hears the first question and says nothing; from the next one's port it takes none.
      namespace:start("nc -u -l 10.1.0.3 53")
      namespace:listens(53, "udp")
      start_dns(namespace, { "10.1.0.1" }, KNOWN)
      local before = netstack.now()
      assert.equal("10.9.0.4", stack:resolve("four.test"))
      local took = netstack.now() - before
      assert.is_true(took >= 2 and took < 8, took)
    end)
  end)
end)

describe("dnsmasq, for leases,", function()
  after_each(netns.finish)

  -- A renewal after 3 s is the earliest that dnsmasq can be talked into.
  local function start_dhcp(namespace, device, range)
    return namespace:dnsmasq { "interface=" .. device:name(), "dhcp-authoritative", "dhcp-range=" .. range .. ",2m",
      "dhcp-option=58,3", "dhcp-option=59,100", "host-record=four.test,10.9.0.4" }
  end

  local function leasing()
    local namespace = netns.new()
    local device = netns.keep(namespace:tun(1, { mode = "tap" }))
    namespace:ip("addr add 192.0.2.1/32 dev lo")
    local stack = helper.watch(assert(netstack.new()))
    return stack, namespace, device
  end

  with({ "dnsmasq" }, "gives an address, a gateway and a name server, and renews", function()
    local stack, namespace, device = leasing()
    run(function()
      local program = start_dhcp(namespace, device, "10.1.0.50,10.1.0.50")
      local interface = assert(stack:attach(device, { mac = "02:00:00:00:00:07", dhcp = true }))
      eventually(function() return interface:lease().state == "BOUND" end)
      local began, lease = netstack.now(), interface:lease()
      assert.same({ "10.1.0.50", "10.1.0.1", "10.1.0.1", { "10.1.0.1" } },
        { lease.address, lease.server, lease.gateway, lease.dns })
      assert.is_true(lease.expires > 100 and lease.expires <= 120, lease.expires)
      assert.same({ "10.1.0.50/24" }, interface:addresses())
      assert.is_true(stack:ping("10.1.0.1", { timeout = 5 }) < 5)
      assert.is_true(stack:ping("192.0.2.1", { timeout = 5 }) < 5) -- by the gateway
      assert.equal("10.9.0.4", stack:resolve("four.test")) -- by the server that the lease names
      assert.matches("02:00:00:00:00:07 10%.1%.0%.50 ", netns.read(netns.folder() .. "/leases"))
      -- What is open stays open when the lease is renewed.
      local socket = assert(stack:udp())
      assert(socket:setsockname("10.1.0.50", 7))
      eventually(function() return count(program:output(), "DHCPACK") >= 2 end)
      assert.is_true(netstack.now() - began >= 2.9)
      eventually(function() return interface:lease().state == "BOUND" end)
      assert.is_true(interface:lease().expires > 117)
      assert.equal(1, count(program:output(), "DHCPDISCOVER"))
      assert.same({ "10.1.0.50", 7, "inet" }, { socket:getsockname() })
      assert.equal(0, interface:lease().ignored)
      socket:close()
    end, { clock = "real" })
  end)

  with({ "dnsmasq" }, "takes an address back, and the stack asks for another", function()
    local stack, namespace, device = leasing()
    run(function()
      local first = start_dhcp(namespace, device, "10.1.0.50,10.1.0.50")
      local interface = assert(stack:attach(device, { mac = "02:00:00:00:00:07", dhcp = true }))
      eventually(function() return interface:lease().state == "BOUND" end)
      first:signal("TERM")
      first:wait()
      os.remove(netns.folder() .. "/leases")
      local second = start_dhcp(namespace, device, "10.1.0.60,10.1.0.60")
      eventually(function() return interface:lease().address == "10.1.0.60" end, 20)
      assert.matches("DHCPNAK", second:output())
      assert.same({ "10.1.0.60/24" }, interface:addresses())
      assert.is_true(stack:ping("192.0.2.1", { timeout = 5 }) < 5)
    end, { clock = "real" })
  end)
end)
