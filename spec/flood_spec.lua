-- Floods of datagrams: what is answered is rationed, what is queued is bounded and counted, and a connection that was
-- there before goes on working.
local netstack = require "netstack"
local helper = require "spec.helper"
local packets = require "spec.packets"

local run, sleep = netstack.run, netstack.sleep

for _, family in ipairs(helper.families) do
  local ipv6 = family.name == "IPv6"

  describe("A flood, " .. family.name .. ",", function()
    after_each(helper.nothing_left)

    -- `flood(n, make)` plays n packets in and returns what came back.
    local function spec(name, fn, config)
      it(name, function()
        run(function()
          local socket, peer, stack = helper.by_hand(family, config)
          local function flood(n, make)
            local answers = {}
            for i = 1, n do
              assert(peer.far:send(make(i)))
              if i % 500 == 0 or i == n then
                sleep(0)
                for _, packet in ipairs(packets.drain(peer.far)) do answers[#answers + 1] = packet end
              end
            end
            return answers
          end
          fn(stack, flood, peer)
          peer:send(helper.ACK + helper.PSH, "ping")
          assert.equal("ping", socket:receive(4))
          socket:abort()
        end)
      end)
    end

    spec("of datagrams for nobody is answered a hundred times at once, a thousand a second (RFC 4443 §2.4) #guarded",
      function(stack, flood)
        local function nobody() return packets.udp(family.b, 4000, family.a, 9, "x") end
        assert.equal(100, #flood(5000, nobody))
        assert.equal(4900, stack:stats().icmp_limited)
        sleep(0.05)
        assert.equal(50, #flood(1000, nobody))
        sleep(10)
        assert.equal(100, #flood(1000, nobody))
      end)

    spec("of packets of an unknown protocol is answered no more often #guarded", function(_, flood)
      assert.equal(100, #flood(1000, function() return packets.ip(family.b, family.a, 200, "12345678") end))
    end)

    spec("of errors is never answered (RFC 1122 3.2.2, RFC 4443 §2.4(e))", function(_, flood)
      local quoted = packets.udp(family.a, 9, family.b, 4000, "x")
      local kind = ipv6 and 1 or 3
      assert.same({}, flood(1000, function(i)
        return packets.icmp(family.b, family.a, kind, i % 6, "\0\0\0\0" .. quoted)
      end))
      assert.same({}, flood(100, function() -- nor what came to a group
        return packets.udp(family.b, 4000, ipv6 and "ff02::1" or "224.0.0.1", 9, "x")
      end))
    end)

    spec("of datagrams fills a UDP socket's queue and no more", function(stack, flood)
      local socket = stack:udp()
      socket:setsockname("*", 7)
      socket:settimeout(0)
      assert.same({}, flood(5000, function(i) return packets.udp(family.b, 4000, family.a, 7, tostring(i)) end))
      assert.equal(5000 - 256, stack:stats().udp.queue_full)
      for i = 1, 256 do assert.equal(tostring(i), (socket:receive())) end
      assert.same({ nil, "timeout" }, { socket:receive() })
      flood(100, function() return packets.udp(family.b, 4000, family.a, 7, ("x"):rep(1400)) end)
      local count = 0
      while socket:receive() do count = count + 1 end
      assert.equal(math.floor(65536 / 1400), count)
      socket:close()
    end)

    spec("of packets fills a raw socket's queue and no more", function(stack, flood)
      local socket = stack:raw(ipv6 and "ipv6" or "ipv4", 253)
      socket:settimeout(0)
      assert.same({}, flood(5000, function() return packets.ip(family.b, family.a, 253, "x") end))
      assert.equal(5000 - 256, stack:stats().raw.queue_full)
      local count = 0
      while socket:receive() do count = count + 1 end
      assert.equal(256, count)
      socket:close()
    end)

    spec("of pings is answered one for one", function(_, flood)
      assert.equal(1000, #flood(1000, function()
        return packets.icmp(family.b, family.a, ipv6 and 128 or 8, 0, "\0\1\0\1")
      end))
    end)
  end)
end
