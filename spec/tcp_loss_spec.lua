-- Links that lose, double, delay and swap packets: every byte arrives, in order and once.
local netstack = require "netstack"
local helper = require "spec.helper"

local MIB = 1024 * 1024

describe("TCP over a bad link", function()
  after_each(helper.nothing_left)

  local rules = {
    { name = "one in a hundred dropped", drop = 0.01 },
    { name = "one in ten dropped", drop = 0.1 },
    { name = "one in ten doubled", duplicate = 0.1 },
    { name = "one in ten delayed", delay = 0.1 },
    { name = "one in ten swapped", swap = 0.1 },
    { name = "all of it, one in a hundred", drop = 0.01, duplicate = 0.01, delay = 0.01, swap = 0.01 },
    { name = "all of it, one in ten", drop = 0.1, duplicate = 0.1, delay = 0.1, swap = 0.1 },
  }
  for number, rule in ipairs(rules) do
    for _, family in ipairs(helper.families) do
      it(("moves 4 MiB each way: %s, %s"):format(rule.name, family.name), function()
        rule.seed = number
        local a, b, counts = helper.bad_link(rule)
        netstack.run(function()
          local client, server = helper.connection(a, b, family)
          helper.exchange(client, server, 4 * MIB)
        end)
        for what in pairs(counts) do
          local share = counts[what] / counts.packets
          assert.is_true(what == "packets" or math.abs(share - (rule[what] or 0)) < 0.02, what .. " " .. share)
        end
        local lost = a:stats().tcp.retransmits + b:stats().tcp.retransmits
        if rule.drop then assert.is_true(lost >= counts.drop / 4, lost .. " retransmissions") end
      end)
    end
  end

  it("ends a connection whose packets all get lost, and tells both", function()
    local rule = {}
    local a, b = helper.bad_link(rule)
    netstack.run(function()
      local client, server = helper.connection(a, b, helper.IPV4)
      rule.drop = 1
      client:send("hello")
      assert.same({ nil, "timeout", "" }, { client:receive(1) })
      assert.same({ nil, "closed", "" }, { client:receive(1) })
      assert.is_true(netstack.now() > 100 and netstack.now() < 1000)
      rule.drop = 0
      server:send("x") -- to nobody: RST
      assert.same({ nil, "connection reset", "" }, { server:receive(1) })
      client:close()
      server:close()
    end)
  end)

  it("closes over a bad link, too", function()
    local a, b = helper.bad_link { drop = 0.3, duplicate = 0.3, delay = 0.3, swap = 0.3, seed = 7 }
    netstack.run(function()
      local listener = b:bind("*", 80)
      for i = 1, 50 do
        local client = assert(a:connect("10.0.0.2", 80))
        local server = assert(listener:accept())
        client:send("request " .. i .. "\n")
        client:shutdown("send")
        assert.equal("request " .. i .. "\n", server:receive("*a"))
        server:send("answer")
        server:close()
        assert.equal("answer", client:receive("*a"))
        client:close()
      end
      listener:close()
      netstack.sleep(60) -- FINs and their ACKs get lost as well
    end)
  end)
end)
