-- netstack.packet and tshark say the same of each packet, field by field: of all that stacks send, and of what only
-- `build` makes. tshark reads what netstack.pcap wrote.
local netns = require "spec.netns"
local packet = require "netstack.packet"
local pcap = require "netstack.pcap"
local traffic = require "spec.traffic"

local unpack = table.unpack or unpack -- luacheck: ignore 143

-- Fields of tshark's, and what they say in ours: where it is, or a function that finds it. Those of a packet that is
-- quoted in an ICMP error come second, and only the first is asked for.
local function at(layer, name, index)
  return function(parts)
    local value = parts[layer] and parts[layer][name]
    if index and value ~= nil then value = value[index] end
    return value
  end
end

local function extension(type, name)
  return function(parts)
    for _, one in ipairs(parts.ipv6 and parts.ipv6.extensions or {}) do
      if one.type == type then return one[name] end
    end
  end
end

-- Of TCP's options.
local function option(name, index, inner)
  return function(parts)
    local value = parts.tcp and parts.tcp.options and parts.tcp.options[name]
    if index and value then value = value[index] end
    if inner and value then value = value[inner] end
    if value == true then value = 1 end
    return value
  end
end

-- Of neighbour discovery's.
local function nd(types, name, index)
  return function(parts)
    for _, one in ipairs(parts.icmpv6 and parts.icmpv6.options or {}) do
      if types[one.type] then return index and one[name][index] or one[name] end
    end
  end
end

local function record(layer, name, index)
  return function(parts)
    local first = parts[layer] and parts[layer].records and parts[layer].records[1]
    if not first then return nil end
    if index then return first[name][index] end
    return first[name]
  end
end

-- Of messages of some types only.
local function of(layer, types, name, index)
  local get = at(layer, name, index)
  return function(parts)
    if parts[layer] and types[parts[layer].type] then return get(parts) end
  end
end

-- As tshark numbers it: 1 right, 0 wrong. Where we do not know, it does not matter what it says.
local function status(layer)
  return function(parts)
    local ok = parts[layer] and parts[layer].checksum_ok
    if ok == nil then return nil end
    return ok and 1 or 0
  end
end

local FLAG_BITS = { fin = 1, syn = 2, rst = 4, psh = 8, ack = 16, urg = 32, ece = 64, cwr = 128, ns = 256 }

local FIELDS = {
  { "eth.dst", at("ethernet", "destination") }, { "eth.src", at("ethernet", "source") },
  { "eth.type", at("ethernet", "type") },
  { "arp.opcode", at("arp", "operation") }, { "arp.src.hw_mac", at("arp", "sender_mac") },
  { "arp.src.proto_ipv4", at("arp", "sender_address") }, { "arp.dst.hw_mac", at("arp", "target_mac") },
  { "arp.dst.proto_ipv4", at("arp", "target_address") },
  { "ip.src", at("ipv4", "source") }, { "ip.dst", at("ipv4", "destination") }, { "ip.ttl", at("ipv4", "ttl") },
  { "ip.proto", at("ipv4", "protocol") }, { "ip.id", at("ipv4", "id") }, { "ip.len", at("ipv4", "total_length") },
  { "ip.hdr_len", at("ipv4", "header_length") }, { "ip.dsfield", at("ipv4", "tos") },
  { "ip.flags.df", at("ipv4", "dont_fragment") }, { "ip.flags.mf", at("ipv4", "more_fragments") },
  { "ip.frag_offset", function(parts) return parts.ipv4 and parts.ipv4.fragment_offset / 8 end },
  { "ip.checksum", at("ipv4", "checksum") },
  { "ip.checksum.status", status "ipv4" },
  { "ip.opt.type", function(parts)
    local first = parts.ipv4 and parts.ipv4.options and parts.ipv4.options[1]
    return first and first.type
  end },
  { "ipv6.src", at("ipv6", "source") }, { "ipv6.dst", at("ipv6", "destination") },
  { "ipv6.hlim", at("ipv6", "hop_limit") }, { "ipv6.nxt", at("ipv6", "next_header") },
  { "ipv6.plen", at("ipv6", "payload_length") }, { "ipv6.tclass", at("ipv6", "traffic_class") },
  { "ipv6.flow", at("ipv6", "flow_label") },
  { "ipv6.hopopts.nxt", extension("hop_by_hop", "next_header") },
  { "ipv6.dstopts.nxt", extension("destination", "next_header") },
  { "ipv6.routing.type", extension("routing", "routing_type") },
  { "ipv6.routing.segleft", extension("routing", "segments_left") },
  { "ipv6.fraghdr.nxt", extension("fragment", "next_header") },
  { "ipv6.fraghdr.offset", function(parts)
    local offset = extension("fragment", "offset")(parts)
    return offset and offset / 8
  end },
  { "ipv6.fraghdr.more", extension("fragment", "more_fragments") },
  { "ipv6.fraghdr.ident", extension("fragment", "id") },
  { "tcp.srcport", at("tcp", "source_port") }, { "tcp.dstport", at("tcp", "destination_port") },
  { "tcp.seq", at("tcp", "seq") }, { "tcp.ack", at("tcp", "ack") }, { "tcp.hdr_len", at("tcp", "header_length") },
  { "tcp.flags", function(parts)
    local word = 0
    for name in pairs(parts.tcp and parts.tcp.flags or {}) do word = word + FLAG_BITS[name] end
    return parts.tcp and word
  end },
  { "tcp.window_size_value", at("tcp", "window") }, { "tcp.checksum", at("tcp", "checksum") },
  { "tcp.checksum.status", status "tcp" }, { "tcp.urgent_pointer", at("tcp", "urgent") },
  { "tcp.len", function(parts) return parts.tcp and #parts.payload end },
  { "tcp.options.mss_val", option "mss" }, { "tcp.options.wscale.shift", option "window_scale" },
  { "tcp.options.timestamp.tsval", option("timestamps", "value") },
  { "tcp.options.timestamp.tsecr", option("timestamps", "echo") },
  { "tcp.options.sack_le", option("sack", 1, "left") }, { "tcp.options.sack_re", option("sack", 1, "right") },
  { "udp.srcport", at("udp", "source_port") }, { "udp.dstport", at("udp", "destination_port") },
  { "udp.length", at("udp", "length") }, { "udp.checksum", at("udp", "checksum") },
  { "udp.checksum.status", status "udp" },
  { "icmp.type", at("icmp", "type") }, { "icmp.code", at("icmp", "code") },
  { "icmp.checksum", at("icmp", "checksum") }, { "icmp.checksum.status", status "icmp" },
  { "icmp.ident", at("icmp", "identifier") }, { "icmp.seq", at("icmp", "sequence") },
  { "icmp.mtu", of("icmp", { [3] = true }, "mtu") }, { "icmp.redir_gw", at("icmp", "gateway") },
  { "icmpv6.type", at("icmpv6", "type") }, { "icmpv6.code", at("icmpv6", "code") },
  { "icmpv6.checksum", at("icmpv6", "checksum") }, { "icmpv6.checksum.status", status "icmpv6" },
  { "icmpv6.echo.identifier", at("icmpv6", "identifier") },
  { "icmpv6.echo.sequence_number", at("icmpv6", "sequence") },
  { "icmpv6.mtu", of("icmpv6", { [2] = true }, "mtu") },
  { "icmpv6.pointer", at("icmpv6", "pointer") },
  { "icmpv6.nd.ns.target_address", of("icmpv6", { [135] = true }, "target") },
  { "icmpv6.nd.na.target_address", of("icmpv6", { [136] = true }, "target") },
  { "icmpv6.nd.na.flag.r", of("icmpv6", { [136] = true }, "router") },
  { "icmpv6.nd.na.flag.s", of("icmpv6", { [136] = true }, "solicited") },
  { "icmpv6.nd.na.flag.o", of("icmpv6", { [136] = true }, "override") },
  { "icmpv6.nd.rd.target_address", of("icmpv6", { [137] = true }, "target") },
  { "icmpv6.nd.ra.cur_hop_limit", of("icmpv6", { [134] = true }, "hop_limit") },
  { "icmpv6.nd.ra.flag.m", of("icmpv6", { [134] = true }, "managed") },
  { "icmpv6.nd.ra.flag.o", of("icmpv6", { [134] = true }, "other") },
  { "icmpv6.nd.ra.router_lifetime", of("icmpv6", { [134] = true }, "router_lifetime") },
  { "icmpv6.nd.ra.reachable_time", of("icmpv6", { [134] = true }, "reachable_time") },
  { "icmpv6.nd.ra.retrans_timer", of("icmpv6", { [134] = true }, "retransmit_timer") },
  { "icmpv6.opt.linkaddr", nd({ source_link_layer_address = true, target_link_layer_address = true }, "address") },
  { "icmpv6.opt.prefix", nd({ prefix_information = true }, "prefix") },
  { "icmpv6.opt.prefix.length", nd({ prefix_information = true }, "prefix_length") },
  { "icmpv6.opt.prefix.flag.l", nd({ prefix_information = true }, "on_link") },
  { "icmpv6.opt.prefix.flag.a", nd({ prefix_information = true }, "autonomous") },
  { "icmpv6.opt.prefix.valid_lifetime", nd({ prefix_information = true }, "valid_lifetime") },
  { "icmpv6.opt.prefix.preferred_lifetime", nd({ prefix_information = true }, "preferred_lifetime") },
  { "icmpv6.opt.mtu", nd({ mtu = true }, "mtu") },
  { "icmpv6.opt.rdnss", nd({ recursive_dns_server = true }, "addresses", 1) },
  { "icmpv6.opt.rdnss.lifetime", nd({ recursive_dns_server = true }, "lifetime") },
  { "icmpv6.mld.maximum_response_delay", of("icmpv6", { [130] = true, [131] = true, [132] = true }, "max_response") },
  { "icmpv6.mld.multicast_address", of("icmpv6", { [130] = true, [131] = true, [132] = true }, "group") },
  { "icmpv6.mldr.nb_mcast_records", at("icmpv6", "record_count") },
  { "icmpv6.mldr.mar.record_type", record("icmpv6", "type") },
  { "icmpv6.mldr.mar.multicast_address", record("icmpv6", "group") },
  { "icmpv6.mldr.mar.source_address", record("icmpv6", "sources", 1) },
  { "igmp.type", at("igmp", "type") }, { "igmp.checksum", at("igmp", "checksum") },
  { "igmp.checksum.status", status "igmp" },
  { "igmp.maddr", function(parts) return at("igmp", "group")(parts) or record("igmp", "group")(parts) end },
  { "igmp.num_grp_recs", at("igmp", "record_count") }, { "igmp.record_type", record("igmp", "type") },
  { "igmp.s", at("igmp", "suppress") }, { "igmp.qrv", at("igmp", "robustness") },
  { "igmp.saddr", function(parts)
    return at("igmp", "sources", 1)(parts) or record("igmp", "sources", 1)(parts)
  end },
}

-- What no stack of ours sends by itself, and what is wrong.
local function crafted()
  local four, six = { source = "10.0.0.1", destination = "10.0.0.2" }, { source = "fe80::1", destination = "ff02::1" }
  local ports = { source_port = 1000, destination_port = 2000 }
  local list = {}
  local function add(parts)
    list[#list + 1] = { time = 100 + #list, link = "ip", data = assert(packet.build(parts)) }
  end
  local function tcp(more)
    local fields = { seq = 4294967290, ack = 9, urgent = 3 }
    for key, value in pairs(ports) do fields[key] = value end
    for key, value in pairs(more) do fields[key] = value end
    return fields
  end
  add { ipv4 = four, tcp = tcp { flags = "FSRPAUECN", options = { mss = 536, window_scale = 14, sack_permitted = true,
    timestamps = { value = 4294967295, echo = 1 } } }, payload = "data" }
  add { ipv4 = four, tcp = tcp { flags = "A", options = { "nop", "nop", "sack",
    sack = { { left = 1, right = 2 }, { left = 4294967295, right = 5 } } } } }
  add { ipv4 = four, tcp = tcp { flags = "A", checksum = 1 }, payload = "wrong" }
  add { ipv4 = { source = "10.0.0.1", destination = "10.0.0.2", tos = 0xb8, id = 65535, checksum = 7,
    options = { { type = 148, data = "\0\0" } } }, udp = { source_port = 1000, destination_port = 2000, checksum = 5 },
    payload = "wrong, too" }
  add { ipv4 = four, icmp = { type = 3, code = 4, mtu = 1280 }, payload = list[1].data:sub(1, 28) }
  add { ipv4 = four, icmp = { type = 5, code = 1, gateway = "10.0.0.9" }, payload = list[1].data:sub(1, 28) }
  add { ipv4 = four, icmp = { type = 8, identifier = 258, sequence = 772, checksum = 1 }, payload = "wrong" }
  add { ipv4 = four, igmp = { type = 0x11, max_response = 100 } }
  add { ipv4 = four, igmp = { type = 0x16, group = "224.1.2.3" } }
  add { ipv4 = four, igmp = { type = 0x17, group = "224.1.2.3", checksum = 1 } }
  add { ipv4 = four, igmp = { type = 0x11, max_response = 10, group = "224.1.2.3", suppress = true, robustness = 2,
    query_interval = 125, sources = { "10.0.0.7", "10.0.0.8" } } }
  add { ipv4 = four, igmp = { type = 0x22, records = { { type = 4, group = "224.1.2.3" },
    { type = 1, group = "224.1.2.4", sources = { "10.0.0.7" } } } } }
  add { ipv6 = six, icmpv6 = { type = 133, options = {
    { type = "source_link_layer_address", address = "02:00:00:00:00:09" } } } }
  add { ipv6 = six, icmpv6 = { type = 134, hop_limit = 64, managed = true, other = true, router_lifetime = 600,
    reachable_time = 1000, retransmit_timer = 2000, options = {
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

-- What tshark says: the lines, and what it complains of.
local function ask(path)
  local fields, errors = { "frame.time_epoch", "frame.interface_name", "frame.comment" }, netns.folder() .. "/errors"
  for i, field in ipairs(FIELDS) do fields[i + 3] = field[1] end
  -- It says of root that it is root, and means that it should not capture.
  local code, text = netns.start(("%stshark -n -r %s -o ip.defragment:FALSE -o ipv6.defragment:FALSE " ..
    "-o ip.check_checksum:TRUE -o tcp.check_checksum:TRUE -o udp.check_checksum:TRUE " ..
    "-o tcp.desegment_tcp_streams:FALSE -o tcp.relative_sequence_numbers:FALSE " ..
    "-o tcp.analyze_sequence_numbers:FALSE -T fields -E occurrence=f -e %s 2>%s")
    :format(netns.CLEAN, path, table.concat(fields, " -e "), errors)):wait(60)
  assert.equal(0, code)
  local lines = {}
  for line in text:gmatch("[^\n]+") do
    local values = {}
    for value in (line .. "\t"):gmatch("([^\t]*)\t") do values[#values + 1] = value end
    lines[#lines + 1] = values
  end
  return lines, (netns.read(errors):gsub('Running as user "root"[^\n]*\n', ""))
end

-- Numbers as tshark writes them, decimal or hexadecimal; whether something is so.
local function same(theirs, ours)
  if type(ours) == "boolean" then ours = ours and 1 or 0 end
  if type(ours) == "number" then
    return tonumber(theirs) == ours or theirs == (ours == 1 and "True" or ours == 0 and "False")
  end
  return theirs == ours
end

describe("tshark", function()
  after_each(netns.finish)

  netns.specs(it, pending)({ "tshark" }, "reads our captures without a complaint, and says of each packet what we say",
    function()
      local list, path = traffic.everything(), netns.folder() .. "/all.pcapng"
      for _, item in ipairs(crafted()) do list[#list + 1] = item end
      local writer = assert(pcap.writer(path))
      local ids = { ip = writer:interface { name = "a-b" }, ethernet = writer:interface { name = "switch",
        link = "ethernet" } }
      for i, item in ipairs(list) do
        assert.equal(1, writer:packet(ids[item.link], item.time, item.data, { comment = "packet " .. i }))
      end
      assert.equal(1, writer:close())

      local lines, errors = ask(path)
      assert.equal("", errors)
      assert.equal(#list, #lines)
      local compared, differences = {}, {}
      for i, item in ipairs(list) do
        local values, parts = lines[i], assert(packet.dissect(item.data, { link = item.link }))
        assert.same({ ("%.9f"):format(item.time), item.link == "ip" and "a-b" or "switch", "packet " .. i },
          { unpack(values, 1, 3) })
        for k, field in ipairs(FIELDS) do
          local ours = field[2](parts)
          if ours ~= nil then
            compared[field[1]] = (compared[field[1]] or 0) + 1
            if not same(values[k + 3], ours) then
              differences[#differences + 1] = ("%s: %s: tshark has %s, we have %s"):format(
                packet.summary(item.data, { link = item.link }), field[1], values[k + 3], tostring(ours))
            end
          end
        end
      end
      assert.same({}, differences)
      for _, field in ipairs(FIELDS) do assert.is_number(compared[field[1]], field[1] .. " was never compared") end
    end)

  netns.specs(it, pending)({ "tshark", "editcap" }, "writes captures that we read as it means them", function()
    local folder = netns.folder()
    local source = folder .. "/ours.pcapng"
    local writer = assert(pcap.writer(source))
    writer:interface { name = "a-b" }
    local list = crafted()
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
