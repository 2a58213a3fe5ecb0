-- Bufferbloat: a download fills the queue before a slow line, and all who come after it wait. A home on a 10 Mbit/s
-- line, 20 ms from the server and back, pings it every tenth of a second: on an idle line, beside a download through a
-- queue of 1000 packets, and through two cures, a short queue and one that CoDel manages (RFC 8289).
--   lua5.4 examples/bufferbloat.lua
local lab = require "netstack.lab"
local netstack = require "netstack"

local SECONDS = 10 -- of virtual time
local BUFFER = 4 * 2 ^ 20 -- bytes; TCP must be able to fill the queue
local CASES = {
  { name = "idle line", queue = 1000, idle = true },
  { name = "queue of 1000 packets", queue = 1000 },
  { name = "queue of 30 packets", queue = 30 },
  { name = "CoDel", queue = 1000, codel = {} },
}

-- Reads until the time is over: how many bytes came.
local function download(home, till)
  local conn, bytes = assert(home:connect("server", 80)), 0
  while netstack.now() < till do bytes = bytes + #assert(conn:receive_some()) end
  conn:abort()
  return bytes
end

local function measure(case)
  local net = lab.new()
  local home = net:host("home", { tcp_buffer_size = BUFFER })
  local server = net:host("server", { tcp_buffer_size = BUFFER })
  net:router "isp"
  net:link("home", "isp", { rate = 10e6, delay = 0.005, queue = case.queue, codel = case.codel })
  net:link("isp", "server", { rate = 1e9, delay = 0.005 })
  local times, bytes = {}, nil
  net:run(function()
    netstack.daemon(function(listener)
      local conn, data = listener:accept(), ("x"):rep(65536)
      repeat until not conn:send(data)
    end, server:bind("*", 80))
    local task = not case.idle and netstack.spawn(download, home, SECONDS)
    while netstack.now() < SECONDS do
      times[#times + 1] = home:ping("server", { timeout = 10 })
      netstack.sleep(0.1)
    end
    bytes = task and task:join()
  end)
  net:close()
  table.sort(times)
  return times, bytes and ("%.2f Mbit/s"):format(bytes * 8e-6 / SECONDS) or "-"
end

print(("%-22s %11s %11s %12s"):format("", "median RTT", "worst RTT", "download"))
for _, case in ipairs(CASES) do
  local times, rate = measure(case)
  print(("%-22s %8.1f ms %8.1f ms %12s"):format(case.name, times[math.ceil(#times / 2)] * 1e3, times[#times] * 1e3,
    rate))
end
