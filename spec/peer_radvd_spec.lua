-- radvd, the router advertisement daemon, in a namespace whose kernel is the router, over TAP and over TUN.
local helper = require "spec.helper"
local netns = require "spec.netns"
local netstack = require "netstack"

local run = netstack.run
local with, keep, eventually = netns.specs(it, pending), netns.keep, netns.eventually

local CONFIG = [[
interface %s {
  AdvSendAdvert on;
  MinRtrAdvInterval 3;
  MaxRtrAdvInterval 4;
  AdvDefaultLifetime %d;
  AdvLinkMTU 1400;
  prefix fd01::/64 { AdvOnLink on; AdvAutonomous on; AdvValidLifetime 3600; AdvPreferredLifetime 1800; };
  prefix fd02::/64 { AdvOnLink on; AdvAutonomous off; };
  RDNSS fd01::1 { AdvRDNSSLifetime 600; };
};
]]

-- radvd for a device's interface; lifetime: of the router, in seconds.
local function start(namespace, device, lifetime)
  local config = netns.folder() .. "/radvd.conf"
  netns.write(config, CONFIG:format(device:name(), lifetime or 1800))
  namespace:exec(("sh -c 'cd /proc/sys/net/ipv6/conf && echo 1 >all/forwarding && echo 0 >%s/accept_dad'")
    :format(device:name()))
  return namespace:start(("radvd -n -m stderr -d 1 -C %s -p %s.pid"):format(config, config))
end

describe("radvd", function()
  after_each(netns.finish)

  for _, mode in ipairs { "tap", "tun" } do
    with({ "radvd", "dnsmasq" }, "configures an interface over " .. mode:upper(), function()
      local namespace = netns.new()
      local device = keep(namespace:tun(1, { mode = mode }))
      namespace:ip("addr add 2001:db8:99::1/128 dev lo nodad")
      namespace:dnsmasq { "listen-address=fd01::1", "host-record=six.test,2001:db8:99::1" }
      local stack = helper.watch(assert(netstack.new()))
      run(function()
        local router = start(namespace, device)
        local interface = assert(stack:attach(device, { slaac = true }))
        eventually(function() return interface:slaac().state == "BOUND" end)
        local state = interface:slaac()
        local address = state.addresses[1].address
        assert.matches("^fd01::", address)
        assert.near(3600, state.addresses[1].expires, 30)
        assert.near(1800, state.addresses[1].preferred, 30)
        assert.matches("^fe80::.*%%eth0$", state.gateway)
        assert.same({ "fd01::1" }, state.dns)
        assert.equal(1400, state.mtu)
        assert.equal(0, state.ignored)
        -- Beyond the link, by the default route; the answer is sent to the address that was formed.
        assert.is_true(assert(stack:ping("2001:db8:99::1", { timeout = 10 })) < 10)
        assert.equal("2001:db8:99::1", stack:resolve("six.test"))
        assert.is_true(assert(stack:ping("six.test", { size = 4000, timeout = 10 })) < 10)
        local ping = namespace:start("ping -n -c 2 -i 0.1 -s 2000 " .. address)
        local status, text = ping:wait()
        assert.equal(0, status, text)
        router:signal("TERM") -- it says farewell with a lifetime of 0
        eventually(function() return not interface:slaac().gateway end)
        assert.equal(1, #interface:addresses())
        if mode == "tap" then assert.same({ nil, "no route" }, { stack:ping("2001:db8:99::1") }) end
        namespace:ip("link del " .. device:name()) -- and with the device all that was learned
        eventually(function() return #interface:addresses() == 0 end)
        state = interface:slaac()
        assert.same({ "SOLICITING", {}, {} }, { state.state, state.dns, state.routers })
        assert.is_nil(state.mtu)
      end)
    end)
  end
end)
