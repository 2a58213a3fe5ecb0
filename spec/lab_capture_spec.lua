-- What is seen of a lab: captures that are complete and the same everywhere, drawings, progress.
local lab = require "netstack.lab"
local netstack = require "netstack"
local packet = require "netstack.packet"
local packets = require "spec.packets"
local pcap = require "netstack.pcap"

local spawn = netstack.spawn

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

local function capture_of(path)
  local reader, list = assert(pcap.reader(path)), {}
  for one in reader:packets() do list[#list + 1] = one end
  assert.is_nil(reader:error())
  reader:close()
  return list
end

-- FNV-1a in 32 bits: the same number for the same bytes.
local function digest(text)
  local hash = 2166136261
  for i = 1, #text do
    -- exclusive or with a byte, then times 16777619, without more than 53 bits
    local low, byte, bit, mixed = hash % 256, text:byte(i), 1, 0
    for _ = 1, 8 do
      if low % 2 ~= byte % 2 then mixed = mixed + bit end
      low, byte, bit = (low - low % 2) / 2, (byte - byte % 2) / 2, bit * 2
    end
    hash = hash - hash % 256 + mixed
    hash = (hash * 403 + hash % 256 * 16777216) % 4294967296
  end
  return ("%08x"):format(hash)
end

-- A bit of everything: switches, a NAT, routers, weather, faults, TCP, UDP, ping, both families.
local function program(path, seed)
  local net = lab.new { seed = seed }
  local a, b, c, server = net:host "a", net:host "b", net:host "c", net:host "server"
  local s, nat, r = net:switch "s", net:nat "nat", net:router "r"
  net:link(a, s, { delay = 0.0001 })
  net:link(b, s, { delay = 0.0001, rate = 1e9 })
  net:link(s, nat)
  local access = net:link(nat, r, { rate = 10e6, delay = 0.01, jitter = 0.002, distribution = "normal", loss = 0.02,
    corrupt = 0.005, duplicate = 0.01, reorder = 0.01, queue = 20 })
  net:link(r, server, { delay = 0.005 })
  net:link(c, r, { loss_model = { p = 0.01, r = 0.3 } })
  assert(net:capture(path))
  local log = {}
  net:run(function()
    netstack.daemon(function(listener)
      while true do
        local conn = listener:accept()
        spawn(function()
          conn:send(("x"):rep(tonumber(conn:receive()) or 0))
          conn:close()
        end)
      end
    end, server:bind("*", 80))
    for i, client in ipairs { a, b, c } do
      spawn(function()
        for j = 1, 3 do
          local conn = client:connect(j == 2 and server:addresses()[2]:match "[^/]+" or "server", 80)
          if conn then
            conn:send((i * 10000 + j) .. "\n")
            log[#log + 1] = #(conn:receive "*a" or "")
            conn:close()
          end
          client:ping "server"
        end
      end)
    end
    netstack.sleep(0.5)
    net:partition({ c }, { server })
    netstack.sleep(1)
    net:heal()
    access:down()
    netstack.sleep(0.3)
    access:up()
    access:set("a->b", { loss = 0.1 })
  end)
  assert(net:close())
  return table.concat(log, " ")
end

describe("A capture of a lab", function()
  local paths
  local function path()
    paths[#paths + 1] = os.tmpname()
    return paths[#paths]
  end
  before_each(function() paths = {} end)
  after_each(function()
    for _, one in ipairs(paths) do os.remove(one) end
  end)

  -- The number changes whenever what stacks or links send does, and then is the same again for every Lua.
  it("is the same, byte for byte, each time and on every Lua", function()
    local first, second, third = path(), path(), path()
    local log = program(first, 7)
    assert.equal(log, program(second, 7))
    program(third, 8)
    local text = read(first)
    assert.is_true(text == read(second))
    assert.is_false(text == read(third))
    assert.is_true(#text > 100000)
    assert.equal("0e6dcf9d", digest(text))
  end)

  it("has each packet once, as it enters, of every link; drops say why", function()
    local file = path()
    local net = lab.new()
    local a, b = net:host "a", net:host "b"
    local l = net:link(a, b, { delay = 0.25 })
    local running = assert(net:capture(file))
    net:run(function()
      a:ping "b"
      l:set { loss = 1 }
      a:ping("b", { timeout = 0.5 })
      l:set { loss = 0, duplicate = 1 }
      l:down "b->a"
      a:ping("b", { timeout = 0.5 })
      net:link(net:host "c", a)
      a:ping "c"
    end)
    local list = capture_of(file) -- complete, though nothing is closed
    local rows = {}
    for i, one in ipairs(list) do
      rows[i] = ("%s %.2f %s"):format(one.interface_name, one.time, one.comment or "-")
    end
    assert.same({ "a-b 0.00 -", "a-b 0.25 -", "a-b 0.50 dropped: loss", "a-b 1.00 duplicated",
      "a-b 1.25 dropped: down", "a-b 1.25 dropped: down", "c-a 1.50 -", "c-a 1.50 -" }, rows)
    assert.equal(8, packet.dissect(list[1].data).icmp.type)
    running:close()
    net:run(function() a:ping "c" end)
    assert.equal(8, #capture_of(file))
    net:close()
  end)

  it("of one link is that link's, and goes on from run to run", function()
    local file = path()
    local net = lab.new()
    local a, b, c = net:host "a", net:host "b", net:host "c"
    local l = net:link(a, b, { delay = 0.5 })
    net:link(a, c)
    local running = assert(l:capture(file))
    for _ = 1, 2 do
      net:run(function()
        a:ping("b", { timeout = 2 })
        a:ping "c"
      end)
    end
    assert(running:close())
    local times = {}
    for i, one in ipairs(capture_of(file)) do times[i] = one.time end
    assert.same({ 0, 0.5, 1, 1.5 }, times)
    net:close()
  end)

  it("that can't be written says so, and the run is what it would have been", function()
    local net = lab.new()
    local a, b = net:host "a", net:host "b"
    net:link(a, b)
    assert.same({ nil, "/nowhere/x.pcapng: No such file or directory" }, { net:capture "/nowhere/x.pcapng" })
    assert.same({ nil, "/nowhere/x.pcapng: No such file or directory" }, { net:links()[1]:capture "/nowhere/x.pcapng" })
    net:capture "/dev/full"
    local rtt
    assert.equal("/dev/full: No space left on device", packets.failure(net.run, net, function()
      for _ = 1, 1000 do rtt = a:ping "b" end
    end))
    assert.equal(0, rtt)
    net:run(function() a:ping "b" end) -- it has been told
    net:close()
  end)
end)

describe("A drawing of a lab", function()
  it("is a graph with names, addresses and weather, and a picture where dot is installed", function()
    local base = os.tmpname()
    local net = lab.new()
    local a, s = net:host "a", net:switch "s"
    net:link(a, s, { rate = 10e6, delay = 0.04, loss = 0.01 })
    net:link(s, net:router "r"):set("a->b", { delay = 0.1 })
    local graph, picture = net:draw(base .. ".dot")
    assert.equal(base .. ".dot", graph)
    local text = read(graph)
    for _, line in ipairs { '"a" [shape=box];', '"s" [shape=diamond];', '"r" [shape=ellipse];',
      '"a" -- "s" [label="10 Mbit/s, 40 ms, loss 1 %", taillabel="10.128.0.1/20\\nfd00::1/64", headlabel=""];',
      '[label="→ 100 ms\\n← -"' } do
      assert.is_truthy(text:find(line, 1, true), line .. "\n" .. text)
    end
    if picture then
      assert.equal(base .. ".svg", picture)
      assert.matches("<svg", read(picture), 1, true)
      assert.same({ base .. ".dot", base .. ".svg" }, { net:draw(base .. ".svg") })
    else
      local none, err = net:draw(base .. ".svg")
      assert.is_nil(none)
      assert.matches("^dot not found", err)
    end
    local none, err = net:draw "/nowhere/x.dot"
    assert.same({ nil, "/nowhere/x.dot: No such file or directory" }, { none, err })
    none, err = net:draw "/dev/full"
    assert.same({ nil, "/dev/full: No space left on device" }, { none, err })
    for _, ending in ipairs { "", ".dot", ".svg" } do os.remove(base .. ending) end
    net:close()
  end)
end)

describe("Progress", function()
  it("is shown in lines, at first each second, then ever more seldom", function()
    local shown = {}
    local file = { write = function(_, text) shown[#shown + 1] = text end, flush = function() end }
    local show = require "netstack.lab.progress".new(file)
    for second = 1, 300 do show(second / 2) end
    for i, second in ipairs { 1, 3, 7, 15, 31, 63, 123, 183, 243 } do
      assert.equal(("%.3f s, 0 events, 0 packets\n"):format(second / 2), shown[i])
    end
    assert.equal(9, #shown)
  end)

  it("is asked for each second of real time", function()
    local core = require "netstack.core"
    local real, calls, clock = core.monotonic, {}, 0
    core.monotonic = function() -- luacheck: ignore 122
      clock = clock + 0.4
      return clock
    end
    local ok, err = pcall(netstack.run, function()
      for _ = 1, 3000 do netstack.sleep(1) end
    end, { progress = function(now) calls[#calls + 1] = now end })
    core.monotonic = real -- luacheck: ignore 122
    assert.is_true(ok, err)
    assert.is_true(#calls >= 3, #calls .. " calls")
    assert.is_true(calls[1] > 0 and calls[1] < calls[2])
  end)
end)
