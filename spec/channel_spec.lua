-- The command channel by itself: submit, stack:poll(now) and pipe ends driven by hand. Nothing here waits but the
-- blocks that say so.
local netstack = require "netstack"
local packets = require "spec.packets"

local failure, settle, leaves_nothing = packets.failure, packets.settle, packets.leaves_nothing

-- The response of a command that is answered at once.
local function done(stack, channel, op, args, now)
  local ticket = assert(channel:submit(op, args))
  assert.is_false(ticket:done())
  assert.same({ nil, "wouldblock" }, { ticket:result() })
  stack:poll(now or 0)
  assert.is_true(ticket:done())
  return ticket:result()
end

-- A pair of stacks with a channel each, and what settles them.
local function pair(config, pipe)
  local a, b = assert(netstack.pair(config, pipe))
  local function go(now) settle(now or 0, a, b) end
  return a, b, a:channel(), b:channel(), go
end

describe("UDP by steps", function()
  for _, family in ipairs { { "10.0.0.1", "10.0.0.2" }, { "fd00::1", "fd00::2" } } do
    it("binds, sends, and receives what the far end puts back: " .. family[1], function()
      local stack, far = netstack.piped()
      local channel = stack:channel()
      local bound = done(stack, channel, "udp.bind", { host = "*", port = 1053 })
      assert.same({ "*", 1053 }, { bound.host, bound.port })
      local sent = channel:submit("udp.send", { handle = bound.handle, host = family[2], port = 53, data = "hello" })
      assert.same({ nil, "empty" }, { far:receive() })
      assert.is_true((stack:poll(0)))
      assert.same({}, sent:result())
      local packet = assert(far:receive())
      local p = packets.parse(packet)
      assert.same({ packets.bytes(family[1]), packets.bytes(family[2]), 1053, 53, "hello", 13, 17, #packet },
        { p.source, p.destination, p.source_port, p.destination_port, p.data, p.udp_length, p.protocol, p.length })
      assert.equal(0, p.udp_checksum) -- a pipe without checksums
      assert.same({ nil, "empty" }, { far:receive() })

      local received = channel:submit("udp.recv", { handle = bound.handle })
      stack:poll(1)
      assert.same({ nil, "wouldblock" }, { received:result() })
      assert.equal(1, far:send(packets.swapped(packet)))
      assert.is_false(received:done())
      stack:poll(2)
      assert.same({ host = family[2], port = 53, data = "hello" }, (received:result()))

      assert.same({}, done(stack, channel, "udp.close", { handle = bound.handle }))
      assert.same({ nil, "closed" }, { channel:submit("udp.recv", { handle = bound.handle }) })
      leaves_nothing(stack)
    end)
  end

  it("cuts to max_len and tells the original length", function()
    local stack, far = netstack.piped()
    local channel = stack:channel()
    local handle = done(stack, channel, "udp.bind", { host = "10.0.0.1", port = 7 }).handle
    for _ = 1, 3 do far:send(packets.udp("10.0.0.2", 9, "10.0.0.1", 7, "0123456789")) end
    assert.same({ host = "10.0.0.2", port = 9, data = "0123", truncated = 10 },
      done(stack, channel, "udp.recv", { handle = handle, max_len = 4 }))
    assert.same({ host = "10.0.0.2", port = 9, data = "0123456789" },
      done(stack, channel, "udp.recv", { handle = handle, max_len = 10 }))
    assert.same({ host = "10.0.0.2", port = 9, data = "0123456789" },
      done(stack, channel, "udp.recv", { handle = handle }))
    assert.is_true(#done(stack, channel, "udp.send",
      { handle = handle, host = "10.0.0.2", port = 1, data = "" }) == 0)
    assert.equal("", packets.parse(far:receive()).data)
    channel:post("udp.close", { handle = handle })
    stack:poll(0)
    leaves_nothing(stack)
  end)

  it("tells what goes wrong", function()
    local stack = netstack.piped()
    local channel = stack:channel()
    local first = done(stack, channel, "udp.bind", { host = "10.0.0.1", port = 7 })
    assert.same({ nil, "address already in use" },
      { done(stack, channel, "udp.bind", { host = "*", port = 7 }) })
    assert.same({ nil, "address not available" },
      { done(stack, channel, "udp.bind", { host = "10.0.0.7", port = 7 }) })
    assert.same({ nil, "wrong ip version" },
      { done(stack, channel, "udp.send", { handle = first.handle, host = "fd00::2", port = 7, data = "" }) })
    assert.same({ nil, "message too long" }, { done(stack, channel, "udp.send",
      { handle = first.handle, host = "10.0.0.2", port = 7, data = ("x"):rep(65508) }) })
    assert.same({ nil, "invalid address" }, { channel:submit("udp.bind", { host = "10.0.0", port = 7 }) })
    assert.same({ nil, "invalid address" }, { channel:submit("udp.bind", { host = "10.0.0.1\0", port = 7 }) })
    channel:post("udp.close", { handle = first.handle })
    stack:poll(0)
    leaves_nothing(stack)
  end)
end)

describe("TCP by steps", function()
  for _, family in ipairs { { "10.0.0.1", "10.0.0.2" }, { "fd00::1", "fd00::2" } } do
    it("connects, sends, receives, ends: " .. family[1], function()
      local a, b, ca, cb, go = pair()
      local listener = done(b, cb, "tcp.listen", { host = family[2], port = 80 })
      assert.same({ family[2], 80 }, { listener.host, listener.port })
      local accepted = cb:submit("tcp.accept", { handle = listener.handle })
      local connected = ca:submit("tcp.connect", { host = family[2], port = 80, local_port = 5000 })
      a:poll(0)
      assert.is_false(connected:done())
      b:poll(0)
      assert.is_false(accepted:done())
      go()
      local client = assert(connected:result())
      assert.same({ family[1], 5000 }, { client.local_host, client.local_port })
      local server = assert(accepted:result())
      assert.same({ family[1], 5000, family[2], 80 },
        { server.host, server.port, server.local_host, server.local_port })

      local received = cb:submit("tcp.recv", { handle = server.handle })
      local sent = ca:submit("tcp.send", { handle = client.handle, data = "hello, world" })
      go()
      assert.same({ sent = 12 }, (sent:result()))
      assert.same({ data = "hello, world" }, (received:result()))
      ca:post("tcp.send", { handle = client.handle, data = "abcdef" })
      go(1) -- Nagle has waited for the acknowledgement
      assert.same({ data = "abc" }, done(b, cb, "tcp.recv", { handle = server.handle, max_len = 3 }))
      assert.same({ data = "def" }, done(b, cb, "tcp.recv", { handle = server.handle, max_len = 10 }))

      local waits = cb:submit("tcp.recv", { handle = server.handle })
      assert.same({}, done(a, ca, "tcp.shutdown", { handle = client.handle, how = "send" }))
      go()
      assert.same({ finished = true }, (waits:result()))
      assert.same({ finished = true }, done(b, cb, "tcp.recv", { handle = server.handle }))
      assert.same({ nil, "closed" }, { done(a, ca, "tcp.send", { handle = client.handle, data = "x" }) })
      assert.same({ sent = 4 }, done(b, cb, "tcp.send", { handle = server.handle, data = "back" }))
      go()
      assert.same({ data = "back" }, done(a, ca, "tcp.recv", { handle = client.handle }))

      for _, close in ipairs { { b, cb, server }, { a, ca, client }, { b, cb, listener } } do
        assert.same({}, done(close[1], close[2], "tcp.close", { handle = close[3].handle }))
        assert.same({ nil, "closed" }, { close[2]:submit("tcp.recv", { handle = close[3].handle }) })
      end
      go()
      go(1000) -- TIME_WAIT is over
      leaves_nothing(a, b)
    end)
  end

  it("is refused, reset, aborted", function()
    local a, b, ca, cb, go = pair()
    local refused = ca:submit("tcp.connect", { host = "10.0.0.2", port = 81 })
    go()
    assert.same({ nil, "connection refused" }, { refused:result() })
    local listener = done(b, cb, "tcp.listen", { host = "*", port = 80, backlog = 4 })
    assert.equal("*", listener.host)
    local accepted, connected
    local function connect()
      accepted = cb:submit("tcp.accept", { handle = listener.handle })
      connected = ca:submit("tcp.connect", { host = "10.0.0.2", port = 80 })
      go()
      return connected:result().handle, accepted:result().handle
    end
    local client, server = connect()
    local waits = cb:submit("tcp.recv", { handle = server })
    assert.same({}, done(a, ca, "tcp.abort", { handle = client }))
    go()
    assert.same({ nil, "connection reset" }, { waits:result() })
    assert.same({ nil, "closed" }, { done(b, cb, "tcp.recv", { handle = server }) })
    cb:post("tcp.close", { handle = server })
    client, server = connect()
    waits = cb:submit("tcp.recv", { handle = server })
    b:poll(0)
    assert.same({}, done(b, cb, "tcp.abort", { handle = server }))
    assert.same({ nil, "connection aborted" }, { waits:result() })
    go()
    ca:post("tcp.close", { handle = client })
    waits = cb:submit("tcp.accept", { handle = listener.handle })
    b:poll(0)
    cb:post("tcp.close", { handle = listener.handle })
    b:poll(0)
    assert.same({ nil, "closed" }, { waits:result() })
    go()
    go(1000)
    leaves_nothing(a, b)
  end)

  it("answers an accept after a listener's shutdown, and reads on after a receive shutdown", function()
    local a, b, ca, cb, go = pair()
    local listener = done(b, cb, "tcp.listen", { host = "*", port = 0 })
    assert.is_true(listener.port >= 1024)
    local accept = cb:submit("tcp.accept", { handle = listener.handle })
    local connect = ca:submit("tcp.connect",
      { host = "10.0.0.2", port = listener.port, local_host = "10.0.0.1", local_port = 0 })
    go()
    local client, server = connect:result(), accept:result()
    assert.equal("10.0.0.1", client.local_host)
    assert.same({}, done(b, cb, "tcp.shutdown", { handle = server.handle, how = "receive" }))
    ca:post("tcp.send", { handle = client.handle, data = "nobody reads this" })
    go()
    assert.same({ finished = true }, done(b, cb, "tcp.recv", { handle = server.handle }))
    assert.same({}, done(b, cb, "tcp.shutdown", { handle = server.handle }))
    go()
    assert.same({ finished = true }, done(a, ca, "tcp.recv", { handle = client.handle }))
    for _, close in ipairs { { cb, server }, { ca, client }, { cb, listener } } do
      close[1]:post("tcp.close", { handle = close[2].handle })
    end
    go()
    go(1000)
    leaves_nothing(a, b)
  end)

  it("takes as much as there is room for, at least a byte, and waits when there is none", function()
    local a, b, ca, cb, go = pair { tcp_buffer_size = 4096 }
    local listener = done(b, cb, "tcp.listen", { host = "10.0.0.2", port = 80 })
    local accept = cb:submit("tcp.accept", { handle = listener.handle })
    local connect = ca:submit("tcp.connect", { host = "10.0.0.2", port = 80 })
    go()
    local client, server = connect:result().handle, accept:result().handle
    local total = 0
    local pending
    repeat
      pending = ca:submit("tcp.send", { handle = client, data = ("x"):rep(3000) })
      go()
      local response = pending:result()
      if response then
        assert.is_true(response.sent >= 1)
        total = total + response.sent
      end
    until not response
    assert.is_true(total > 4096)
    assert.same({ nil, "wouldblock" }, { pending:result() })
    local read = 0
    while read < total do
      local response = done(b, cb, "tcp.recv", { handle = server })
      read = read + #response.data
      go()
    end
    assert.is_true(pending:done())
    for _, close in ipairs { { cb, server }, { ca, client }, { cb, listener.handle } } do
      close[1]:post("tcp.abort", { handle = close[2] })
    end
    go()
    leaves_nothing(a, b)
  end)
end)

describe("Raw packets and addresses by steps", function()
  it("opens, sends, receives, closes", function()
    local stack, far = netstack.piped()
    local channel = stack:channel()
    local handle = done(stack, channel, "raw.open", { family = "ipv4", protocol = 99 }).handle
    local packet = packets.ipv4("10.0.0.1", "10.0.0.2", 99, "data")
    assert.same({}, done(stack, channel, "raw.send", { handle = handle, data = packet }))
    assert.equal(packet, far:receive())
    local back = packets.ipv4("10.0.0.2", "10.0.0.1", 99, "back")
    far:send(back)
    far:send(back)
    assert.same({ data = back }, done(stack, channel, "raw.recv", { handle = handle }))
    assert.same({ data = back:sub(1, 20), truncated = 24 },
      done(stack, channel, "raw.recv", { handle = handle, max_len = 20 }))
    assert.same({}, done(stack, channel, "raw.close", { handle = handle }))
    assert.same({ nil, "closed" }, { channel:submit("raw.recv", { handle = handle }) })
    handle = done(stack, channel, "raw.open", { family = "ipv6", protocol = 99 }).handle
    assert.same({ nil, "wrong ip version" }, { done(stack, channel, "raw.send", { handle = handle, data = packet }) })
    channel:post("raw.close", { handle = handle })
    stack:poll(0)
    leaves_nothing(stack)
  end)

  it("sets the addresses", function()
    local stack, far = netstack.piped()
    local channel = stack:channel()
    assert.same({}, done(stack, channel, "stack.set_addresses", { addresses = { "192.168.7.1/16", "fd77::1/48" } }))
    assert.same({ "192.168.7.1/16", "fd77::1/48" }, stack:addresses())
    far:send(packets.icmp("192.168.9.9", "192.168.7.1", 8, 0, "\0\0\0\0"))
    stack:poll(0)
    assert.equal(0, packets.parse(far:receive()).payload:byte(1))
    assert.same({ nil, "invalid address" },
      { channel:submit("stack.set_addresses", { addresses = { "10.0.0.1/33" } }) })
    assert.same({}, done(stack, channel, "stack.set_addresses", { addresses = {} }))
    assert.same({}, stack:addresses())
    local many = {}
    for i = 1, 9 do many[i] = "10.0.0." .. i end
    assert.same({ nil, "full" }, { done(stack, channel, "stack.set_addresses", { addresses = many }) })
    leaves_nothing(stack)
    local alone = netstack.new()
    assert.same({ nil, "no route" },
      { done(alone, alone:channel(), "stack.set_addresses", { addresses = { "10.0.0.1" } }) })
    alone:close()
  end)
end)

describe("A ticket", function()
  it("tells its result any number of times, the same", function()
    local stack = netstack.piped()
    local channel = stack:channel()
    local ticket = channel:submit("udp.bind", { host = "*", port = 0 })
    assert.equal("ticket udp.bind (queued)", tostring(ticket))
    stack:poll(0)
    local response = ticket:result()
    assert.is_true(rawequal(response, (ticket:result())))
    assert.is_true(response.port >= 1024)
    local bad = channel:submit("udp.bind", { host = "*", port = response.port })
    stack:poll(0)
    for _ = 1, 2 do assert.same({ nil, "address already in use" }, { bad:result() }) end
    assert.is_false(ticket:cancel())
    assert.is_true(rawequal(response, (ticket:result())))
    channel:post("udp.close", { handle = response.handle })
    stack:poll(0)
    leaves_nothing(stack)
  end)

  it("can be cancelled while it is queued, which frees its room, and while it waits, which loses nothing", function()
    local stack, far = netstack.piped { command_channel_capacity = 1 }
    local channel = stack:channel()
    local queued = channel:submit("udp.bind", { host = "*", port = 7 })
    assert.same({ nil, "full" }, { channel:submit("udp.bind", { host = "*", port = 8 }) })
    assert.is_true(queued:cancel())
    assert.is_true(queued:done())
    assert.same({ nil, "cancelled" }, { queued:result() })
    assert.is_false(queued:cancel())
    local handle = done(stack, channel, "udp.bind", { host = "*", port = 7 }).handle
    local waiting = channel:submit("udp.recv", { handle = handle })
    stack:poll(0)
    assert.is_true(waiting:cancel())
    assert.same({ nil, "cancelled" }, { waiting:result() })
    far:send(packets.udp("10.0.0.2", 9, "10.0.0.1", 7, "kept"))
    stack:poll(0)
    assert.equal("kept", done(stack, channel, "udp.recv", { handle = handle }).data)
    channel:post("udp.close", { handle = handle })
    stack:poll(0)
    leaves_nothing(stack)
  end)

  it("that is dropped loses nothing that arrives later, and leaves no socket it made", function()
    local stack, far = netstack.piped()
    local channel = stack:channel()
    local handle = done(stack, channel, "udp.bind", { host = "*", port = 7 }).handle
    do
      local dropped = channel:submit("udp.recv", { handle = handle })
      stack:poll(0)
      assert.is_false(dropped:done())
    end
    collectgarbage()
    collectgarbage()
    far:send(packets.udp("10.0.0.2", 9, "10.0.0.1", 7, "kept"))
    stack:poll(0)
    assert.equal("kept", done(stack, channel, "udp.recv", { handle = handle }).data)
    do
      local unread = channel:submit("udp.bind", { host = "*", port = 8 })
      stack:poll(0)
      assert.equal(2, #stack:sockets())
      assert.is_true(unread:done())
    end
    collectgarbage()
    collectgarbage()
    assert.equal(1, #stack:sockets())
    channel:post("udp.close", { handle = handle })
    stack:poll(0)
    leaves_nothing(stack)
  end)

  it("is closed with its socket", function()
    local stack = netstack.piped()
    local channel = stack:channel()
    local handle = done(stack, channel, "udp.bind", { host = "*", port = 7 }).handle
    local waiting = channel:submit("udp.recv", { handle = handle })
    stack:poll(0)
    channel:post("udp.close", { handle = handle })
    stack:poll(0)
    assert.same({ nil, "closed" }, { waiting:result() })
    leaves_nothing(stack)
  end)
end)

describe("A channel", function()
  it("runs commands in order, as many as asked for, and waiting ones no longer count", function()
    local stack, far = netstack.piped { command_channel_capacity = 4 }
    local channel = stack:channel()
    local handle = done(stack, channel, "udp.bind", { host = "*", port = 7 }).handle
    local tickets = {}
    for i = 1, 4 do
      tickets[i] = channel:submit("udp.send", { handle = handle, host = "10.0.0.2", port = i, data = "x" })
    end
    assert.equal("channel of " .. stack:name() .. " (4 queued)", tostring(channel))
    assert.equal(4, stack:stats().queued_commands)
    assert.same({ nil, "full" }, { channel:post("udp.recv", { handle = handle }) })
    assert.equal(0, stack:process_commands(0))
    assert.equal(1, stack:process_commands(1))
    assert.is_true(tickets[1]:done())
    assert.is_false(tickets[2]:done())
    assert.equal(2, stack:process_commands(2))
    assert.equal(1, stack:process_commands())
    assert.equal(0, stack:process_commands())
    stack:poll(0)
    for i = 1, 4 do assert.equal(i, packets.parse(far:receive()).destination_port) end
    for i = 1, 10 do
      tickets[i] = channel:submit("udp.recv", { handle = handle })
      stack:process_commands()
    end
    for i = 1, 10 do far:send(packets.udp("10.0.0.2", 9, "10.0.0.1", 7, "datagram " .. i)) end
    stack:poll(0)
    for i = 1, 10 do assert.equal("datagram " .. i, tickets[i]:result().data) end
    channel:post("udp.close", { handle = handle })
    stack:poll(0)
    leaves_nothing(stack)
  end)

  it("does not touch the device in process_commands", function()
    local stack, far = netstack.piped()
    local channel = stack:channel()
    local handle = done(stack, channel, "udp.bind", { host = "*", port = 7 }).handle
    far:send(packets.udp("10.0.0.2", 9, "10.0.0.1", 7, "waits"))
    channel:post("udp.send", { handle = handle, host = "10.0.0.2", port = 1, data = "one" })
    channel:post("udp.send", { handle = handle, host = "10.0.0.2", port = 1, data = "two" })
    local connecting = channel:submit("tcp.connect", { host = "10.0.0.2", port = 80 })
    local received = channel:submit("udp.recv", { handle = handle })
    assert.equal(4, stack:process_commands())
    assert.is_false(received:done())
    assert.is_false(far:rx_ready())
    assert.equal(0, stack:poll_delay(0))
    stack:poll(0)
    assert.equal("waits", received:result().data)
    assert.equal("one", packets.parse(far:receive()).data)
    assert.equal("two", packets.parse(far:receive()).data)
    assert.equal(2, packets.parse(far:receive()).flags) -- SYN
    assert.is_true(connecting:cancel())
    channel:post("udp.close", { handle = handle })
    stack:poll(0)
    leaves_nothing(stack)
  end)

  it("that is full still takes closes", function()
    local stack = netstack.piped { command_channel_capacity = 1 }
    local channel = stack:channel()
    local udp = done(stack, channel, "udp.bind", { host = "*", port = 7 }).handle
    local raw = done(stack, channel, "raw.open", { family = "ipv4", protocol = 99 }).handle
    local tcp = done(stack, channel, "tcp.listen", { host = "*", port = 7 }).handle
    local other = done(stack, channel, "tcp.listen", { host = "*", port = 8 }).handle
    assert(channel:submit("udp.bind", { host = "*", port = 7 }))
    assert.same({ nil, "full" }, { channel:submit("udp.bind", { host = "*", port = 8 }) })
    assert.equal(1, channel:post("udp.close", { handle = udp }))
    assert(channel:submit("raw.close", { handle = raw }))
    assert(channel:submit("tcp.close", { handle = tcp }))
    assert(channel:submit("tcp.abort", { handle = other }))
    stack:poll(0)
    leaves_nothing(stack)
  end)

  it("of capacity 0 is unbounded", function()
    local stack = netstack.piped { command_channel_capacity = 0 }
    local channel = stack:channel()
    for _ = 1, 5000 do assert(channel:post("udp.bind", { host = "*", port = 7 })) end
    assert.equal(5000, stack:stats().queued_commands)
    stack:poll(0)
    assert.equal(0, stack:stats().queued_commands)
    leaves_nothing(stack)
  end)

  it("says what is wrong with a command", function()
    local stack = netstack.piped()
    local channel = stack:channel()
    local handle = done(stack, channel, "udp.bind", { host = "*", port = 7 }).handle
    local function wrong(op, args) return failure(function() channel:submit(op, args) end) end
    assert.matches("^spec/channel_spec.lua:%d+: bad argument #1 to 'submit' %(unknown operation 'udp.fly'%)",
      wrong("udp.fly", {}))
    assert.matches("bad argument #1 to 'submit' %(string expected, got nil%)", wrong(nil, {}))
    assert.matches("bad argument #2 to 'submit' %(table expected%)", wrong("udp.bind"))
    assert.matches("bad argument #2 to 'submit' %(host of 'udp.bind': missing%)", wrong("udp.bind", { port = 1 }))
    assert.matches("bad argument #2 to 'submit' %(colour of 'udp.bind': unknown%)",
      wrong("udp.bind", { host = "*", port = 1, colour = "red" }))
    assert.matches("bad argument #2 to 'submit' %(field of 'udp.bind': unknown%)",
      wrong("udp.bind", { "*", host = "*", port = 1 }))
    assert.matches("%(port of 'udp.bind': out of range%)", wrong("udp.bind", { host = "*", port = 70000 }))
    assert.matches("%(port of 'udp.bind': out of range%)", wrong("udp.bind", { host = "*", port = -1 }))
    assert.matches("%(port of 'udp.bind': number has no integer representation%)",
      wrong("udp.bind", { host = "*", port = 1.5 }))
    for _, port in ipairs { 0 / 0, 1 / 0, -1 / 0, 1e300 } do
      assert.matches("%(port of 'udp.bind': ", wrong("udp.bind", { host = "*", port = port }))
    end
    assert.matches("%(port of 'udp.bind': number expected%)", wrong("udp.bind", { host = "*", port = "7" }))
    assert.matches("%(host of 'udp.bind': string expected%)", wrong("udp.bind", { host = 1, port = 1 }))
    assert.matches("%(max_len of 'udp.recv': out of range%)", wrong("udp.recv", { handle = handle, max_len = 0 }))
    assert.matches("%(max_len of 'tcp.recv': out of range%)", (function()
      local tcp = done(stack, channel, "tcp.listen", { host = "*", port = 7 }).handle
      local err = wrong("tcp.recv", { handle = tcp, max_len = 0 })
      assert.matches("%(how of 'tcp.shutdown': ", wrong("tcp.shutdown", { handle = tcp, how = "up" }))
      channel:post("tcp.close", { handle = tcp })
      return err
    end)())
    assert.matches("%(handle of 'udp.recv': handle expected%)", wrong("udp.recv", { handle = 1 }))
    assert.matches("%(handle of 'udp.recv': handle expected%)", wrong("udp.recv", { handle = io.stdout }))
    assert.matches("%(handle of 'udp.recv': handle expected%)", wrong("udp.recv", { handle = stack }))
    assert.matches("%(handle of 'tcp.recv': a handle of another protocol%)", wrong("tcp.recv", { handle = handle }))
    assert.matches("%(family of 'raw.open': ", wrong("raw.open", { family = "ip", protocol = 1 }))
    assert.matches("%(protocol of 'raw.open': out of range%)", wrong("raw.open", { family = "ipv4", protocol = 256 }))
    assert.matches("%(addresses of 'stack.set_addresses': ", wrong("stack.set_addresses", { addresses = "10.0.0.1" }))
    assert.matches("%(addresses of 'stack.set_addresses': ", wrong("stack.set_addresses", { addresses = { 1 } }))
    assert.matches("bad argument #1 to 'post' ", failure(function() channel:post("udp.fly", {}) end))
    assert.matches("bad argument #1 to 'request' ", failure(function() channel:request("udp.fly", {}) end))
    local other = netstack.new()
    local their = other:channel()
    local socket = done(other, their, "udp.bind", { host = "*", port = 7 }).handle
    assert.matches("%(handle of 'udp.recv': a handle of another stack%)", wrong("udp.recv", { handle = socket }))
    other:close()
    assert.equal(0, stack:stats().queued_commands - 1) -- the tcp.close
    channel:post("udp.close", { handle = handle })
    stack:poll(0)
    leaves_nothing(stack)
  end)

  it("answers closed when a handle went stale between submit and run", function()
    local stack = netstack.piped()
    local channel = stack:channel()
    local handle = done(stack, channel, "udp.bind", { host = "*", port = 7 }).handle
    local close = channel:submit("udp.close", { handle = handle })
    local late = { channel:submit("udp.recv", { handle = handle }),
      channel:submit("udp.send", { handle = handle, host = "10.0.0.2", port = 1, data = "x" }),
      channel:submit("udp.close", { handle = handle }) }
    stack:poll(0)
    assert.same({}, close:result())
    assert.same({ nil, "closed" }, { late[1]:result() })
    assert.same({ nil, "closed" }, { late[2]:result() })
    assert.is_true(late[3]:done())
    leaves_nothing(stack)
  end)

  it("does not keep its stack alive; everything then answers closed", function()
    local stack = netstack.piped()
    local channel = stack:channel()
    local handle = done(stack, channel, "udp.bind", { host = "*", port = 7 }).handle
    local waiting = channel:submit("udp.recv", { handle = handle })
    stack:poll(0)
    local queued = channel:submit("udp.bind", { host = "*", port = 8 })
    local seen = setmetatable({ stack }, { __mode = "v" })
    stack = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    assert.is_nil(seen[1])
    assert.same({ nil, "closed" }, { waiting:result() })
    assert.same({ nil, "closed" }, { queued:result() })
    assert.same({ nil, "closed" }, { channel:submit("udp.bind", { host = "*", port = 9 }) })
    assert.same({ nil, "closed" }, { channel:post("udp.close", { handle = handle }) })
    assert.same({ nil, "closed" }, { channel:request("udp.bind", { host = "*", port = 9 }) })
    for _, name in ipairs { "tcp", "udp", "raw", "connect", "bind" } do
      assert.same({ nil, "closed" }, { channel[name](channel, "10.0.0.1", 80) })
    end
    assert.equal("channel (closed)", tostring(channel))
    assert.equal(1, channel:close())
    assert.equal(1, channel:close())
  end)

  it("makes sockets", function()
    local stack = netstack.piped()
    local channel = stack:channel()
    local sockets = { channel:udp(), channel:tcp(), channel:raw("ipv4", 99), channel:bind("*", 80) }
    assert.equal(4, #sockets)
    for _, socket in ipairs(sockets) do socket:close() end
    leaves_nothing(stack)
  end)

  it("requests wait for room, and for the answer", function()
    local a, b = netstack.pair { command_channel_capacity = 1 }
    netstack.run(function()
      local channel = a:channel()
      local ports = {}
      for i = 1, 5 do
        netstack.spawn(function()
          local response = assert(channel:request("udp.bind", { host = "*", port = 100 + i }))
          ports[#ports + 1] = response.port
          assert(channel:request("udp.close", { handle = response.handle }))
        end)
      end
      assert(channel:post("udp.bind", { host = "*", port = 1 }))
      netstack.sleep(1)
      table.sort(ports)
      assert.same({ 101, 102, 103, 104, 105 }, ports)
    end)
    leaves_nothing(a, b)
  end)

  it("requests answer closed when the stack closes under them", function()
    local stack = netstack.piped { command_channel_capacity = 1 }
    local channel = stack:channel()
    netstack.run(function()
      local handle = channel:request("udp.bind", { host = "*", port = 7 }).handle
      local task = netstack.spawn(function() return channel:request("udp.recv", { handle = handle }) end)
      netstack.sleep(1)
      stack:close()
      assert.same({ nil, "closed" }, { task:join() })
    end)
  end)
end)

describe("on_wake", function()
  it("is called when an idle stack needs a poll, once", function()
    local stack, far = netstack.piped()
    local channel = stack:channel()
    stack:poll(0)
    local woken = {}
    assert.equal(1, stack:on_wake(function(which) woken[#woken + 1] = which end))
    channel:post("udp.bind", { host = "*", port = 7 })
    assert.same({ stack }, woken)
    channel:post("udp.bind", { host = "*", port = 8 })
    assert.equal(1, #woken)
    stack:poll(0)
    far:send(packets.icmp("10.0.0.2", "10.0.0.1", 8, 0, "\0\0\0\0"))
    assert.equal(2, #woken)
    stack:poll(0)
    assert.equal(2, #woken)
    stack:on_wake(nil)
    far:send(packets.icmp("10.0.0.2", "10.0.0.1", 8, 0, "\0\0\0\0"))
    assert.equal(2, #woken)
    stack:poll(0)
    leaves_nothing(stack)
  end)

  it("may close the stack, and its error reaches who woke it", function()
    local stack = netstack.piped()
    local channel = stack:channel()
    stack:on_wake(function() error("woken", 0) end)
    assert.equal("woken", failure(channel.post, channel, "udp.bind", { host = "*", port = 7 }))
    stack:poll(0)
    stack:on_wake(function() stack:close() end)
    channel:post("udp.bind", { host = "*", port = 8 })
    assert.same({ nil, "closed" }, { stack:poll(0) })
  end)
end)

describe("netstack.waiting", function()
  it("lets somebody else wait: a driver of one's own", function()
    local a, b = netstack.pair()
    local server = b:udp()
    server:setsockname("*", 53)
    local client = a:udp()
    local waits = 0
    local previous = netstack.waiting(function(ticket, deadline)
      waits = waits + 1
      assert.is_false(ticket:done())
      settle(waits, a, b)
      if ticket:done() then return 1 end
      if deadline then return nil, "timeout" end
      return 1 -- early: the socket asks again
    end)
    assert.is_nil(previous)
    local ok, err = pcall(function()
      client:sendto("hello", "10.0.0.2", 53)
      assert.equal("hello", server:receive())
      assert.equal(1, waits)
      server:settimeout(1)
      assert.same({ nil, "timeout" }, { server:receive() })
      assert.equal(2, waits)
      local channel = a:channel()
      local handle = assert(channel:request("udp.bind", { host = "*", port = 9 })).handle
      assert(channel:request("udp.close", { handle = handle }))
    end)
    assert.is_function(netstack.waiting(nil))
    assert(ok, err)
    client:close()
    server:close()
    leaves_nothing(a, b)
  end)
end)
