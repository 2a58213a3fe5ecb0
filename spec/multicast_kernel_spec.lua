-- Multicast with the kernel on the far side: its sockets as members and senders, its bridge as a switch that watches
-- who is in which group and asks for it.
local helper = require "spec.helper"
local netns = require "spec.netns"
local netstack = require "netstack"

local run, sleep = netstack.run, netstack.sleep
local with = netns.specs(it, pending)

local families = {
  { name = "IPv4", group = "239.1.2.3", add = "ip-add-membership", kernel = "10.1.0.1", stack = "10.1.0.2",
    constructor = "udp4", member = "interface = '10.1.0.1'", loop = "ip-multicast-loop" },
  { name = "IPv6", group = "ff05::1:3", add = "ipv6-add-membership", kernel = "fd01::1", stack = "fd01::2",
    constructor = "udp6", member = "", loop = "ipv6-multicast-loop" },
}

-- Waits until what a command prints has, or has not, the text.
local function settles(namespace, command, wanted, text)
  local limit = netstack.now() + 20
  local printed
  repeat
    printed = namespace:exec(command)
    if (printed:find(text, 1, true) ~= nil) == wanted then return end
    sleep(0.05)
  until netstack.now() > limit
  error(("%s: %s %s:\n%s"):format(command, text, wanted and "is missing" or "has stayed", printed), 2)
end

describe("Multicast with the kernel", function()
  after_each(netns.finish)

  for _, family in ipairs(families) do
    with({}, "goes both ways between its sockets and ours, " .. family.name, function()
      if not pcall(require, "socket") then return pending("LuaSocket is not installed") end
      local stack, namespace, device = netns.connected(1)
      local path = netns.folder() .. "/member.lua"
      local file = assert(io.open(path, "w"))
      -- It answers in the group what it hears there from elsewhere.
      file:write(([[
        local socket = require "socket".%s()
        assert(socket:setsockname("*", 5000))
        assert(socket:setoption("%s", { multiaddr = "%s", %s }))
        %s
        print("ready") io.stdout:flush()
        local data, host = socket:receivefrom()
        assert(socket:sendto(data .. " from " .. host, "%s", 5001))
      ]]):format(family.constructor, family.add, family.group, family.member,
        family.name == "IPv4" and 'assert(socket:setoption("ip-multicast-if", "10.1.0.1"))' or "", family.group))
      file:close()
      run(function()
        local socket = stack:udp()
        assert(socket:setsockname("*", 5001))
        assert.equal(1, socket:setoption(family.add, { multiaddr = family.group }))
        assert.equal(1, socket:setoption(family.loop, false))
        local program = namespace:start(netns.lua() .. " " .. path)
        program:expect("ready")
        assert.matches(family.group, namespace:ip("maddr show dev " .. device:name()), 1, true)
        assert.equal(5, socket:sendto("hello", family.group, 5000))
        socket:settimeout(20)
        local data, host = socket:receivefrom()
        assert.same({ "hello from " .. family.stack, family.kernel }, { data, host })
        assert.equal(0, (program:wait()))
        socket:close()
      end)
    end)
  end

  with({ "bridge" }, "is what a bridge that snoops learns of, asks for, and forgets", function()
    local namespace = netns.new()
    namespace:ip("link add br0 type bridge mcast_snooping 1 mcast_querier 1 mcast_startup_query_interval 50 " ..
      "mcast_query_interval 100 mcast_query_response_interval 50 mcast_membership_interval 250 " ..
      "mcast_last_member_interval 20 mcast_last_member_count 1")
    namespace:ip("link set br0 up")
    local device = netns.keep(assert(netstack.tun { netns = namespace.name, mode = "tap", name = "tap0" }))
    namespace:ip("link set tap0 master br0 up")
    run(function()
      local stack = helper.watch(netstack.new())
      assert(stack:attach(device, { addresses = { "10.1.0.2/24", "fd01::2:3/64" } }))
      local sockets = { stack:udp(), stack:udp() }
      for i, family in ipairs(families) do
        assert.equal(1, sockets[i]:setoption(family.add, { multiaddr = family.group }))
        settles(namespace, "bridge mdb show", true, "grp " .. family.group)
      end
      sleep(3.5) -- longer than it remembers what nobody answers for
      for _, group in ipairs { families[1].group, families[2].group, "ff02::1:ff02:3" } do
        settles(namespace, "bridge mdb show", true, "grp " .. group)
      end
      local groups = stack:stats().groups
      assert.is_true(groups.queries >= 4)
      assert.equal(0, groups.ignored)
      for i, family in ipairs(families) do
        sockets[i]:close()
        settles(namespace, "bridge mdb show", false, "grp " .. family.group)
      end
      settles(namespace, "bridge mdb show", true, "grp ff02::1:ff02:3")
    end)
  end)
end)
