-- Charts: what gnuplot is told, what it draws, and what is said where it cannot.
local helper = require "spec.helper"
local netns = require "spec.netns"
local packets = require "spec.packets"
local plot = require "netstack.plot"

local failure = packets.failure
local has_gnuplot = netns.has "gnuplot"

local function path(name) return netns.folder() .. "/" .. name end

local function write(name, text)
  local file = assert(io.open(path(name), "wb"))
  file:write(text)
  file:close()
  return path(name)
end

local SAMPLES = [[
time,state,rtt,rttvar,rto,cwnd,ssthresh,a->b.queue,a->b.drops,a->b.delivered_bytes
0,SYN-SENT,0,0,3,1460,65536,0,0,0
0.1,ESTABLISHED,0.08,0.04,0.24,2920,32768,4,0,25000
0.2,ESTABLISHED,0.081,0.03,0.2,4380,2048,2,1,50000
0.3,,,,,,,0,1,50000
]]

local SEQUENCE = [[
time,event,cause,from,to,flow
0,data,,0,1,x:1 > y:2
0,data,,0,1,y:2 > x:1
0.1,data,loss,1,1461,y:2 > x:1
0.15,ack,,1,65536,y:2 > x:1
0.2,retransmission,,1,1461,y:2 > x:1
0.25,sack,,1461,2921,y:2 > x:1
0.3,rst,,1461,,y:2 > x:1
]]

local COLOURS = { "0, 114, 178", "213,  94,   0", "0, 158, 115" }

-- How many corners the lines of a colour have in a picture, and how many marks of it there are; two corners are in the
-- legend, as is a mark.
local function drawn(svg, colour)
  local corners, marks = 0, 0
  for path_of in svg:gmatch("<path stroke='rgb%( *" .. colour .. "%)'[^>]* d='([^']*)'") do
    corners = corners + select(2, path_of:gsub("[ML]", ""))
  end
  for _ in svg:gmatch("<use [^>]*color='rgb%( *" .. colour .. "%)'") do marks = marks + 1 end
  return corners, marks
end

-- Runs a chunk in another interpreter, by a shell that was told things before; returns what it prints.
local function elsewhere(before, chunk)
  local pipe = io.popen(("lua=$(command -v %s); %s; exec \"$lua\" -e %s 2>&1"):format(netns.quote(netns.lua()), before,
    netns.quote(chunk)))
  local text = pipe:read "*a"
  pipe:close()
  return (text:gsub("%s+$", ""))
end

describe("a chart", function()
  it("leaves its script where there is no gnuplot, and says so", function()
    local csv = write("alone.csv", SAMPLES)
    local said = elsewhere("PATH=/nowhere", ("print(require('netstack.plot').draw('window', %q, %q))"):format(csv,
      path "alone.svg"))
    assert.equal("nil\tgnuplot not found\t" .. path "alone.gp", said)
    assert.is_nil(netns.read(path "alone.svg"))
    local script = netns.read(path "alone.gp")
    assert.matches("\nset output '" .. path "alone.svg":gsub("%p", "%%%0") .. "'\n", script)
    assert.matches("\nset title 'Congestion window' font ',16'\nset xlabel 'time %(s%)'\nset ylabel 'KiB'\n", script)
    assert.is_truthy(script:find("(column('time')):(column('cwnd') * 0.0009765625) axes x1y1 with steps", 1, true))
    assert.is_truthy(script:find("column('ssthresh')", 1, true))
  end)

  it("is drawn, with all that its table has", function()
    if not has_gnuplot then return pending "gnuplot is not installed" end
    local csv = write("samples.csv", SAMPLES)
    for name, expected in pairs {
      window = { "cwnd", 5, "ssthresh", 5 }, rtt = { "rtt (smoothed)", 2, "rttvar", 2, "rto", 4 },
      throughput = { "delivered, means of 0.1 s, a->b", 4 },
      queue = { "waiting, a->b", 4, "dropped, for whatever cause (right), a->b", 4 },
    } do
      assert.same({ 1 }, { plot.draw(name, csv, path "x.svg") })
      local svg = netns.read(path "x.svg")
      assert.is_truthy(svg:find(">" .. plot.charts[name].title .. "<", 1, true))
      assert.is_truthy(svg:find(">" .. plot.charts[name].y .. "<", 1, true))
      assert.is_truthy(svg:find(">time (s)<", 1, true))
      for i = 1, #expected / 2 do
        assert.is_truthy(svg:find(">" .. expected[2 * i - 1] .. "<", 1, true), expected[2 * i - 1])
        assert.is_true(drawn(svg, COLOURS[i]) >= 2 + expected[2 * i], expected[2 * i - 1])
      end
    end
  end)

  it("of a time sequence has data, what was sent again, what was lost and acknowledged", function()
    if not has_gnuplot then return pending "gnuplot is not installed" end
    local csv = write("sequence.csv", SEQUENCE)
    assert.same({ 1 }, { plot.draw("sequence", csv, path "x.svg", { from = 0, to = 0.3 }) })
    local svg = netns.read(path "x.svg")
    assert.is_truthy(svg:find(">Time-sequence graph of y:2 > x:1<", 1, true))
    assert.same({ 2 + 2, 0 }, { drawn(svg, "0, 114, 178") }) -- the SYN is too short to be seen
    assert.same({ 2, 2 }, { drawn(svg, "213,  94,   0") })
    assert.matches("set xrange %[0:0.3%]", netns.read(path "x.gp"))
  end)

  it("is of one connection or of all", function()
    local csv = write("two.csv", "time,one.cwnd,two.cwnd,one.ssthresh,two.ssthresh,mine\n0,1,2,3,4,5\n1,1,2,3,4,5\n")
    plot.draw("window", csv, path "two.svg")
    local script = netns.read(path "two.gp")
    for _, title in ipairs { "cwnd, one", "cwnd, two", "ssthresh, one", "ssthresh, two" } do
      assert.is_truthy(script:find(" title '" .. title .. "'", 1, true))
    end
    plot.draw("window", csv, path "two.svg", { of = "two", title = "Bob's\n'print 1" })
    script = netns.read(path "two.gp")
    assert.is_nil(script:find("one.cwnd", 1, true))
    assert.is_truthy(script:find("set title 'Bob''s ''print 1' font", 1, true))
    assert.is_truthy(script:find("column('two.cwnd')", 1, true))
    local ok, err = plot.draw({ title = "Mine", y = "things", series = { { column = "mine", style = "points" } } }, csv,
      path "two.svg")
    assert.equal(has_gnuplot and 1 or nil, ok, err)
    assert.is_truthy(netns.read(path "two.gp"):find("(column('mine')) axes x1y1 with points", 1, true))
  end)

  it("takes any path", function()
    if not has_gnuplot then return pending "gnuplot is not installed" end
    local folder = path "it's a `touch pwned` $(touch pwned) & <folder>"
    netns.command("mkdir " .. netns.quote(folder))
    for _, name in ipairs { "|touch pwned", "-e", "a\\nb'; touch pwned; '" } do
      local csv = assert(io.open(folder .. "/" .. name, "wb"))
      csv:write(SAMPLES)
      csv:close()
      assert.equal("1", elsewhere("cd " .. netns.quote(folder),
        ("print(require('netstack.plot').draw('rtt', %q, %q))"):format(name, name .. ".svg")))
      assert.matches("</svg>", netns.read(folder .. "/" .. name .. ".svg"))
      assert.is_nil(netns.read(folder .. "/pwned"))
    end
    assert.is_nil(netns.read "pwned")
  end)

  it("that cannot be drawn says why", function()
    local csv, empty = write("s.csv", SAMPLES), write("empty.csv", "")
    local nowhere = path "nowhere/x"
    assert.same({ nil, nowhere .. ".csv: No such file or directory" }, { plot.draw("rtt", nowhere .. ".csv", "x.svg") })
    assert.same({ nil, nowhere .. ".gp: No such file or directory" }, { plot.draw("rtt", csv, nowhere .. ".svg") })
    assert.same({ nil, empty .. ": empty" }, { plot.draw("rtt", empty, path "x.svg") })
    assert.same({ nil, csv .. ": no column 'b->a.queue'" }, { plot.draw("queue", csv, path "x.svg", { of = "b->a" }) })
    assert.same({ nil, csv .. ": no flow has data" }, { plot.draw("sequence", csv, path "x.svg") })
    local other = write("other.csv", "x,y\n1,2\n")
    assert.same({ nil, other .. ": its first column is not 'time'" }, { plot.draw("rtt", other, path "x.svg") })
    if not has_gnuplot then return end
    local ok, err, script = plot.draw({ series = { { column = "cwnd", style = "wiggles" } } }, csv, path "x.svg")
    assert.is_nil(ok)
    assert.matches("^gnuplot: .*unrecognized plot type", err)
    assert.equal(path "x.gp", script)
    if netns.has "test -c /dev/full" then
      netns.command("ln -sf /dev/full " .. path "full.svg")
      assert.same({ nil, path "full.svg" .. ": could not be written", path "full.gp" },
        { plot.draw("rtt", csv, path "full.svg") })
      netns.command("ln -sf /dev/full " .. path "full.gp")
      assert.same({ nil, path "full.gp" .. ": No space left on device" }, { plot.draw("rtt", csv, path "full.svg") })
    end
  end)

  it("of nothing known is refused", function()
    for expected, arguments in pairs {
      ["#1 to 'draw' %(no such chart: pie"] = { "pie", "x", "y" },
      ["#1 to 'draw' %(string or table expected, got nil"] = { nil, "x", "y" },
      ["#1 to 'draw' %('series': list expected, got nil"] = { {}, "x", "y" },
      ["#1 to 'draw' %(series 1: a table with 'column' expected"] = { { series = { "cwnd" } }, "x", "y" },
      ["#2 to 'draw' %(path expected, got nil"] = { "rtt" },
      ["#3 to 'draw' %(a path without control characters expected"] = { "rtt", "x", "a\nb" },
      ["#4 to 'draw' %(option 'from': number expected, got string"] = { "rtt", "x", "y", { from = "0" } },
    } do
      assert.matches("bad argument " .. expected .. "%)", failure(plot.draw, arguments[1], arguments[2], arguments[3],
        arguments[4]))
    end
  end)
end)

after_each(helper.nothing_left)
