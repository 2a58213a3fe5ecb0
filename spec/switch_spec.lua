-- A switch driven by hand, by stacks and by links: where frames go, what is learned and forgotten, loops, lifetimes.
local core = require "netstack.core"
local frames = require "spec.frames"
local helper = require "spec.helper"
local link = require "netstack.link"
local netstack = require "netstack"
local packets = require "spec.packets"
local switch = require "netstack.switch"

local run, sleep, spawn = netstack.run, netstack.sleep, netstack.spawn
local failure, frame = packets.failure, frames.frame
local ALL = frames.ALL

local function mac(n) return "\2\0\0\0\0" .. string.char(n) end

-- A frame from one station to another (each a number, or six bytes), with something to tell it by.
local function from_to(from, to, data)
  if type(from) == "number" then from = mac(from) end
  if type(to) == "number" then to = mac(to) end
  return frame(to, from, 0x88b5, data or "x")
end

-- A switch with `n` ports, and the ends that frames go in and out by hand.
local function by_hand(n, options, pipe)
  local sw, ends = assert(switch.new(options)), {}
  for i = 1, n do
    local given = { medium = "ethernet", mtu = 1500 }
    for key, value in pairs(pipe or {}) do given[key] = value end
    local near, far = netstack.pipe(given)
    assert.equal(i, sw:attach(near))
    ends[i] = far
  end
  return sw, ends
end

-- How many frames each end gets once the switch has had its turn.
local function heard(ends)
  sleep(1e-6)
  local counts = {}
  for i, far in ipairs(ends) do counts[i] = #packets.drain(far) end
  return table.concat(counts, " ")
end

local function send(ends, i, ...)
  assert.equal(1, ends[i]:send(from_to(...)))
  return heard(ends)
end

-- "station@port ...", by address
local function known(sw)
  local list = {}
  for i, entry in ipairs(sw:table()) do
    list[i] = ("%d@%d"):format(tonumber(entry.address:sub(-2), 16), entry.port)
  end
  return table.concat(list, " ")
end

-- What was received went somewhere.
local function assert_adds_up(sw)
  local stats = sw:stats()
  local all = { stats }
  for _, port in pairs(stats.ports) do all[#all + 1] = port end
  for _, s in ipairs(all) do
    local dropped = s.dropped
    assert.equal(s.received, s.forwarded + s.flooded + dropped.short + dropped.reserved + dropped.filtered +
      dropped.loop + dropped.queue)
  end
end

local function inside(body)
  return function() run(body) end
end

describe("A switch", function()
  it("floods what it does not know, learns who sent it, and forwards from then on", inside(function()
    local sw, ends = by_hand(4)
    assert.equal("0 1 1 1", send(ends, 1, 1, 2))
    assert.equal("1 0 0 0", send(ends, 2, 2, 1))
    assert.equal("0 1 0 0", send(ends, 1, 1, 2))
    assert.equal("0 1 1 1", send(ends, 1, 1, 9))
    assert.equal("1@1 2@2", known(sw))
    local stats = sw:stats()
    assert.same({ 4, 2, 2, 8 }, { stats.received, stats.forwarded, stats.flooded, stats.sent })
    assert.same({ 3, 1, 2, 1 },
      { stats.ports[1].received, stats.ports[1].forwarded, stats.ports[1].flooded, stats.ports[1].sent })
    assert.same({ 0, 2 }, { stats.ports[4].received, stats.ports[4].sent })
    assert_adds_up(sw)
  end))

  it("carries frames whole and in order", inside(function()
    local _, ends = by_hand(2)
    for i = 1, 300 do ends[1]:send(from_to(1, 2, ("%d"):format(i):rep(4))) end
    for i = 1, 300 do assert.equal(from_to(1, 2, ("%d"):format(i):rep(4)), ends[2]:receive(1)) end
  end))

  it("sends broadcasts and multicasts to all others, also when it knows the sender", inside(function()
    local sw, ends = by_hand(3)
    for _, to in ipairs { ALL, "\1\0\94\0\0\1", "\51\51\0\0\0\1", "\1\128\194\0\0\16" } do
      assert.equal("0 1 1", send(ends, 1, 1, to))
      assert.equal("1 0 1", send(ends, 2, 2, to))
    end
    assert.equal(8, sw:stats().flooded)
  end))

  it("sends nothing back where it came from", inside(function()
    local sw, ends = by_hand(3)
    send(ends, 1, 1, 9)
    send(ends, 1, 2, 9)
    assert.equal("0 0 0", send(ends, 1, 1, 2))
    assert.equal("0 0 0", send(ends, 1, 1, 1))
    assert.same({ 2, 2 }, { sw:stats().dropped.filtered, sw:stats().ports[1].dropped.filtered })
    assert_adds_up(sw)
  end))

  it("keeps what is for bridges to itself, but learns from it", inside(function()
    local sw, ends = by_hand(2)
    for last = 0, 15 do assert.equal("0 0", send(ends, 1, 1, "\1\128\194\0\0" .. string.char(last))) end
    assert.equal(16, sw:stats().dropped.reserved)
    assert.equal("1@1", known(sw))
    assert_adds_up(sw)
  end))

  it("drops what is shorter than a header, and no other", inside(function()
    local sw, ends = by_hand(2)
    for _, length in ipairs { 1, 6, 12, 13 } do
      ends[1]:send(("\2"):rep(length))
      assert.equal("0 0", heard(ends))
    end
    ends[1]:send(from_to(1, 9, ""))
    assert.equal("0 1", heard(ends))
    assert.equal(4, sw:stats().dropped.short)
    assert_adds_up(sw)
  end))

  it("learns no groups and nobody", inside(function()
    local sw, ends = by_hand(2)
    for _, from in ipairs { ALL, "\1\0\94\0\0\1", "\3\0\0\0\0\1", ("\0"):rep(6) } do
      assert.equal("0 1", send(ends, 1, from, 9))
    end
    assert.same({}, sw:table())
  end))

  it("drops what a port has no room for, and counts it there", inside(function()
    local sw, ends = by_hand(3, nil, { capacity = 3 })
    for _ = 1, 2 do
      for _ = 1, 3 do ends[1]:send(from_to(1, 9)) end
      sleep(1e-6)
    end
    assert.equal("0 3 3", heard(ends))
    local stats = sw:stats()
    assert.same({ 6, 6, 6 }, { stats.flooded, stats.sent, stats.dropped.full })
    assert.same({ 3, 3 }, { stats.ports[2].dropped.full, stats.ports[3].dropped.full })
    assert.equal("0 1 1", send(ends, 1, 1, 9))
  end))

  it("holds what comes faster than it can go: senders at a full pipe wait", inside(function()
    local _, ends = by_hand(2, nil, { capacity = 4 })
    local got = 0
    local reader = spawn(function()
      for i = 1, 100 do
        assert.equal(from_to(1, 2, tostring(i)), ends[2]:receive(1))
        got = i
      end
    end)
    for i = 1, 100 do assert.equal(1, ends[1]:send(from_to(1, 2, tostring(i)), 1)) end
    reader:join()
    assert.equal(100, got)
  end))

  it("drops what is longer than a port's mtu", inside(function()
    local sw, ends = by_hand(2)
    local near, far = netstack.pipe { medium = "ethernet", mtu = 1000 }
    sw:attach(near)
    ends[3] = far
    assert.equal("0 1 1", send(ends, 1, 1, 9, ("x"):rep(1000)))
    assert.equal("0 1 0", send(ends, 1, 1, 9, ("x"):rep(1001)))
    assert.same({ 1, 1, 0 },
      { sw:stats().dropped.mtu, sw:stats().ports[3].dropped.mtu, sw:stats().ports[2].dropped.mtu })
  end))

  it("takes no mtu for a limit that nobody named", inside(function()
    local first, ends = by_hand(1, nil, { mtu = 9000 })
    local second = switch.new()
    local a, b = netstack.pipe { medium = "ethernet" }
    first:attach(a)
    second:attach(b)
    local near, far = netstack.pipe { medium = "ethernet", mtu = 9000 }
    second:attach(near)
    ends[2] = far
    assert.equal("0 1", send(ends, 1, 1, 9, ("x"):rep(9000)))
  end))

  it("follows a station that moves", inside(function()
    local sw, ends = by_hand(3)
    send(ends, 1, 1, 9)
    send(ends, 2, 2, 9)
    assert.equal("1 0 0", send(ends, 2, 2, 1))
    send(ends, 3, 1, 2)
    assert.equal("0 0 1", send(ends, 2, 2, 1))
    assert.equal("1@3 2@2", known(sw))
    assert.same({ 2, 1 }, { sw:stats().learned, sw:stats().moved })
  end))

  it("forgets who was not heard for 300 seconds, to the nanosecond, and across runs", function()
    local sw, ends
    run(function()
      sw, ends = by_hand(3)
      send(ends, 1, 1, 9) -- and a microsecond
      send(ends, 2, 2, 9)
      sleep(100)
      send(ends, 2, 2, 9)
    end)
    local start = core.lab_clock()
    run(function()
      sleep(100)
      local list = sw:table()
      assert.equal("1@1 2@2", known(sw))
      assert.is_true(math.abs(list[1].age - 200.000003) < 1e-9)
      assert.is_true(math.abs(list[2].age - 100.000001) < 1e-9)
      sleep(99.999996)
      assert.equal(2, sw:stats().addresses)
      sleep(0.000001)
      assert.equal("2@2", known(sw))
      assert.equal("0 1 1", send(ends, 1, 3, 1)) -- flooded
      assert.equal("0 1 0", send(ends, 3, 3, 2)) -- and 3 has moved
    end)
    assert.is_true(core.lab_clock() > start + 199)
    assert.same({ 3, 1, 2 }, { sw:stats().learned, sw:stats().aged, sw:stats().addresses })
  end)

  it("that forgets at once is a hub", inside(function()
    local sw, ends = by_hand(3, { ageing = 0 })
    send(ends, 1, 1, 9)
    assert.equal("1 0 1", send(ends, 2, 2, 1))
    assert.same({}, sw:table())
  end))

  it("with a full table forgets who was not heard for longest", inside(function()
    local sw, ends = by_hand(2, { table_size = 3 })
    for i = 1, 3 do send(ends, 1, i, 9) end
    send(ends, 1, 1, 9)
    send(ends, 1, 4, 9)
    assert.equal("1@1 3@1 4@1", known(sw))
    for i = 10, 60 do
      send(ends, 1, i, 9)
      assert.equal(3, #sw:table())
    end
    assert.equal("58@1 59@1 60@1", known(sw))
    assert.equal(52, sw:stats().evicted)
  end))

  it("tells its table by address, and forgets it when told", inside(function()
    local sw, ends = by_hand(2)
    for _, i in ipairs { 200, 3, 90, 1 } do send(ends, i > 50 and 1 or 2, i, 9) end
    assert.equal("1@2 3@2 90@1 200@1", known(sw))
    assert.equal("02:00:00:00:00:5a", sw:table()[3].address)
    assert.equal(1, sw:flush())
    assert.same({}, sw:table())
    assert.equal("0 1", send(ends, 1, 200, 3))
    assert.equal("200@1", known(sw))
  end))

  it("takes a port off, by number or device, forgets who was behind it, and gives its number again", inside(function()
    local sw, ends = by_hand(3)
    local near, far = netstack.pipe { medium = "ethernet" }
    assert.equal(4, sw:attach(near))
    ends[4] = far
    for i = 1, 4 do send(ends, i, i, 9) end
    assert.equal(1, sw:detach(2))
    assert.equal("1@1 3@3 4@4", known(sw))
    assert.equal("0 0 1 1", send(ends, 1, 1, 2))
    assert.same({ nil, "closed" }, { sw:detach(2) })
    assert.equal(1, sw:detach(near))
    assert.same({ nil, "closed" }, { sw:detach(near) })
    assert.equal("1@1 3@3", known(sw))
    assert.equal(1, near:send("the device is free"))
    assert.equal("the device is free", far:receive())
    assert.equal(2, sw:attach(near))
    assert.equal("1 0 0 1", send(ends, 3, 3, 4))
    assert.equal(1, near:close())
    assert.same({ nil, "closed" }, { sw:attach(near) })
    assert.equal("0 0 1 0", send(ends, 1, 1, 4))
  end))

  it("forgets a port whose device is closed, and who was behind a cable that is cut", inside(function()
    local sw, ends = by_hand(2)
    local near, far = netstack.pipe { medium = "ethernet" }
    sw:attach(near)
    far:send(from_to(3, 9))
    assert.equal("1 1", heard(ends))
    far:close()
    assert.equal("", (heard {}))
    assert.equal("", known(sw))
    assert.equal("switch switch1 (3 ports)", (tostring(sw):gsub("switch%d+", "switch1")))
    near:close()
    assert.equal("switch switch1 (2 ports)", (tostring(sw):gsub("switch%d+", "switch1")))
    assert.equal("0 1", send(ends, 1, 1, 3))
    assert.is_nil(sw:stats().ports[3])
    assert.equal(2, sw:stats().ports[1].received + sw:stats().ports[2].received + 1)
  end))

  it("takes what lay in a device before it was attached", inside(function()
    local sw, ends = by_hand(1)
    local near, far = netstack.pipe { medium = "ethernet" }
    far:send(from_to(1, 9, "1"))
    far:send(from_to(1, 9, "2"))
    sw:attach(near)
    assert.equal("2", heard(ends))
  end))

  it("has whoever waits at a device learn that it was attached", inside(function()
    local sw = switch.new()
    local near = netstack.pipe { medium = "ethernet" }
    local waiting = spawn(function() return near:receive(10) end)
    sleep(1)
    sw:attach(near)
    assert.same({ nil, "address already in use" }, { waiting:join() })
    assert.equal(1, netstack.now())
    assert.same({ nil, "address already in use" }, { near:send("x") })
    assert.same({ nil, "address already in use" }, { netstack.new():attach(near) })
    assert.same({ nil, "address already in use" }, { sw:attach(near) })
    assert.same({ nil, "address already in use" }, { switch.new():attach(near) })
  end))

  it("has Lua's devices for ports", inside(function()
    local sw, ends = by_hand(1)
    local sent = {}
    local device = netstack.device { medium = "ethernet", transmit = function(data) sent[#sent + 1] = data end }
    assert.equal(2, sw:attach(device))
    assert.equal("0", send(ends, 1, 1, 9, "to Lua"))
    assert.same({ from_to(1, 9, "to Lua") }, sent)
    device:input(from_to(2, 1, "from Lua"))
    assert.equal(from_to(2, 1, "from Lua"), ends[1]:receive(1))
    assert.equal("1@1 2@2", known(sw))
  end))

  it("bounds what waits at a port: the oldest goes", inside(function()
    local sw, ends = by_hand(2, nil, { capacity = 0 })
    for i = 1, 5000 do ends[1]:send(from_to(1, 9, ("%d"):format(i))) end
    assert.equal(from_to(1, 9, "905"), ends[2]:receive(1))
    assert.equal("0 4095", heard(ends))
    local stats = sw:stats()
    assert.same({ 5000, 4096, 904 }, { stats.received, stats.flooded, stats.dropped.queue })
    assert_adds_up(sw)
  end))

  it("takes its ports in turn, in the order in which frames came", inside(function()
    local _, ends = by_hand(4)
    for i = 3, 1, -1 do
      for n = 1, i do ends[i]:send(from_to(i, 9, ("%d.%d "):format(i, n))) end
    end
    sleep(1)
    local order = {}
    for i, data in ipairs(packets.drain(ends[4])) do order[i] = data:sub(15) end
    assert.equal("3.1 2.1 1.1 3.2 2.2 3.3 ", table.concat(order))
  end))

  it("is closed once, and leaves its devices", inside(function()
    local sw, ends = by_hand(2, { name = "core" })
    assert.equal("core", sw:name())
    assert.equal("switch core (2 ports)", tostring(sw))
    local near, far = netstack.pipe { medium = "ethernet" }
    sw:attach(near)
    ends[1]:send(from_to(1, 9))
    assert.equal(1, sw:close())
    assert.equal(1, sw:close())
    assert.equal("switch (closed)", tostring(sw))
    assert.equal("0 0", heard(ends))
    for _, name in ipairs { "name", "table", "flush", "stats" } do assert.same({ nil, "closed" }, { sw[name](sw) }) end
    assert.same({ nil, "closed" }, { sw:attach(near) })
    assert.same({ nil, "closed" }, { sw:detach(1) })
    assert.equal(1, switch.new():attach(near))
    assert.equal(1, far:send(from_to(1, 9)))
  end))

  it("raises for what cannot be meant, and nothing changes", function()
    local sw = switch.new()
    local ip = netstack.pipe()
    local function complaint(...)
      return (failure(...):gsub("^.-:%d+: ", ""))
    end
    assert.equal("bad argument #1 to 'attach' (device of medium 'ethernet' expected, got one of 'ip')",
      complaint(sw.attach, sw, ip))
    assert.equal("bad argument #1 to 'attach' (device expected, got number)", complaint(sw.attach, sw, 1))
    assert.equal("bad argument #1 to 'attach' (device expected, got userdata)", complaint(sw.attach, sw, sw))
    assert.equal("calling 'attach' on bad self (switch expected, got userdata)", complaint(sw.attach, ip, ip))
    assert.equal("bad argument #1 to 'detach' (number of a port or device expected)", complaint(sw.detach, sw, "1"))
    assert.equal("bad argument #1 to 'detach' (number has no integer representation)", complaint(sw.detach, sw, 1.5))
    assert.equal("bad argument #1 to 'detach' (out of range: 1 to 2147483647)", complaint(sw.detach, sw, 0))
    for _, case in ipairs {
      { { ageing = -1 }, "option 'ageing': out of range: 0 to 1000000 seconds" },
      { { ageing = 0 / 0 }, "option 'ageing': out of range: 0 to 1000000 seconds" },
      { { ageing = "1" }, "option 'ageing': number expected, got string" },
      { { table_size = 0 }, "option 'table_size': out of range: 1 to 16777216" },
      { { table_size = 1.5 }, "option 'table_size': number has no integer representation" },
      { { name = "" }, "option 'name': 1 to 63 characters expected" },
      { { ports = 4 }, "unknown option 'ports'" },
      { 4, "table expected, got number" },
    } do
      assert.equal("bad argument #1 to 'new' (" .. case[2] .. ")", complaint(switch.new, case[1]))
    end
    assert.equal(1, ip:send("still there"))
    assert.same({}, sw:stats().ports)
  end)
end)

-- Two switches with so many trunks, each of which `join` makes; and a port for us on each.
local function loop_of(trunks, join)
  local first, ends = by_hand(1)
  local second, others = by_hand(1)
  ends[2] = others[1]
  for _ = 1, trunks do
    local a, b = join()
    first:attach(a)
    second:attach(b)
  end
  return first, second, ends
end

local function linked(weather)
  return function()
    local _, a, b = link.new { medium = "ethernet", delay = weather.delay, duplicate = weather.duplicate }
    return a, b
  end
end

describe("Switches", function()
  it("in a row carry and learn", inside(function()
    local first, second, ends = loop_of(1, linked { delay = 0.001 })
    ends[1]:send(from_to(1, 2))
    assert.equal(from_to(1, 2), ends[2]:receive(1))
    assert.equal(0.001, netstack.now())
    ends[2]:send(from_to(2, 1))
    assert.equal(from_to(2, 1), ends[1]:receive(1))
    assert.equal("1@1 2@2", known(first))
    assert.equal("1@2 2@1", known(second))
    assert.same({ 1, 1 }, { second:stats().forwarded, second:stats().flooded })
  end))

  it("a hundred in a row, too", inside(function()
    local near, far = netstack.pipe { medium = "ethernet" }
    local all, last = {}, near
    for i = 1, 100 do
      all[i] = switch.new()
      all[i]:attach(last)
      local a, b = netstack.pipe { medium = "ethernet" }
      all[i]:attach(a)
      last = b
    end
    far:send(from_to(1, 2))
    assert.equal(from_to(1, 2), last:receive(1))
  end))

  it("in a loop without delay come to an end, where no time passes", inside(function()
    local first, second, ends = loop_of(2, linked {})
    assert.equal("254 254", send(ends, 1, 1, ALL)) -- two copies come by 127 times, one for each way round
    assert.is_true(netstack.now() < 0.001)
    assert.equal(2, first:stats().dropped.loop + second:stats().dropped.loop)
    assert_adds_up(first)
    assert_adds_up(second)
  end))

  it("in a loop that multiplies frames come to an end, too", inside(function()
    local first, second, ends = loop_of(4, function() return netstack.pipe { medium = "ethernet", capacity = 8 } end)
    ends[1]:send(from_to(1, ALL))
    sleep(1e-6)
    local stats = first:stats()
    assert.is_true(stats.dropped.full > 1000)
    assert.is_true(stats.dropped.loop + second:stats().dropped.loop > 10)
    assert_adds_up(first)
    assert_adds_up(second)
    assert.equal("02:00:00:00:00:01", first:table()[1].address)
  end))

  it("in a loop whose links duplicate, too", function()
    run(function() -- by the real clock, so that one without an end would be noticed
      local first, second, ends = loop_of(2, linked { duplicate = 0.02 })
      ends[1]:send(from_to(1, ALL))
      local before
      repeat
        before = first:stats().received
        sleep(0.001)
      until before == first:stats().received
      assert.is_true(before > 254)
      assert.equal(before, first:stats().flooded + first:stats().dropped.loop)
      assert.is_true(second:stats().received > 254)
    end, { clock = "real", timeout = 30 })
  end)

  it("in a loop of its own, an end of a pipe at the other, carry on", inside(function()
    local sw, ends = by_hand(1)
    local a, b = netstack.pipe { medium = "ethernet" }
    sw:attach(a)
    sw:attach(b)
    assert.equal("508", send(ends, 1, 1, ALL)) -- two copies, one each way round
    assert_adds_up(sw)
  end))

  it("in a loop with delay let time pass: a run's timeout comes", function()
    local seen, first, second, ends
    local err = failure(run, function()
      first, second, ends = loop_of(2, linked { delay = 0.001, duplicate = 1 })
      ends[1]:send(from_to(1, ALL))
      netstack.daemon(function()
        while true do
          ends[2]:receive(10)
          seen = netstack.now()
        end
      end)
      sleep(1000)
    end, { timeout = 0.01 })
    assert.matches("^timeout: not over after 0.01 s", err)
    assert.is_true(seen > 0.008 and seen <= 0.01)
    first:close()
    second:close()
  end)
end)

-- Hosts 1 to n (10.0.0.i, fd00::i) on a switch; `join(i)` gives the device of host i and that of its port.
local function lan(n, join)
  local sw, stacks = switch.new(), {}
  for i = 1, n do
    local near, far = join(i)
    stacks[i] = helper.watch(netstack.new { seed = i })
    assert(stacks[i]:attach(near, { addresses = { "10.0.0." .. i .. "/24", "fd00::" .. i .. "/64" },
      mac = "02:00:00:00:00:0" .. i }))
    assert.equal(i, sw:attach(far))
  end
  return sw, stacks
end

local function by_pipe(options)
  return function()
    return netstack.pipe { medium = "ethernet", checksum = options and options.checksum }
  end
end

local function by_link(weather)
  return function(i)
    local _, a, b = link.new { medium = "ethernet", seed = i, delay = weather.delay, rate = weather.rate,
      loss = weather.loss, corrupt = weather.corrupt, reorder = weather.reorder, duplicate = weather.duplicate }
    return a, b
  end
end

-- Sends `total` bytes each way over a connection at once, and compares what comes.
local function exchange(client, server, total)
  local tasks = {}
  for i, socket in ipairs { client, server } do
    tasks[i] = spawn(function()
      local other = 3 - i
      local writer = spawn(function()
        assert(socket:send((("from %d "):format(i)):rep(total / 7)))
        assert(socket:shutdown("send"))
      end)
      assert.is_true((("from %d "):format(other)):rep(total / 7) == socket:receive("*a"))
      writer:join()
      socket:close()
    end)
  end
  for _, task in ipairs(tasks) do task:join() end
end

-- Every host talks to the next, both families, both ways at once.
local function talk(stacks, total)
  local tasks = {}
  for i, stack in ipairs(stacks) do
    local other = i % #stacks + 1
    for f, family in ipairs(helper.families) do
      tasks[#tasks + 1] = spawn(function()
        local host = (f == 1 and "10.0.0." or "fd00::") .. other
        local listener = assert(stacks[other]:bind(family.any, 80 + f))
        local client = assert(stack:connect(host, 80 + f))
        local server = assert(listener:accept())
        listener:close()
        exchange(client, server, total)
      end)
    end
  end
  for _, task in ipairs(tasks) do task:join() end
end

describe("Stacks on a switch", function()
  after_each(helper.nothing_left)

  for _, case in ipairs {
    { "pipes", by_pipe() }, { "pipes with checksums", by_pipe { checksum = true } },
    { "links without delay", by_link {} },
    { "links with delay, a rate, and losses",
      by_link { delay = 0.002, rate = 100e6, loss = 0.005, reorder = 0.01, duplicate = 0.01 } },
    { "a pipe, a pipe with checksums and a link that corrupts", function(i)
      if i == 3 then return by_link { delay = 0.001, corrupt = 0.01 }(i) end
      return by_pipe { checksum = i == 2 }()
    end },
  } do
    it("find each other and talk over " .. case[1], inside(function()
      local sw, stacks = lan(3, case[2])
      sleep(3) -- addresses are surely their own by then
      talk(stacks, 70000)
      assert.equal("1@1 2@2 3@3", known(sw))
      local stats = sw:stats()
      assert.is_true(stats.forwarded > 6 * 2 * 49)
      -- All that is flooded is for groups, ARP's questions, and what a corrupted destination says.
      assert.is_true(stats.flooded < 100)
      assert_adds_up(sw)
    end))
  end

  it("get no corrupted bytes where they do not look", inside(function()
    local sw, stacks = lan(2, function(i)
      if i == 1 then return by_link { corrupt = 0.05 }(i) end
      return by_pipe()()
    end)
    sleep(3)
    local client, server = helper.connection(stacks[1], stacks[2], helper.IPV4)
    exchange(client, server, 350000)
    local dropped = sw:stats().ports[2].dropped.checksum
    assert.is_true(dropped > 3)
  end))

  it("are asked for once, and not heard by others from then on", inside(function()
    local sw, stacks = lan(3, by_pipe())
    sleep(3)
    local before = sw:stats()
    assert.is_number(stacks[1]:ping("10.0.0.2"))
    assert.is_number(stacks[1]:ping("fd00::2"))
    local after = sw:stats()
    assert.equal(2, after.flooded - before.flooded) -- ARP's question, and a solicitation
    assert.equal(2, after.ports[3].sent - before.ports[3].sent)
    assert.equal(6, after.forwarded - before.forwarded)
    for _ = 1, 5 do assert.is_number(stacks[1]:ping("10.0.0.2")) end
    assert.equal(after.flooded, sw:stats().flooded)
  end))

  it("notice that an address is taken", inside(function()
    local sw, stacks = lan(2, by_pipe())
    sleep(3)
    local near, far = netstack.pipe { medium = "ethernet" }
    sw:attach(far)
    local third = helper.watch(netstack.new { seed = 3 })
    local interface = assert(third:attach(near, { addresses = { "fd00::2/64" } }))
    sleep(3)
    assert.is_true(interface:stats() ~= nil)
    assert.is_number(stacks[1]:ping("fd00::2"))
    assert.equal(2, sw:table()[2].port)
    assert.is_nil((third:ping("fd00::1", { timeout = 1 })))
  end))

  it("go on with a switch that is reached over another", inside(function()
    local first, stacks = lan(2, by_link { delay = 0.001 })
    local second = switch.new()
    local _, a, b = link.new { medium = "ethernet", delay = 0.01 }
    first:attach(a)
    second:attach(b)
    local near, far = netstack.pipe { medium = "ethernet" }
    stacks[3] = helper.watch(netstack.new { seed = 3 })
    assert(stacks[3]:attach(near, { addresses = { "10.0.0.3/24", "fd00::3/64" }, mac = "02:00:00:00:00:03" }))
    second:attach(far)
    sleep(3)
    assert.is_number(stacks[1]:ping("fd00::3"))
    local rtt = assert(stacks[1]:ping("fd00::3"))
    assert.is_true(math.abs(rtt - 0.022) < 1e-6)
    talk(stacks, 35000)
    assert.equal("1@1 2@2 3@3", known(first))
  end))

  it("do the same in every run", function()
    local function log()
      local lines = {}
      run(function()
        local sw, stacks = lan(3, by_link { delay = 0.002, loss = 0.01, rate = 50e6 })
        local near, far = netstack.pipe { medium = "ethernet", capacity = 0 }
        sw:attach(near)
        netstack.daemon(function()
          while true do
            local data = far:receive(1000)
            lines[#lines + 1] = ("%.9f %s"):format(netstack.now(), data)
          end
        end)
        sleep(3)
        talk(stacks, 35000)
        lines[#lines + 1] = ("%d %d"):format(sw:stats().forwarded, sw:stats().flooded)
        for _, stack in ipairs(stacks) do stack:close() end
      end)
      return table.concat(lines, "\n")
    end
    assert.is_true(log() == log())
  end)
end)

describe("Switches are collected #collector", function()
  local function collect()
    collectgarbage()
    collectgarbage()
  end

  it("in any order, with frames everywhere", function()
    local function world()
      local sw, ends = by_hand(2)
      local _, a, b = link.new { medium = "ethernet", delay = 1 }
      local other = switch.new()
      sw:attach(a)
      other:attach(b)
      local near, far = netstack.pipe { medium = "ethernet" }
      other:attach(near)
      local stack = netstack.new()
      stack:attach(far, { addresses = { "10.0.0.1/24" } })
      ends[1]:send(from_to(1, ALL))
      ends[2]:send(from_to(2, 1))
      run(function() sleep(0.5) end)
      ends[1]:send(from_to(1, 2))
      ends[2]:send(from_to(2, ALL))
      return { sw, other, ends[1], a, near, stack }
    end
    for seed = 1, 20 do
      local objects, random = world(), helper.random(seed)
      for left = #objects, 1, -1 do
        local i = random(left) + 1
        if seed % 3 == 0 and objects[i].close then objects[i]:close() end
        table.remove(objects, i)
        collect()
        if seed % 2 == 0 then run(function() sleep(0.3) end) end
      end
    end
  end)

  it("no sooner than what is joined by them", function()
    local stack, alive
    do
      local sw, stacks = lan(2, by_pipe())
      stack = stacks[1]
      alive = setmetatable({ sw, stacks[2] }, { __mode = "v" })
    end
    collect()
    assert.is_not_nil(alive[1])
    run(function()
      sleep(3)
      assert.is_number(stack:ping("10.0.0.2"))
    end)
    stack:close()
    collect()
  end)

  it("when they were left by all", function()
    local alive = setmetatable({}, { __mode = "v" })
    local kept
    do
      local sw, ends = by_hand(2)
      alive[1], kept = sw, ends[1]
      sw:close()
      alive[2] = ends[2]
    end
    collect()
    assert.is_nil(alive[1])
    assert.is_nil(alive[2])
    assert.equal(1, kept:send("x"))
  end)

  it("while they tell", function()
    local sw, ends = by_hand(2)
    run(function()
      for i = 1, 200 do send(ends, 1, i, 9) end
    end)
    local before = collectgarbage "count"
    for _ = 1, 50 do
      local near = netstack.pipe { medium = "ethernet" }
      sw:attach(near)
      near = nil -- luacheck: ignore
      assert.equal(200, #sw:table())
      assert.is_table(sw:stats().ports[3])
      sw:detach(3)
    end
    collect()
    assert.is_true(collectgarbage "count" < before + 200)
  end)
end)
