-- A link of the lab driven by hand and by stacks: times to the nanosecond, queues, changes, traces, lifetimes.
local core = require "netstack.core"
local helper = require "spec.helper"
local link = require "netstack.link"
local netstack = require "netstack"
local packets = require "spec.packets"

local run, now, sleep = netstack.run, netstack.now, netstack.sleep
local failure = packets.failure

local function ns(seconds) return math.floor(seconds * 1e9 + 0.5) end

-- When each of the next `n` packets at an end comes.
local function arrivals(far, n)
  local times = {}
  for i = 1, n do
    assert(far:receive(1000))
    times[i] = ns(now())
  end
  return times
end

describe("A link", function()
  it("takes a packet's bits over the rate, and then the delay, to the nanosecond", function()
    for _, case in ipairs {
      { rate = 10e6, delay = 0.04, bytes = 1500, at = 1200000 + 40000000 },
      { rate = 100e9, delay = 0, bytes = 1500, at = 120 },
      { rate = 100e9, delay = 25e-9, bytes = 1250, at = 125 },
      { rate = 1e9, delay = 1e-9, bytes = 100, at = 801 },
      { rate = false, delay = 3e-7, bytes = 100, at = 300 },
      { rate = false, delay = 0, bytes = 100, at = 0 },
      { rate = 1, delay = 0, bytes = 100, at = 800000000000 },
    } do
      run(function()
        local _, a, b = link.new { rate = case.rate, delay = case.delay }
        a:send(("x"):rep(case.bytes))
        assert.same({ case.at }, arrivals(b, 1))
      end)
    end
  end)

  it("adds no error up: 1000 packets of 5.12 ns each", function()
    run(function()
      local _, a, b = link.new { rate = 100e9 }
      for _ = 1, 1000 do a:send(("x"):rep(64)) end
      local times = arrivals(b, 1000)
      assert.equal(6, times[1])
      assert.equal(11, times[2])
      assert.equal(5120, times[1000])
    end)
  end)

  it("keeps the order whatever the jitter and however the delay changes", function()
    run(function()
      local l, a, b = link.new { delay = 0.1, jitter = 0.1, distribution = "pareto" }
      for i = 1, 500 do
        if i == 250 then l:set { delay = 0, jitter = 0 } end
        a:send(("%d"):format(i))
        sleep(0.001)
      end
      for i = 1, 500 do assert.equal(tostring(i), b:receive(1000)) end
    end)
  end)

  it("drops at the tail of a queue of packets or of bytes", function()
    for _, limit in ipairs { { queue = 3 }, { queue_bytes = 300 } } do
      run(function()
        local l, a, b = link.new { rate = 8000 }
        l:set(limit)
        for i = 1, 10 do assert.equal(1, a:send(("%d"):format(i % 10):rep(100))) end
        local stats = l:stats()["a->b"]
        assert.same({ 10, 6, 3, 300, 4 }, { stats.sent, stats.dropped.queue, stats.queue, stats.queue_bytes,
          stats.in_flight })
        assert.same({ 100000000, 200000000, 300000000, 400000000 }, arrivals(b, 4))
        stats = l:stats()["a->b"]
        assert.same({ 4, 0, 0, 0 }, { stats.delivered, stats.queue, stats.queue_bytes, stats.in_flight })
        assert.same({ nil, "empty" }, { b:receive(10) })
      end)
    end
  end)

  it("drops what is longer than its mtu, and what enters while it is down, each way for itself", function()
    run(function()
      local l, a, b = link.new { delay = 1 }
      l:set("a->b", { mtu = 68 })
      a:send(("x"):rep(69))
      a:send(("x"):rep(68))
      b:send(("y"):rep(69))
      assert.equal(1, l:down("a->b"))
      a:send("lost")
      b:send("not lost")
      assert.equal(68, #b:receive(2)) -- it was under way
      assert.equal(69, #a:receive(2))
      assert.equal("not lost", a:receive(2))
      l:up()
      a:send("again")
      assert.equal("again", b:receive(2))
      assert.same({ 1, 1 }, { l:stats()["a->b"].dropped.mtu, l:stats()["a->b"].dropped.down })
      assert.is_true(l:get("a->b").mtu == 68 and l:get("b->a").mtu == false)
      l:reset()
      assert.is_false(l:get("a->b").mtu)
    end)
  end)

  it("carries on in the next run what was under way", function()
    local _, a, b = link.new { delay = 10 }
    run(function()
      sleep(5)
      a:send("x")
      sleep(4)
    end)
    run(function()
      assert.equal("x", b:receive(100))
      assert.equal(6, now())
    end)
  end)

  it("tells of each packet once, with what becomes of it", function()
    local l, a, b = link.new { delay = 0.5, since = 0 }
    local events = {}
    run(function()
      l:trace(function(event) events[#events + 1] = event end)
      a:send("1")
      l:set { duplicate = 1 }
      b:send("2")
      l:set { loss = 1, duplicate = 0 }
      a:send("3")
      sleep(1)
      l:trace(nil)
      a:send("4")
      sleep(1)
    end)
    assert.equal(3, #events)
    local start = events[1].time
    local function after(time) return time and ns(time - start) end
    assert.same({ "1", "a->b", 500000000 }, { events[1].packet, events[1].direction, after(events[1].arrival) })
    assert.same({ "2", "b->a", true, 500000000 }, { events[2].packet, events[2].direction, events[2].duplicated,
      after(events[2].copy_arrival) })
    assert.same({ "3", "loss" }, { events[3].packet, events[3].cause })
  end)

  it("does the same for the same seed, and something else for another", function()
    local function log(seed)
      local lines = {}
      run(function()
        local l, a, b = link.new { seed = seed, delay = 0.01, jitter = 0.005, distribution = "normal", loss = 0.1,
          duplicate = 0.1, corrupt = 0.1, reorder = 0.1 }
        l:trace(function(e)
          lines[#lines + 1] = ("%.9f %s %s %s"):format(e.time, tostring(e.arrival and ns(e.arrival - e.time)),
            tostring(e.cause), tostring(e.corrupted))
        end)
        netstack.daemon(function()
          while true do lines[#lines + 1] = b:receive(1000) or "nothing" end
        end)
        for i = 1, 300 do
          a:send(("packet %d"):format(i))
          sleep(0.001)
        end
        sleep(1)
        l:trace(nil)
      end)
      return table.concat(lines, "\n"):gsub("%d+%.%d+ ", "")
    end
    assert.is_true(log(7) == log(7))
    assert.is_false(log(7) == log(8))
  end)

  it("raises for impossible values, and nothing changes", function()
    local l = link.new()
    for _, case in ipairs {
      { { loss = 1.5 }, "option 'loss': out of range: 0 to 1" },
      { { loss = 0 / 0 }, "option 'loss': out of range: 0 to 1" },
      { { delay = -1, jitter = 1 }, "option 'delay': out of range: 0 to 1000000 seconds" },
      { { weather = 1 }, "unknown option 'weather'" },
      { { loss_model = { p = 2 } }, "option 'loss_model': 'p': out of range: 0 to 1" },
      { { loss_model = {} }, "option 'loss_model': 'p': number expected, got nil" },
      { { codel = { target = 0 } }, "option 'codel': 'target': out of range: a nanosecond to 1000000 seconds" },
      { { codel = true }, "option 'codel': table expected, got boolean" },
      { { flap = { up = 1 } }, "option 'flap': 'down': number expected, got nil" },
      { { loss_model = { p = 0, q = 1 } }, "option 'loss_model': unknown option 'q'" },
      { { distribution = "flat" }, "option 'distribution': 'uniform' or 'normal' or 'pareto' expected, got flat" },
    } do
      assert.equal("bad argument #1 to 'set' (" .. case[2] .. ")", (failure(l.set, l, case[1]):gsub("^.-:%d+: ", "")))
      assert.equal("bad argument #2 to 'set' (" .. case[2] .. ")",
        (failure(l.set, l, "a->b", case[1]):gsub("^.-:%d+: ", "")))
    end
    assert.equal(0, l:get("a->b").jitter)
  end)

  it("and its ends are collected in any order, with packets under way", function()
    for _, order in ipairs { { 1, 2, 3 }, { 3, 2, 1 }, { 2, 1, 3 }, { 2, 3, 1 } } do
      local objects = { link.new { delay = 1 } }
      objects[1]:trace(function() end)
      objects[2]:send("x")
      objects[3]:send("y")
      for _, i in ipairs(order) do
        objects[i] = nil
        collectgarbage()
        collectgarbage()
      end
    end
  end)

  it("flaps on a schedule, from when it was set, until that is taken away", function()
    run(function()
      local l, a, b = link.new()
      sleep(0.25)
      l:set { flap = { up = 1, down = 0.5 } }
      assert.same({ up = 1, down = 0.5 }, l:get("b->a").flap)
      local seen = {}
      for i = 1, 40 do
        a:send("x")
        seen[i] = b:receive() and "x" or "."
        sleep(0.1)
      end
      assert.equal("xxxxxxxxxx.....xxxxxxxxxx.....xxxxxxxxxx", table.concat(seen))
      assert.equal(10, l:stats()["a->b"].dropped.down)
      l:reset()
      assert.is_false(l:get("a->b").flap)
      sleep(0.2)
      a:send("x")
      assert.equal("x", b:receive())
    end)
  end)

  it("bars what comes from addresses or goes to them, of IP and of ARP", function()
    local packet = require "netstack.packet"
    local function datagram(from, to, ethernet)
      local ip = { source = from, destination = to }
      return assert(packet.build { ethernet = ethernet and { source = "02:00:00:00:00:01", destination =
        "02:00:00:00:00:02" }, ipv4 = from:find(".", 1, true) and ip, ipv6 = from:find(":") and ip,
        udp = { source_port = 1, destination_port = 2 } })
    end
    local function arp(from, to)
      return assert(packet.build { ethernet = { source = "02:00:00:00:00:01", destination = "ff:ff:ff:ff:ff:ff" },
        arp = { operation = 1, sender_address = from, target_address = to,
          sender_mac = "02:00:00:00:00:01", target_mac = "00:00:00:00:00:00" } })
    end
    local set = core.filter { "10.0.0.1", "fd00::1", "10.0.0.9" }
    for _, case in ipairs {
      { datagram("10.0.0.1", "10.0.0.2"), "source" }, { datagram("10.0.0.2", "10.0.0.1"), "destination" },
      { datagram("fd00::1", "fd00::2"), "source" }, { datagram("fd00::2", "fd00::1"), "destination" },
      { datagram("10.0.0.2", "10.0.0.3") }, { "\69" }, { ("\96"):rep(39) },
      { datagram("10.0.0.1", "10.0.0.2", true), "source", "ethernet" },
      { datagram("fd00::2", "fd00::1", true), "destination", "ethernet" },
      { arp("10.0.0.1", "10.0.0.2"), "source", "ethernet" }, { arp("10.0.0.2", "10.0.0.9"), "destination", "ethernet" },
      { arp("10.0.0.2", "10.0.0.3"), nil, "ethernet" },
    } do
      for _, which in ipairs { "source", "destination" } do
        local l, a, b = link.new { medium = case[3] }
        assert.equal(1, l:bar(1, set, which == "source"))
        local barred = case[2] == which and 1 or 0
        a:send(case[1])
        assert.equal(barred, l:stats()["a->b"].dropped.partition)
        b:send(case[1])
        assert.equal(0, l:stats()["b->a"].dropped.partition)
        l:unbar(1)
        a:send(case[1])
        assert.equal(barred, l:stats()["a->b"].dropped.partition)
      end
    end
  end)

  it("closes with both ends, and again, and answers closed then", function()
    run(function()
      local l, a, b = link.new { delay = 1 }
      a:send("x")
      assert.equal(1, l:close())
      assert.equal(1, l:close())
      assert.same({ nil, "closed" }, { b:receive(5) })
      assert.same({ nil, "closed" }, { a:send("y") })
      assert.same({ nil, "closed" }, { l:set { loss = 1 } })
      assert.same({ nil, "closed" }, { l:stats() })
      assert.same({ nil, "closed" }, { l:trace(print) })
      assert.same({ nil, "closed" }, { l:down() })
    end)
  end)

  it("holds a bounded number of packets for an end that nobody reads", function()
    local l, a = link.new()
    for _ = 1, 1048576 + 5 do a:send("x") end
    assert.equal(5, l:stats()["a->b"].dropped.limit)
  end)

  it("tells the other end that one is closed, after what was under way", function()
    run(function()
      local l, a, b = link.new { delay = 1 }
      a:send("x")
      a:close()
      assert.equal("x", b:receive(10))
      assert.same({ nil, "closed" }, { b:receive(10) })
      assert.equal(1, b:send("y"))
      assert.equal(1, l:stats()["b->a"].dropped.closed)
    end)
  end)
end)

describe("TCP over a link", function()
  after_each(helper.nothing_left)

  for _, case in ipairs {
    { "one in a hundred lost", { loss = 0.01 } }, { "one in a hundred corrupted", { corrupt = 0.01 } },
    { "all of it", { loss = 0.01, corrupt = 0.01, duplicate = 0.01, reorder = 0.05, jitter = 0.002 } },
  } do
    it("is exact: " .. case[1], function()
      local weather = case[2]
      weather.seed, weather.rate, weather.delay = 3, 100e6, 0.005
      local l, near, far = link.new(weather)
      local a, b = helper.watch(netstack.new { seed = 1 }, netstack.new { seed = 2 })
      assert(a:attach(near, { addresses = { "10.0.0.1/24" } }))
      assert(b:attach(far, { addresses = { "10.0.0.2/24" } }))
      run(function()
        local client, server = helper.connection(a, b, helper.IPV4)
        helper.exchange(client, server, 1024 * 1024)
      end)
      for _, s in pairs(l:stats()) do
        local dropped = 0
        for _, n in pairs(s.dropped) do dropped = dropped + n end
        assert.equal(s.sent + s.duplicated, s.delivered + dropped + s.in_flight)
      end
      assert.is_true(l:stats()["a->b"].corrupted > 0 or not weather.corrupt)
    end)
  end
end)
