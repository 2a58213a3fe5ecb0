-- The real clock: while a stack has a device with a file descriptor, run waits for that and for the next timer, and for
-- nothing else. What is measured here is bounded loosely: the machine may be busy.

local netns = require "spec.netns"
local netstack = require "netstack"

local run, spawn, sleep, now = netstack.run, netstack.spawn, netstack.sleep, netstack.now
local with, connected = netns.specs(it, pending), netns.connected

describe("the real clock", function()
  after_each(netns.finish)

  with({}, "is that of a run whose stacks have a device with a descriptor, and of calls outside", function()
    local stack, _, device = connected()
    local function hour()
      local start = os.time()
      run(function()
        if device:fd() then sleep(1.1) else sleep(3600) end
        assert.is_true(now() >= 1.1)
      end)
      return os.time() - start
    end
    assert.is_true(hour() >= 1)
    local start = os.time()
    sleep(1.1)
    assert.is_true(os.time() > start)
    start = os.clock()
    run(function()
      sleep(3600)
      assert.equal(3600, now())
    end, { clock = "virtual" })
    stack:close()
    run(function() sleep(3600) end)
    sleep(3600)
    assert.is_true(os.clock() - start < 1)
  end)

  with({}, "sleeps as long as it is told", function()
    connected()
    run(function()
      for _, seconds in ipairs { 0.001, 0.01, 0.1, 0.25 } do
        local start = now()
        sleep(seconds)
        local late = now() - start - seconds
        assert.is_true(late >= 0 and late < 0.05, ("%g s: %g late"):format(seconds, late))
      end
    end)
  end)

  with({}, "costs nothing while nothing happens", function()
    local _, _, device = connected()
    sleep(0.5) -- IPv6 looks around when an interface comes up
    run(function()
      local clock, before = os.clock(), device:stats()
      sleep(3)
      local after = device:stats()
      assert.is_true(os.clock() - clock < 0.03) -- 1 %
      -- Once a second at most, and beside it what each packet takes.
      local packets = after.rx_packets - before.rx_packets + after.tx_packets - before.tx_packets
      assert.is_true(after.syscalls - before.syscalls <= 6 + 4 * packets, after.syscalls - before.syscalls)
    end)
  end)

  with({ "nc" }, "has no ticking timers with idle connections", function()
    local stack, namespace, device = connected()
    run(function()
      local listener, sockets, clients = stack:bind("*", 5001), {}, {}
      for i = 1, 8 do
        clients[i] = namespace:start("nc 10.1.0.2 5001")
        sockets[i] = assert(listener:accept())
      end
      listener:close()
      sleep(0.5)
      local clock, before = os.clock(), device:stats()
      sleep(2)
      local after = device:stats()
      assert.is_true(os.clock() - clock < 0.02)
      local packets = after.rx_packets - before.rx_packets
      assert.is_true(after.syscalls - before.syscalls <= 3 + 4 * packets, after.syscalls - before.syscalls)
      for i, socket in ipairs(sockets) do
        socket:close()
        clients[i]:wait()
      end
    end)
  end)

  with({}, "wakes a task as soon as something comes, from whatever device", function()
    local socket = {}
    local namespaces = {}
    for n = 1, 2 do
      local stack
      stack, namespaces[n] = connected(n)
      socket[n] = stack:udp()
      assert(socket[n]:setsockname("*", 7))
    end
    run(function()
      local log = {}
      for n = 1, 2 do
        spawn(function()
          log[n] = { socket[n]:receive(), now() }
          socket[n]:close()
        end)
      end
      sleep(0.7) -- within the longest wait
      for n = 1, 2 do
        local start = now()
        namespaces[n]:exec(("bash -c 'echo hello >/dev/udp/10.%d.0.2/7'"):format(n))
        sleep(0.05)
        assert.equal("hello\n", log[n] and log[n][1])
        assert.is_true(log[n][2] - start < 0.5)
      end
    end)
  end)

  with({ "ping" }, "hears of packets while tasks never rest", function()
    local _, namespace = connected()
    run(function()
      local ping = namespace:start("ping -n -c 5 -i 0.05 -w 5 10.1.0.2")
      local limit = now() + 10
      repeat sleep(0) until ping:status() or now() > limit
      netns.assert_answered(ping:output(), 5)
    end)
  end)

  with({}, "reads 256 packets, then others have their turn", function()
    local stack, namespace, device = connected()
    namespace:exec("bash -c 'for i in {1..400}; do echo x; done >/dev/udp/10.1.0.2/9'")
    assert.equal(0, device:stats().rx_packets)
    assert.is_true(stack:poll(0))
    assert.equal(256, device:stats().rx_packets)
    assert.is_true(stack:poll(0))
    assert.is_true(device:stats().rx_packets >= 400)
    assert.is_nil((select(2, stack:poll(0)))) -- what comes is for `pollfd` to tell
  end)

  with({}, "gives tasks and other stacks their turn in a flood", function()
    local stack, namespace, device = connected(1)
    local other = connected(2)
    run(function()
      local flood = namespace:start("bash -c 'while :; do echo x; done >/dev/udp/10.1.0.2/9'")
      repeat sleep(0.01) until device:stats().rx_packets > 1000
      local before, ticks, worst, limit = device:stats().rx_packets, 0, 0, now() + 1
      while now() < limit do
        local start = now()
        sleep(0.005)
        worst, ticks = math.max(worst, now() - start), ticks + 1
      end
      assert.is_true(device:stats().rx_packets - before > 1000)
      assert.is_true(ticks > 20, ticks .. " ticks")
      assert.is_true(worst < 0.3, worst)
      assert.is_true(assert(other:ping("10.2.0.1")) < 0.3)
      assert.is_true(assert(stack:ping("10.1.0.1")) < 0.5)
      flood:signal("KILL")
    end)
  end)

  -- A script that is interrupted in a run and outside of it, and whose stack works on.
  local function interrupted(body)
    local namespace = netns.new()
    local path = netns.folder() .. "/script.lua"
    local file = assert(io.open(path, "w"))
    file:write(([[
      local netstack = require "netstack"
      io.stdout:setvbuf "no"
      local device = assert(netstack.tun { netns = %q, name = "t" })
      os.execute "%sip -n %s addr add 10.1.0.1/24 dev t; %sip -n %s link set dev t up"
      local stack = netstack.new()
      stack:attach(device, { addresses = { "10.1.0.2/24" } })
      local socket = stack:udp()
      socket:setsockname("*", 7)
      local ok, err = pcall(function() print "waits" %s end)
      print(ok, err)
      print(stack:ping("10.1.0.1") < 1, netstack.run(function() return stack:ping("10.1.0.1") < 1 end))
    ]]):format(namespace.name, netns.CLEAN, namespace.name, netns.CLEAN, namespace.name, body))
    file:close()
    run(function()
      local program = netns.start(netns.quote(netns.lua()) .. " " .. path)
      program:expect("waits\n")
      sleep(0.2)
      local start = now()
      program:signal("INT")
      local status, text = program:wait()
      assert.equal(0, status, text)
      assert.matches("^waits\nfalse\t[^\n]*interrupted!\ntrue\ttrue\n$", text)
      assert.is_true(now() - start < 1)
    end, { clock = "real" })
  end

  with({}, "ends with SIGINT and leaves the stacks usable", function()
    interrupted "netstack.run(function() netstack.spawn(function() socket:receive() end) netstack.sleep(100) end)"
  end)

  with({}, "ends a call outside run with SIGINT", function()
    interrupted "socket:receive()"
  end)
end)
