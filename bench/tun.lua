-- TCP between a stack and the host's kernel through a TUN device, both ways, and between two kernels over a veth pair
-- without offloads, which sends the same 1500-byte packets. Needs root, ip and LuaSocket; iperf3 and ethtool for the
-- veth pair.
--   lua bench/tun.lua [seconds]              the table, on lua5.4 and LuaJIT
-- and, run by that in processes of their own:
--   lua bench/tun.lua stack NETNS send|receive SECONDS [offload]
--   lua bench/tun.lua kernel send|receive SECONDS

local host = dofile(arg[0]:gsub("[^/]*$", "") .. "host.lua")

local PORT = 5001
local BLOCK = ("x"):rep(65536)
local KERNEL, STACK = "10.1.0.1", "10.1.0.2"

-- What a process reports: bytes, seconds, processor seconds of its own and of the kernel; a stack also packets and the
-- system calls for them.
local function report(...)
  print(table.concat({ ... }, " "))
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

local roles = {}

function roles.stack(name, way, seconds, offload)
  local netstack = require "netstack"
  local device = assert(netstack.tun { netns = name, offload = offload == "offload" })
  os.execute(host.bring_up(name, device:name(), KERNEL))
  local stack = assert(netstack.new())
  assert(stack:attach(device, { addresses = { STACK .. "/24" } }))
  netstack.run(function()
    local listener = assert(stack:bind("*", PORT))
    io.stderr:write("ready\n")
    local socket = assert(listener:accept())
    local user, system = host.cpu()
    local before = device:stats()
    local bytes, took = transfer(socket, way, tonumber(seconds), netstack.now)
    local user_after, system_after = host.cpu()
    local after = device:stats()
    report(bytes, took, user_after - user, system_after - system,
      after.tx_packets - before.tx_packets + after.rx_packets - before.rx_packets, after.syscalls - before.syscalls)
    socket:close()
    listener:close()
  end)
end

function roles.kernel(way, seconds)
  local socket = require "socket"
  local own = assert(socket.connect(STACK, PORT))
  local user, system = host.cpu()
  local bytes, took = transfer(own, way, tonumber(seconds), socket.gettime)
  local user_after, system_after = host.cpu()
  report(bytes, took, user_after - user, system_after - system)
  own:close()
end

if roles[arg[1]] then return roles[arg[1]]((table.unpack or unpack)(arg, 2)) end -- luacheck: ignore 143

-- ---- The table ----

local seconds = tonumber(arg[1] or os.getenv("BENCH_SECONDS")) or 1
local interpreter = os.getenv("BENCH_LUASOCKET") or "lua5.4"

-- What the stack's process and the one on the kernel's side report, who starts when the other is ready.
local function talk(lua, way, offload)
  local program = host.start(("%s stack %s %s %g %s"):format(host.lua(lua, "tun.lua"), host.one, way, seconds, offload))
  host.expect(program, "ready")
  local _, theirs = host.shell(("ip netns exec %s timeout 60 %s %stun.lua kernel %s %g"):format(host.one, interpreter,
    host.directory, way == "send" and "receive" or "send", seconds))
  local ours = host.finish(program)
  local stack, kernel = host.numbers(ours), host.numbers(theirs)
  if not (stack[4] and kernel[4]) then error(ours .. theirs, 0) end
  return stack, kernel
end

local function through_tun(lua, way, offload)
  return function()
    local stack, kernel = talk(lua, way, offload)
    return { amount = math.min(kernel[1], stack[1]) / 1e6, seconds = stack[2], packets = stack[5], user = stack[3],
      system = stack[4], others = kernel[3] + kernel[4], calls = stack[6] }
  end
end

host.within(function()
  host.head("TCP, 1500-byte packets, cubic", "MB/s", "stack")
  local veth = { title = "kernel to kernel over veth",
    measure = function() return host.directly(seconds, "-C cubic") end }
  local list = { veth }
  for _, lua in ipairs { "lua5.4", "luajit" } do
    for _, way in ipairs { "send", "receive" } do
      local title = lua .. (way == "send" and ", stack to kernel" or ", kernel to stack")
      list[#list + 1] = { title = title, measure = through_tun(lua, way, ""), against = veth }
      list[#list + 1] = { title = title .. ", offload", measure = through_tun(lua, way, "offload"), against = veth }
    end
  end
  host.table(list)
  print()
end)
