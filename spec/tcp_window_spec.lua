-- Windows that are closed: a reader that takes its time loses nothing and costs nothing.
local netstack = require "netstack"
local helper = require "spec.helper"

local BUFFER = 262144

describe("TCP window", function()
  after_each(helper.nothing_left)

  for _, family in ipairs(helper.families) do
    it("loses nothing for a reader that sleeps a minute, " .. family.name, function()
      local a, b = helper.pair { seed = 1 }
      netstack.run(function()
        local client, server = helper.connection(a, b, family)
        local total = 5 * 1024 * 1024 + 7
        local writer = netstack.spawn(function()
          helper.send_stream(client, 1, total)
          client:close()
        end)
        netstack.sleep(60)
        assert.equal(0, client:info().snd_wnd)
        -- The window is told in units of 8 bytes (RFC 7323), so the last few may stay unused.
        assert.is_true(b:sockets()[1].queues.receive > BUFFER - 8)
        local packets = a:stats().out_packets
        assert.is_true(packets < 400, packets .. " packets for one full window") -- about 180 and a probe now and then
        assert.equal(total, helper.receive_stream(server, 1))
        writer:join()
        server:close()
      end)
    end)

    it("stops probing when the answer to a probe takes the last byte, " .. family.name, function()
      netstack.run(function()
        local socket, peer, stack = helper.by_hand(family)
        peer.window = 0
        peer:send(helper.ACK)
        netstack.sleep(0.01)
        socket:send("x")
        local probe = peer:expect("ACK", 10)
        assert.equal("x", probe.data)
        peer:send(helper.ACK) -- has taken it, and the window stays closed
        assert.is_nil(peer:take(1000))
        assert.is_nil(stack:stats().cause) -- lwIP would end in an assertion at the next probe
        assert.equal(0, socket:info().unacked)
        socket:abort()
      end)
    end)

    it("may begin at 0 and then be tiny, " .. family.name, function()
      netstack.run(function()
        local stack, far = helper.piped()
        local listener, peer = stack:bind("*", 80), helper.peer(far, family)
        peer.window = 0
        peer:connect(80)
        local socket = assert(listener:accept())
        assert.equal(2000, socket:send(("x"):rep(2000)))
        peer.window = 300
        peer:send(helper.ACK)
        assert.equal(1000, socket:send(("y"):rep(1000))) -- lwIP ended in an assertion here
        local got = ""
        while #got < 3000 do
          local segment = assert(peer:take(100))
          got, peer.ack = got .. segment.data, segment.seq + #segment.data
          peer:send(helper.ACK)
        end
        assert.equal(("x"):rep(2000) .. ("y"):rep(1000), got)
        assert.equal("LISTEN", stack:sockets()[1].state)
        socket:abort()
        listener:close()
        stack:close()
      end)
    end)

    it("loses nothing when both readers sleep, over and over, " .. family.name, function()
      local a, b = helper.pair { seed = 1 }
      netstack.run(function()
        local client, server = helper.connection(a, b, family)
        local total = 3 * 1024 * 1024
        local function read_slowly(socket, seed)
          local expected, left = helper.stream(seed), total
          while left > 0 do
            netstack.sleep(60)
            local part = assert(socket:receive_some(65536))
            assert.is_true(part == expected(#part))
            left = left - #part
          end
          assert.same({ nil, "closed" }, { socket:receive_some() })
          socket:close()
        end
        local function write(socket, seed)
          helper.send_stream(socket, seed, total)
          socket:shutdown("send")
        end
        netstack.spawn(write, client, 1)
        netstack.spawn(write, server, 2)
        netstack.spawn(read_slowly, client, 2)
        netstack.spawn(read_slowly, server, 1)
      end)
      assert.is_true(a:stats().out_packets < 20000, a:stats().out_packets .. " packets")
    end)

    -- lwIP answered each empty ACK at a closed window with another, without an end: time stood still.
    it("is quiet when both windows are full to the last byte and FIN follows, " .. family.name, function()
      for _, beyond in ipairs { -1, 0, 1 } do
        local a, b = helper.pair { seed = 1 }
        netstack.run(function()
          local client, server = helper.connection(a, b, family)
          for _, socket in ipairs { client, server } do
            netstack.spawn(function()
              socket:send(("x"):rep(BUFFER + beyond))
              socket:shutdown("send")
            end)
          end
          netstack.sleep(60)
          local packets = a:stats().out_packets
          netstack.sleep(600)
          -- With a byte left to send there are probes.
          local more = a:stats().out_packets - packets
          assert.is_true(more <= (beyond > 0 and 44 or 0), more .. " packets without a need")
          assert.equal(BUFFER + beyond, #client:receive("*a"))
          assert.equal(BUFFER + beyond, #server:receive("*a"))
          client:close()
          server:close()
        end)
      end
    end)

    it("answers an empty segment beyond the window with nothing, one before with ACK, " .. family.name, function()
      netstack.run(function()
        local socket, peer = helper.by_hand(family)
        peer:send(helper.ACK, nil, { seq = peer.seq + 70000000 })
        assert.is_nil(peer:take(1))
        peer:send(helper.ACK, nil, { seq = peer.seq - 1 }) -- a keepalive
        peer:expect("ACK", 1)
        socket:abort()
      end)
    end)
  end

  it("opens again in steps that are worth it", function()
    local a, b = helper.pair { seed = 1 }
    netstack.run(function()
      local client, server = helper.connection(a, b, helper.IPV4)
      netstack.spawn(function()
        client:send(("x"):rep(BUFFER + 100000))
        client:close()
      end)
      netstack.sleep(1)
      local before = b:stats().out_packets
      for _ = 1, 100 do
        server:receive(100)
        netstack.sleep(0)
      end
      assert.is_true(b:stats().out_packets - before <= 20, "the silly window syndrome (RFC 9293 3.8.6.2.2)")
      server:receive("*a")
      server:close()
    end)
  end)
end)
