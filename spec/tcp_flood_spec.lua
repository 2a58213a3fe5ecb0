-- Floods, while a connection that was there before goes on working: half-open connections, TIME_WAIT, segments for
-- nobody. And connections that follow one another at the same place.
local netstack = require "netstack"
local helper = require "spec.helper"
local packets = require "spec.packets"

local SYN, ACK, RST, FIN = helper.SYN, helper.ACK, helper.RST, helper.FIN
local run, sleep = netstack.run, netstack.sleep
local MSS = "\2\4\5\180"

for _, family in ipairs(helper.families) do
  local ipv6 = family.name == "IPv6"

  -- A segment from any of some thousand hosts.
  local function spoofed(i, fields)
    local segment = { from_port = 1024 + i % 60000, to_port = 80, seq = i * 7919, flags = SYN, options = MSS }
    for key, value in pairs(fields or {}) do segment[key] = value end
    local packet = helper.build(family, segment)
    local host = packets.bytes((ipv6 and "fd00::%x:%x" or "10.0.%d.%d"):format(1 + i % 200, 3 + i % 240))
    local at = ipv6 and 8 or 12
    return packet:sub(1, at) .. host .. packet:sub(at + #host + 1)
  end

  describe("A flood, " .. family.name .. ",", function()
    after_each(helper.nothing_left)

    -- A connection to a listener on port 80, which is flooded.
    local function flooded(name, fn)
      it(name, function()
        run(function()
          local stack, far = helper.piped { seed = 1 }
          local listener = stack:bind("*", 80, 32)
          local peer = helper.peer(far, family, 999)
          peer:connect(80)
          local socket = listener:accept()
          local function works()
            packets.drain(far)
            peer:send(ACK, "ping")
            assert.equal("ping", socket:receive(4))
            sleep(1)
            packets.drain(far)
          end
          fn(stack, far, works, listener)
          works()
          socket:abort()
          listener:close()
        end)
      end)
    end

    flooded("of SYNs leaves 32 half-open connections, for 20 s #guarded", function(stack, far, works)
      for i = 1, 5000 do
        far:send(spoofed(i))
        if i % 500 == 0 then
          sleep(0.001)
          packets.drain(far)
        end
      end
      assert.equal(33, stack:stats().tcp.connections)
      assert.equal(5000 - 32, stack:stats().tcp.syn_dropped)
      works()
      for _ = 1, 40 do
        sleep(1)
        packets.drain(far)
      end
      assert.equal(1, stack:stats().tcp.connections)
      assert.equal(0, #packets.drain(far))
    end)

    flooded("of segments for nobody is answered with resets, and leaves nothing", function(stack, far)
      local memory = stack:stats().memory.blocks
      local answers = 0
      for i = 1, 5000 do
        far:send(spoofed(i, { to_port = 81, flags = i % 2 == 0 and ACK or SYN }))
        far:send(spoofed(i, { to_port = 81, flags = RST }))
        if i % 400 == 0 or i == 5000 then
          sleep(0.001)
          answers = answers + #packets.drain(far)
        end
      end
      assert.equal(5000, answers)
      assert.equal(memory, stack:stats().memory.blocks)
    end)

    flooded("of closed connections leaves 4096 in TIME_WAIT, the last #guarded", function(stack, far, _, listener)
      for i = 1, 4500 do
        local peer = helper.peer(far, family, 1024 + i)
        peer:connect(80)
        listener:accept():close()
        peer:expect("FIN ACK", 0.001)
        peer:send(ACK + FIN)
        peer:expect("ACK", 0.001)
      end
      sleep(0.001)
      assert.equal(4096, stack:stats().tcp.time_wait)
      assert.equal(404, stack:stats().tcp.time_wait_evicted)
      sleep(3)
      assert.equal(0, stack:stats().tcp.time_wait)
    end)
  end)

  describe("TIME_WAIT, " .. family.name .. ",", function()
    after_each(helper.nothing_left)

    -- A listener whose connection from port 4000 was closed, by us first.
    local function waiting(name, fn, checksum)
      it(name, function()
        run(function()
          local stack = helper.watch(netstack.new { seed = 1 })
          local near, far = netstack.pipe { checksum = checksum }
          stack:attach(near, { addresses = { "10.0.0.1/24", "fd00::1/64" } })
          local listener = stack:bind("*", 80)
          local peer = helper.peer(far, family, 4000)
          peer:connect(80)
          local socket = listener:accept()
          socket:close()
          peer:expect("FIN ACK", 0.001)
          peer:send(FIN + ACK)
          peer:expect("ACK", 0.001)
          assert.equal(1, stack:stats().tcp.time_wait)
          fn(stack, peer)
          listener:close()
          sleep(3)
        end)
      end)
    end

    waiting("ends at a later SYN (RFC 9293 3.10.7.4)", function(stack, peer)
      peer:send(SYN, nil, { seq = peer.seq + 1, ack = 0, options = MSS })
      assert.equal("SYN ACK", peer:take(0.001).kind)
      assert.equal(0, stack:stats().tcp.time_wait)
      sleep(30)
      packets.drain(peer.far)
    end)

    waiting("stays for an old SYN, a reset (RFC 1337) and data", function(stack, peer)
      local seq, ack = peer.seq, peer.ack
      for _, flags in ipairs { RST, RST + ACK } do
        for _, off in ipairs { 0, 1, -1 } do
          peer:send(flags, nil, { seq = seq + off, ack = ack })
          assert.is_nil(peer:take(0.001))
        end
      end
      for _, off in ipairs { 0, -1, -1000 } do
        peer:send(SYN, nil, { seq = seq + off, ack = 0, options = MSS })
        local answer = peer:take(0.001)
        assert.same({ "ACK", seq, ack }, { answer.kind, answer.ack, answer.seq })
      end
      assert.equal(1, stack:stats().tcp.time_wait)
    end)

    it("never trips a peer up that connects 2,000 times in a row from the same port, we closing first", function()
      local a, b = helper.pair { seed = 1 }
      run(function()
        local listener = b:bind("*", 80)
        netstack.daemon(function()
          while true do
            local server = listener:accept()
            server:send("x")
            server:close()
          end
        end)
        for _ = 1, 2000 do
          local client = a:tcp()
          assert(client:bind("*", 5000))
          assert(client:connect(family.b, 80))
          assert.equal("x", client:receive("*a"))
          client:close()
          sleep(0.0001)
        end
        assert.is_true(netstack.now() < 1)
        sleep(0)
        assert.equal(1, b:stats().tcp.time_wait)
        listener:close()
      end)
    end)
  end)
end
