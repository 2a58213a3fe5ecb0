-- A lab in which everything is sent that stacks send, and what makes them send it, in virtual time, with all weather
-- there is: for specs of what looks at packets.
local assert = require "luassert"
local core = require "netstack.core"
local helper = require "spec.helper"
local lab = require "netstack.lab"
local netstack = require "netstack"
local packet = require "netstack.packet"
local packets = require "spec.packets"

local char, rep = string.char, string.rep
local bytes, u16 = packets.bytes, packets.u16
local daemon, sleep, spawn = netstack.daemon, netstack.sleep, netstack.spawn

local M = {}

local function address(stack, version)
  for _, text in ipairs(stack:addresses()) do
    local host = text:match("^[^/]+")
    if (host:find(":", 1, true) and 6 or 4) == version then return host end
  end
end

-- Another host of the network that a stack is on.
local function neighbour(stack, version, number)
  return (address(stack, version):gsub("%x+$", number))
end

-- ---------------------------------------------------------------------------------------------------- servers

local DISCOVER, OFFER, ACK, NAK = 1, 2, 5, 6

-- A server that offers 99, and refuses to renew it once: it is handed the client's packets. (A stack hears nothing that
-- comes from nowhere.)
local function dhcp_server(kit)
  local own, renewals, socket = address(kit, 4), 0, kit:udp()
  socket:setoption("broadcast", true)
  assert(socket:setsockname("0.0.0.0", 67))
  return function(data)
    sleep(0.001)
    local kind, known = data:byte(243), data:sub(13, 16) ~= "\0\0\0\0"
    if known then renewals = renewals + 1 end
    local answer = kind == DISCOVER and OFFER or known and renewals == 2 and NAK or ACK
    socket:sendto("\2\1\6\0" .. data:sub(5, 8) .. rep("\0", 8) .. bytes(neighbour(kit, 4, "99")) .. rep("\0", 8) ..
      data:sub(29, 34) .. rep("\0", 10 + 192) .. "\99\130\83\99\53\1" .. char(answer) .. "\54\4" .. bytes(own) ..
      "\1\4\255\255\240\0\51\4\0\0\0\60\58\4\0\0\0\20\59\4\0\0\0\50\255", "255.255.255.255", 68)
  end
end

-- One record, an address; what is asked by UDP for "long.…" is to be asked by TCP.
local function dns_answer(query, cut)
  local at = 13
  while query:byte(at) > 0 do at = at + query:byte(at) + 1 end
  local question, four = query:sub(13, at + 4), query:byte(at + 2) == 1
  cut = cut and question:find("^\4long")
  local record = cut and "" or "\192\12" .. (four and "\0\1" or "\0\28") .. "\0\1\0\0\0\60" ..
    (four and "\0\4\10\7\7\7" or "\0\16" .. bytes "fd77::7")
  return query:sub(1, 2) .. (cut and "\131" or "\129") .. "\128\0\1\0" .. (cut and "\0" or "\1") .. "\0\0\0\0" ..
    question .. record
end

local function serve_dns(kit)
  local socket = kit:udp()
  assert(socket:setsockname("*", 53))
  helper.serve(assert(kit:bind("*", 53)), function(peer)
    local reply = dns_answer((peer:receive(packets.get16(peer:receive(2), 1))))
    peer:send(u16(#reply) .. reply)
    peer:close()
  end)
  while true do
    local data, host, port = socket:receivefrom()
    socket:sendto(dns_answer(data, true), host, port)
  end
end

-- ---------------------------------------------------------------------------------------------------- what is sent

-- Builds a packet and sends it by a raw socket.
local function craft(stack, parts)
  local network = parts.ipv6 or parts.ipv4
  local socket = assert(stack:raw(parts.ipv6 and "ipv6" or "ipv4", network.protocol or 255))
  assert(socket:send((assert(packet.build(parts)))))
  socket:close()
end

-- Addresses that come from routers and servers; groups, asked for by queriers.
local function configure(kit, c)
  local interface, router = core.first_interface(c), core.first_interface(kit):link_local():match("^[^%%]+")
  local function advertise(lifetime)
    craft(kit, { ipv6 = { source = router, destination = "ff02::1", hop_limit = 255 }, icmpv6 = { type = 134,
      hop_limit = 64, router_lifetime = lifetime, options = {
        { type = "source_link_layer_address", address = core.first_interface(kit):mac() },
        { type = "prefix_information", prefix = "fd0c::", on_link = true, autonomous = true },
        { type = "mtu", mtu = 1500 }, { type = "recursive_dns_server", addresses = { "fd0c::53", "fd0c::54" } } } } })
  end
  interface:start_dhcp()
  interface:start_slaac()
  sleep(6) -- routers are asked for twice
  advertise(1800)
  sleep(60) -- leases are renewed
  advertise(0)
end

local function join(kit, host)
  local socket = assert(host:udp())
  assert(socket:setsockname("*", 5000))
  local router, own = core.first_interface(kit):link_local():match("^[^%%]+"), address(kit, 4)
  local alert4 = { { type = 148, data = "\0\0" } }
  local alert6 = { { type = "hop_by_hop", options = { { type = 5, data = "\0\0" } } } }
  local function query(group4, group6)
    craft(kit, { ipv4 = { source = own, destination = group4 or "224.0.0.1", options = alert4 },
      igmp = { type = 0x11, max_response = 10, group = group4 } })
    craft(kit, { ipv6 = { source = router, destination = group6 or "ff02::1", extensions = alert6 },
      icmpv6 = { type = 130, max_response = 1000, group = group6 } })
    sleep(2)
  end
  socket:setoption("ip-add-membership", { multiaddr = "239.1.2.3", interface = "0.0.0.0" })
  socket:setoption("ipv6-add-membership", { multiaddr = "ff05::1:3" })
  sleep(12)
  query()
  query("239.1.2.3", "ff05::1:3")
  -- Version 3 of IGMP and 2 of MLD, as other hosts and queriers speak them.
  craft(kit, { ipv4 = { source = own, destination = "224.0.0.1", options = alert4 },
    igmp = { type = 0x11, max_response = 10, group = "239.1.2.3", suppress = true, robustness = 2,
      query_interval = 125, sources = { "10.0.0.7", "10.0.0.8" } } })
  craft(kit, { ipv6 = { source = router, destination = "ff02::1", extensions = alert6 },
    icmpv6 = { type = 130, max_response = 1000, group = "ff05::1:3", suppress = true, robustness = 2,
      query_interval = 125, sources = { "fd00::7", "fd00::8" } } })
  craft(kit, { ipv4 = { source = own, destination = "224.0.0.22", options = alert4 },
    igmp = { type = 0x22, records = { { type = 4, group = "239.1.2.3" },
      { type = 1, group = "239.1.2.4", sources = { "10.0.0.7", "10.0.0.8" } } } } })
  craft(kit, { ipv6 = { source = router, destination = "ff02::16", extensions = alert6 },
    icmpv6 = { type = 143, records = { { type = 4, group = "ff05::1:3" },
      { type = 1, group = "ff05::1:4", sources = { "fd00::7", "fd00::8" } } } } })
  local sender = kit:udp()
  sender:sendto(rep("group", 500), "239.1.2.3", 5000)
  sender:sendto("group", "ff05::1:3", 5000)
  sender:setoption("broadcast", true)
  sender:sendto("all", "255.255.255.255", 5000)
  sender:close()
  sleep(2)
  socket:close()
end

-- TCP in all its states between two hosts.
local function connect(near, far, host, port)
  local family = { b = host }
  local client, server = helper.connection(near, far, family, port)
  helper.exchange(client, server, 7000)
  client, server = helper.connection(near, far, family, port)
  client:setoption("keepalive", true)
  client:setoption("tcp-keepidle", 1)
  client:setoption("tcp-keepintvl", 1)
  local sending = spawn(function() return client:send(rep("z", 9000)) end)
  sleep(8) -- nobody receives: the window closes, and is asked for
  assert.equal(9000, #server:receive(9000))
  assert.equal(9000, sending:join())
  sleep(3)
  client:abort()
  server:receive()
  server:close()
  assert.is_nil((near:connect(host, port + 1)))
end

-- Datagrams whole and in pieces, pings, ways that end, packets that are too long for theirs.
local function probe(near, host, version, nobody, nowhere, narrow)
  local hops = version == 4 and "ip-ttl" or "ipv6-unicast-hops"
  assert.is_number(near:ping(host, { timeout = 5 }))
  assert.is_number(near:ping(host, { size = 3000, timeout = 5 }))
  for _, other in ipairs { nobody, nowhere } do assert.is_nil((near:ping(other, { timeout = 5 }))) end
  assert.is_nil((near:connect(nobody, 80)))
  local udp = near:udp()
  for _, size in ipairs { 0, 1, 4000 } do assert.equal(size, udp:sendto(rep("u", size), host, 9)) end
  for ttl = 1, 4 do -- a route is traced
    udp:setoption(hops, ttl)
    udp:sendto("trace", host, 33434 + ttl)
    sleep(0.1)
  end
  udp:setoption(hops, 64)
  udp:setoption("dont-fragment", true)
  udp:sendto(rep("l", 1450), narrow, 9)
  udp:close()
  sleep(1)
end

-- What is answered with an error, or with none; `host` is on the link.
local function provoke(kit, host)
  local four, six = { address(kit, 4), address(host, 4) }, { address(kit, 6), address(host, 6) }
  local function ipv4(more)
    more.source, more.destination = four[1], four[2]
    return more
  end
  local function ipv6(more)
    more.source, more.destination = six[1], six[2]
    return more
  end
  craft(kit, { ipv4 = ipv4 { protocol = 200 }, payload = "nobody speaks it" })
  craft(kit, { ipv6 = ipv6 { next_header = 200 }, payload = "nobody speaks it" })
  craft(kit, { ipv6 = ipv6 { extensions = { { type = "destination", options = { { type = 0xc5, data = "?" } } } } },
    udp = { source_port = 1, destination_port = 2 } })
  -- Pieces whose others never come.
  craft(kit, { ipv4 = ipv4 { id = 7, more_fragments = true }, udp = { source_port = 1, destination_port = 2 },
    payload = rep("p", 64) })
  craft(kit, { ipv6 = ipv6 { extensions = { { type = "fragment", id = 7, more_fragments = true } } },
    udp = { source_port = 1, destination_port = 2 }, payload = rep("p", 64) })
  craft(kit, { ipv4 = ipv4 { tos = 0xb8 }, udp = { source_port = 1, destination_port = 2, checksum = 0 },
    payload = "no checksum" })
  craft(kit, { ipv4 = ipv4 {}, tcp = { source_port = 1, destination_port = 2, flags = "PAU", urgent = 3, seq = 9,
    options = { timestamps = { value = 1, echo = 2 }, "nop", "nop" } }, payload = "urgent" })
end

-- ---------------------------------------------------------------------------------------------------- weather

-- Every way in which a link treats packets badly, one after the other.
local function storm(net, link, near, host)
  local socket, n = near:udp(), 0
  local function blow(weather, count, size)
    if weather then link:set(weather) end
    for _ = 1, count or 3 do
      n = n + 1
      socket:sendto(("%d"):format(n) .. rep("w", size or 100), host, 7)
    end
    sleep(2)
    link:reset()
  end
  blow { loss = 1 }
  blow({ corrupt = 1 }, 8)
  blow { duplicate = 1 }
  blow({ duplicate = 1, rate = 1e5, queue = 0 }, 2)
  blow({ delay = 0.1, reorder = 0.5 }, 8)
  blow { mtu = 100 }
  blow({ rate = 1e4, queue = 1 }, 6)
  blow({ rate = 1e4, codel = { target = 0.001, interval = 0.01 } }, 8)
  link:down()
  blow()
  link:up()
  net:partition({ near }, { net:find "server" })
  blow()
  net:heal()
  socket:close()
end

--- Sends all of it, and captures it.
-- @param path of the capture
-- @return the events of all links, in their order, as `link:trace` tells of them
function M.record(path)
  local net, events = lab.new { seed = 3 }, {}
  local s, t = net:switch "s", net:switch "t"
  local kit = net:host "kit"
  local a = net:host("a", { dns = { "10.128.0.1" } })
  local b, c = net:host "b", net:host "c"
  local nat, r, server = net:nat "nat", net:router "r", net:host("server", { tcp_buffer_size = 6000 })
  for _, host in ipairs { kit, a, b } do net:link(host, s, { delay = 0.0001 }) end
  net:link(c, s, { addresses = { {} } })
  net:link(s, nat)
  local access = net:link(nat, r, { delay = 0.001 })
  net:link(r, t)
  net:link(server, t, { delay = 0.001 })
  local q, z = net:router "q", net:host "z"
  net:link(r, q, { mtu = 1280 })
  net:link(q, z)
  assert(net:capture(path))
  local serve_dhcp
  for _, link in ipairs(net:links()) do
    link:trace(function(event)
      events[#events + 1] = event
      local parts = event.from == "c" and packet.dissect(event.packet, { link = "ethernet" })
      if parts and parts.udp and parts.udp.destination_port == 67 then daemon(serve_dhcp, parts.payload) end
    end)
  end
  net:run(function()
    serve_dhcp = dhcp_server(kit)
    daemon(serve_dns, kit)
    daemon(function()
      local socket = server:udp()
      assert(socket:setsockname("*", 7))
      while socket:receive() do end
    end)
    sleep(2)
    local tasks = { spawn(configure, kit, c), spawn(join, kit, b), spawn(function()
      assert.equal("10.7.7.7", a:resolve "short.test")
      assert.equal("10.7.7.7", a:resolve "long.test")
      for _, version in ipairs { 4, 6 } do
        local host, near = address(server, version), { [4] = a, [6] = b }
        probe(near[version], host, version, neighbour(server, version, "77"),
          version == 4 and "203.0.113.9" or "2001:db8::9", address(z, version))
        access:set { loss = 0.08 }
        connect(near[version], server, host, 80)
        access:set { loss = 0 }
        local client, peer = helper.connection(near[version], z, { b = address(z, version) })
        helper.exchange(client, peer, 4000) -- in segments that are too long at first
      end
      craft(a, { ipv4 = { source = address(a, 4), destination = address(server, 4), protocol = 253 },
        payload = "not to be translated" })
      assert.is_nil((a:ping(neighbour(a, 4, "77"), { timeout = 5 })))
    end) }
    provoke(kit, a)
    for _, task in ipairs(tasks) do task:join() end
    storm(net, access, a, address(server, 4))
  end)
  assert(net:close())
  return events
end

return M
