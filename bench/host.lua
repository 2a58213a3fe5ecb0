-- The host's side of what is measured with its kernel: two network namespaces, a veth pair between them, programs, and
-- the lines of a table. Needs root and ip; ethtool for the veth pair.

local M = {}

M.one, M.two = "netstack-bench-1", "netstack-bench-2"
M.directory = arg[0]:gsub("[^/]*$", "")
M.root = M.directory .. "../"

-- Runs a command to its end: whether that was a good one, and what it printed.
local function shell(text)
  local pipe = assert(io.popen(("{ %s\n} 2>&1; echo $?"):format(text)))
  local output, status = pipe:read("*a"):match("^(.*)(%d+)\n$")
  pipe:close()
  return status == "0", output
end
M.shell = shell

local function must(text)
  local ok, output = shell(text)
  if not ok then error(output:match("[^\n]+") or text, 0) end
  return output
end

local function read(path)
  local file = io.open(path)
  local text = file and file:read("*a") or ""
  if file then file:close() end
  return text
end

-- ---- Programs ----

local programs = {} -- that may still run

--- Starts a command that is one program; it is ended after a minute.
function M.start(command)
  local base = os.tmpname()
  os.execute(("( timeout 60 %s >%s 2>%s.err </dev/null & echo $! >%s.pid; wait $!; echo over >%s.over ) 2>&- &")
    :format(command, base, base, base, base))
  local program = { base = base, command = command }
  programs[program] = true
  return program
end

--- Waits until it has printed something; raises when it has ended.
function M.expect(program, pattern)
  while not (read(program.base) .. read(program.base .. ".err")):find(pattern) do
    if read(program.base .. ".over") ~= "" then
      error(("%s: %s%s"):format(program.command, read(program.base), read(program.base .. ".err")), 0)
    end
    os.execute("sleep 0.02")
  end
end

--- Waits for its end; what it printed, but for errors.
function M.finish(program)
  while read(program.base .. ".over") == "" do os.execute("sleep 0.02") end
  local output = read(program.base)
  os.execute(("rm -f %s %s.err %s.pid %s.over"):format(program.base, program.base, program.base, program.base))
  programs[program] = nil
  return output
end

local function end_programs()
  for program in pairs(programs) do
    shell("kill " .. read(program.base .. ".pid"))
    M.finish(program)
  end
end

-- ---- Namespaces ----

--- Commands that give an interface its address. The kernel's default may not be cubic, and a namespace may choose it
--- for a route only.
function M.bring_up(namespace, interface, address)
  local ip = "ip -n " .. namespace
  return ("%s addr add %s/24 dev %s && %s link set dev %s up && %s route replace %s0/24 dev %s src %s congctl cubic")
    :format(ip, address, interface, ip, interface, ip, address:match("^.*%."), interface, address)
end

local function clear()
  end_programs()
  shell(("ip netns del %s; ip netns del %s"):format(M.one, M.two))
end

--- Calls body between two fresh namespaces, which are removed again whatever becomes of it.
function M.within(body)
  clear()
  local ready, why = pcall(function()
    for _, name in ipairs { M.one, M.two } do must("ip netns add " .. name) end
  end)
  local ok, err = true, nil
  if ready then ok, err = pcall(body) else print("Not measured: " .. why) end
  clear()
  if not ok then error(err, 0) end
end

local VETH = { "10.9.0.1", "10.9.0.2" } -- the kernels' addresses on the pair
local ends = { "netstack-b1", "netstack-b2" }
local has_veth = false

-- A pair that sends the packets of its mtu as a TUN device does.
local function add_veth()
  must(("ip link add %s netns %s type veth peer name %s netns %s"):format(ends[1], M.one, ends[2], M.two))
  for i, name in ipairs { M.one, M.two } do
    must(M.bring_up(name, ends[i], VETH[i]))
    must(("ip netns exec %s ethtool -K %s tx off rx off sg off tso off gso off gro off"):format(name, ends[i]))
  end
  has_veth = true
end

-- Packets that have crossed it so far, both ways.
local function veth_packets()
  local path = "/sys/class/net/" .. ends[1] .. "/statistics/"
  local output = must(("ip netns exec %s cat %srx_packets %stx_packets"):format(M.one, path, path))
  local received, sent = output:match("(%d+)%s+(%d+)")
  return received + sent
end

-- ---- iperf3 ----

--- Runs iperf3 from the first namespace to its server in the second one: a result without packets. The amount is that
--- of what was received, in MB, or thousands of datagrams.
function M.iperf3(target, seconds, arguments)
  local server = M.start(("ip netns exec %s iperf3 -s -1 --forceflush"):format(M.two))
  M.expect(server, "Server listening")
  local ok, report = shell(("ip netns exec %s timeout 60 iperf3 -J -c %s -t %d %s"):format(M.one, target,
    math.ceil(seconds), arguments)) -- it knows whole seconds only
  M.finish(server)
  if not ok then error(report:match('"error":%s*"(.-)"') or report, 0) end
  local over = report:match('\n\t"end":.*$')
  local function figure(object, name)
    local text = over:match('"' .. object .. '":%s*(%b{})')
    return tonumber(text and text:match('"' .. name .. '":%s*([%d.]+)'))
  end
  local lost = figure("sum", "lost_packets")
  local took = figure(lost and "sum" or "sum_received", "seconds")
  local cpu = figure("cpu_utilization_percent", "host_total") + figure("cpu_utilization_percent", "remote_total")
  return { seconds = took, others = cpu / 100 * took,
    amount = lost and (figure("sum", "packets") - lost) / 1e3 or figure("sum_received", "bytes") / 1e6 }
end

--- The same over the veth pair, without anything of ours in between.
function M.directly(seconds, arguments)
  if not has_veth then add_veth() end
  local before = veth_packets()
  local result = M.iperf3(VETH[2], seconds, arguments)
  result.packets = veth_packets() - before
  return result
end

-- ---- This process ----

--- Processor seconds of this process so far: its own, and the kernel's for it.
function M.cpu()
  local user, system = read("/proc/self/stat"):match("%) " .. ("%S+ "):rep(11) .. "(%d+) (%d+)")
  return user / 100, system / 100 -- USER_HZ
end

--- How a script is run as a process with netstack on an interpreter.
function M.lua(name, script)
  return ("env LUA_PATH='%slua/?.lua;%slua/?/init.lua;;' LUA_CPATH='%sbuild/%s/?.so;;' %s %s%s"):format(M.root, M.root,
    M.root, name, name, M.directory, script)
end

--- The numbers in a text.
function M.numbers(text)
  local list = {}
  for number in text:gmatch("%S+") do list[#list + 1] = tonumber(number) end
  return list
end

-- ---- The table ----

local LINE = "%-32s %7s %7s %10s %8s %7s %7s %8s %8s"

local function print_line(...)
  print((LINE:format(...):gsub("%s+$", "")))
end

--- The table's head. At 100 % of a core, the process in the middle bounds the rate; what of that is spent in the
--- kernel is read(2) and write(2), and within the latter all that the kernel does to receive a packet.
function M.head(title, unit, process)
  print_line(title, "", "", "packets/s", process, "in the", "of a", "others", "system")
  print_line("", unit, "/ veth", "both ways", "us/pkt", "kernel", "core", "us/pkt", "calls/pkt")
  print(("-"):rep(103))
end

local function median(results, of)
  local list = {}
  for i, result in ipairs(results) do list[i] = of(result) end
  table.sort(list)
  return list[math.floor((#list + 1) / 2)]
end

--- A line: medians of results, each `amount` in `seconds`, with `packets`, processor time `user` and `system` of the
--- process in the middle, if there is one, and of `others`, and the system calls for packets `calls`.
--- Returns the median amount per second; `against`, another one, is what the ratio is to.
function M.row(title, results, against)
  local first = results[1]
  local function of(format, fn)
    return fn and format:format(median(results, fn)) or ""
  end
  local rate = median(results, function(r) return r.amount / r.seconds end)
  local own = first.user and function(r) return (r.user + r.system) / r.packets * 1e6 end
  print_line(title, ("%.0f"):format(rate), against and ("%.2f"):format(rate / against) or "",
    of("%.0f", function(r) return r.packets / r.seconds end), of("%.2f", own),
    of("%.0f %%", own and function(r) return r.system / (r.user + r.system) * 100 end),
    of("%.0f %%", own and function(r) return (r.user + r.system) / r.seconds * 100 end),
    of("%.2f", function(r) return r.others / r.packets * 1e6 end),
    of("%.2f", first.calls and function(r) return r.calls / r.packets end))
  return rate
end

--- Measures rounds in which all take turns, and prints a line for each.
-- @tparam table list of { title, measure, against = the one of them before it to compare with }; measure() returns a
-- result or raises
function M.table(list)
  for _ = 1, tonumber(os.getenv("BENCH_RUNS")) or 3 do
    for _, entry in ipairs(list) do
      local ok, result = pcall(entry.failed and error or entry.measure, entry.failed)
      if ok then entry[#entry + 1] = result else entry.failed = result end
      if entry.failed then end_programs() end
      if tostring(entry.failed):find "interrupted!" then error(entry.failed, 0) end
    end
  end
  for _, entry in ipairs(list) do
    if entry.failed then print(entry.title .. ": " .. tostring(entry.failed):match("[^\n]*"))
    else entry.rate = M.row(entry.title, entry, entry.against and entry.against.rate) end
  end
end

return M
