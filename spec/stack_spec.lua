local netstack = require "netstack"
local core = require "netstack.core"
local packets = require "spec.packets"

local run, sleep, now = netstack.run, netstack.sleep, netstack.now
local failure, settle = packets.failure, packets.settle

describe("A stack's config", function()
  local function wrong(config)
    return failure(function() netstack.new(config) end)
  end

  it("is optional, and says what it does not know", function()
    netstack.new():close()
    netstack.new({}):close()
    assert.matches("^spec/stack_spec.lua:%d+: bad argument #1 to 'new' %(table expected, got number%)", wrong(1))
    assert.matches("^spec/stack_spec.lua:%d+: bad argument #1 to 'new' %(unknown option 'mtus'%)",
      wrong { mtus = 1500 })
    assert.matches("%(unknown option '1'%)", wrong { "x" })
    assert.matches("%(unknown option 'a'%)", wrong { b = 1, a = 1, c = 1 })
  end)

  it("is checked: types and ranges", function()
    for name, bad in pairs {
      name = { 1, true, {}, "", ("x"):rep(64) },
      mtu = { "1500", 67, 65536, 1500.5, 0 / 0, 1 / 0, {} },
      loopback = { 1, "yes", {} },
      command_channel_capacity = { -1, 1.5, "1", 2 ^ 40 },
      tcp_buffer_size = { 2047, 16 * 1024 * 1024 + 1, 4096.5, "4096" },
      udp_buffer_size = { 0, -1, 1.5, "1" },
      udp_message_count = { 0, -1, 1.5, "1" },
      raw_buffer_size = { 0, -1, 1.5, "1" },
      raw_message_count = { 0, -1, 1.5, "1" },
      forwarding = { 1, "no" },
      seed = { 1.5, "1", {}, 2 ^ 60 },
      dns = { "10.0.0.1", { 1 }, 1 },
      hosts = { "x", 1, { "10.0.0.1" }, { a = 1 }, { a = "x" }, { a = { "10.0.0.1", "y" } } },
    } do
      for _, value in ipairs(bad) do
        assert.matches("^spec/stack_spec.lua:%d+: bad argument #1 to 'new' %(option '" .. name .. "': ",
          wrong { [name] = value })
      end
    end
  end)

  it("takes the ends of its ranges", function()
    for name, good in pairs {
      name = { "x", ("x"):rep(63) }, mtu = { 68, 65535 }, loopback = { true, false },
      command_channel_capacity = { 0, 1, 1e6 }, tcp_buffer_size = { 2048, 16 * 1024 * 1024 }, udp_buffer_size = { 1 },
      udp_message_count = { 1 }, raw_buffer_size = { 1 }, raw_message_count = { 1 }, forwarding = { false },
      seed = { 0, -1, 2 ^ 53, -2 ^ 53 }, dns = { {} }, hosts = { {}, { a = "::1", b = { "10.0.0.1", "::2" } } },
    } do
      for _, value in ipairs(good) do assert(netstack.new { [name] = value }):close() end
    end
  end)

  it("gives pair and piped their mtu", function()
    local a, b = netstack.pair { mtu = 1280, name = "host", seed = 5 }
    assert.same({ "host1", "host2" }, { a:name(), b:name() })
    assert.same({ "10.0.0.1/24", "fd00::1/64" }, a:addresses())
    assert.same({ "10.0.0.2/24", "fd00::2/64" }, b:addresses())
    a:close()
    b:close()
    a, b = netstack.pair({}, { mtu = 576 })
    assert.same({ "10.0.0.1/24" }, a:addresses())
    assert.equal(0, (a:ping("10.0.0.2")))
    a:close()
    b:close()
    local stack, far = netstack.piped { mtu = 9000 }
    assert.equal(9000, far:mtu())
    stack:close()
    assert.matches("^spec/stack_spec.lua:%d+: bad argument #1 to 'pair' %(table expected, got number%)",
      failure(function() netstack.pair(1) end))
    assert.matches("^spec/stack_spec.lua:%d+: bad argument #1 to 'piped' %(table expected, got number%)",
      failure(function() netstack.piped(1) end))
    assert.matches("^spec/stack_spec.lua:%d+: bad argument #1 to 'pair' %(unknown option 'x'%)",
      failure(function() netstack.pair { x = 1 } end))
    assert.matches("^spec/stack_spec.lua:%d+: bad argument #2 to 'pair' %(unknown option 'x'%)",
      failure(function() netstack.pair(nil, { x = 1 }) end))
    assert.matches("^spec/stack_spec.lua:%d+: bad argument #2 to 'pair' %(table expected, got number%)",
      failure(function() netstack.pair(nil, 1) end))
  end)

  it("has a seed that makes it repeatable", function()
    local function ports(seed)
      local stack = netstack.new { seed = seed, loopback = true }
      local list = {}
      for i = 1, 5 do
        local socket = stack:udp()
        socket:setsockname("127.0.0.1", 0)
        list[i] = select(2, socket:getsockname())
        socket:close()
      end
      stack:close()
      return table.concat(list, " ")
    end
    assert.equal(ports(1), ports(1))
    assert.are_not.equal(ports(1), ports(2))
    assert.are_not.equal(ports(nil), ports(nil))
    local function in_run(seed)
      return run(function() return ports(nil) .. "," .. ports(nil) end, { seed = seed })
    end
    assert.equal(in_run(7), in_run(7))
    assert.are_not.equal(in_run(7), in_run(8))
  end)
end)

describe("tostring", function()
  it("tells what an object is", function()
    local stack, far = netstack.piped { name = "alpha", loopback = true }
    assert.equal("stack alpha", tostring(stack))
    assert.equal("alpha", stack:name())
    assert.matches("^pipe %d+ %(mtu 1500%)$", tostring(far))
    assert.matches("^device %d+ %(mtu 1500%)$", tostring(netstack.device { transmit = print }))
    local channel = stack:channel()
    assert.equal("channel of alpha (0 queued)", tostring(channel))
    local ticket = channel:submit("udp.bind", { host = "*", port = 7 })
    assert.equal("ticket udp.bind (queued)", tostring(ticket))
    stack:poll(0)
    assert.equal("ticket udp.bind (done)", tostring(ticket))
    local waits = channel:submit("udp.recv", { handle = ticket:result().handle })
    stack:poll(0)
    assert.equal("ticket udp.recv (waiting)", tostring(waits))
    local socket = stack:udp()
    assert.equal("udp (unbound)", tostring(socket))
    socket:setsockname("*", 53)
    assert.equal("udp (port 53)", tostring(socket))
    assert.equal("raw (ipv6 protocol 58)", tostring(stack:raw("ipv6", 58)))
    assert.equal("tcp (CLOSED)", tostring(stack:tcp()))
    assert.equal("tcp (LISTEN)", tostring(stack:bind("*", 80)))
    run(function()
      local task = netstack.spawn(function() end)
      assert.matches("^task 2 %(spawned at .*stack_spec.lua:%d+%)$", tostring(task))
    end)
    stack:close()
    assert.equal("stack alpha (closed)", tostring(stack))
    assert.equal("channel (closed)", tostring(channel))
    assert.equal("udp (closed)", tostring(socket))
    assert.matches("^stack stack%d+$", tostring(netstack.new()))
  end)

  it("leaves metatables alone", function()
    local stack = netstack.new()
    assert.equal("netstack", getmetatable(stack))
    stack:close()
  end)
end)

describe("poll", function()
  it("tells whether it did anything and when to come back", function()
    local stack, far = netstack.piped()
    assert.same({ false, nil }, { stack:poll(0) })
    assert.is_nil(stack:poll_delay(0))
    assert.is_nil(stack:timeout())
    far:send(packets.icmp("10.0.0.2", "10.0.0.1", 8, 0, "\0\0\0\0"))
    assert.equal(0, stack:poll_delay(1))
    assert.equal(0, stack:timeout())
    assert.same({ true, nil }, { stack:poll(1) })
    assert.same({ false, nil }, { stack:poll(1) })
    far:receive()
    local channel = stack:channel()
    local ticket = channel:submit("tcp.connect", { host = "10.0.0.2", port = 80 })
    assert.equal(0, stack:poll_delay(1))
    local worked, delay = stack:poll(1)
    assert.is_true(worked)
    assert.equal(1, delay) -- RFC 6298: the first retransmission timeout
    assert.equal(0.75, stack:poll_delay(1.25))
    assert.is_false((stack:poll(1.5)))
    assert.equal(1, #packets.drain(far))
    stack:poll(2)
    assert.equal(1, #packets.drain(far))
    ticket:cancel()
    assert.is_nil((stack:poll_delay(3)))
    stack:close()
    assert.same({ nil, "closed" }, { stack:poll(4) })
    assert.same({ nil, "closed" }, { stack:poll_delay(4) })
    assert.same({ nil, "closed" }, { stack:process_commands() })
  end)

  it("never lets the clock go back", function()
    local stack = netstack.piped()
    stack:poll(10)
    assert.equal(10, stack:stats().time)
    stack:poll(5)
    assert.equal(10, stack:stats().time)
    stack:poll_delay(3)
    assert.equal(10, stack:stats().time)
    stack:poll(10.25)
    assert.equal(10.25, stack:stats().time)
    stack:close()
  end)

  it("goes on with the run that drives it; a clock stands still between runs", function()
    local stack = netstack.piped()
    run(function() sleep(5) end)
    assert.equal(5, stack:stats().time)
    run(function()
      assert.equal(0, now())
      assert.equal(5, stack:stats().time)
      sleep(2)
      assert.equal(7, stack:stats().time)
    end)
    stack:poll(100)
    run(function() sleep(1) end)
    assert.equal(101, stack:stats().time)
    stack:close()
  end)

  it("stands still at the end of time", function()
    local stack = netstack.piped()
    stack:poll(1e300)
    local latest = stack:stats().time
    assert.is_true(latest > 60 * 365 * 86400)
    for _ = 1, 3 do
      run(function() sleep(latest) end)
      assert.equal(latest, stack:stats().time)
    end
    assert.is_nil(stack:poll_delay(0))
    stack:close()
  end)

  it("wants seconds", function()
    local stack = netstack.new()
    local function wrong(...)
      local time = ...
      return failure(function() stack:poll(time) end)
    end
    assert.matches("^spec/stack_spec.lua:%d+: bad argument #1 to 'poll' %(number expected, got nil%)", wrong())
    for _, time in ipairs { -1, 0 / 0, 1 / 0 } do
      assert.matches("bad argument #1 to 'poll' %(seconds, 0 or more%)", wrong(time))
    end
    assert.matches("bad argument #1 to 'poll_delay'", failure(function() stack:poll_delay("x") end))
    assert.matches("bad argument #1 to 'process_commands'", failure(function() stack:process_commands(-1) end))
    assert.matches("bad argument #1 to 'process_commands'", failure(function() stack:process_commands(1.5) end))
    stack:close()
  end)

  it("wants no file descriptor while no device has one", function()
    local stack = netstack.piped()
    assert.is_nil(stack:pollfd())
    assert.is_nil(stack:events())
    stack:close()
    for _, name in ipairs { "pollfd", "events", "timeout" } do
      assert.same({ nil, "closed" }, { stack[name](stack) })
    end
  end)
end)

describe("stats and sockets", function()
  it("count by protocol", function()
    local a, b = netstack.pair()
    run(function()
      local socket = a:udp()
      socket:sendto("x", "10.0.0.2", 9)
      sleep(1)
      socket:close()
    end)
    local stats = b:stats()
    for _, protocol in ipairs { "ip", "ip_frag", "icmp", "ip6", "ip6_frag", "icmp6", "udp", "tcp" } do
      for _, counter in ipairs { "received", "sent", "dropped", "checksum_errors", "length_errors", "memory_errors",
        "routing_errors", "protocol_errors", "option_errors" } do
        assert.is_number(stats[protocol][counter])
      end
    end
    assert.same({ 1, 1, 1 }, { stats.ip.received, stats.udp.received, stats.icmp.sent })
    for _, counter in ipairs { "in_packets", "in_bytes", "out_packets", "out_bytes", "commands", "queued_commands",
      "sockets", "time" } do
      assert.is_number(stats[counter])
    end
    assert.same({ 1, 29, 1 }, { stats.in_packets, stats.in_bytes, stats.out_packets })
    assert.same({ blocks = 0, bytes = 0 }, stats.memory)
    packets.leaves_nothing(a, b)
    assert.same({ nil, "closed" }, { a:stats() })
    assert.same({ nil, "closed" }, { a:sockets() })
    assert.same({ nil, "closed" }, { a:name() })
    assert.same({ nil, "closed" }, { a:addresses() })
    assert.same({ nil, "closed" }, { a:routes() })
  end)

  it("list each socket with its state, addresses and queues", function()
    local a, b = netstack.pair()
    run(function()
      local listener = b:bind("*", 80)
      local client = a:connect("10.0.0.2", 80, "10.0.0.1", 4000)
      client:send("hello")
      local socket, raw = b:udp(), b:raw("ipv4", 99)
      socket:setsockname("10.0.0.2", 53)
      socket:setpeername("10.0.0.1", 53)
      sleep(1)
      local list = b:sockets()
      local by = {}
      for _, one in ipairs(list) do by[one.protocol .. " " .. one.state] = one end
      assert.equal(4, #list)
      assert.same({ protocol = "tcp", state = "LISTEN", addresses = { local_host = "*", local_port = 80 },
        queues = { receive = 0, send = 0, accept = 1 } }, by["tcp LISTEN"])
      assert.same({ protocol = "tcp", state = "ESTABLISHED", addresses = { local_host = "10.0.0.2", local_port = 80,
        remote_host = "10.0.0.1", remote_port = 4000 }, queues = { receive = 5, send = 0 } }, by["tcp ESTABLISHED"])
      assert.same({ protocol = "udp", state = "CONNECTED", addresses = { local_host = "10.0.0.2", local_port = 53,
        remote_host = "10.0.0.1", remote_port = 53 }, queues = { receive = 0, messages = 0, dropped = 0 } },
        by["udp CONNECTED"])
      assert.same({ protocol = "raw", state = "OPEN", addresses = { family = "ipv4", protocol = 99 },
        queues = { receive = 0, messages = 0, dropped = 0 } }, by["raw OPEN"])
      for _, one in ipairs { listener, client, socket, raw } do one:close() end
      sleep(1000)
    end)
    packets.leaves_nothing(a, b)
  end)
end)

describe("trace", function()
  it("tells commands, packets in and out, drops and states, after each poll", function()
    local stack, far = netstack.piped { name = "traced" }
    local events = {}
    local function only(kind)
      local list = {}
      for _, event in ipairs(events) do
        if event.type == kind then list[#list + 1] = event end
      end
      return list
    end
    local channel = stack:channel()
    channel:post("udp.bind", { host = "*", port = 7 })
    stack:poll(0)
    assert.equal(1, stack:trace(function(event) events[#events + 1] = event end))
    channel:post("udp.bind", { host = "*", port = 8 })
    assert.equal(0, #events)
    stack:poll(1)
    assert.same({ { time = 0, stack = "traced", type = "command", command = "udp.bind" } }, events)

    local ping = packets.icmp("10.0.0.2", "10.0.0.1", 8, 0, "\0\0\0\0")
    far:send(ping)
    stack:poll(2)
    local reply = far:receive()
    assert.same({ { time = 2, stack = "traced", type = "in", interface = "eth0", packet = ping } }, only("in"))
    assert.same({ { time = 2, stack = "traced", type = "out", interface = "eth0", packet = reply } }, only("out"))
    far:send("\69")
    stack:poll(3)
    assert.same({ { time = 3, stack = "traced", type = "drop", interface = "eth0", packet = "\69",
      cause = "shorter than its header" } }, only("drop"))

    local ticket = channel:submit("tcp.connect", { host = "10.0.0.2", port = 80, local_port = 4000 })
    stack:poll(4)
    assert.same({ { time = 4, stack = "traced", type = "state", state = "SYN-SENT", local_host = "10.0.0.1",
      local_port = 4000, remote_host = "10.0.0.2", remote_port = 80 } }, only("state"))
    ticket:cancel()

    assert.equal(1, stack:trace(nil))
    local count = #events
    far:send(ping)
    stack:poll(5)
    assert.equal(count, #events)
    stack:close()
    assert.same({ nil, "closed" }, { stack:trace(nil) })
    assert.same({ nil, "closed" }, { stack:on_wake(nil) })
    assert.matches("bad argument #1 to 'trace' %(function or nil expected%)", failure(function() stack:trace(1) end))
    assert.matches("bad argument #1 to 'on_wake' %(function or nil expected%)",
      failure(function() stack:on_wake(1) end))
  end)

  it("follows a connection from end to end, in run", function()
    local a, b = netstack.pair()
    local states = {}
    a:trace(function(event)
      if event.type == "state" then states[#states + 1] = event.state end
    end)
    run(function()
      local listener = b:bind("*", 80)
      local client = a:connect("10.0.0.2", 80)
      listener:accept():close()
      assert.same({ nil, "closed", "" }, { client:receive("*a") })
      client:close()
      listener:close()
      sleep(1000)
    end)
    assert.same({ "SYN-SENT", "ESTABLISHED", "CLOSE-WAIT", "LAST-ACK", "CLOSED" }, states)
    packets.leaves_nothing(a, b)
  end)

  it("hands on what its function raises, and may be closed by it", function()
    local stack = netstack.piped()
    stack:trace(function() error("from trace", 0) end)
    local channel = stack:channel()
    channel:post("udp.bind", { host = "*", port = 7 })
    assert.equal("from trace", failure(stack.poll, stack, 0))
    stack:trace(function() stack:close() end)
    for i = 1, 3 do channel:post("udp.bind", { host = "*", port = i }) end
    stack:poll(1)
    assert.same({ nil, "closed" }, { stack:poll(1) })
  end)

  it("tells why a packet was dropped on its way in, with the whole packet", function()
    local near, far = netstack.pipe { checksum = true }
    local stack = netstack.new { udp_message_count = 1 }
    assert(stack:attach(near, { addresses = { "10.0.0.1/24" } }))
    local drops = {}
    stack:trace(function(event)
      if event.type == "drop" then drops[#drops + 1] = event end
    end)
    local socket = stack:udp()
    assert(socket:setsockname("*", 53))
    local time = 0
    local function cause_of(packet)
      drops = {}
      assert(far:send(packet))
      time = time + 1
      stack:poll(time)
      while far:receive() do end -- answers
      if drops[1] then assert.equal(packet, drops[1].packet) end
      assert.is_true(#drops <= 1)
      return drops[1] and drops[1].cause
    end
    local good = packets.udp("10.0.0.2", 9, "10.0.0.1", 53, "data")
    assert.is_nil(cause_of(good))
    assert.equal("receive queue full", cause_of(good))
    assert.equal("bad checksum", cause_of(good:sub(1, -2) .. "A"))
    assert.equal("nobody's", cause_of(packets.udp("10.0.0.2", 9, "10.0.0.1", 54, "data")))
    assert.equal("not for us", cause_of(packets.udp("10.0.0.2", 9, "10.0.0.77", 53, "data")))
    socket:close()
    packets.leaves_nothing(stack)
  end)

  it("tells lost packets of a full device", function()
    local near, far = netstack.pipe { capacity = 1 }
    local stack = netstack.new()
    assert(stack:attach(near, { addresses = { "10.0.0.1/24" } }))
    local causes = {}
    stack:trace(function(event)
      if event.type == "drop" then causes[#causes + 1] = event.cause end
    end)
    far:send(packets.icmp("10.0.0.2", "10.0.0.1", 8, 0, "\0\0\0\0"))
    stack:poll(0)
    far:send(packets.icmp("10.0.0.2", "10.0.0.1", 8, 0, "\0\0\0\0"))
    stack:poll(0)
    assert.same({ "device full" }, causes)
    packets.leaves_nothing(stack)
  end)
end)

describe("close", function()
  it("answers everything closed, resets connections, detaches devices", function()
    local a, b = netstack.pair()
    run(function()
      local listener = b:bind("*", 80)
      local client = a:connect("10.0.0.2", 80)
      local server = listener:accept()
      local socket, raw = a:udp(), a:raw("ipv4", 1)
      socket:setsockname("*", 9)
      local waits = {
        netstack.spawn(function() return client:receive() end),
        netstack.spawn(function() return socket:receive() end),
        netstack.spawn(function() return raw:receive() end),
        netstack.spawn(function() return a:channel():request("udp.recv",
          { handle = a:channel():request("udp.bind", { host = "*", port = 1 }).handle }) end),
      }
      sleep(1)
      assert.equal(1, a:close())
      assert.equal(1, a:close())
      for _, task in ipairs(waits) do
        local ok, err = task:join()
        assert.same({ nil, "closed" }, { ok, err })
      end
      local data, reset = server:receive()
      assert.same({ nil, "connection reset" }, { data, reset })
      for _, call in ipairs { "tcp", "udp", "channel", "stats", "sockets", "routes", "addresses" } do
        assert.same({ nil, "closed" }, { a[call](a) })
      end
      assert.same({ nil, "closed" }, { a:raw("ipv4", 1) })
      assert.same({ nil, "closed" }, { a:connect("10.0.0.2", 80) })
      assert.same({ nil, "closed" }, { a:bind("*", 80) })
      assert.same({ nil, "closed" }, { a:ping("10.0.0.2") })
      assert.same({ nil, "closed" }, { a:resolve("x") })
      assert.same({ nil, "closed" }, { a:add_route("0.0.0.0/0", "10.0.0.9") })
      assert.same({ nil, "closed" }, { a:remove_route("0.0.0.0/0") })
      assert.same({ nil, "closed" }, { a:set_addresses {} })
      listener:close()
      server:close()
    end)
    b:close()
  end)

  it("leaves devices open, to be attached again", function()
    local near, far = netstack.pipe()
    for i = 1, 3 do
      local stack = netstack.new()
      assert(stack:attach(near, { addresses = { "10.0.0." .. i .. "/24" } }))
      far:send(packets.icmp("10.0.0.9", "10.0.0." .. i, 8, 0, "\0\0\0\0"))
      stack:poll(0)
      assert.equal(1, #packets.drain(far))
      stack:close()
    end
    assert.equal(1, near:send("x"))
  end)

  it("of one stack leaves a thousand others alone", function()
    local stacks = {}
    for i = 1, 200 do stacks[i] = netstack.new { loopback = true } end
    for i = 1, 200, 2 do stacks[i]:close() end
    for i = 2, 200, 2 do assert.is_number(stacks[i]:ping("127.0.0.1")) end
    for i = 2, 200, 2 do packets.leaves_nothing(stacks[i]) end
  end)
end)

describe("resolve", function()
  it("knows addresses and hosts", function()
    local stack = netstack.new { hosts = { Server = "10.0.0.2", many = { "fd00::2", "10.0.0.2" } } }
    assert.equal("10.0.0.2", stack:resolve("server"))
    assert.equal("10.0.0.2", stack:resolve("SERVER"))
    assert.equal("fd00::2", stack:resolve("many"))
    assert.equal("10.0.0.1", (stack:resolve("10.0.0.1")))
    assert.equal("fd00::1", (stack:resolve("fd00::1")))
    for _, name in ipairs { "elsewhere", "*", "", "10.0.0.256", ":" } do
      assert.same({ nil, "host not found" }, { stack:resolve(name) })
    end
    assert.matches("^spec/stack_spec.lua:%d+: bad argument #1 to 'resolve' %(string expected, got nil%)",
      failure(function() stack:resolve() end))
    stack:close()
  end)

  it("hosts are each stack's own, and a copy", function()
    local hosts = { server = "10.0.0.2" }
    local a, b = netstack.new { hosts = hosts }, netstack.new()
    hosts.server = "10.0.0.3"
    assert.equal("10.0.0.2", a:resolve("server"))
    assert.same({ nil, "host not found" }, { b:resolve("server") })
    a:close()
    b:close()
  end)
end)

describe("The module", function()
  it("has its version, and is quiet at require", function()
    assert.matches("^netstack %d+%.%d+%.%d+", netstack._VERSION)
    assert.is_table(core.classes)
  end)

  it("joins stacks without a packet", function()
    local a, b = netstack.pair()
    settle(0, a, b)
    settle(1000, a, b)
    assert.equal(0, a:stats().out_packets + b:stats().out_packets)
    a:close()
    b:close()
  end)
end)
