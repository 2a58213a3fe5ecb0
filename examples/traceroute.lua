-- Traceroute over three routers of different delays: UDP datagrams to ports where nobody listens, whose TTL rises. The
-- router where it gets to 0 answers with an ICMP time exceeded, the host at the end with a port unreachable. A raw
-- socket hears them, and what each quotes says which datagram it is about. `*`: lost, on a link that loses some.
--   lua5.4 examples/traceroute.lua
local lab = require "netstack.lab"
local netstack = require "netstack"
local packet = require "netstack.packet"

local PORT, PROBES = 33434, 3 -- the first port; how often each TTL is tried
local UNREACHABLE = 3 -- ICMP's type

local net = lab.new()
local home = net:host "home"
net:host "server"
for _, name in ipairs { "gateway", "provider", "exchange" } do net:router(name) end
net:link("home", "gateway", { delay = 0.0005 })
net:link("gateway", "provider", { delay = 0.008, jitter = 0.002 })
net:link("provider", "exchange", { delay = 0.03, loss = 0.2 })
net:link("exchange", "server", { delay = 0.001 })

-- Waits for the ICMP error that quotes the datagram to this port: its type and who sent it.
local function await(errors, port)
  local data = errors:receive()
  while data do
    local found = packet.dissect(data)
    local quoted = found.icmp and packet.dissect(found.payload)
    if quoted and quoted.udp and quoted.udp.destination_port == port then return found.icmp.type, found.ipv4.source end
    data = errors:receive()
  end
end

net:run(function()
  local probe, errors = home:udp(), home:raw("ipv4", 1)
  errors:settimeout(1)
  local port, there = PORT, false
  for ttl = 1, 30 do
    local line, address = {}, nil
    probe:setoption("ip-ttl", ttl)
    for i = 1, PROBES do
      local sent = netstack.now()
      probe:sendto("", "server", port)
      local kind, from = await(errors, port)
      line[i] = kind and ("%7.1f ms"):format((netstack.now() - sent) * 1e3) or "         *"
      address, there, port = from or address, there or kind == UNREACHABLE, port + 1
    end
    local name = address and net:find(address):name() or ""
    print(("%2d  %-9s %-9s%s"):format(ttl, name, address or "", table.concat(line)))
    if there then break end
  end
end)
net:close()
