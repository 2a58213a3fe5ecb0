-- When TCP does what nobody asked for just then. The other end is driven by hand, on the virtual clock.
local netstack = require "netstack"
local helper = require "spec.helper"

local now = netstack.now

local function near(expected, time, what)
  assert.is_true(math.abs(time - expected) < 0.0021,
    ("%s at %.4f s, expected %.4f s"):format(what or "it came", time, expected))
end

describe("TCP timers", function()
  after_each(helper.nothing_left)

  for _, family in ipairs(helper.families) do
    local function spec(name, fn)
      it(name .. ", " .. family.name, function()
        netstack.run(function() fn(family) end)
      end)
    end

    spec("repeat SYN after 1 s, doubling, and give up after 75 s", function()
      local stack, far = helper.piped()
      local peer = helper.peer(far, family)
      local task = netstack.spawn(function()
        local socket, err = stack:connect(family.b, 80)
        return socket, err, now()
      end)
      local first
      for _, time in ipairs { 0, 1, 3, 7, 15, 31, 63 } do
        local syn = peer:expect("SYN", 100)
        near(time, syn.time, "SYN")
        first = first or syn
        assert.equal(first.seq, syn.seq)
        assert.equal(first.options, syn.options)
      end
      assert.is_nil(peer:take(1000))
      local socket, err, time = task:join()
      assert.is_nil(socket)
      assert.equal("timeout", err)
      near(75, time, "the end")
    end)

    spec("repeat SYN ACK after 1 s, doubling, and forget the connection", function()
      local stack, far = helper.piped()
      local listener = stack:bind("*", 80)
      local peer = helper.peer(far, family, 5555)
      peer.their_port = 80
      local start = now()
      peer:send(helper.SYN, nil, { options = "\2\4\5\180" })
      for _, time in ipairs { 0, 1, 3, 7, 15 } do
        near(start + time, peer:expect("SYN ACK", 100).time, "SYN ACK")
      end
      assert.is_nil(peer:take(1000))
      assert.equal(1, #stack:sockets())
      listener:close()
    end)

    spec("send again after 200 ms, doubling, up to 60 s, and give up", function()
      local socket, peer = helper.by_hand(family)
      socket:send("hello")
      local start = now()
      local data = peer:take(1)
      near(start, data.time)
      local time, wait = start, 0.2
      for _ = 1, 12 do
        time = time + wait
        local again = peer:take(100)
        near(time, again.time, "a retransmission")
        assert.equal(data.seq, again.seq)
        assert.equal("hello", again.data)
        wait = math.min(wait * 2, 60)
      end
      assert.is_nil(peer:take(50))
      assert.equal(12, socket:info().retransmits)
      assert.same({ nil, "timeout", "" }, { socket:receive(1) })
      near(time + 60, now(), "the end")
      assert.same({ nil, "closed", 0 }, { socket:send("x") })
      socket:close()
    end)

    spec("derive the timeout from the round trip (RFC 6298)", function()
      local socket, peer = helper.by_hand(family)
      local function round_trip(seconds)
        socket:send("x")
        peer:expect("PSH ACK", 1)
        netstack.sleep(seconds)
        peer:send(helper.ACK, nil, { ack = peer.ack + 0 })
        netstack.sleep(0)
        netstack.sleep(0.001)
      end
      local function advance() peer:send(helper.ACK) end
      -- The handshake's sample was nought.
      local srtt, rttvar = 0, 0
      for _ = 1, 30 do
        round_trip(0.15)
        rttvar = rttvar * 3 / 4 + math.abs(srtt - 0.15) / 4
        srtt = srtt * 7 / 8 + 0.15 / 8
        local info = socket:info()
        near(srtt, info.rtt, "srtt")
        near(rttvar, info.rttvar, "rttvar")
        near(math.max(srtt + 4 * rttvar, 0.2), info.rto, "rto")
      end
      -- Karn: what was sent twice says nothing about the round trip.
      local before = socket:info()
      socket:send("y")
      local start = now()
      peer:take(1)
      near(start + before.rto, peer:expect("PSH ACK", 10).time, "a retransmission")
      netstack.sleep(0.1)
      advance()
      netstack.sleep(0.001)
      assert.equal(before.rtt, socket:info().rtt)
      assert.equal(before.rttvar, socket:info().rttvar)
      -- and the timeout is what it was once something new is acknowledged
      near(before.rto, socket:info().rto, "rto")
      socket:abort()
    end)

    spec("send again at once after three duplicates (RFC 5681)", function()
      local socket, peer = helper.by_hand(family)
      socket:setoption("tcp-nodelay", true)
      for i = 1, 5 do
        socket:send(tostring(i))
        assert.equal(tostring(i), peer:take(1).data)
        if i > 1 then peer:send(helper.ACK) end -- the first is lost
      end
      local again = peer:take(0.1)
      assert.equal("1", again.data)
      near(now(), again.time)
      assert.equal(1, socket:info().retransmits)
      socket:abort()
    end)

    spec("delay an ACK by 40 ms, but not that of every second segment", function()
      local socket, peer = helper.by_hand(family)
      local start = now()
      peer:send(helper.ACK + helper.PSH, "one")
      local ack = peer:take(1)
      near(start + 0.04, ack.time, "the ACK")
      assert.equal(peer.seq, ack.ack)
      start = now()
      peer:send(helper.ACK + helper.PSH, "two")
      peer:send(helper.ACK + helper.PSH, "three")
      ack = peer:take(1)
      near(start, ack.time, "the ACK")
      assert.equal(peer.seq, ack.ack)
      assert.is_nil(peer:take(1))
      -- Data takes it along.
      peer:send(helper.ACK + helper.PSH, "four")
      netstack.sleep(0.01)
      socket:send("answer")
      ack = peer:take(1)
      assert.equal("answer", ack.data)
      assert.equal(peer.seq, ack.ack)
      assert.equal("onetwothreefour", socket:receive(15))
      socket:abort()
    end)

    spec("probe a closed window", function()
      local socket, peer = helper.by_hand(family)
      peer.window = 0
      peer:send(helper.ACK)
      netstack.sleep(1)
      socket:send("hello")
      local time, wait, rto = now(), 0.2, socket:info().rto
      near(0.2, rto, "rto")
      for _ = 1, 20 do
        time = time + wait
        local probe = peer:take(100)
        near(time, probe.time, "a probe")
        assert.equal("h", probe.data)
        peer:send(helper.ACK) -- closed still: it goes on for ever (RFC 9293 3.8.6.1)
        wait = math.min(wait * 2, 60)
      end
      peer.window = 3 -- not wide enough for all of it
      peer:send(helper.ACK)
      local part = peer:expect("PSH ACK", 100)
      assert.is_true(part.data == "hel" or part.data == "h", part.data)
      peer.ack = part.seq + #part.data
      peer.window = 1000
      peer:send(helper.ACK)
      local rest = peer:take(1)
      assert.equal("hello", part.data .. rest.data)
      socket:abort()
    end)

    spec("keep FIN behind data that a small window splits", function()
      local socket, peer = helper.by_hand(family)
      peer.window = 3
      peer:send(helper.ACK)
      netstack.sleep(0.1)
      socket:send("hello")
      socket:shutdown("send")
      local got, fin = "", false
      for _ = 1, 10 do
        local segment = peer:take(10)
        if not segment then break end
        assert.equal(#got, (segment.seq - peer.ack + #got) % 4294967296)
        got = got .. segment.data
        fin = helper.has(segment, helper.FIN)
        if fin then assert.equal("hello", got) end
        peer.ack = peer.ack + #segment.data + (fin and 1 or 0)
        peer:send(helper.ACK)
      end
      assert.equal("hello", got)
      assert.is_true(fin)
      socket:abort()
    end)

    spec("probe a peer that is silent: keepalive", function()
      local socket, peer = helper.by_hand(family)
      socket:setoption("keepalive", true)
      socket:setoption("tcp-keepidle", 10)
      socket:setoption("tcp-keepintvl", 2)
      socket:setoption("tcp-keepcnt", 3)
      local start = now()
      local probe = peer:take(20)
      near(start + 10, probe.time, "a probe")
      assert.equal("", probe.data)
      assert.equal(peer.ack - 1, probe.seq)
      peer:send(helper.ACK) -- still there
      start = now()
      for _, time in ipairs { 10, 12, 14 } do near(start + time, peer:take(20).time, "a probe") end
      local reader = netstack.spawn(function() return socket:receive(1) end)
      local reset = peer:take(20)
      assert.equal("RST ACK", reset.kind)
      near(start + 16, reset.time, "the end")
      assert.same({ nil, "timeout", "" }, { reader:join() })
      assert.same({ nil, "closed", "" }, { socket:receive(1) })
      socket:close()
    end)

    spec("count keepalive from the last segment that came", function()
      local socket, peer = helper.by_hand(family)
      socket:setoption("tcp-keepidle", 10)
      socket:setoption("keepalive", true)
      netstack.sleep(7)
      peer:send(helper.ACK + helper.PSH, "x")
      local start = now()
      assert.equal("ACK", peer:take(1).kind)
      near(start + 10, peer:take(20).time, "a probe")
      socket:abort()
    end)

    spec("leave an idle connection in peace", function()
      local a, b = helper.pair { seed = 1 }
      local client, server = helper.connection(a, b, family)
      client:send("hello")
      server:receive(5)
      netstack.sleep(1)
      for _, stack in ipairs { a, b } do
        local time = stack:stats().time
        assert.is_nil((stack:poll_delay(time)))
      end
      local packets = a:stats().out_packets + b:stats().out_packets
      netstack.sleep(1e6)
      assert.equal(packets, a:stats().out_packets + b:stats().out_packets)
      client:send("still there")
      assert.equal("still there", server:receive(11))
      client:close()
      server:close()
      netstack.sleep(3) -- TIME_WAIT
      assert.is_nil((a:poll_delay(a:stats().time)))
    end)

    spec("end TIME_WAIT after 2 s", function()
      local a, b = helper.pair { seed = 1 }
      local client, server = helper.connection(a, b, family)
      client:close()
      netstack.sleep(0.5)
      server:close()
      netstack.sleep(1.9)
      assert.equal("TIME-WAIT", a:sockets()[1].state)
      assert.equal(1, a:stats().tcp.time_wait)
      assert.equal(0, #b:sockets())
      netstack.sleep(0.2)
      assert.equal(0, #a:sockets())
    end)
  end

  it("are told by poll_delay", function()
    local stack, far = helper.piped { seed = 1 }
    local channel = stack:channel()
    local ticket = assert(channel:submit("tcp.connect", { host = "10.0.0.2", port = 80 }))
    stack:poll(100)
    assert.equal(1, stack:poll_delay(100))
    assert.equal(0.75, stack:poll_delay(100.25))
    assert.equal(0, stack:poll_delay(101))
    local count = 0
    while far:receive() do count = count + 1 end
    assert.equal(1, count)
    stack:poll(101)
    assert.is_string(far:receive())
    assert.equal(2, stack:poll_delay(101))
    assert.is_true(ticket:cancel())
    assert.is_nil((stack:poll_delay(101)))
    stack:close()
  end)
end)
