--- Charts of what `netstack.sampler` and `netstack.timesequence` wrote: SVG, drawn by gnuplot.
--
-- Beside each chart stays the script that drew it, to be changed by hand. Gnuplot is run when a chart is asked for and
-- must be installed then; without it there is the script alone.
-- @module netstack.plot

local check = require "netstack.check"
local csv_number = require("netstack.csv").number
local picture = require "netstack.picture"

local concat, find, format, gsub, match, sub = table.concat, string.find, string.format, string.gsub, string.match,
  string.sub
local ipairs, open, lines_of, type = ipairs, io.open, io.lines, type

local M = {}

-- Of Okabe and Ito: told apart by those who see few colours, too.
local BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK, PALE = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7",
  "#56b4e9", "#000000", "#e5bcd3"
local COLOURS = { BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK }

--- The charts of samples that `draw` knows by name; one of your own is a table of this form. Of a series: `column`;
-- `title` (that); `scale`, what its values are multiplied by (1); `rate`: what it gained per second, over so many
-- seconds; `positive`: leaves out what is 0 or below; `style`: gnuplot's, "lines" or "steps"; `second`: whether it is
-- measured by the axis on the right.
M.charts = {
  window = { title = "Congestion window", y = "KiB", series = {
    { column = "cwnd", scale = 1 / 1024, style = "steps" },
    { column = "ssthresh", scale = 1 / 1024, style = "steps" },
  } },
  rtt = { title = "Round-trip time and retransmission timeout", y = "ms", series = {
    { column = "rtt", title = "rtt (smoothed)", scale = 1e3, positive = true },
    { column = "rttvar", scale = 1e3, positive = true },
    { column = "rto", scale = 1e3, positive = true, style = "steps" },
  } },
  throughput = { title = "Throughput", y = "Mbit/s", series = {
    { column = "delivered_bytes", title = "delivered, means of 0.1 s", scale = 8e-6, rate = 0.1, style = "fsteps" },
  } },
  queue = { title = "Queue", y = "packets waiting", y2 = "packets dropped so far", series = {
    { column = "queue", title = "waiting", style = "steps" },
    { column = "drops", title = "dropped, for whatever cause (right)", style = "steps", second = true },
  } },
}

-- Gnuplot takes a text between single quotes as it is, up to the end of its line.
local function quoted(text)
  return "'" .. gsub(gsub(text, "%c", " "), "'", "''") .. "'"
end

-- A path that no program takes for an option, a pipe or a place of its own.
local function plain(path)
  return find(path, "^%.?%.?/") and path or "./" .. path
end

-- ---------------------------------------------------------------------------------------------------- tables

-- The names of a table's columns.
local function header(path)
  local file, err = open(path, "rb")
  if not file then return nil, err end
  local line, why = file:read("*l")
  file:close()
  if not line then return nil, path .. ": " .. (why or "empty") end
  local names = {}
  for name in (line .. ","):gmatch("([^,]*),") do names[#names + 1] = name end
  if names[1] ~= "time" then return nil, path .. ": its first column is not 'time'" end
  return names
end

-- The flow of a time-sequence table that sends most bytes.
local function main_flow(path)
  local sums, order = {}, {}
  local best
  for line in lines_of(path) do
    local from, to, flow = match(line, "^[^,]*,data,[^,]*,([^,]*),([^,]*),(.*)")
    if flow then
      if not sums[flow] then order[#order + 1] = flow end
      sums[flow] = (sums[flow] or 0) + to - from
    end
  end
  for _, flow in ipairs(order) do
    if not best or sums[flow] > sums[best] then best = flow end
  end
  return best
end

-- The columns that a series is about: it, and it of each connection, link and direction.
local function columns_of(names, column, of)
  local found = {}
  for _, name in ipairs(names) do
    local prefix = name == column and "" or #name > #column and sub(name, -#column - 1) == "." .. column and
      sub(name, 1, -#column - 2)
    if prefix and (not of or prefix == of) then found[#found + 1] = { name = name, prefix = prefix } end
  end
  return found
end

-- ---------------------------------------------------------------------------------------------------- scripts

local function column(name)
  return "column(" .. quoted(name) .. ")"
end

-- What gnuplot computes a value by. A rate has variables of its own, for what was there when the last one was told.
local function expression(series, name, number)
  local value = column(name)
  if series.scale then value = value .. " * " .. csv_number(series.scale) end
  if series.positive then return format("%s > 0 ? %s : NaN", column(name), value) end
  if not series.rate then return value end
  local text = "dt = %s - t$, t$ != t$ || dt >= 0.999 * %s ? " ..
    "(rate = dt > 0 ? (%s - v$) / dt : 0, v$ = %s, t$ = %s, rate) : NaN"
  return (gsub(format(text, column "time", csv_number(series.rate), value, value, column "time"), "%$", number))
end

local function series_lines(csv, names, chart, of)
  local before, plots, colour = {}, {}, 0
  for _, series in ipairs(chart.series) do
    local found = columns_of(names, series.column, of)
    if not found[1] then
      return nil, format("%s: no column '%s%s'", csv, of and of ~= "" and of .. "." or "", series.column)
    end
    for _, one in ipairs(found) do
      colour = colour + 1
      if series.rate then before[#before + 1] = format("t%d = NaN; v%d = NaN", colour, colour) end
      local title = (series.title or series.column) .. (of == nil and one.prefix ~= "" and ", " .. one.prefix or "")
      plots[#plots + 1] = format("%s using (%s):(%s) axes %s with %s linecolor rgb '%s' linewidth 1.5 title %s",
        quoted(plain(csv)), column "time", expression(series, one.name, colour), series.second and "x1y2" or "x1y1",
        series.style or "lines", COLOURS[(colour - 1) % #COLOURS + 1], quoted(title))
    end
  end
  return plots, before
end

-- A time-sequence graph, as tcptrace draws it: segments are upright strokes as high as they are long, between the
-- line of what is acknowledged and that of what may be sent.
local function sequence_lines(csv, flow)
  local file = quoted(plain(csv))
  local function where(condition, value)
    return format("(stringcolumn(6) eq %s && %s ? %s : NaN)", quoted(flow), condition, value)
  end
  local function event(name) return format("stringcolumn(2) eq '%s'", name) end
  local function strokes(name, colour, width, title)
    return format("%s using %s:4:(0):($5 - $4) with vectors nohead linecolor rgb '%s' linewidth %d title '%s'", file,
      where(event(name), "$1"), colour, width, title)
  end
  local function line(condition, value, colour, title, style)
    return format("%s using 1:%s with %s linecolor rgb '%s' title '%s'", file, where(condition, value), style, colour,
      title)
  end
  local arrived, lost = " && stringcolumn(3) eq ''", "stringcolumn(3) ne ''"
  return {
    line(event "ack" .. arrived, "$5", ORANGE, "may be sent (window)", "steps"),
    strokes("sack", PALE, 1, "SACK block"),
    line(event "ack" .. arrived, "$4", GREEN, "acknowledged", "steps linewidth 1.5"),
    line(event "duplicate_ack" .. arrived, "$4", GREEN, "duplicate ACK", "points pointtype 1 pointsize 0.5"),
    strokes("data", BLUE, 2, "data"),
    strokes("retransmission", RED, 2, ""),
    line(event "retransmission", "$4", RED, "retransmission", "points pointtype 9 pointsize 0.7"),
    line(lost .. " && (" .. event "data" .. " || " .. event "retransmission" .. ")", "$4", BLACK, "did not arrive",
      "points pointtype 2 pointsize 0.8 linewidth 1.5"),
  }
end

-- The script that draws a chart; nil and why there can be none.
local function script(chart, csv, svg, options)
  local names, err = header(csv)
  if not names then return nil, err end
  local plots, before, heading, y, y2
  if chart == "sequence" then
    local flow = options.of or main_flow(csv)
    if not flow then return nil, csv .. ": no flow has data" end
    plots, before, heading, y = sequence_lines(csv, flow), {}, "Time-sequence graph of " .. flow,
      "sequence number, from the SYN (bytes)"
  else
    plots, before = series_lines(csv, names, chart, options.of)
    if not plots then return nil, before end
    heading, y, y2 = chart.title or "", chart.y, chart.y2
    if options.of and options.of ~= "" then heading = format("%s of %s", heading, options.of) end
  end
  local function limit(value) return value and csv_number(value) or "*" end
  local lines = {
    "set terminal svg size 960,540 dynamic noenhanced font 'sans-serif,14' background '#ffffff'",
    "set output " .. quoted(plain(svg)),
    "set encoding utf8",
    "set datafile separator comma",
    "set datafile columnheaders",
    "set datafile missing NaN",
    "set title " .. quoted(options.title or heading) .. " font ',16'",
    "set xlabel 'time (s)'",
    "set ylabel " .. quoted(y or ""),
    "set grid linecolor rgb '#cccccc'",
    "set key above horizontal",
    "set offsets 0, 0, graph 0.05, 0",
    format("set xrange [%s:%s]", limit(options.from), limit(options.to)),
    chart == "sequence" and "set format y '%.1s %c'" or "set yrange [0:*]",
  }
  if y2 then
    lines[#lines + 1] = "set ytics nomirror"
    lines[#lines + 1] = "set y2tics"
    lines[#lines + 1] = "set y2range [0:*]"
    lines[#lines + 1] = "set y2label " .. quoted(y2)
  end
  for _, line in ipairs(before) do lines[#lines + 1] = line end
  lines[#lines + 1] = "plot " .. concat(plots, ", \\\n  ")
  return concat(lines, "\n") .. "\n"
end

-- ---------------------------------------------------------------------------------------------------- drawing

-- Whether a file ends as a picture does; gnuplot does not look whether it could be written.
local function is_whole(path)
  local file = open(path, "rb")
  local size = file and file:seek("end")
  local tail = size and size >= 16 and file:seek("set", size - 16) and file:read(16)
  if file then file:close() end
  return tail and find(tail, "</svg>", 1, true) ~= nil
end

local function time(value)
  if type(value) ~= "number" or value ~= value then return "number expected, got " .. type(value) end
end

local text = check.of_type("string")
local rules = { title = text, of = text, from = time, to = time }

local function check_chart(chart)
  if type(chart) == "string" then
    local known = chart == "sequence" and chart or M.charts[chart]
    return known or check.bad(1, "draw", "no such chart: " .. chart)
  elseif type(chart) ~= "table" then
    check.bad(1, "draw", "string or table expected, got " .. type(chart))
  elseif type(chart.series) ~= "table" or not chart.series[1] then
    check.bad(1, "draw", "'series': list expected, got " .. type(chart.series))
  end
  for i, series in ipairs(chart.series) do
    if type(series) ~= "table" or type(series.column) ~= "string" then
      check.bad(1, "draw", format("series %d: a table with 'column' expected", i))
    end
  end
  return chart
end

local function check_path(value, n)
  if type(value) ~= "string" then check.bad(n, "draw", "path expected, got " .. type(value)) end
  -- Gnuplot reads its script by lines.
  if find(value, "%c") then check.bad(n, "draw", "a path without control characters expected") end
end

--- Draws a chart, and leaves the script that gnuplot drew it by beside it: `x.gp` for `x.svg`. Not to be called while a
-- run in real time is on: it waits for gnuplot.
-- @tparam string|table chart "window" (cwnd, ssthresh), "rtt" (rtt, rttvar, rto), "throughput", "queue" (of samples);
-- "sequence" (of a time-sequence table); or a table as those in `charts`
-- @tparam string csv path of the table
-- @tparam string svg path of the picture
-- @tparam[opt] table options `of`: the connection, link or direction by its name in the samples (all), or the flow of a
-- time-sequence table (the one that sends most); `title`; `from`, `to` in seconds
-- @treturn integer|nil 1
-- @treturn string "gnuplot not found"; what the system or gnuplot says; "x.csv: no column 'cwnd'"
-- @treturn string the script's path, when there is one
---@param chart string|table
---@param csv string
---@param svg string
---@param options? { of?: string, title?: string, from?: number, to?: number }
---@return integer|nil
---@return string|nil err
---@return string|nil script
function M.draw(chart, csv, svg, options)
  local known = check_chart(chart)
  check_path(csv, 2)
  check_path(svg, 3)
  options = check.options(options, rules, 4, "draw")
  local content, err = script(known, csv, svg, options)
  if not content then return nil, err end
  local path = gsub(svg, "%.svg$", "") .. ".gp"
  local ok
  ok, err = picture.write(path, content)
  if not ok then return nil, err end
  ok, err = picture.run("gnuplot", { "-d", plain(path) })
  if not ok then return nil, err, path end
  if not is_whole(svg) then return nil, svg .. ": could not be written", path end
  return 1
end

return M
