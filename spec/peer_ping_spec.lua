-- ping both ways over TUN and TAP: one packet, many fragments, the largest there are. ping compares what comes back.
local netns = require "spec.netns"
local netstack = require "netstack"

local with = netns.specs(it, pending)

-- The largest packet that lwIP can hold, in IPv6 too, has 65,535 bytes with its header; 8 are ICMP's.
local FAMILIES = {
  { name = "IPv4", kernel = "10.1.0.1", stack = "10.1.0.2", sizes = { 0, 1, 1472, 1473, 4000, 65507 } },
  { name = "IPv6", kernel = "fd01::1", stack = "fd01::2", sizes = { 0, 1, 1452, 1453, 4000, 65487 } },
}

describe("ping", function()
  after_each(netns.finish)

  for _, mode in ipairs { "tun", "tap" } do
    for _, family in ipairs(FAMILIES) do
      with({ "ping" }, ("over %s, %s"):format(mode:upper(), family.name), function()
        local stack, namespace, device = netns.connected(1, { mode = mode })
        netstack.run(function()
          for _, size in ipairs(family.sizes) do
            local ping = namespace:start(("ping -n -c 2 -i 0.01 -w 5 -s %d %s"):format(size, family.stack))
            local status, text = ping:wait()
            assert.equal(0, status, text)
            netns.assert_answered(text, 2)
            assert.matches(("\n%d bytes from "):format(size + 8), text)
            assert.is_nil(text:find("wrong data", 1, true), text)
            local rtt, err = stack:ping(family.kernel, { size = math.min(size, 65000), timeout = 5 })
            assert.is_truthy(rtt, err)
          end
          -- Each with a TTL of its own, and each tells the other's.
          local text = select(2, namespace:start(("ping -n -c 1 -t 1 %s"):format(family.stack)):wait())
          assert.matches("ttl=255", text)
          assert.is_truthy(stack:ping(family.kernel, { ttl = 1 }))
        end)
        assert.equal(0, device:stats().tx_dropped)
      end)
    end
  end

  -- Few and small enough that each raw socket can hold them all: it sees what is everybody's.
  with({ "ping" }, "eight at once, without a pause", function()
    local stack, namespace = netns.connected()
    netstack.run(function()
      local programs, tasks = {}, {}
      for i = 1, 8 do
        local family = FAMILIES[i % 2 + 1]
        programs[i] = namespace:start(("ping -n -c 10 -i 0.002 -w 5 -s %d %s"):format(32 * i, family.stack))
        tasks[i] = netstack.spawn(function()
          for _ = 1, 10 do assert.is_truthy(stack:ping(family.kernel, { size = 32 * i, timeout = 5 })) end
        end)
      end
      for i = 1, 8 do
        tasks[i]:join()
        local status, text = programs[i]:wait()
        assert.equal(0, status, text)
        netns.assert_answered(text, 10)
      end
    end)
  end)
end)
