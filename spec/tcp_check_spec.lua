-- What a segment has to be before it changes a connection: RFC 9293 3.10.7 and RFC 5961, played by hand.
local netstack = require "netstack"
local helper = require "spec.helper"

local SYN, ACK, RST, FIN, PSH = helper.SYN, helper.ACK, helper.RST, helper.FIN, helper.PSH
local URG = 32
local run, spawn, sleep = netstack.run, netstack.spawn, netstack.sleep
local MSS = "\2\4\5\180" -- 1460

-- Nothing comes from the stack, not even a delayed acknowledgement.
local function silence(peer)
  assert.is_nil(peer:take(1))
end

-- The connection goes both ways.
local function works(socket, peer)
  peer:send(ACK + PSH, "ping")
  assert.equal("ping", socket:receive(4))
  assert(socket:send("pong"))
  local segment = peer:expect("PSH ACK", 1)
  assert.equal("pong", segment.data)
  peer:send(ACK)
  sleep(1)
end

for _, family in ipairs(helper.families) do
  describe("TCP over " .. family.name, function()
    after_each(helper.nothing_left)

    -- A socket connected to a peer by hand; it ends with a reset.
    local function connected(name, fn, config)
      it(name, function()
        run(function()
          local socket, peer, stack = helper.by_hand(family, config)
          fn(socket, peer, stack)
          socket:abort()
        end)
      end)
    end

    -- A listener on port 80 and a peer that has not said anything.
    local function listening(name, fn, config)
      it(name, function()
        run(function()
          local stack, far = helper.piped(config)
          local listener = stack:bind("*", 80)
          local peer = helper.peer(far, family, 4000)
          peer.their_port = 80
          fn(peer, stack, listener)
          listener:close()
          stack:close()
        end)
      end)
    end

    -- ------------------------------------------------------------------------------------------ data and windows

    connected("takes no data without ACK (RFC 9293 3.10.7.4, fifth) #guarded", function(socket, peer, stack)
      local seq = peer.seq
      peer:send(PSH, "evil")
      silence(peer)
      assert.equal(1, stack:stats().tcp.refused)
      peer.seq = seq
      works(socket, peer)
    end)

    connected("acknowledges what lies outside the window, and takes none of it (RFC 9293 3.10.7.4, first)",
      function(socket, peer)
        local seq = peer.seq
        for _, off in ipairs { -100, 300000, 2 ^ 31 } do
          peer:send(ACK + PSH, "evil", { seq = (seq + off) % 2 ^ 32 })
          assert.equal(seq, peer:expect("ACK", 0.001).ack)
        end
        works(socket, peer)
      end)

    connected("takes the part of a segment that lies in the window", function(socket, peer)
      peer:send(ACK + PSH, "abcdef")
      assert.equal("abc", socket:receive(3))
      peer:send(ACK + PSH, "defghi", { seq = peer.seq - 3 })
      peer.seq = peer.seq + 3
      assert.equal("defghi", socket:receive(6))
      sleep(1)
      repeat until not peer:take(0)
      works(socket, peer)
    end)

    connected("delivers urgent data among the rest (RFC 9293 3.8.5, RFC 6093 §4)", function(socket, peer)
      peer:send(ACK + PSH + URG, "urgent!")
      assert.equal("urgent!", socket:receive(7))
      peer:expect("ACK", 1)
      works(socket, peer)
    end)

    connected("keeps a bounded number of segments out of order #guarded", function(socket, peer, stack)
      local before = stack:stats().memory
      local seq = peer.seq
      for i = 1, 20000 do
        peer:send(ACK, "a", { seq = seq + 2 * i })
        if i % 500 == 0 then
          sleep(0.001)
          repeat until not peer:take(0)
        end
      end
      local stats = stack:stats()
      assert.is_true(stats.memory.blocks - before.blocks < 2 * (262144 / 512 + 20), stats.memory.blocks)
      assert.is_true(stats.tcp.out_of_order_dropped > 10000)
      -- What is dropped comes again: nothing is lost, and the holes fill.
      for i = 0, 2000 do
        peer:send(ACK, "ab", { seq = seq + 2 * i })
        if i % 500 == 0 then sleep(0.001) end
      end
      peer.seq = seq + 4002
      assert.is_true(("ab"):rep(2001) == socket:receive(4002))
      sleep(1)
      repeat until not peer:take(0)
      works(socket, peer)
    end)

    -- ------------------------------------------------------------------------------------------ RFC 5961

    connected("resets for a reset with the next number only (RFC 5961 3.2)", function(socket, peer)
      local seq = peer.seq
      for _, off in ipairs { 1, 100, 60000 } do
        peer:send(RST, nil, { seq = seq + off })
        assert.equal(seq, peer:expect("ACK", 0.001).ack) -- a challenge
      end
      for _, off in ipairs { -1, -5000, 300000 } do
        peer:send(RST, nil, { seq = seq + off })
        silence(peer)
      end
      works(socket, peer)
      peer:send(RST)
      assert.equal("connection reset", select(2, socket:receive(1)))
    end)

    connected("challenges a SYN, whatever its number (RFC 5961 4.2)", function(socket, peer)
      local seq, ack = peer.seq, peer.ack
      for _, off in ipairs { -1, 0, 7, 1000000 } do
        for _, flags in ipairs { SYN, SYN + ACK } do
          peer:send(flags, nil, { seq = seq + off, ack = ack })
          peer.seq = seq
          assert.equal(seq, peer:expect("ACK", 0.001).ack)
        end
      end
      works(socket, peer)
    end)

    connected("heeds an acknowledgement that can be meant only (RFC 5961 5.2) #guarded", function(socket, peer, stack)
      local seq, ack = peer.seq, peer.ack
      for _, wrong in ipairs { ack + 1, ack + 100000, ack - 70000, ack - 2 ^ 30 } do
        peer:send(ACK + PSH, "evil", { ack = wrong % 2 ^ 32 })
        peer.seq = seq
        assert.equal(seq, peer:expect("ACK", 0.001).ack)
      end
      assert.equal(4, stack:stats().tcp.refused)
      works(socket, peer)
    end)

    connected("answers ten challenges a second, each connection for itself (RFC 5961 §7) #guarded",
      function(socket, peer, stack)
        local function flood()
          local answers = 0
          for i = 1, 100 do
            peer:send(RST, nil, { seq = peer.seq + i })
            sleep(0.001)
            while peer:take(0) do answers = answers + 1 end
          end
          return answers
        end
        assert.equal(10, flood())
        assert.equal(90, stack:stats().tcp.challenges_limited)
        -- Another connection has all of its own.
        local listener = stack:bind("*", 81)
        local other = helper.peer(peer.far, family, 5000)
        other:connect(81)
        local accepted = listener:accept()
        local first = peer
        peer = other
        assert.equal(10, flood())
        peer = first
        sleep(1)
        assert.equal(10, flood())
        assert.equal(30, stack:stats().tcp.challenge_acks)
        works(socket, peer)
        accepted:abort()
        listener:close()
      end)

    -- ------------------------------------------------------------------------------------------ resets

    listening("resets what is for nobody, as RFC 9293 3.10.7.1 says #guarded", function(peer)
      peer:send(SYN, "data", { to_port = 9, seq = 7000, ack = 55 })
      local reset = peer:take(1)
      assert.same({ "RST ACK", 0, 7005 }, { reset.kind, reset.seq, reset.ack })
      peer:send(FIN + ACK, "data", { to_port = 9, seq = 7000, ack = 12345 })
      reset = peer:take(1)
      assert.same({ "RST", 12345, 0 }, { reset.kind, reset.seq, reset.ack })
      for _, flags in ipairs { RST, RST + ACK, RST + SYN, RST + FIN } do -- never in answer to a reset
        peer:send(flags, nil, { to_port = 9, seq = 7000, ack = 12345 })
        silence(peer)
      end
    end)

    listening("resets a listener's visitor that acknowledges, ignores resets (RFC 9293 3.10.7.2) #guarded",
      function(peer, stack)
        peer:send(ACK, nil, { seq = 7000, ack = 12345 })
        local reset = peer:take(1)
        assert.same({ "RST", 12345 }, { reset.kind, reset.seq })
        peer:send(RST, nil, { seq = 7000 })
        peer:send(FIN, nil, { seq = 7000 })
        silence(peer)
        assert.equal(0, stack:stats().tcp.connections)
      end)

    -- ------------------------------------------------------------------------------------------ opening

    listening("sends SYN ACK again for the same SYN, and establishes for the right ACK only", function(peer, stack)
      peer:send(SYN, nil, { options = MSS })
      local first = peer:expect("SYN ACK", 1)
      peer:send(SYN, nil, { seq = peer.seq - 1, options = MSS })
      assert.equal(first.seq, peer:expect("SYN ACK", 0.001).seq)
      peer:send(ACK, nil, { ack = first.seq + 1000 })
      local reset = peer:take(0.001)
      assert.same({ "RST", first.seq + 1000 }, { reset.kind, reset.seq })
      assert.equal("SYN-RECEIVED", stack:sockets()[2].state)
      peer:send(ACK)
      sleep(0.001)
      assert.equal("ESTABLISHED", stack:sockets()[2].state)
    end)

    listening("establishes for an ACK in the window only (RFC 9293 3.10.7.4, first) #guarded", function(peer, stack)
      peer:send(SYN, nil, { options = MSS })
      peer:expect("SYN ACK", 1)
      peer:send(ACK, nil, { seq = peer.seq + 1000000 })
      peer:expect("ACK", 0.001)
      assert.equal("SYN-RECEIVED", stack:sockets()[2].state)
      peer:send(ACK)
      sleep(0.001)
      assert.equal("ESTABLISHED", stack:sockets()[2].state)
    end)

    listening("gives up on a reset of SYN-RECEIVED with the next number only", function(peer, stack)
      peer:send(SYN, nil, { options = MSS })
      peer:expect("SYN ACK", 1)
      peer:send(RST, nil, { seq = peer.seq + 1 })
      peer:expect("ACK", 0.001)
      assert.equal(1, stack:stats().tcp.connections)
      peer:send(RST)
      sleep(0.001)
      assert.equal(0, stack:stats().tcp.connections)
    end)

    -- A connect that is under way, and the peer that has seen its SYN.
    local function connecting(name, fn)
      it(name, function()
        run(function()
          local stack, far = helper.piped()
          local peer = helper.peer(far, family)
          local task = spawn(function() return stack:connect(family.b, 80) end)
          local syn = peer:expect("SYN", 1)
          fn(peer, task, syn, stack)
          local socket = task:join(0)
          if socket then socket:abort() end
          stack:close()
        end)
      end)
    end

    connecting("heeds a reset of its SYN that acknowledges it only (RFC 9293 3.10.7.3, second) #guarded",
      function(peer, task)
        peer:send(RST, nil, { ack = peer.ack }) -- no ACK: anybody's
        peer:send(RST + ACK, nil, { ack = peer.ack + 1 })
        peer:send(RST + ACK, nil, { ack = peer.ack - 1 })
        sleep(0.1)
        assert.is_nil((task:join(0)))
        assert.equal("timeout", select(2, task:join(0)))
        peer:send(RST + ACK)
        assert.same({ nil, "connection refused" }, { task:join() })
      end)

    connecting("resets what acknowledges anything but its SYN, and goes on (RFC 9293 3.10.7.3, first) #guarded",
      function(peer, task, syn)
        peer:send(ACK, nil, { seq = 9000, ack = syn.seq + 500 })
        local reset = peer:take(0.001)
        assert.same({ "RST", syn.seq + 500 }, { reset.kind, reset.seq })
        peer:expect("SYN", 0.001) -- at once: the peer has forgotten the old connection now
        peer:send(SYN + ACK, nil, { options = MSS })
        peer:expect("ACK", 1)
        works(assert(task:join()), peer)
      end)

    -- ------------------------------------------------------------------------------------------ crossing SYNs

    connecting("opens when SYNs cross, the peer answering ACK (RFC 9293 3.5, figure 8) #guarded",
      function(peer, task, syn, stack)
        peer:send(SYN, nil, { options = "\2\4\2\0\1\3\3\2\1\1\4\2", ack = 0 })
        local answer = peer:expect("SYN ACK", 1)
        assert.same({ syn.seq, peer.seq }, { answer.seq, answer.ack })
        assert.equal("SYN-RECEIVED", stack:sockets()[1].state)
        peer.window = 1000
        peer:send(ACK)
        local socket = assert(task:join())
        sleep(0.1)
        repeat until not peer:take(0)
        local info = socket:info()
        assert.same({ "ESTABLISHED", 512, 4000 }, { info.state, info.mss, info.snd_wnd }) -- what its SYN said
        peer.window = 65535
        works(socket, peer)
      end)

    connecting("opens when SYNs cross, the peer answering SYN ACK or data #guarded", function(peer, task, syn)
      peer:send(SYN, nil, { options = MSS, ack = 0 })
      assert.equal(syn.seq, peer:expect("SYN ACK", 1).seq)
      peer:send(SYN, nil, { options = MSS, ack = 0, seq = peer.seq - 1 }) -- it has not seen our answer
      assert.equal(syn.seq, peer:expect("SYN ACK", 0.001).seq)
      peer:send(SYN + ACK, nil, { options = MSS, seq = peer.seq - 1 })
      peer:expect("ACK", 0.001)
      works(assert(task:join()), peer)
    end)

    connecting("opens when SYNs cross, with data in the first ACK #guarded", function(peer, task)
      peer:send(SYN, nil, { options = MSS, ack = 0 })
      peer:expect("SYN ACK", 1)
      peer:send(ACK + PSH, "early")
      local socket = assert(task:join())
      assert.equal("early", socket:receive(5))
      sleep(0.1)
      repeat until not peer:take(0)
      works(socket, peer)
    end)

    connecting("is refused by a reset after SYNs have crossed #guarded", function(peer, task)
      peer:send(SYN, nil, { options = MSS, ack = 0 })
      peer:expect("SYN ACK", 1)
      peer:send(RST, nil, { seq = peer.seq + 5 })
      sleep(0.1)
      assert.equal("timeout", select(2, task:join(0)))
      peer:send(RST)
      assert.same({ nil, "connection refused" }, { task:join() })
    end)

    it("opens between two stacks that connect to each other at once #guarded", function()
      local a, b = helper.bad_link({ delay = 1, late = 0.04, seed = 3 })
      run(function()
        local sockets, tasks = {}, {}
        for i, stack in ipairs { a, b } do
          sockets[i] = stack:tcp()
          assert(sockets[i]:bind("*", 1000 + i))
        end
        for i, host in ipairs { family.b, family.a } do
          tasks[i] = spawn(function() return sockets[i]:connect(host, 1000 + 3 - i) end)
        end
        assert.same({ 1, 1 }, { tasks[1]:join(), tasks[2]:join() })
        helper.exchange(sockets[1], sockets[2], 100000)
        sleep(5)
      end)
    end)

    -- ------------------------------------------------------------------------------------------ options

    connecting("takes 536 bytes for granted, 1220 over IPv6, when a SYN names no MSS (RFC 9293 3.7.1)"
      .. (family.name == "IPv6" and " #guarded" or ""), function(peer, task, _, stack)
        local default = family.name == "IPv6" and 1220 or 536
        peer:send(SYN + ACK)
        peer:expect("ACK", 1)
        local socket = assert(task:join())
        assert.equal(default, socket:info().mss)
        local listener = stack:bind("*", 81)
        local other = helper.peer(peer.far, family, 5000)
        other.their_port = 81
        other:send(SYN)
        other:expect("SYN ACK", 1)
        other:send(ACK)
        local accepted = listener:accept()
        assert.equal(default, accepted:info().mss)
        accepted:abort()
        listener:close()
      end)

    connecting("sends no more than the peer's MSS, however small or large", function(peer, task)
      peer:send(SYN + ACK, nil, { options = "\2\4\0\64" })
      peer:expect("ACK", 1)
      local socket = assert(task:join())
      assert(socket:send(("x"):rep(100)))
      assert.equal(64, #peer:expect("ACK", 1).data)
    end)

    connecting("takes a window scale above 14 for 14 (RFC 7323 2.3)", function(peer, task)
      peer:send(SYN + ACK, nil, { options = MSS .. "\3\3\15\1" })
      peer:expect("ACK", 1)
      peer.window = 3
      peer:send(ACK)
      local socket = assert(task:join())
      sleep(0.001)
      assert.equal(3 * 2 ^ 14, socket:info().snd_wnd)
    end)

    connected("ignores a window scale that is no SYN's (RFC 7323 1.3)", function(socket, peer)
      peer.window = 500
      peer:send(ACK, nil, { options = "\3\3\7\1" })
      sleep(0.001)
      assert.equal(500, socket:info().snd_wnd)
    end)
  end)
end
