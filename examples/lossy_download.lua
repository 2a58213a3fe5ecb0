-- A download through a router, over a line of 10 Mbit/s and 40 ms each way that loses one packet in a hundred. Into a
-- folder (build/plots) go what sender and line told every 10 ms of virtual time, all packets, and charts.
--   make plots
--   lua5.4 examples/lossy_download.lua [FOLDER]
local lab, netstack, plot = require "netstack.lab", require "netstack", require "netstack.plot"
local sampler, timesequence = require "netstack.sampler", require "netstack.timesequence"

local folder = arg[1] or "build/plots"
local SIZE = 2 * 1024 * 1024 -- bytes

local net = lab.new { seed = 1 }
local client, router, server = net:host "client", net:router "router", net:host "server"
local line = net:link(client, router, { rate = 10e6, delay = 0.04, loss = 0.01 })
net:link(router, server, { delay = 0.001 })

os.execute("mkdir -p '" .. folder:gsub("'", "'\\''") .. "'")
assert(net:capture(folder .. "/download.pcapng"))
local record = assert(timesequence.new(folder .. "/sequence.csv"))
line:trace(function(event) record:add(event) end)

local function serve(listener)
  local connection = assert(listener:accept())
  local samples = assert(sampler.new(folder .. "/download.csv", { connection = connection, link = line,
    direction = "b->a" }))
  assert(connection:send(("x"):rep(SIZE)))
  assert(connection:shutdown("send"))
  connection:receive() -- until the client has read all and closes
  print(("sender: %d retransmissions, rtt %.1f ms"):format(connection:info().retransmits, connection:info().rtt * 1e3))
  assert(samples:close())
  connection:close()
end

net:run(function()
  netstack.spawn(serve, server:bind("*", 80))
  local connection = assert(client:connect("server", 80))
  local began = netstack.now()
  local bytes = #assert(connection:receive("*a"))
  local seconds = netstack.now() - began
  connection:close()
  print(("client: %d bytes in %.2f s, %.2f Mbit/s"):format(bytes, seconds, bytes * 8e-6 / seconds))
end)
assert(record:close())
assert(net:close())

for _, chart in ipairs { "sequence", "window", "rtt", "throughput", "queue" } do
  local csv = folder .. (chart == "sequence" and "/sequence.csv" or "/download.csv")
  local ok, err, script = plot.draw(chart, csv, ("%s/%s.svg"):format(folder, chart))
  if ok then print(("%-10s %s/%s.svg"):format(chart, folder, chart))
  else print(("%-10s %s; the script is %s"):format(chart, err, script)) end
end
