-- tshark looks at all kinds of packets that a stack sends, captured by itself in the kernel's namespace: none is
-- malformed, no checksum is wrong. And it would say so.
local helper = require "spec.helper"
local netns = require "spec.netns"
local netstack = require "netstack"
local packets = require "spec.packets"

local run, spawn = netstack.run, netstack.spawn
local unpack = table.unpack or unpack -- luacheck: ignore 143
local with = netns.specs(it, pending)

local MAC = "02:00:00:00:00:07"
local KIB = 1024
local REAL = { clock = "real", timeout = 60 } -- also while no stack is attached
local FAMILIES = { { kernel = "10.1.0.1", stack = "10.1.0.2", all = "255.255.255.255" },
  { kernel = "fd01::1", stack = "fd01::2", all = "ff02::1" } }

-- A file that tshark wrote on this machine with `-F pcap`: its header, and each packet with a header of 16 bytes.
local function read_capture(path)
  local text, list, at = assert(netns.read(path)), {}, 25
  local little = text:byte(1) == 0xd4
  while at <= #text do
    local a, b, c, d = text:byte(at + 8, at + 11)
    local length = little and a + b * 256 + c * 65536 or d + c * 256 + b * 65536
    list[#list + 1] = { header = text:sub(at, at + 7), data = text:sub(at + 16, at + 15 + length), little = little }
    at = at + 16 + length
  end
  return text:sub(1, 24), list
end

local function write_capture(path, header, list)
  local parts = { header }
  for _, packet in ipairs(list) do
    local size = packets.u16(#packet.data)
    local length = packet.little and size:reverse() .. "\0\0" or "\0\0" .. size
    parts[#parts + 1] = packet.header .. length .. length .. packet.data
  end
  netns.write(path, table.concat(parts))
end

-- What tshark says of each packet. Where a packet quotes another, a field has a value for each.
local FIELDS = { "frame.number", "frame.protocols", "eth.src", "ip.src", "ipv6.src", "arp.opcode", "icmp.type",
  "icmpv6.type", "tcp.flags", "ip.flags.mf", "ip.frag_offset", "ipv6.fraghdr.more", "_ws.malformed",
  "_ws.expert.severity", "_ws.expert.message", "ip.checksum.status", "tcp.checksum.status", "udp.checksum.status",
  "icmp.checksum.status", "icmpv6.checksum.status" }
local STATUS = 16 -- the first of those

local OPTIONS = "-n -o ip.check_checksum:TRUE -o tcp.check_checksum:TRUE -o udp.check_checksum:TRUE -T fields " ..
  "-E occurrence=a -e " .. table.concat(FIELDS, " -e ")

local function examine(path)
  local status, text = netns.start(("%stshark -r %s %s"):format(netns.CLEAN, path, OPTIONS)):wait()
  assert.equal(0, status, text)
  local list = {}
  for line in text:gmatch("[^\n]+") do
    local values, i = {}, 0
    for value in (line .. "\t"):gmatch("([^\t]*)\t") do
      i = i + 1
      if FIELDS[i] then values[FIELDS[i]] = value end
    end
    if i == #FIELDS then list[#list + 1] = values end -- beside what it says of root
  end
  return list
end

-- The first of a field's values is the packet's own, those after it what it quotes.
local function first(value)
  return value:match("^[^,]*")
end

local function is_ours(about)
  if about["eth.src"] ~= "" then return about["eth.src"] == MAC end
  return first(about["ip.src"]) == FAMILIES[1].stack or first(about["ipv6.src"]) == FAMILIES[2].stack
end

-- What we speak. By other ports than these have tshark guesses what our bytes might be, and finds fault with that.
local SPOKEN = {}
for name in ("raw eth ethertype arp ip ipv6 ipv6.fraghdr icmp icmpv6 udp tcp data dhcp dns"):gmatch("%S+") do
  SPOKEN[name] = true
end

-- What is wrong with a packet: nil, or words.
local function complaint(about)
  local list, known = {}, true
  for i = STATUS, #FIELDS do
    if first(about[FIELDS[i]]) == "0" then list[#list + 1] = FIELDS[i] .. " is bad" end
  end
  for name in about["frame.protocols"]:gmatch("[^:]+") do known = known and SPOKEN[name] end
  if known and about["_ws.malformed"] ~= "" then list[#list + 1] = "malformed" end
  for severity in about["_ws.expert.severity"]:gmatch("[^,]+") do
    if known and #list == 0 and tonumber(severity) >= 8388608 then list[1] = about["_ws.expert.message"] end
  end
  return list[1] and table.concat(list, ", ")
end

-- The kinds of packets that a packet counts as.
local function kinds(about)
  local list, protocols = {}, about["frame.protocols"]
  local function add(what, value)
    if value ~= "" then list[#list + 1] = what .. first(value) end
  end
  local version = protocols:find("ipv6", 1, true) and "IPv6" or "IPv4"
  if first(about["ip.flags.mf"]) == "1" or protocols:find("ipv6.fraghdr", 1, true) then
    return { "a piece of " .. version }
  elseif tonumber((first(about["ip.frag_offset"]))) ~= 0 and version == "IPv4" and about["arp.opcode"] == "" then
    return list -- the last piece, which tshark takes for the whole
  end
  add("ARP ", about["arp.opcode"])
  add("ICMP ", about["icmp.type"])
  add("ICMPv6 ", about["icmpv6.type"])
  if protocols:find("icmp", 1, true) then return list end
  for i, name in ipairs { "FIN", "SYN", "RST", "PSH", "ACK" } do
    local flags = tonumber((first(about["tcp.flags"]))) or 0
    if math.floor(flags / 2 ^ (i - 1)) % 2 == 1 then add("TCP " .. version .. " ", name) end
  end
  if protocols:find("udp", 1, true) then
    add("UDP " .. version, protocols:match(":udp:(d[nh]%w*)") or " ")
  end
  return list
end

local EXPECTED = { tun = { "ICMP 0", "ICMP 3", "ICMP 8", "ICMPv6 1", "ICMPv6 128", "ICMPv6 129", "UDP IPv4dns" } }
for _, version in ipairs { "IPv4", "IPv6" } do
  for _, flag in ipairs { "SYN", "ACK", "FIN", "RST", "PSH" } do
    table.insert(EXPECTED.tun, ("TCP %s %s"):format(version, flag))
  end
  table.insert(EXPECTED.tun, "UDP " .. version .. " ")
  table.insert(EXPECTED.tun, "a piece of " .. version)
end
EXPECTED.tap = { "ARP 1", "ARP 2", "ICMPv6 135", "ICMPv6 136", "UDP IPv4dhcp", unpack(EXPECTED.tun) }

-- One packet of each kind is changed at a place, counted from its end or from the IP header's start.
local SPOILED = {
  { "ICMP 8", -1, "icmp.checksum.status is bad" },
  { "ICMP 3", -1, "icmp.checksum.status is bad" },
  { "ICMPv6 128", -1, "icmpv6.checksum.status is bad" },
  { "TCP IPv4 PSH", -1, "tcp.checksum.status is bad" },
  { "TCP IPv6 PSH", -1, "tcp.checksum.status is bad" },
  { "UDP IPv4 ", -1, "udp.checksum.status is bad" },
  { "UDP IPv6 ", -1, "udp.checksum.status is bad" },
  { "TCP IPv4 SYN", 9, "ip.checksum.status is bad" }, -- its TTL
  { "UDP IPv4dns", 33, "udp.checksum.status is bad, malformed" }, -- how many questions there are
}

local function spoil(packet, place, link_header)
  if place > 0 then place = link_header + place else place = #packet.data end
  local data = packet.data
  packet.data = data:sub(1, place - 1) .. string.char((data:byte(place) + 16) % 256) .. data:sub(place + 1)
  return packet
end

-- Packets of all kinds.
local function talk(stack, namespace, name)
  local folder = netns.folder()
  netns.write_stream(folder .. "/up", 1, 200 * KIB + 1)
  for _, family in ipairs(FAMILIES) do
    for _, size in ipairs { 1, 4000 } do
      assert.is_truthy(stack:ping(family.kernel, { size = size, timeout = 5 }))
      namespace:ip("neighbour flush dev " .. name) -- that it has to ask for us
      assert.equal(0, (namespace:start(("ping -n -c 1 -W 5 -s %d %s"):format(size, family.stack)):wait()))
    end
    -- TCP from there, with bytes both ways; from here; to nobody, either way; ended by a reset.
    local listener = assert(stack:bind("*", 45000))
    local client = namespace:start(("nc -N %s 45000 <%s/up >%s/down"):format(family.stack, folder, folder))
    local socket = assert(listener:accept())
    listener:close()
    local writer = spawn(helper.send_stream, socket, 2, 300 * KIB)
    assert.equal(200 * KIB + 1, helper.receive_stream(socket, 1))
    writer:join()
    socket:close()
    client:wait()
    local server = namespace:start(("nc -l %s 45001"):format(family.kernel))
    namespace:listens(45001)
    socket = assert(stack:connect(family.kernel, 45001))
    assert(socket:send("x"))
    server:expect("x")
    socket:abort()
    server:wait()
    assert.equal(1, (namespace:start(("nc -n -z %s 45009"):format(family.stack)):wait()))
    assert.is_nil((stack:connect(family.kernel, 45009)))
    -- UDP, whole and in pieces, to one and to all; and to nobody here.
    local udp = assert(stack:udp())
    assert(udp:setoption("broadcast", true))
    for _, size in ipairs { 0, 1, 1001, 4001 } do assert(udp:sendto(("u"):rep(size), family.kernel, 9)) end
    udp:sendto("to all", family.all, 9)
    udp:close()
    local script = ("exec 3<>/dev/udp/%s/45009; echo x >&3; sleep 0.1"):format(family.stack)
    namespace:start("bash -c " .. netns.quote(script)):wait()
  end
  -- Names, by UDP and by TCP.
  assert.equal("10.9.0.4", stack:resolve("four.test"))
  assert.is_truthy(stack:resolve("many.test"))
end

describe("tshark", function()
  after_each(netns.finish)

  for _, mode in ipairs { "tun", "tap" } do
    local name = ("finds nothing wrong in what we send over %s, and finds what is wrong"):format(mode:upper())
    with({ "tshark", "ping", "nc", "ss", "bash", "dnsmasq" }, name, function()
      local namespace = netns.new()
      -- tshark is to see each segment by itself, with its checksum.
      local device = netns.keep(namespace:tun(1, { mode = mode }))
      local path = netns.folder() .. "/sent.pcap"
      local stack = helper.watch(assert(netstack.new { dns = { "10.1.0.1" } }))
      run(function()
        local capture = namespace:start(("tshark -n -i %s -F pcap -w %s"):format(device:name(), path))
        netns.eventually(function() return netns.read(path) end) -- it listens; what it prints stays in its buffers
        local hosts = {}
        for i = 1, 60 do hosts[i] = ("10.9.1.%d many.test\n"):format(i) end
        netns.write(netns.folder() .. "/hosts", table.concat(hosts))
        namespace:dnsmasq { "interface=" .. device:name(), "dhcp-range=10.1.0.2,10.1.0.2,2m",
          "host-record=four.test,10.9.0.4", "addn-hosts=" .. netns.folder() .. "/hosts" }
        local interface = assert(stack:attach(device, mode == "tap" and { mac = MAC, dhcp = true,
          addresses = { "fd01::2/64" } } or { addresses = { "10.1.0.2/24", "fd01::2/64" } }))
        netns.eventually(function() return #interface:addresses() == 2 end)
        talk(stack, namespace, device:name())
        netstack.sleep(0.5)
        capture:signal("INT")
        capture:wait()
      end, REAL)

      run(function()
        local ours, seen, complaints = 0, {}, {}
        for _, about in ipairs(examine(path)) do
          if is_ours(about) then
            ours = ours + 1
            complaints[#complaints + 1] = complaint(about)
            for _, kind in ipairs(kinds(about)) do seen[kind] = tonumber(about["frame.number"]) end
          end
        end
        assert.same({}, complaints)
        assert.is_true(ours > 400, ours)
        for _, kind in ipairs(EXPECTED[mode]) do assert.is_number(seen[kind], "none of kind " .. kind) end

        local header, list = read_capture(path)
        local spoiled, found, wanted = {}, {}, {}
        for i, case in ipairs(SPOILED) do
          spoiled[i], wanted[i] = spoil(list[seen[case[1]]], case[2], mode == "tap" and 14 or 0), case[3]
        end
        write_capture(path, header, spoiled)
        for i, about in ipairs(examine(path)) do found[i] = complaint(about) or "nothing" end
        assert.same(wanted, found)
      end, REAL)
    end)
  end
end)
