-- Samples over virtual time, and time sequences: what is in the tables, and that taking them changes nothing.
local helper = require "spec.helper"
local link = require "netstack.link"
local netns = require "spec.netns"
local netstack = require "netstack"
local packet = require "netstack.packet"
local packets = require "spec.packets"
local pcap = require "netstack.pcap"
local sampler = require "netstack.sampler"
local timesequence = require "netstack.timesequence"

local run, now, sleep = netstack.run, netstack.now, netstack.sleep
local failure = packets.failure

-- A file that is a table: what was written to it, which may have an end.
local function memory(room)
  local file = { text = "" }
  function file:write(data)
    if room and #self.text + #data > room then return nil, "No space left on device", 28 end
    self.text = self.text .. data
    return self
  end
  return file
end

-- Rows by column name; numbers as numbers, empty cells as nil.
local function rows_of(text)
  local names, rows = nil, {}
  for line in text:gmatch "([^\n]*)\n" do
    local cells = {}
    for cell in (line .. ","):gmatch "([^,]*)," do cells[#cells + 1] = cell end
    if not names then
      names = cells
    else
      local row = {}
      for i, name in ipairs(names) do
        if cells[i] ~= "" then row[name] = tonumber(cells[i]) or cells[i] end
      end
      rows[#rows + 1] = row
    end
  end
  return rows, names
end

-- A download of some bytes over a lossy link, with whatever `start(server's connection, link)` returns closed at its
-- end. Returns what the link told, as text.
local function download(bytes, start, weather)
  local log = {}
  weather = weather or { rate = 10e6, delay = 0.01, loss = 0.02, seed = 5 }
  weather.since = 0
  run(function()
    local wire, near, far = assert(link.new(weather))
    local client, server = netstack.new { seed = 1 }, netstack.new { seed = 2 }
    assert(client:attach(near, { addresses = { "10.0.0.1/24" } }))
    assert(server:attach(far, { addresses = { "10.0.0.2/24" } }))
    local first
    wire:trace(function(e)
      first = first or e.time
      log[#log + 1] = ("%.9f %s %s %s"):format(e.time - first, e.direction, tostring(e.cause), e.packet)
    end)
    local listener = assert(server:bind("*", 80))
    netstack.spawn(function()
      local connection = assert(listener:accept())
      local started = start and start(connection, wire)
      assert(connection:send(("x"):rep(bytes)))
      while connection:info().unacked > 0 do sleep(0.1) end
      if started then assert(started:close()) end
      connection:close()
    end)
    local connection = assert(client:connect("10.0.0.2", 80))
    assert.equal(bytes, #connection:receive "*a")
    connection:close()
    sleep(3)
    client:close()
    server:close()
    wire:trace(nil)
  end)
  return table.concat(log, "\n")
end

describe("a sampler", function()
  it("has a row at its beginning, one each interval, and one at its end", function()
    local file = memory()
    run(function()
      sleep(1)
      local s = assert(sampler.new(file, { interval = 0.1, columns = { now = now } }))
      assert.equal("sampler", tostring(s))
      sleep(0.35)
      assert.equal(1, s:close())
      assert.equal(1, s:close())
      assert.equal("sampler (closed)", tostring(s))
      sleep(1)
    end)
    assert.equal("time,now\n1,1\n1.1,1.1\n1.2,1.2\n1.3,1.3\n1.35,1.35\n", file.text)
  end)

  it("ends with the run, and neither keeps it nor adds a row after it", function()
    local file, s = memory(), nil
    run(function()
      s = sampler.new(file)
      sleep(0.025)
    end)
    assert.equal(1, s:close())
    assert.equal("time\n0\n0.01\n0.02\n", file.text)
  end)

  it("hides no deadlock", function()
    local file = memory()
    local report = failure(run, function()
      sampler.new(file)
      sleep(0.02)
      sleep(math.huge)
    end, { timeout = 100 })
    assert.matches("^deadlock: every task waits and nothing is pending\n  task 1 .- sleeps for ever\n" ..
      "  task 2 %(spawned at .-sampler_spec.lua:%d+%), a daemon, sleeps until 0.03 s", report)
    assert.equal("time\n0\n0.01\n0.02\n", file.text)
    local ok = pcall(run, function() -- time still passes for those who wait for it
      sampler.new(memory())
      netstack.daemon(function() sleep(5) error "it came" end)
      sleep(math.huge)
    end)
    assert.is_false(ok)
  end)

  it("writes numbers alike on every Lua", function()
    local file = memory()
    local values = { 1, 1.0, -0.0, 2 ^ 53 - 1, 2 ^ 60, 1 / 3, -2.5, 1e-7, 0.1 + 0.2, math.huge, -math.huge, 0 / 0, true,
      'say "a, b"', false, 123456789012345 }
    local columns = {}
    for i = 1, #values do columns[("c%02d"):format(i)] = function() return values[i] end end
    columns.last = function() end
    local s = assert(sampler.new(file, { interval = false, columns = columns }))
    s:close()
    assert.equal("1,1,0,9007199254740991,1.1529215046068e+18,0.33333333333333,-2.5,1e-07,0.3,inf,-inf,nan,true," ..
      '"say ""a, b""",false,123456789012345,\n', (file.text:gsub("^.-\n[^,]+,", "")))
  end)

  it("writes a point in numbers whatever the locale", function()
    local old, found = os.setlocale(nil, "numeric"), nil
    for name in (netns.command "locale -a 2>/dev/null || true"):gmatch "[^\n]+" do
      if not found and os.setlocale(name, "numeric") and ("%.1f"):format(0.5) ~= "0.5" then found = name end
    end
    if not found then
      os.setlocale(old, "numeric")
      return pending "no locale here has a comma in its numbers"
    end
    local file = memory()
    local ok, err = pcall(function()
      sampler.new(file, { interval = false, columns = { x = function() return 2.5 end } }):close()
    end)
    os.setlocale(old, "numeric")
    assert(ok, err)
    assert.matches(",2%.5\n$", file.text)
  end)

  it("tells of connections and links, in one order", function()
    local file = memory()
    local later
    download(200000, function(connection, wire)
      local s = assert(sampler.new(file, { interval = 0.005, connection = connection, link = wire, direction = "b->a",
        connections = { zeta = function() return later end, alpha = connection }, links = { up = wire },
        columns = { mine = function() return "m" end } }))
      later = connection
      return s
    end)
    local rows, names = rows_of(file.text)
    local tcp = "state,%srtt,%srttvar,%srto,%scwnd,%sssthresh,%ssnd_wnd,%srcv_wnd,%smss,%sretransmits,%sunacked"
    local function prefixed(prefix) return prefix .. tcp:gsub("%%s", prefix) end
    local of_link = "%squeue,%squeue_bytes,%sdrops,%sdelivered_bytes,"
    assert.equal("time," .. prefixed "" .. "," .. prefixed "alpha." .. "," .. prefixed "zeta." .. "," ..
      of_link:gsub("%%s", "") .. of_link:gsub("%%s", "up.") .. "mine", table.concat(names, ","))
    assert.is_true(#rows > 20)
    assert.is_nil(rows[1]["zeta.cwnd"])
    local queued, retransmits, cwnd = 0, 0, 0
    for i, row in ipairs(rows) do
      assert.is_true(row.state == "ESTABLISHED" and row.mss == 1460 and row.mine == "m")
      assert.equal(row.cwnd, row["alpha.cwnd"])
      if i > 1 then assert.equal(row.cwnd, row["zeta.cwnd"]) end
      queued, retransmits = math.max(queued, row.queue), math.max(retransmits, row.retransmits)
      cwnd = math.max(cwnd, row.cwnd)
    end
    local last = rows[#rows]
    assert.is_true(queued > 0 and retransmits > 0 and last.drops > 0 and last.delivered_bytes > 0)
    assert.is_true(cwnd > rows[1].cwnd and last.rtt > 0.02 and last.rto >= last.rtt)
  end)

  it("has both directions of a link, and empty cells for what is closed", function()
    local file = memory()
    run(function()
      local wire, a = link.new { delay = 0.5 }
      local near, far = netstack.pair()
      local listener = far:bind("*", 80)
      local connection = assert(near:connect("10.0.0.2", 80))
      local s = assert(sampler.new(file, { interval = 1, link = wire, connection = connection }))
      sleep(1.5)
      a:send "12345"
      connection:close()
      sleep(1)
      s:close()
      listener:close()
      near:close()
      far:close()
    end)
    local rows, names = rows_of(file.text)
    assert.equal("a->b.queue a->b.queue_bytes a->b.drops a->b.delivered_bytes b->a.queue",
      table.concat(names, " ", 13, 17))
    assert.equal(4, #rows)
    assert.same({ "ESTABLISHED", 0, 0 }, { rows[2].state, rows[2]["a->b.delivered_bytes"], rows[2]["b->a.drops"] })
    assert.same({ 5, 0 }, { rows[4]["a->b.delivered_bytes"], rows[4]["b->a.delivered_bytes"] })
    assert.is_nil(rows[3].state)
  end)

  it("changes no packet, and tells the same each time", function()
    local files = { memory(), memory() }
    local function sampled(file)
      return download(300000, function(connection, wire)
        return assert(sampler.new(file, { interval = 0.0007, connection = connection, link = wire }))
      end)
    end
    local plain, one, other = download(300000), sampled(files[1]), sampled(files[2])
    assert.is_true(#plain > 300000)
    assert.is_true(plain == one and plain == other)
    assert.is_true(#files[1].text > 10000 and files[1].text == files[2].text)
  end)

  it("leaves out, in a time of one's own, what it came too late for", function()
    local file, time = memory(), 0
    run(function()
      local s = sampler.new(file, { interval = 0.01 })
      sleep(0.1)
      for _ = 1, 2000 do now() end -- and nobody else has a turn
      sleep(0.1)
      s:close()
    end, { clock = function()
      time = time + 0.0005
      return time
    end })
    local rows = rows_of(file.text)
    assert.is_true(#rows > 10 and #rows < 30)
    for i = 2, #rows - 1 do assert.is_true(rows[i].time - rows[i - 1].time > 0.004) end
  end)

  it("takes rows by hand, also outside a run", function()
    local file, n = memory(), 0
    local s = assert(sampler.new(file, { interval = false, columns = { n = function() n = n + 1 return n end } }))
    assert.equal(1, s:sample())
    assert.equal(1, s:close())
    assert.same({ nil, "closed" }, { s:sample() })
    assert.matches("^time,n\n[%d.e+]+,1\n[%d.e+]+,2\n$", file.text)
  end)

  it("says when its file cannot be written, and the run goes on", function()
    local path = netns.folder() .. "/nowhere/x.csv"
    run(function()
      assert.same({ nil, path .. ": No such file or directory" }, { sampler.new(path) })
      local file = memory(50)
      local s = assert(sampler.new(file))
      sleep(1)
      assert.same({ nil, "closed" }, { s:sample() })
      assert.same({ nil, "No space left on device" }, { s:close() })
      assert.equal(1, s:close())
      assert.equal("time\n0\n0.01\n0.02\n", file.text:sub(1, 17))
      assert.equal(1, now())
      local full = netns.has "test -c /dev/full" and sampler.new "/dev/full"
      if full then
        sleep(1)
        assert.same({ nil, "No space left on device" }, { full:close() })
        full = sampler.new("/dev/full", { interval = 0.0001 }) -- it notices before the end
        sleep(1)
        assert.same({ nil, "No space left on device" }, { full:close() })
      end
      return full
    end)
  end)

  it("tells at its end what one of its columns raised", function()
    local file = memory()
    run(function()
      local bad = false
      local s = sampler.new(file, { columns = { x = function()
        if bad then error("no x", 0) end
        return 1
      end } })
      sleep(0.015)
      bad = true
      sleep(1)
      assert.same({ nil, "no x" }, { s:close() })
      assert.equal("no x", failure(sampler.new, file, { columns = { x = function() error("no x", 0) end } }))
      sleep(1)
    end)
    assert.equal("time,x\n0,1\n0.01,1\ntime,x\n", file.text)
  end)

  it("refuses what cannot be sampled", function()
    local function why(options) return failure(sampler.new, memory(), options) end
    for expected, options in pairs {
      ["option 'interval': out of range: 1e%-09 seconds or more"] = { interval = 0 },
      ["option 'interval': number expected, got string"] = { interval = "1" },
      ["option 'connection': TCP socket or function expected, got table"] = { connection = {} },
      ["option 'connections': 'x': TCP socket or function expected, got number"] = { connections = { x = 1 } },
      ["option 'link': link or function expected, got boolean"] = { link = true },
      ["option 'links': names without commas and quotes expected, got 1"] = { links = { function() end } },
      ["option 'columns': names without commas and quotes expected, got a,b"] = { columns = { ["a,b"] = print } },
      ["option 'direction': 'a%->b' or 'b%->a' expected, got up"] = { direction = "up" },
      ["unknown option 'every'"] = { every = 1 },
    } do
      assert.matches("bad argument #2 to 'new' %(" .. expected .. "%)", why(options))
    end
    assert.matches("sampler_spec.lua:%d+: sampler.new outside run", failure(function()
      local s = sampler.new(memory())
      return s
    end))
    assert.matches("bad argument #1 to 'new' %(path or file expected, got nil%)", failure(run, function()
      local s = sampler.new()
      return s
    end))
  end)
end)

describe("a time sequence", function()
  local A, B = "10.0.0.1", "10.0.0.2"

  local function segment(back, fields, payload)
    fields.source_port, fields.destination_port = back and 80 or 4000, back and 4000 or 80
    return assert(packet.build { ipv4 = { source = back and B or A, destination = back and A or B }, tcp = fields,
      payload = payload })
  end

  local function recorded(items)
    local file = memory()
    local record = assert(timesequence.new(file))
    for i, item in ipairs(items) do
      item.time = item.time or i
      assert.equal(1, record:add(item))
    end
    assert.equal(1, record:close())
    assert.same({ nil, "closed" }, { record:add { time = 0, data = "" } })
    local text = file.text:gsub("10.0.0.1:4000 > 10.0.0.2:80", "up"):gsub("10.0.0.2:80 > 10.0.0.1:4000", "down")
    return text
  end

  it("has relative numbers, windows, and what was sent again or did not arrive", function()
    local ten = ("x"):rep(10)
    local first = 4294967290 -- the numbers wrap around
    local items = {
      { packet = segment(false, { seq = first, flags = "S", window = 1000, options = { window_scale = 2 } }) },
      { packet = segment(true, { seq = 7000, ack = first + 1, flags = "SA", window = 500,
        options = { window_scale = 3 } }), arrival = 2.5 },
      { packet = segment(false, { seq = first + 1, ack = 7001, flags = "PA", window = 10 }, ten), cause = "loss" },
      { packet = segment(false, { seq = 5, ack = 7001, flags = "PA", window = 10 }, ten) },
      { packet = segment(true, { seq = 7001, ack = first + 1, flags = "A", window = 20,
        options = { sack = { { left = 5, right = 15 } } } }) },
      { packet = segment(true, { seq = 7001, ack = first + 1, flags = "A", window = 20 }) },
      { packet = segment(false, { seq = first + 1, ack = 7001, flags = "PA", window = 10 }, ten), corrupted = true },
      { data = segment(false, { seq = first + 1, ack = 7001, flags = "PA", window = 10 }, ten),
        comment = "dropped: queue" },
      { packet = segment(true, { seq = 7001, ack = 15, flags = "FA", window = 20 }) },
      { packet = segment(false, { seq = 15, flags = "R" }) },
    }
    assert.equal([[
time,event,cause,from,to,flow
1,data,,0,1,up
2,data,,0,1,down
2.5,ack,,1,501,up
3,data,loss,1,11,up
3,ack,loss,1,41,down
4,data,,11,21,up
4,ack,,1,41,down
5,ack,,1,161,up
5,sack,,11,21,up
6,duplicate_ack,,1,,up
7,retransmission,corrupted,1,11,up
8,retransmission,queue,1,11,up
9,data,,1,2,down
9,ack,,21,181,up
10,rst,,21,,up
]], recorded(items))
  end)

  it("follows a connection where it was seen first, and counts anew when its ports are used again", function()
    local syn, data = segment(false, { seq = 5, flags = "S" }), segment(false, { seq = 6, ack = 9, flags = "A" }, "ab")
    assert.equal([[
time,event,cause,from,to,flow
1,data,,0,1,up
3,retransmission,,0,1,up
4,data,,1,3,up
4,ack,,0,,down
6,data,,0,1,up (2)
7,data,,1,3,up (2)
7,ack,,0,,down (2)
]], recorded {
      { data = syn, interface = 0 }, { data = syn, interface = 1 }, { data = syn, interface = 0 },
      { data = data, interface = 0 }, { data = data, interface = 1 },
      { data = segment(false, { seq = 1000, flags = "S" }), interface = 0 },
      { data = segment(false, { seq = 1001, ack = 1, flags = "A" }, "ab"), interface = 0 },
      { data = "no packet", interface = 0 }, { data = packets.udp(A, 1, B, 2, "x"), interface = 0 },
    })
  end)

  it("of a capture is that of the link's trace", function()
    local traced, captured, read = memory(), netns.folder() .. "/x.pcapng", memory()
    local writer = assert(pcap.writer(captured))
    local id = writer:interface()
    local record = assert(timesequence.new(traced))
    local retransmits, drops
    download(200000, function(connection, wire)
      wire:trace(function(event)
        writer:packet(id, event.time, event.packet, { comment = event.cause and "dropped: " .. event.cause })
        event.arrival = nil
        record:add(event)
      end)
      return { close = function()
        retransmits, drops = connection:info().retransmits, wire:stats()["b->a"].dropped.loss
        return 1
      end }
    end)
    assert(writer:close())
    assert(record:close())
    assert.equal(1, timesequence.read(captured, read))
    assert.is_true(traced.text == read.text)
    local sent, again, lost = 0, 0, 0
    for _, row in ipairs((rows_of(traced.text))) do
      local back = row.flow:match "^10.0.0.2:80 >"
      if back and row.event == "data" then sent = sent + row.to - row.from end
      if back and row.event == "retransmission" then again = again + 1 end
      if back and row.cause and (row.event == "data" or row.event == "retransmission") then lost = lost + 1 end
    end
    assert.same({ 200001, drops }, { sent, lost }) -- the FIN counts
    assert.is_true(again >= retransmits and retransmits > 0)
  end)

  it("says what is wrong with files and packets", function()
    local nowhere = netns.folder() .. "/nowhere/x"
    assert.same({ nil, nowhere .. ": No such file or directory" }, { timesequence.new(nowhere) })
    assert.same({ nil, nowhere .. ": No such file or directory" }, { timesequence.read(nowhere, memory()) })
    assert.same({ nil, "offset 0: no capture" }, { timesequence.read("README.md", memory()) })
    local record = assert(timesequence.new(memory(40)))
    local data = segment(false, { seq = 1, flags = "S" })
    assert.same({ nil, "No space left on device" }, { record:add { time = 1, data = data } })
    assert.same({ nil, "No space left on device" }, { record:add { time = 1, data = data } })
    assert.same({ nil, "No space left on device" }, { record:close() })
    assert.matches("bad argument #1 to 'add' %('packet': string expected, got nil%)", failure(record.add, record, {}))
    assert.matches("bad argument #1 to 'add' %('time': number expected, got nil%)",
      failure(record.add, record, { packet = "" }))
  end)
end)

after_each(helper.nothing_left)
