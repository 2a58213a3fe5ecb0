-- iperf3 from one kernel to another: through examples/relay.lua, which has a stack on a TUN device to each, and
-- directly over a veth pair without offloads, which sends the same 1500-byte packets. Needs root, ip, iperf3, and
-- ethtool for the veth pair.
--   lua bench/iperf3.lua [seconds]           the table, on lua5.4 and LuaJIT
-- and, run by that as a process of its own, a relay for one run of iperf3:
--   lua bench/iperf3.lua relay NETNS NETNS [offload]

local host = dofile(arg[0]:gsub("[^/]*$", "") .. "host.lua")

local PORT = 5201
local RELAY, FAR = "10.1.0.2", "10.2.0.1"

local function relay(near, far, offload)
  local netstack = require "netstack"
  local example = dofile(host.root .. "examples/relay.lua")
  local devices, stacks = {}, {}
  for i, name in ipairs { near, far } do
    devices[i] = assert(netstack.tun { netns = name, offload = offload == "offload" })
    os.execute(host.bring_up(name, devices[i]:name(), ("10.%d.0.1"):format(i)))
    stacks[i] = assert(netstack.new())
    assert(stacks[i]:attach(devices[i], { addresses = { ("10.%d.0.2/24"):format(i) } }))
  end
  -- Packets, and the system calls for them.
  local function counters()
    local packets, calls = 0, 0
    for _, device in ipairs(devices) do
      local stats = device:stats()
      packets, calls = packets + stats.rx_packets + stats.tx_packets, calls + stats.syscalls
    end
    return packets, calls
  end
  netstack.run(function()
    local listener, socket = assert(stacks[1]:bind("*", PORT)), stacks[1]:udp()
    assert(socket:setsockname("*", PORT))
    local idle = #stacks[1]:sockets()
    netstack.daemon(example.tcp, listener, stacks[2], FAR, PORT)
    netstack.daemon(example.udp, socket, stacks[2], FAR, PORT)
    io.stderr:write("ready\n")
    local user, system = host.cpu()
    local packets, calls = counters()
    repeat netstack.sleep(0.1) until stacks[1]:stats().tcp.accepted > 0 and #stacks[1]:sockets() == idle
    local user_after, system_after = host.cpu()
    local packets_after, calls_after = counters()
    print(user_after - user, system_after - system, packets_after - packets, calls_after - calls)
  end, { linger = 0 })
end

if arg[1] == "relay" then return relay(arg[2], arg[3], arg[4]) end

-- ---- The table ----

local seconds = tonumber(arg[1] or os.getenv("BENCH_SECONDS")) or 1

local function relayed(lua, arguments, offload)
  return function()
    local program = host.start(("%s relay %s %s %s"):format(host.lua(lua, "iperf3.lua"), host.one, host.two, offload))
    host.expect(program, "ready")
    local result = host.iperf3(RELAY, seconds, arguments)
    local numbers = host.numbers(host.finish(program))
    result.user, result.system, result.packets, result.calls = numbers[1], numbers[2], numbers[3], numbers[4]
    return result
  end
end

host.within(function()
  local tests = {
    { title = "one stream", arguments = "-C cubic" }, { title = "one, the other way", arguments = "-C cubic -R" },
    { title = "16 streams", arguments = "-C cubic -P 16" },
    { title = "datagrams of 1400 B", arguments = "-u -l 1400 -b 0", udp = true },
  }
  for _, udp in ipairs { false, true } do
    local list = {}
    for _, test in ipairs(tests) do
      if (test.udp or false) == udp then
        local veth = { title = "veth, " .. test.title,
          measure = function() return host.directly(seconds, test.arguments) end }
        list[#list + 1] = veth
        for _, lua in ipairs { "lua5.4", "luajit" } do
          local title = lua .. " relay, " .. test.title
          list[#list + 1] = { title = title, measure = relayed(lua, test.arguments, ""), against = veth }
          if not udp then
            list[#list + 1] = { title = title .. ", offload", measure = relayed(lua, test.arguments, "offload"),
              against = veth }
          end
        end
      end
    end
    host.head(udp and "iperf3, UDP, as fast as it sends" or "iperf3, TCP, cubic", udp and "1000/s" or "MB/s", "relay")
    host.table(list)
    print()
  end
end)
