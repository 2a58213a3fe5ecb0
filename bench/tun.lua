-- TCP between a stack and the host's kernel through a TUN device, both ways, and between two kernels over a veth pair
-- without offloads, which sends the same 1500-byte packets. Needs root, ip and LuaSocket; ethtool for the veth pair.
--   lua bench/tun.lua [seconds]              the table, on lua5.4 and LuaJIT
-- and, run by that in processes of their own:
--   lua bench/tun.lua stack NETNS send|receive SECONDS
--   lua bench/tun.lua socket listen|connect HOST send|receive SECONDS

local PORT = 5001
local BLOCK = ("x"):rep(65536)
local KERNEL, STACK = "10.1.0.1", "10.1.0.2"

-- What a process reports: bytes, seconds, processor seconds; a stack also packets each way and system calls.
local function report(bytes, seconds, cpu, ...)
  print(table.concat({ bytes, seconds, cpu, ... }, " "))
  io.stdout:flush()
end

-- Sends for some seconds, or receives until the end; how many bytes there were, and in which time.
local function transfer(socket, way, seconds, now)
  local total, start = 0, now()
  if way == "send" then
    repeat total = total + assert(socket:send(BLOCK)) until now() - start >= seconds
    socket:shutdown("send")
  else
    repeat
      local data, err, part = socket:receive(65536)
      total = total + #(data or part)
    until err
  end
  return total, now() - start
end

-- The kernel's default may not be cubic, and a namespace may choose it for a route only.
local function bring_up(namespace, interface, address)
  local ip = "ip -n " .. namespace
  return ("%s addr add %s/24 dev %s && %s link set dev %s up && %s route replace %s0/24 dev %s src %s congctl cubic")
    :format(ip, address, interface, ip, interface, ip, address:match("^.*%."), interface, address)
end

local roles = {}

function roles.stack(name, way, seconds)
  local netstack = require "netstack"
  local device = assert(netstack.tun { netns = name })
  os.execute(bring_up(name, device:name(), KERNEL))
  local stack = assert(netstack.new())
  assert(stack:attach(device, { addresses = { STACK .. "/24" } }))
  netstack.run(function()
    local listener = assert(stack:bind("*", PORT))
    io.stderr:write("ready\n")
    local socket = assert(listener:accept())
    local clock, before = os.clock(), device:stats()
    local bytes, took = transfer(socket, way, tonumber(seconds), netstack.now)
    local after = device:stats()
    report(bytes, took, os.clock() - clock, after.tx_packets - before.tx_packets, after.rx_packets - before.rx_packets,
      after.syscalls - before.syscalls)
    socket:close()
    listener:close()
  end)
end

function roles.socket(side, host, way, seconds)
  local socket = require "socket"
  local own
  if side == "listen" then
    local listener = assert(socket.bind(host, PORT))
    io.stderr:write("ready\n")
    own = assert(listener:accept())
  else
    own = assert(socket.connect(host, PORT))
  end
  local clock = os.clock()
  local bytes, took = transfer(own, way, tonumber(seconds), socket.gettime)
  report(bytes, took, os.clock() - clock)
  own:close()
end

if roles[arg[1]] then return roles[arg[1]]((table.unpack or unpack)(arg, 2)) end -- luacheck: ignore 143

-- ---- The table ----

local seconds = tonumber(arg[1] or os.getenv("BENCH_SECONDS")) or 2
local root = arg[0]:gsub("[^/]*$", "") .. "../"
local interpreter = os.getenv("BENCH_LUASOCKET") or "lua5.4"
local one, two = "netstack-bench-1", "netstack-bench-2"

local function shell(text)
  local pipe = assert(io.popen(("{ %s\n} 2>&1; echo $?"):format(text)))
  local output, status = pipe:read("*a"):match("^(.*)(%d+)\n$")
  pipe:close()
  return status == "0", output
end

local function clear()
  shell(("ip netns del %s; ip netns del %s"):format(one, two))
end

local function make()
  for _, name in ipairs { one, two } do
    local ok, why = shell(("ip netns add %s && ip -n %s link set lo up"):format(name, name))
    if not ok then return nil, why end
  end
  return true
end

local function numbers(text)
  local list = {}
  for number in text:gmatch("%S+") do list[#list + 1] = tonumber(number) end
  return list
end

-- Runs a server until it says that it is ready, then the client; what both report.
local function measure(server, client)
  local base = os.tmpname()
  os.execute(("( timeout 60 %s >%s.out 2>%s.err </dev/null; echo over >>%s.err ) &"):format(server, base, base, base))
  local function said(what)
    for line in io.lines(base .. ".err") do
      if line:find(what) then return true end
    end
  end
  os.execute("sleep 0.1")
  while not said("ready") and not said("over") do os.execute("sleep 0.05") end
  local _, theirs = shell("timeout 60 " .. client)
  while not said("over") do os.execute("sleep 0.05") end
  local file = io.open(base .. ".out")
  local ours = file:read("*a")
  file:close()
  os.execute(("rm -f %s %s.out %s.err"):format(base, base, base))
  local a, b = numbers(ours), numbers(theirs)
  if not (a[3] and b[3]) then return nil, (ours .. theirs):match("[^\n]+") end
  return a, b
end

local line = "%-34s %8s %11s %11s %11s %12s"
local function row(title, bytes, took, packets, cpu_here, cpu_there, syscalls)
  print((line:format(title, ("%.0f"):format(bytes / took / 1e6), ("%.0f"):format(packets / took),
    cpu_here and ("%.2f"):format(cpu_here / packets * 1e6) or "", ("%.2f"):format(cpu_there / packets * 1e6),
    syscalls and ("%.2f"):format(syscalls / packets) or ""):gsub("%s+$", "")))
end

local function through_tun(lua, build, way)
  local self = root .. "bench/tun.lua"
  local environment = ("LUA_PATH='%slua/?.lua;%slua/?/init.lua;;' LUA_CPATH='%s%s/?.so;;'"):format(root, root, root,
    build)
  local other = way == "send" and "receive" or "send"
  local stack, kernel = measure(("env %s %s %s stack %s %s %g"):format(environment, lua, self, one, way, seconds),
    ("ip netns exec %s %s %s socket connect %s %s %g"):format(one, interpreter, self, STACK, other, seconds))
  local title = ("%s, %s"):format(lua, way == "send" and "stack to kernel" or "kernel to stack")
  if not stack then return print(title .. ": " .. tostring(kernel)) end
  row(title, math.min(kernel[1], stack[1]), stack[2], stack[4] + stack[5], stack[3], kernel[3], stack[6])
end

local function between_kernels()
  local self = root .. "bench/tun.lua"
  local ok, why = shell(([[
    ip link add netstack-b1 netns %s type veth peer name netstack-b2 netns %s && %s && %s &&
    ip netns exec %s ethtool -K netstack-b1 tx off rx off sg off tso off gso off gro off &&
    ip netns exec %s ethtool -K netstack-b2 tx off rx off sg off tso off gso off gro off]]):format(one, two,
    bring_up(one, "netstack-b1", "10.2.0.1"), bring_up(two, "netstack-b2", "10.2.0.2"), one, two))
  if not ok then return print("kernel to kernel over veth: " .. why:match("[^\n]*")) end
  local receiver, sender = measure(("ip netns exec %s %s %s socket listen 10.2.0.1 receive %g"):format(one, interpreter,
    self, seconds), ("ip netns exec %s %s %s socket connect 10.2.0.1 send %g"):format(two, interpreter, self, seconds))
  if not receiver then return print("kernel to kernel over veth: " .. tostring(sender)) end
  local _, counters = shell(("ip netns exec %s cat /sys/class/net/netstack-b1/statistics/rx_packets " ..
    "/sys/class/net/netstack-b1/statistics/tx_packets"):format(one))
  counters = numbers(counters)
  row("kernel to kernel over veth", receiver[1], receiver[2], counters[1] + counters[2], nil, receiver[3] + sender[3])
end

clear()
local ok, why = make()
if not ok then
  print("TUN is not measured: " .. why:match("[^\n]*"))
else
  print(line:format("TCP, 1500-byte packets, cubic", "", "packets/s", "us of CPU", "per packet", "system calls"))
  print(line:format("", "MB/s", "both ways", "stack", "kernel side", "per packet"))
  print(("-"):rep(92))
  for _, lua in ipairs { "lua5.4", "luajit" } do
    for _, way in ipairs { "send", "receive" } do through_tun(lua, "build/" .. lua, way) end
  end
  between_kernels()
end
clear()
