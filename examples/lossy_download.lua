-- `make plots`: a download over 10 Mbit/s, 40 ms each way, one packet in a hundred lost, in virtual time. Into a folder
-- (build/plots) go what the sender and the link told every 10 ms, each packet, and charts.
local link, netstack = require "netstack.link", require "netstack"
local pcap, plot = require "netstack.pcap", require "netstack.plot"
local sampler, timesequence = require "netstack.sampler", require "netstack.timesequence"

local folder = arg[1] or "build/plots"
local SIZE = 2 * 1024 * 1024 -- bytes

local wire, near, far = link.new { rate = 10e6, delay = 0.04, loss = 0.01, seed = 1 }
local client, server = netstack.new { name = "client", seed = 1 }, netstack.new { name = "server", seed = 2 }
assert(client:attach(near, { addresses = { "10.0.0.1/24" } }))
assert(server:attach(far, { addresses = { "10.0.0.2/24" } }))

os.execute("mkdir -p '" .. folder:gsub("'", "'\\''") .. "'")
local capture = assert(pcap.writer(folder .. "/download.pcapng"))
local interface = capture:interface { name = "client-server" }
local record = assert(timesequence.new(folder .. "/sequence.csv"))
wire:trace(function(event)
  capture:packet(interface, event.time, event.packet, { comment = event.cause and "dropped: " .. event.cause })
  record:add(event)
end)

local function serve(listener)
  local connection = assert(listener:accept())
  local samples = assert(sampler.new(folder .. "/download.csv", { connection = connection, link = wire,
    direction = "b->a" }))
  assert(connection:send(("x"):rep(SIZE)))
  assert(connection:shutdown("send"))
  connection:receive() -- until the client has read all and closes
  print(("sender: %d retransmissions, rtt %.1f ms"):format(connection:info().retransmits, connection:info().rtt * 1e3))
  assert(samples:close())
  connection:close()
end

netstack.run(function()
  netstack.spawn(serve, server:bind("*", 80))
  local connection = assert(client:connect("10.0.0.2", 80))
  local began = netstack.now()
  local bytes = #assert(connection:receive("*a"))
  local seconds = netstack.now() - began
  connection:close()
  print(("client: %d bytes in %.2f s, %.2f Mbit/s"):format(bytes, seconds, bytes * 8e-6 / seconds))
end)
wire:trace(nil)
assert(capture:close())
assert(record:close())

for _, chart in ipairs { "sequence", "window", "rtt", "throughput", "queue" } do
  local csv = folder .. (chart == "sequence" and "/sequence.csv" or "/download.csv")
  local ok, err, script = plot.draw(chart, csv, ("%s/%s.svg"):format(folder, chart))
  if ok then print(("%-10s %s/%s.svg"):format(chart, folder, chart))
  else print(("%-10s %s; the script is %s"):format(chart, err, script)) end
end
