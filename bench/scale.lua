-- How a lab grows: N hosts behind switches of 100 and routers, each fetching a page from another. Hosts made a second,
-- memory of a host, events and packets a second of CPU time, for N = 10, 1,000 and 10,000, each in its own process.
--   lua bench/scale.lua            all three, as a table
--   lua bench/scale.lua 1000       one
local PER_SWITCH = 100
local BYTES = 10000

local function resident()
  local file = io.open("/proc/self/statm")
  local _, pages = file:read("*n", "*n")
  file:close()
  return pages * 4096
end

local function measure(n)
  local core = require "netstack.core"
  local lab = require "netstack.lab"
  local netstack = require "netstack"
  local clock = os.clock

  collectgarbage()
  local before, began = resident(), clock()
  local net = lab.new { seed = 1 }
  local backbone, hosts = net:router "backbone", {}
  for i = 1, math.ceil(n / PER_SWITCH) do
    local switch, router = net:switch("switch" .. i), net:router("router" .. i)
    net:link(backbone, router, { delay = 0.005, rate = 1e9 })
    net:link(router, switch, { delay = 0.0001, rate = 1e9 })
    for j = 1, math.min(PER_SWITCH, n - #hosts) do
      local host = net:host(("host%d-%d"):format(i, j))
      net:link(host, switch, { delay = 0.0001, rate = 100e6 })
      hosts[#hosts + 1] = host
    end
  end
  net:update()
  local made = clock() - began
  collectgarbage()
  local memory = resident() - before

  local page = ("x"):rep(BYTES)
  local jobs, packets = core.work()
  local fetched = 0
  began = clock()
  net:run(function()
    for _, host in ipairs(hosts) do
      netstack.daemon(function(listener)
        while true do
          local conn = listener:accept()
          netstack.spawn(function()
            conn:receive "*l"
            conn:send(page)
            conn:close()
          end)
        end
      end, host:bind("*", 80))
    end
    for i, host in ipairs(hosts) do
      netstack.spawn(function()
        netstack.sleep(i * 0.001)
        local other = hosts[(i * 7919) % #hosts + 1]
        if other == host then other = hosts[i % #hosts + 1] end
        local conn = assert(host:connect(other:addresses()[1]:match "[^/]+", 80))
        conn:send "GET\n"
        assert(#conn:receive "*a" == BYTES)
        conn:close()
        fetched = fetched + 1
      end)
    end
  end)
  local ran = clock() - began
  local jobs_now, packets_now = core.work()
  assert(fetched == n)
  print(("%d %.6f %d %.6f %d %d"):format(n, made, memory, ran, jobs_now - jobs, packets_now - packets))
  net:close()
end

local n = tonumber(arg[1])
if n then return measure(n) end

print("   hosts   hosts/s   bytes a host   fetches/s   events/s   packets/s   events a fetch")
for _, count in ipairs { 10, 1000, 10000 } do
  local pipe = assert(io.popen(("%s %s %d"):format(arg[-1], arg[0], count)))
  local hosts, made, memory, ran, events, packets = pipe:read("*n", "*n", "*n", "*n", "*n", "*n")
  pipe:close()
  if not hosts then os.exit(1) end
  print(("%8d  %8.0f  %13.0f  %10.0f  %9.0f  %10.0f  %15.1f"):format(hosts, hosts / made, memory / hosts, hosts / ran,
    events / ran, packets / ran, events / hosts))
end
