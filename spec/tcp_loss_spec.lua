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
          assert.is_true(share >= 0.6 * (rule[what] or 0), what .. " " .. share) -- the link is as bad as it says
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
    local a, b = helper.bad_link { drop = 0.2, duplicate = 0.2, delay = 0.2, swap = 0.2, seed = 7 }
    netstack.run(function()
      local listener = b:bind("*", 80)
      helper.serve(listener, function(server)
        server:send("answer to " .. server:receive("*a"))
        server:close()
      end)
      for i = 1, 50 do
        local client = assert(a:connect("10.0.0.2", 80))
        client:send("request " .. i)
        client:shutdown("send")
        assert.equal("answer to request " .. i, client:receive("*a"))
        client:close()
      end
      netstack.sleep(100) -- FINs and their ACKs get lost as well
      listener:close()
    end)
  end)

  -- lwIP ends a connection in LAST_ACK two minutes after the close, whatever is still to be sent.
  for _, family in ipairs(helper.families) do
    it("sends what close left for as long as it takes, " .. family.name, function()
      local a, b = helper.pair { seed = 1, tcp_buffer_size = 65536 }
      netstack.run(function()
        local client, server = helper.connection(a, b, family)
        server:shutdown("send")
        assert.same({ nil, "closed", "" }, { client:receive(1) })
        helper.send_stream(client, 1, 131000)
        client:close()
        assert.equal("LAST-ACK", a:sockets()[1].state)
        local expected = helper.stream(1)
        for _ = 1, 131 do
          netstack.sleep(10)
          assert.is_true(server:receive(1000) == expected(1000))
        end
        assert.same({ nil, "closed", "" }, { server:receive(1) })
        server:close()
      end)
    end)

    it("lets a peer that was slow to read end in order, " .. family.name, function()
      local a, b = helper.pair { seed = 1, tcp_buffer_size = 2048 }
      netstack.run(function()
        local client, server = helper.connection(a, b, family)
        client:send(("x"):rep(4000))
        client:close()
        netstack.sleep(100)
        assert.equal(4000, #server:receive("*a"))
        assert.equal("FIN-WAIT-2", a:sockets()[1].state)
        netstack.sleep(19) -- it waits for 20 s
        server:close()
        netstack.sleep(0.1)
        assert.equal("TIME-WAIT", a:sockets()[1].state)
      end)
    end)
  end
end)
