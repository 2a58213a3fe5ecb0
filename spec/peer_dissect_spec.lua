-- tshark reads our captures and says the same of each packet as netstack.packet, field by field: of all that stacks
-- send, captured in a lab, and of what only `build` makes.
local lab_traffic = require "spec.lab_traffic"
local netns = require "spec.netns"
local packet = require "netstack.packet"
local pcap = require "netstack.pcap"
local tshark = require "spec.tshark"

-- ---------------------------------------------------------------------------------------------------- kinds

local function some(value) return value ~= nil end
local function positive(value) return (tonumber(value) or 0) > 0 end
local function matching(pattern)
  return function(value) return value ~= nil and value:find(pattern) ~= nil end
end

local FOUR, SIX = { ["ip.version"] = 4 }, { ["ipv6.version"] = 6 }
local ALL = { ["eth.dst"] = "ff:ff:ff:ff:ff:ff" }

-- What a capture of all that we send has to have, by the first values of tshark's fields: numbers, texts, or what they
-- are to be.
local KINDS = {
  { "ARP request", { ["arp.opcode"] = 1, ["arp.isgratuitous"] = "" } },
  { "ARP reply", { ["arp.opcode"] = 2 } },
  { "ARP announcement", { ["arp.isgratuitous"] = 1 }, ALL },
  { "DHCP discover", { ["dhcp.option.dhcp"] = 1 }, ALL },
  { "DHCP offer", { ["dhcp.option.dhcp"] = 2 } },
  { "DHCP request", { ["dhcp.option.dhcp"] = 3, ["ip.src"] = "0.0.0.0" }, ALL },
  { "DHCP request, renewing", { ["dhcp.option.dhcp"] = 3, ["ip.src"] = matching "99$" } },
  { "DHCP acknowledgement", { ["dhcp.option.dhcp"] = 5 } },
  { "DHCP refusal", { ["dhcp.option.dhcp"] = 6 } },
  { "DNS question", { ["dns.flags.response"] = 0, ["udp.dstport"] = 53 } },
  { "DNS answer", { ["dns.flags.response"] = 1, ["udp.srcport"] = 53, ["dns.flags.truncated"] = 0 } },
  { "DNS answer, cut", { ["dns.flags.truncated"] = 1, ["udp.srcport"] = 53 } },
  { "DNS question over TCP", { ["tcp.dstport"] = 53, ["tcp.len"] = positive } },
  { "DNS answer over TCP", { ["tcp.srcport"] = 53, ["tcp.len"] = positive } },
  { "router solicitation", { ["icmpv6.type"] = 133 } },
  { "router advertisement", { ["icmpv6.type"] = 134, ["icmpv6.opt.rdnss"] = some } },
  { "duplicate address detection", { ["icmpv6.type"] = 135, ["ipv6.src"] = "::" } },
  { "neighbour solicitation", { ["icmpv6.type"] = 135, ["icmpv6.opt.src_linkaddr"] = some } },
  { "neighbour advertisement", { ["icmpv6.type"] = 136, ["icmpv6.nd.na.flag.s"] = 1 } },
  { "IGMP query", { ["igmp.type"] = 0x11, ["igmp.version"] = 2 } },
  { "IGMP query of a group", { ["igmp.type"] = 0x11, ["igmp.version"] = 2, ["igmp.maddr"] = "239.1.2.3" } },
  { "IGMP query, version 3", { ["igmp.type"] = 0x11, ["igmp.version"] = 3 } },
  { "IGMP report", { ["igmp.type"] = 0x16 } },
  { "IGMP leave", { ["igmp.type"] = 0x17 } },
  { "IGMP report, version 3", { ["igmp.type"] = 0x22 } },
  { "MLD query", { ["icmpv6.type"] = 130, ["icmpv6.mld.multicast_address"] = "::" } },
  { "MLD query of a group", { ["icmpv6.type"] = 130, ["icmpv6.mld.multicast_address"] = "ff05::1:3" } },
  { "MLD query, version 2", { ["icmpv6.type"] = 130, ["icmpv6.mld.flag.qrv"] = 2 } },
  { "MLD report", { ["icmpv6.type"] = 131 } },
  { "MLD report from nowhere", { ["icmpv6.type"] = 131, ["ipv6.src"] = "::" } },
  { "MLD done", { ["icmpv6.type"] = 132 } },
  { "MLD report, version 2", { ["icmpv6.type"] = 143 } },
  { "ICMP net unreachable", { ["icmp.type"] = 3, ["icmp.code"] = 0 } },
  { "ICMP host unreachable", { ["icmp.type"] = 3, ["icmp.code"] = 1 } },
  { "ICMP protocol unreachable", { ["icmp.type"] = 3, ["icmp.code"] = 2 } },
  { "ICMP port unreachable", { ["icmp.type"] = 3, ["icmp.code"] = 3 } },
  { "ICMP fragmentation needed", { ["icmp.type"] = 3, ["icmp.code"] = 4, ["icmp.mtu"] = 1280 } },
  { "ICMP prohibited", { ["icmp.type"] = 3, ["icmp.code"] = 13 } },
  { "ICMP time exceeded", { ["icmp.type"] = 11, ["icmp.code"] = 0 } },
  { "ICMP time exceeded, reassembling", { ["icmp.type"] = 11, ["icmp.code"] = 1 } },
  { "ICMP echo request", { ["icmp.type"] = 8 } },
  { "ICMP echo reply", { ["icmp.type"] = 0 } },
  { "ICMPv6 no route", { ["icmpv6.type"] = 1, ["icmpv6.code"] = 0 } },
  { "ICMPv6 address unreachable", { ["icmpv6.type"] = 1, ["icmpv6.code"] = 3 } },
  { "ICMPv6 port unreachable", { ["icmpv6.type"] = 1, ["icmpv6.code"] = 4 } },
  { "ICMPv6 packet too big", { ["icmpv6.type"] = 2, ["icmpv6.mtu"] = 1280 } },
  { "ICMPv6 time exceeded", { ["icmpv6.type"] = 3, ["icmpv6.code"] = 0 } },
  { "ICMPv6 time exceeded, reassembling", { ["icmpv6.type"] = 3, ["icmpv6.code"] = 1 } },
  { "ICMPv6 unknown header", { ["icmpv6.type"] = 4, ["icmpv6.code"] = 1 } },
  { "ICMPv6 unknown option", { ["icmpv6.type"] = 4, ["icmpv6.code"] = 2 } },
  { "ICMP error about TCP", { ["icmp.type"] = 3, ["icmp.mtu"] = 1280, ["tcp.seq"] = some } },
  { "ICMPv6 error about TCP", { ["icmpv6.type"] = 2, ["icmpv6.mtu"] = 1280, ["tcp.seq"] = some } },
  { "ICMPv6 echo request", { ["icmpv6.type"] = 128 } },
  { "ICMPv6 echo reply", { ["icmpv6.type"] = 129 } },
  { "UDP broadcast", { ["ip.dst"] = "255.255.255.255", ["udp.dstport"] = 5000 }, ALL },
  { "UDP without a checksum", { ["udp.checksum.status"] = 3 } },
  { "TCP urgent", { ["tcp.flags.urg"] = 1, ["tcp.urgent_pointer"] = positive } },
  { "TCP timestamps", { ["tcp.options.timestamp.tsval"] = some } },
  { "of an unknown protocol", { ["ip.proto"] = 200, ["data.data"] = some } },
  { "of an unknown protocol, IPv6", { ["ipv6.nxt"] = 200, ["data.data"] = some } },
  { "translated: TCP", { ["frame.interface_name"] = "nat-r", ["ip.src"] = "10.0.0.1", ["tcp.srcport"] = some } },
  { "translated: UDP", { ["frame.interface_name"] = "nat-r", ["ip.src"] = "10.0.0.1", ["udp.srcport"] = some } },
  { "translated: echo", { ["frame.interface_name"] = "nat-r", ["ip.src"] = "10.0.0.1", ["icmp.type"] = 8 } },
}
for _, family in ipairs { { "IPv4", FOUR, "^239" }, { "IPv6", SIX, "^ff05" } } do
  local name, is, group = family[1], family[2], family[3]
  local destination = is == FOUR and "ip.dst" or "ipv6.dst"
  for _, kind in ipairs {
    { "SYN", { ["tcp.flags"] = 0x2, ["tcp.options.mss_val"] = some, ["tcp.options.wscale.shift"] = some,
      ["tcp.options.sack_perm"] = some } },
    { "SYN, ACK", { ["tcp.flags"] = 0x12 } },
    { "ACK", { ["tcp.flags"] = 0x10, ["tcp.len"] = 0 } },
    { "data", { ["tcp.flags.push"] = 1, ["tcp.len"] = positive } },
    { "FIN", { ["tcp.flags.fin"] = 1 } },
    { "RST, ACK", { ["tcp.flags"] = 0x14 } },
    { "SACK", { ["tcp.options.sack_le"] = some } },
    { "zero window", { ["tcp.window_size_value"] = 0, ["tcp.flags"] = 0x10 } },
    { "window probe", { ["tcp.analysis.zero_window_probe"] = some } },
    { "keepalive", { ["tcp.analysis.keep_alive"] = some } },
    { "UDP datagram", { ["udp.length"] = positive } },
    { "UDP datagram with nothing in it", { ["udp.length"] = 8 } },
    { "datagram to a group", { [destination] = matching(group), ["udp.srcport"] = some } },
    { "first piece", is == FOUR and { ["ip.flags.mf"] = 1, ["ip.frag_offset"] = 0 } or
      { ["ipv6.fraghdr.more"] = 1, ["ipv6.fraghdr.offset"] = 0 } },
    { "last piece", is == FOUR and { ["ip.flags.mf"] = 0, ["ip.frag_offset"] = positive } or
      { ["ipv6.fraghdr.more"] = 0, ["ipv6.fraghdr.offset"] = positive } },
    { "traced route", { [is == FOUR and "ip.ttl" or "ipv6.hlim"] = 1, ["udp.dstport"] = matching "^3343" } },
  } do
    KINDS[#KINDS + 1] = { name .. " " .. kind[1], kind[2], is }
  end
end
for _, comment in ipairs { "dropped: loss", "dropped: down", "dropped: queue", "dropped: codel", "dropped: mtu",
  "dropped: partition", "corrupted", "reordered", "duplicated", "duplicated, the copy dropped: queue" } do
  KINDS[#KINDS + 1] = { comment, { ["frame.comment"] = comment } }
end

local function is_of(said, conditions)
  for field, wanted in pairs(conditions) do
    local value = said[field][1]
    if type(wanted) == "function" then
      if not wanted(value) then return false end
    elseif not tshark.same(value or "", wanted) then
      return false
    end
  end
  return true
end

-- What tshark is asked for beside what we compare.
local EXTRA = { "frame.time_epoch", "frame.interface_name", "frame.comment", "_ws.malformed" }
local asked = {}
for _, name in ipairs(EXTRA) do asked[name] = true end
for _, field in ipairs(tshark.FIELDS) do asked[field[1]] = true end
for _, kind in ipairs(KINDS) do
  for i = 2, #kind do
    for name in pairs(kind[i]) do
      if not asked[name] then EXTRA[#EXTRA + 1] = name end
      asked[name] = true
    end
  end
end
table.sort(EXTRA)

-- ---------------------------------------------------------------------------------------------------- captures

-- What no stack of ours sends, and what is wrong: for what else there is to dissect.
local function crafted()
  local four, six = { source = "10.0.0.1", destination = "10.0.0.2" }, { source = "fe80::1", destination = "ff02::1" }
  local ports = { source_port = 1000, destination_port = 2000 }
  local list = {}
  local function add(parts)
    list[#list + 1] = { time = 100 + #list, link = parts.ethernet and "ethernet" or "ip",
      data = assert(packet.build(parts)) }
  end
  local function tcp(more)
    local fields = { seq = 4294967290, ack = 9, urgent = 3 }
    for key, value in pairs(ports) do fields[key] = value end
    for key, value in pairs(more) do fields[key] = value end
    return fields
  end
  add { ipv4 = four, tcp = tcp { flags = "FSRPAUECN", options = { mss = 536, window_scale = 14, sack_permitted = true,
    timestamps = { value = 4294967295, echo = 1 } } } }
  add { ipv4 = four, udp = ports, payload = "to be quoted" }
  add { ipv4 = four, tcp = tcp { flags = "A", options = { "nop", "nop", "sack",
    sack = { { left = 1, right = 2 }, { left = 4294967295, right = 5 } } } } }
  add { ipv4 = four, tcp = tcp { flags = "A", checksum = 1 }, payload = "wrong" }
  add { ipv4 = { source = "10.0.0.1", destination = "10.0.0.2", tos = 0xb8, id = 65535, checksum = 7,
    options = { { type = 148, data = "\0\0" } } }, udp = { source_port = 1000, destination_port = 2000, checksum = 5 },
    payload = "wrong, too" }
  add { ipv4 = four, icmp = { type = 3, code = 4, mtu = 1280 }, payload = list[2].data:sub(1, 28) }
  add { ipv4 = four, icmp = { type = 5, code = 1, gateway = "10.0.0.9" }, payload = list[2].data:sub(1, 28) }
  add { ipv4 = four, icmp = { type = 8, identifier = 258, sequence = 772, checksum = 1 }, payload = "wrong" }
  add { ipv4 = four, igmp = { type = 0x11, max_response = 100 } }
  add { ipv4 = four, igmp = { type = 0x16, group = "224.1.2.3" } }
  add { ipv4 = four, igmp = { type = 0x17, group = "224.1.2.3", checksum = 1 } }
  add { ipv4 = four, igmp = { type = 0x11, max_response = 10, group = "224.1.2.3", suppress = true, robustness = 2,
    query_interval = 125, sources = { "10.0.0.7", "10.0.0.8" } } }
  add { ipv4 = four, igmp = { type = 0x22, records = { { type = 4, group = "224.1.2.3" },
    { type = 1, group = "224.1.2.4", sources = { "10.0.0.7" } } } } }
  add { ipv4 = four, icmp = { type = 12, pointer = 8 }, payload = list[1].data }
  add { ipv4 = { source = "10.0.0.1", destination = "10.0.0.2", reserved = true }, tcp = tcp { reserved = 4 } }
  add { ethernet = { source = "02:00:00:00:00:01", destination = "ff:ff:ff:ff:ff:ff" }, trailer = ("\0"):rep(18),
    arp = { sender_mac = "02:00:00:00:00:01", sender_address = "10.0.0.1", target_address = "10.0.0.2" } }
  add { ipv6 = six, icmpv6 = { type = 133, options = {
    { type = "source_link_layer_address", address = "02:00:00:00:00:09" } } } }
  add { ipv6 = six, icmpv6 = { type = 134, hop_limit = 64, managed = true, other = true, router_lifetime = 600,
    reachable_time = 1000, retransmit_timer = 2000, home_agent = true,
    preference = 1, proxy = true, options = {
      { type = "prefix_information", prefix = "fd07::", on_link = true, autonomous = true },
      { type = "mtu", mtu = 1400 }, { type = "recursive_dns_server", addresses = { "fd07::53" } } } } }
  add { ipv6 = six, icmpv6 = { type = 135, target = "fe80::9" } }
  add { ipv6 = six, icmpv6 = { type = 136, target = "fe80::9", router = true, override = true, options = {
    { type = "target_link_layer_address", address = "02:00:00:00:00:09" } } } }
  add { ipv6 = six, icmpv6 = { type = 137, target = "fe80::9", destination = "fd08::1" } }
  add { ipv6 = six, icmpv6 = { type = 2, mtu = 1280 }, payload = ("x"):rep(60) }
  add { ipv6 = six, icmpv6 = { type = 4, pointer = 6 }, payload = ("x"):rep(60) }
  local router_alert = { { type = "hop_by_hop", options = { { type = 5, data = "\0\0" } } } }
  local mld = { source = "fe80::1", destination = "ff02::1", extensions = router_alert }
  add { ipv6 = mld, icmpv6 = { type = 130, max_response = 1000 } }
  add { ipv6 = mld, icmpv6 = { type = 131, group = "ff02::db8" } }
  add { ipv6 = mld, icmpv6 = { type = 132, group = "ff02::db8" } }
  add { ipv6 = mld, icmpv6 = { type = 143, records = { { type = 4, group = "ff02::db8", sources = { "fd07::1" } } } } }
  add { ipv6 = { source = "fd00::1", destination = "fd00::9", traffic_class = 0xb8, flow_label = 0xabcde,
    extensions = { { type = "hop_by_hop" }, { type = "destination", options = { { type = 0 }, { type = 0 } } },
      { type = "routing", routing_type = 0, segments_left = 1,
        data = "\0\0\0\0\253" .. ("\0"):rep(14) .. "\2" } } }, udp = ports, payload = "routed" }
  return list
end

-- What a capture says of an event.
local function remark(event)
  local said = {}
  if event.cause then said[1] = "dropped: " .. event.cause end
  for _, name in ipairs { "corrupted", "reordered", "duplicated" } do
    if event[name] then said[#said + 1] = name end
  end
  local text = table.concat(said, "; ")
  if event.copy_cause then text = text .. ", the copy dropped: " .. event.copy_cause end
  return text ~= "" and text or nil
end

-- What differs between tshark and us, and between the packet and what `build` makes of what `dissect` found.
local function differences(said, data, link, compared)
  local parts = assert(packet.dissect(data, { link = link }))
  local list = tshark.compare(said, parts, compared)
  if packet.build(parts) ~= data then list[#list + 1] = "it is not built again" end
  for i, difference in ipairs(list) do
    list[i] = packet.summary(data, { link = link }) .. ": " .. difference
  end
  return list, parts
end

-- Whether a checksum is wrong; of those tshark says what we say.
local function is_spoiled(parts)
  for _, layer in ipairs { "ipv4", "tcp", "udp", "icmp", "icmpv6", "igmp" } do
    if parts[layer] and parts[layer].checksum_ok == false then return true end
  end
  return false
end

local function extend(list, more)
  for _, item in ipairs(more) do list[#list + 1] = item end
end

-- As `it`, where a program is installed. No namespaces are needed here.
local function with(program, name, fn)
  if netns.has(program) then it(name, fn) else pending(("%s (%s is not installed)"):format(name, program)) end
end

describe("tshark", function()
  after_each(netns.finish)

  -- A capture of a lab, and what is wrong with it.
  local function check_lab(compared)
    local path = netns.folder() .. "/lab.pcapng"
    local events = lab_traffic.record(path)
    local list, reader, wrong = tshark.read(path, EXTRA), assert(pcap.reader(path)), {}
    local corrupted = false -- by now
    assert.is_true(#events > 1000)
    assert.equal(#events, #list)
    for i, event in ipairs(events) do
      local said, item = list[i], assert(reader:read())
      local way = event.direction == "a->b" and event.from .. "-" .. event.to or event.to .. "-" .. event.from
      local wanted = ("%d: %.9f %s %s"):format(i, event.time, way, remark(event) or "-")
      for _, row in ipairs {
        ("%d: %s %s %s"):format(i, said["frame.time_epoch"][1], said["frame.interface_name"][1],
          said["frame.comment"][1] or "-"),
        ("%d: %.9f %s %s"):format(i, item.time, item.interface_name, item.comment or "-"),
      } do
        if row ~= wanted then wrong[#wrong + 1] = wanted .. ": the capture has " .. row end
      end
      if item.data ~= event.packet or item.link ~= event.link then wrong[#wrong + 1] = wanted .. ": another packet" end
      if said["_ws.malformed"][1] then wrong[#wrong + 1] = wanted .. ": malformed" end
      local different, parts = differences(said, item.data, item.link, compared)
      extend(wrong, different)
      if is_spoiled(parts) and not corrupted then wrong[#wrong + 1] = wanted .. ": a wrong checksum" end
      corrupted = corrupted or event.corrupted
    end
    assert.is_nil(reader:read())
    assert.is_nil(reader:error())
    reader:close()
    for _, kind in ipairs(KINDS) do
      local found = false
      for i = 1, #list do
        found = is_of(list[i], kind[2]) and is_of(list[i], kind[3] or {})
        if found then break end
      end
      if not found then wrong[#wrong + 1] = "there is no " .. kind[1] end
    end
    return wrong
  end

  -- What is wrong with what only `build` makes.
  local function check_crafted(compared)
    local list, path, wrong = crafted(), netns.folder() .. "/crafted.pcapng", {}
    local writer = assert(pcap.writer(path))
    local ids = { ip = writer:interface { name = "a-b" }, ethernet = writer:interface { name = "switch",
      link = "ethernet" } }
    for i, item in ipairs(list) do
      assert.equal(1, writer:packet(ids[item.link], item.time, item.data, { comment = "packet " .. i }))
    end
    assert.equal(1, writer:close())
    local lines = tshark.read(path, EXTRA)
    assert.equal(#list, #lines)
    for i, item in ipairs(list) do
      assert.same({ "packet " .. i }, lines[i]["frame.comment"])
      extend(wrong, (differences(lines[i], item.data, item.link, compared)))
    end
    return wrong
  end

  with("tshark", "reads captures of all there is without a complaint, and says of each packet what we say", function()
    local compared = {}
    assert.same({}, check_lab(compared))
    assert.same({}, check_crafted(compared))
    for _, field in ipairs(tshark.FIELDS) do assert.is_number(compared[field[1]], field[1] .. " was never compared") end
  end)

  with("editcap", "writes captures that we read as it means them", function()
    local folder = netns.folder()
    local source = folder .. "/ours.pcapng"
    local writer = assert(pcap.writer(source))
    writer:interface { name = "a-b" }
    local list = {}
    for _, item in ipairs(crafted()) do
      if item.link == "ip" then list[#list + 1] = item end
    end
    for _, item in ipairs(list) do writer:packet(0, item.time + 1e-6, item.data, { comment = "kept" }) end
    writer:close()
    for _, format in ipairs { "pcapng", "pcap", "nsecpcap" } do
      local path = folder .. "/theirs." .. format
      netns.command(("editcap -F %s %s %s"):format(format, source, path))
      local reader, i = assert(pcap.reader(path)), 0
      for item in reader:packets() do
        i = i + 1
        assert.equal(format == "pcapng" and "kept" or nil, item.comment)
        assert.equal("ip", item.link)
        assert.equal(("%.9f"):format(list[i].time + 1e-6), ("%.9f"):format(item.time))
        assert.is_true(list[i].data == item.data)
      end
      assert.is_nil(reader:error())
      assert.equal(#list, i)
    end
  end)
end)
