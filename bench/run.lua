-- `make bench`: one table, every number measured in this run on this machine, and how it compares with what is
-- expected. Each measurement is a process of its own; the sides take turns, so that noise hits all alike, and a
-- number is the median of its runs.
--
-- usage: lua bench/run.lua [setting=value …]; a setting may also come from the environment, as BENCH_<SETTING>:

local settings = {
  seconds = "0.6", -- of each measurement
  runs = "3",
  rows = "", -- only these, separated by commas; empty means all
  lua54 = "lua5.4", -- the interpreters
  luajit = "luajit",
  luasocket = "lua5.4", -- the interpreter of the LuaSocket column
  build_lua54 = "build/lua5.4", -- where their builds of netstack are
  build_luajit = "build/luajit",
  build_unguarded = "build/luajit/unguarded", -- without the guard and its like, to see what they cost
  driver = "build/bench/driver",
  guard = "build/bench/guard", -- the guard by itself
  limit = "30", -- seconds after which a measurement that hangs is stopped
}

for name, default in pairs(settings) do
  settings[name] = os.getenv("BENCH_" .. name:upper()) or default
end
for _, argument in ipairs(arg) do
  local name, value = argument:match("^([%w_]+)=(.*)$")
  if not settings[name] then
    io.stderr:write("bench/run.lua: unknown setting '", argument, "'\n")
    os.exit(2)
  end
  settings[name] = value
end

local directory = arg[0]:gsub("[^/]*$", "")
local root = directory .. "../"

-- A path from the command line is relative to where we are called, a default one to the tree.
local function in_tree(path)
  return path:find("^build/") and root .. path or path
end

local function on_netstack(interpreter, build)
  return function(row)
    return ("LUA_PATH='%slua/?.lua;%slua/?/init.lua;;' LUA_CPATH='%s/?.so;;' timeout %s '%s' '%snetstack.lua' %s %s")
      :format(root, root, in_tree(build), settings.limit, interpreter, directory, row, settings.seconds)
  end
end

local function on_driver(row)
  return ("timeout %s '%s' %s %s"):format(settings.limit, in_tree(settings.driver), row, settings.seconds)
end

local function on_luasocket(row)
  return ("timeout %s '%s' '%sluasocket.lua' %s %s")
    :format(settings.limit, settings.luasocket, directory, row, settings.seconds)
end

local columns = {
  {key = "lua54", title = "netstack on lua5.4", command = on_netstack(settings.lua54, settings.build_lua54)},
  {key = "luajit", title = "netstack on LuaJIT", command = on_netstack(settings.luajit, settings.build_luajit)},
  {key = "unguarded", title = "netstack on LuaJIT, unguarded",
    command = on_netstack(settings.luajit, settings.build_unguarded)},
  {key = "driver", title = "C driver", command = on_driver},
  {key = "luasocket", title = "LuaSocket", command = on_luasocket},
  {key = "memcpy", title = "memcpy", command = on_driver},
}

-- What stands in a packet, and the guard's time for it.
local looks = {
  {name = "ipv4_tcp", title = "an IPv4 segment"}, {name = "ipv6_tcp", title = "an IPv6 segment"},
  {name = "ipv4_options", title = "40 options"}, {name = "ipv6_chain", title = "16 headers"},
}
local guard = {key = "guard", title = "the guard", command = function()
  return ("timeout %s '%s' 0.2"):format(settings.limit, in_tree(settings.guard))
end}

-- `luasocket`: it has this row too; `guard`: it is measured without the guard, too; `memcpy`: the row of the driver
-- that tells what copying as much costs once;
-- `with`: the value comes out of that row's run.
local rows = {
  {name = "tcp_1500", guard = true, title = "TCP bulk, mtu 1500", unit = "MB/s", memcpy = "memcpy_65536"},
  {name = "tcp_65535", title = "TCP bulk, mtu 65535", unit = "MB/s", memcpy = "memcpy_65536", luasocket = true},
  {name = "udp_1400", guard = true, title = "UDP, 1400 B", unit = "packets/s", memcpy = "memcpy_1400",
    luasocket = true},
  {name = "round_trip_1", guard = true, title = "round trips, 1 B", unit = "/s", luasocket = true},
  {name = "round_trip_64", title = "round trips, 64 B", unit = "/s", luasocket = true},
  {name = "connect", title = "connect+close", unit = "/s", luasocket = true},
  {name = "echo_1", title = "echoes over 1 connection", unit = "/s", luasocket = true},
  {name = "echo_100", title = "in turn over 100", unit = "/s", luasocket = true},
  {name = "echo_1000", title = "in turn over 1,000", unit = "/s", luasocket = true},
  {name = "echo_10000", title = "in turn over 10,000", unit = "/s"},
  {name = "stacks", title = "stacks created", unit = "/s"},
  {name = "stack_bytes", title = "memory of each", unit = "bytes", with = "stacks", less_is_better = true},
}

-- What is expected: the best of netstack is at least so many times the other column.
local expectations = {
  {row = "tcp_1500", against = "driver", least = 0.6},
  {row = "tcp_65535", against = "driver", least = 0.6},
  {row = "round_trip_1", against = "driver", least = 0.3},
  {row = "round_trip_64", against = "driver", least = 0.3},
  {row = "round_trip_1", against = "luasocket", least = 6},
  {row = "round_trip_64", against = "luasocket", least = 6},
  {row = "connect", against = "luasocket", least = 3},
}

local wanted
for name in settings.rows:gmatch("[^,%s]+") do
  wanted = wanted or {}
  wanted[name] = true
end

-- ---- Measuring ----

-- values[column][row]: a list of numbers. failures: why there is none, in the order of their first appearance.
local values, failures = {}, {}
for _, column in ipairs(columns) do values[column.key] = {} end
values.guard = {}

local function fail(column, row, why)
  column.failed = column.failed or {}
  column.failed[row] = true
  local text = ("%s: %s"):format(column.title, why)
  if not failures[text] then
    failures[#failures + 1] = text
    failures[text] = {}
  end
  table.insert(failures[text], row)
end

-- Runs the row named `row` of the column's program and keeps what it reports, memcpy's under the name `as`.
local function run(column, row, as)
  if column.failed and column.failed[as] then return end
  local child = assert(io.popen(column.command(row) .. " 2>&1"))
  local first, reported
  for line in child:lines() do
    local name, value = line:match("^([%w_]+) ([%d.]+) %S+$")
    value = tonumber(value)
    if value then
      reported = true
      name = name == row and as or name
      local list = values[column.key][name] or {}
      values[column.key][name] = list
      list[#list + 1] = value
    else
      first = first or line
    end
  end
  child:close()
  if not reported then fail(column, as, first or ("no result within %s s"):format(settings.limit)) end
end

local measured = {}
for _, row in ipairs(rows) do
  if not row.with and (not wanted or wanted[row.name]) then measured[#measured + 1] = row end
end

for round = 1, tonumber(settings.runs) do
  io.stderr:write(("measuring, round %d of %s\n"):format(round, settings.runs))
  for _, row in ipairs(measured) do
    for _, column in ipairs(columns) do
      if column.key == "memcpy" then
        if row.memcpy then run(column, row.memcpy, row.name) end
      elseif column.key == "unguarded" then
        if row.guard then run(column, row.name, row.name) end
      elseif column.key ~= "luasocket" or row.luasocket then
        run(column, row.name, row.name)
      end
    end
  end
  run(guard, "guard", "guard")
end

-- ---- The table ----

local unpack = table.unpack or unpack

local function value_of(key, row)
  local list = values[key][row.name]
  if not list then return nil end
  table.sort(list)
  local middle = math.floor((#list + 1) / 2)
  return #list % 2 == 1 and list[middle] or (list[middle] + list[middle + 1]) / 2
end

local function best_of(row)
  local x, y = value_of("lua54", row), value_of("luajit", row)
  if not (x and y) then return x or y end
  return row.less_is_better and math.min(x, y) or math.max(x, y)
end

local function ratio(row, against)
  local best, other = best_of(row), value_of(against, row)
  return best and other and best / other
end

local function with_commas(value)
  local digits = ("%.0f"):format(value):reverse():gsub("(%d%d%d)", "%1,"):reverse()
  return (digits:gsub("^,", ""))
end

local function show_ratio(value)
  return value and (value < 10 and "%.2f" or "%.1f"):format(value) or "-"
end

local line = "%-25s %-10s %11s %11s %11s %11s %11s %9s %11s"
print(line:format("", "", "netstack", "netstack", "", "loopback", "", "netstack", "netstack"))
print(line:format("median of " .. settings.runs, "", "lua5.4", "LuaJIT", "C driver", "LuaSocket", "memcpy", "/ driver",
  "/ LuaSocket"))
print(("-"):rep(118))
for _, row in ipairs(rows) do
  if not wanted or wanted[row.with or row.name] then
    local cells = {}
    for _, column in ipairs(columns) do
      local applies = column.key ~= "luasocket" and column.key ~= "memcpy" or row[column.key]
      local value = value_of(column.key, row)
      if column.key ~= "unguarded" then cells[#cells + 1] = value and with_commas(value) or applies and "-" or "" end
    end
    cells[6] = show_ratio(ratio(row, "driver"))
    cells[7] = row.luasocket and show_ratio(ratio(row, "luasocket")) or ""
    print((line:format(row.title, row.unit, unpack(cells)):gsub("%s+$", "")))
  end
end

if failures[1] then
  print("\n'-' is a number that is missing:")
  for _, text in ipairs(failures) do
    local names = failures[text]
    local shown = #names > 3 and ("%d rows"):format(#names) or table.concat(names, ", ")
    print(("  %s (%s)"):format(text, shown))
  end
end

print("\nWhat the guard and its like cost, on LuaJIT:")
for _, row in ipairs(rows) do
  local with, without = value_of("luajit", row), value_of("unguarded", row)
  if with and without then
    print(("  %-20s %11s %s with, %s without: %s"):format(row.title, with_commas(with), row.unit, with_commas(without),
      show_ratio(with / without)))
  end
end
for _, packet in ipairs(looks) do
  local value = value_of("guard", packet)
  if value then print(("  %-20s %11.1f ns in the guard"):format(packet.title, value)) end
end

print("\nExpected of the better of the two Luas:")
local by_name = {}
for _, row in ipairs(rows) do by_name[row.name] = row end
for _, expected in ipairs(expectations) do
  local row = by_name[expected.row]
  if not wanted or wanted[row.name] then
    local value = ratio(row, expected.against)
    local verdict = not value and "not measured" or value >= expected.least and "met" or "missed"
    print(("  %-20s at least %-3s of %-9s   %6s   %s"):format(row.title, ("%g"):format(expected.least),
      expected.against == "driver" and "C driver" or "LuaSocket", show_ratio(value), verdict))
  end
end
