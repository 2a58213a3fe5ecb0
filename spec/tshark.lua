-- What tshark says of a capture, field by field, and what netstack.packet says of the same.
local assert = require "luassert"
local netns = require "spec.netns"
local netstack = require "netstack"
local packet = require "netstack.packet"

local concat = table.concat

local M = {}

-- ---------------------------------------------------------------------------------------------------- our fields

-- What lies at a place, as a list: names lead into tables, "*" into each item of a list, a set of types goes on only
-- where there is one of them.
local function at(...)
  local steps = { ... }
  local function walk(value, from, found)
    for i = from, #steps do
      local step = steps[i]
      if type(value) ~= "table" then return found end
      if step == "*" then
        for _, item in ipairs(value) do walk(item, i + 1, found) end
        return found
      elseif type(step) ~= "table" then
        value = value[step]
      elseif not step[value.type] then
        return found
      end
    end
    if value ~= nil then found[#found + 1] = value end
    return found
  end
  return function(parts) return walk(parts, 1, {}) end
end

local function only(...)
  local set = {}
  for i = 1, select("#", ...) do set[select(i, ...)] = true end
  return set
end

local function scaled(get, factor)
  return function(parts)
    local list = get(parts)
    for i, value in ipairs(list) do list[i] = value * factor end
    return list
  end
end

-- Several places, one after the other.
local function either(...)
  local places = { ... }
  return function(parts)
    local list = {}
    for _, get in ipairs(places) do
      for _, value in ipairs(get(parts)) do list[#list + 1] = value end
    end
    return list
  end
end

local UNKNOWN = {}

-- Whether a checksum is right; UNKNOWN where that cannot be told, or there is none.
local function status(layer)
  return function(parts)
    local ok = parts[layer] and parts[layer].checksum_ok
    if ok == nil and parts[layer] then ok = UNKNOWN end
    return { ok }
  end
end

-- Bits that we tell only when they are not 0.
local function reserved(layer)
  return function(parts)
    local bits = parts[layer] and (parts[layer].reserved or 0)
    return { bits and bits ~= 0 }
  end
end

local function extension(type, name)
  return at("ipv6", "extensions", "*", only(type), name)
end

local function icmpv6(types, ...)
  return at("icmpv6", types, ...)
end

local function nd(type, ...)
  return at("icmpv6", "options", "*", only(type), ...)
end

-- Bytes as tshark writes them; nothing for none.
local function hexadecimal(bytes)
  if not bytes or bytes == "" then return {} end
  return { (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)) }
end

-- The bytes behind a header.
local function payload(has)
  return function(parts) return hexadecimal(not parts.malformed and has(parts) and parts.payload or nil) end
end

local FLAG_BITS = { fin = 1, syn = 2, rst = 4, psh = 8, ack = 16, urg = 32, ece = 64, cwr = 128, ns = 256 }
local TCP_OPTIONS = { nop = 1, eol = 0, mss = 2, window_scale = 3, sack_permitted = 4, sack = 5, timestamps = 8 }
local ND_OPTIONS = { source_link_layer_address = 1, target_link_layer_address = 2, prefix_information = 3, mtu = 5,
  recursive_dns_server = 25 }

local function option_types(get, numbers)
  return function(parts)
    local list = get(parts)
    for i, item in ipairs(list) do
      local name = type(item) == "table" and item.type or item
      list[i] = numbers[name] or name
    end
    return list
  end
end

local RA, NS, NA, REDIRECT, MLD, QUERY = only(134), only(135), only(136), only(137), only(130, 131, 132), only(130)
local REPORT = only(143)

--- Fields of tshark's, and where in a dissected packet the same is. What we have in one that is `more` is the first of
-- theirs: of quoted packets tshark writes it or does not.
M.FIELDS = {
  { "eth.dst", at("ethernet", "destination") }, { "eth.src", at("ethernet", "source") },
  { "eth.type", at("ethernet", "type") },
  { "eth.padding", function(parts) return hexadecimal(parts.ethernet and parts.trailer) end },
  { "arp.hw.type", at("arp", "hardware_type") }, { "arp.proto.type", at("arp", "protocol_type") },
  { "arp.hw.size", at("arp", "hardware_length") }, { "arp.proto.size", at("arp", "protocol_length") },
  { "arp.opcode", at("arp", "operation") }, { "arp.src.hw_mac", at("arp", "sender_mac") },
  { "arp.src.proto_ipv4", at("arp", "sender_address") }, { "arp.dst.hw_mac", at("arp", "target_mac") },
  { "arp.dst.proto_ipv4", at("arp", "target_address") },
  { "ip.src", at("ipv4", "source") }, { "ip.dst", at("ipv4", "destination") }, { "ip.ttl", at("ipv4", "ttl") },
  { "ip.proto", at("ipv4", "protocol") }, { "ip.id", at("ipv4", "id") }, { "ip.len", at("ipv4", "total_length") },
  { "ip.hdr_len", at("ipv4", "header_length") }, { "ip.dsfield", at("ipv4", "tos") },
  { "ip.flags.df", at("ipv4", "dont_fragment") }, { "ip.flags.mf", at("ipv4", "more_fragments") },
  { "ip.flags.rb", reserved "ipv4" },
  { "ip.frag_offset", scaled(at("ipv4", "fragment_offset"), 1 / 8) },
  { "ip.checksum", at("ipv4", "checksum") }, { "ip.checksum.status", status "ipv4", sum = true },
  { "ip.opt.type", option_types(at("ipv4", "options", "*"), TCP_OPTIONS) },
  { "ipv6.src", at("ipv6", "source") }, { "ipv6.dst", at("ipv6", "destination") },
  { "ipv6.hlim", at("ipv6", "hop_limit") }, { "ipv6.nxt", at("ipv6", "next_header") },
  { "ipv6.plen", at("ipv6", "payload_length") }, { "ipv6.tclass", at("ipv6", "traffic_class") },
  { "ipv6.flow", at("ipv6", "flow_label") },
  { "ipv6.hopopts.nxt", extension("hop_by_hop", "next_header") },
  { "ipv6.dstopts.nxt", extension("destination", "next_header") },
  { "ipv6.routing.nxt", extension("routing", "next_header") },
  { "ipv6.routing.type", extension("routing", "routing_type") },
  { "ipv6.routing.segleft", extension("routing", "segments_left") },
  { "ipv6.opt.type", at("ipv6", "extensions", "*", "options", "*", "type") },
  { "ipv6.fraghdr.nxt", extension("fragment", "next_header") },
  { "ipv6.fraghdr.offset", scaled(extension("fragment", "offset"), 1 / 8) },
  { "ipv6.fraghdr.more", extension("fragment", "more_fragments") },
  { "ipv6.fraghdr.ident", extension("fragment", "id") },
  { "tcp.srcport", at("tcp", "source_port") }, { "tcp.dstport", at("tcp", "destination_port") },
  { "tcp.seq", at("tcp", "seq") }, { "tcp.ack", at("tcp", "ack") }, { "tcp.hdr_len", at("tcp", "header_length") },
  { "tcp.flags", function(parts)
    local word = parts.tcp and (parts.tcp.reserved or 0) * 512
    for name in pairs(parts.tcp and parts.tcp.flags or {}) do word = word + FLAG_BITS[name] end
    return { word }
  end },
  { "tcp.flags.res", reserved "tcp" },
  { "tcp.window_size_value", at("tcp", "window") }, { "tcp.checksum", at("tcp", "checksum") },
  { "tcp.checksum.status", status "tcp", sum = true }, { "tcp.urgent_pointer", at("tcp", "urgent") },
  { "tcp.len", function(parts) return { parts.tcp and #parts.payload } end, more = true },
  { "tcp.payload", payload(function(parts) return parts.tcp end), more = true },
  { "tcp.option_kind", option_types(at("tcp", "options", "*"), TCP_OPTIONS) },
  { "tcp.options.mss_val", at("tcp", "options", "mss") },
  { "tcp.options.wscale.shift", at("tcp", "options", "window_scale") },
  { "tcp.options.timestamp.tsval", at("tcp", "options", "timestamps", "value") },
  { "tcp.options.timestamp.tsecr", at("tcp", "options", "timestamps", "echo") },
  { "tcp.options.sack_le", at("tcp", "options", "sack", "*", "left") },
  { "tcp.options.sack_re", at("tcp", "options", "sack", "*", "right") },
  { "udp.srcport", at("udp", "source_port") }, { "udp.dstport", at("udp", "destination_port") },
  { "udp.length", at("udp", "length") }, { "udp.checksum", at("udp", "checksum") },
  { "udp.checksum.status", status "udp", sum = true }, { "udp.payload", payload(function(parts) return parts.udp end) },
  { "icmp.type", at("icmp", "type") }, { "icmp.code", at("icmp", "code") },
  { "icmp.checksum", at("icmp", "checksum") }, { "icmp.checksum.status", status "icmp", sum = true },
  { "icmp.ident", at("icmp", "identifier") }, { "icmp.seq", at("icmp", "sequence") },
  { "icmp.mtu", function(parts) return { parts.icmp and parts.icmp.type == 3 and parts.icmp.code == 4 and
    (parts.icmp.mtu or 0) or nil } end },
  { "icmp.pointer", at("icmp", "pointer") }, { "icmp.redir_gw", at("icmp", "gateway") },
  { "icmpv6.type", at("icmpv6", "type") }, { "icmpv6.code", at("icmpv6", "code") },
  { "icmpv6.checksum", at("icmpv6", "checksum") }, { "icmpv6.checksum.status", status "icmpv6", sum = true },
  { "icmpv6.echo.identifier", at("icmpv6", "identifier") },
  { "icmpv6.echo.sequence_number", at("icmpv6", "sequence") },
  { "icmpv6.mtu", icmpv6(only(2), "mtu") }, { "icmpv6.pointer", at("icmpv6", "pointer") },
  { "icmpv6.nd.ns.target_address", icmpv6(NS, "target") },
  { "icmpv6.nd.na.target_address", icmpv6(NA, "target") }, { "icmpv6.nd.na.flag.r", icmpv6(NA, "router") },
  { "icmpv6.nd.na.flag.s", icmpv6(NA, "solicited") }, { "icmpv6.nd.na.flag.o", icmpv6(NA, "override") },
  { "icmpv6.nd.rd.target_address", icmpv6(REDIRECT, "target") },
  { "icmpv6.rd.na.destination_address", icmpv6(REDIRECT, "destination") },
  { "icmpv6.nd.ra.cur_hop_limit", icmpv6(RA, "hop_limit") }, { "icmpv6.nd.ra.flag.m", icmpv6(RA, "managed") },
  { "icmpv6.nd.ra.flag.o", icmpv6(RA, "other") }, { "icmpv6.nd.ra.flag.h", icmpv6(RA, "home_agent") },
  { "icmpv6.nd.ra.flag.prf", icmpv6(RA, "preference") }, { "icmpv6.nd.ra.flag.p", icmpv6(RA, "proxy") },
  { "icmpv6.nd.ra.router_lifetime", icmpv6(RA, "router_lifetime") },
  { "icmpv6.nd.ra.reachable_time", icmpv6(RA, "reachable_time") },
  { "icmpv6.nd.ra.retrans_timer", icmpv6(RA, "retransmit_timer") },
  { "icmpv6.opt.type", option_types(at("icmpv6", "options", "*"), ND_OPTIONS) },
  { "icmpv6.opt.src_linkaddr", nd("source_link_layer_address", "address") },
  { "icmpv6.opt.target_linkaddr", nd("target_link_layer_address", "address") },
  { "icmpv6.opt.prefix", nd("prefix_information", "prefix") },
  { "icmpv6.opt.prefix.length", nd("prefix_information", "prefix_length") },
  { "icmpv6.opt.prefix.flag.l", nd("prefix_information", "on_link") },
  { "icmpv6.opt.prefix.flag.a", nd("prefix_information", "autonomous") },
  { "icmpv6.opt.prefix.flag.r", nd("prefix_information", "router") },
  { "icmpv6.opt.prefix.valid_lifetime", nd("prefix_information", "valid_lifetime") },
  { "icmpv6.opt.prefix.preferred_lifetime", nd("prefix_information", "preferred_lifetime") },
  { "icmpv6.opt.mtu", nd("mtu", "mtu") },
  { "icmpv6.opt.rdnss", nd("recursive_dns_server", "addresses", "*") },
  { "icmpv6.opt.rdnss.lifetime", nd("recursive_dns_server", "lifetime") },
  { "icmpv6.mld.multicast_address", icmpv6(MLD, "group") },
  { "icmpv6.mld.flag.s", icmpv6(QUERY, "suppress") }, { "icmpv6.mld.flag.qrv", icmpv6(QUERY, "robustness") },
  { "icmpv6.mld.qqi", icmpv6(QUERY, "query_interval") }, { "icmpv6.mld.nb_sources", icmpv6(QUERY, "source_count") },
  { "icmpv6.mld.source_address", icmpv6(QUERY, "sources", "*") },
  -- tshark calls it by another name where there are sources.
  { "icmpv6.mld.maximum_response_delay", function(parts)
    local of = parts.icmpv6
    return { of and MLD[of.type] and not of.sources and of.max_response or nil }
  end },
  { "icmpv6.mld.maximum_response_code", function(parts)
    local of = parts.icmpv6
    return { of and QUERY[of.type] and of.sources and of.max_response or nil }
  end },
  { "icmpv6.mldr.nb_mcast_records", icmpv6(REPORT, "record_count") },
  { "icmpv6.mldr.mar.record_type", icmpv6(REPORT, "records", "*", "type") },
  { "icmpv6.mldr.mar.aux_data_len", icmpv6(REPORT, "records", "*", "auxiliary_length") },
  { "icmpv6.mldr.mar.nb_sources", icmpv6(REPORT, "records", "*", "source_count") },
  { "icmpv6.mldr.mar.multicast_address", icmpv6(REPORT, "records", "*", "group") },
  { "icmpv6.mldr.mar.source_address", icmpv6(REPORT, "records", "*", "sources", "*") },
  { "igmp.type", at("igmp", "type") }, { "igmp.checksum", at("igmp", "checksum") },
  { "igmp.checksum.status", status "igmp", sum = true }, { "igmp.max_resp", at("igmp", "max_response") },
  { "igmp.maddr", either(at("igmp", "group"), at("igmp", "records", "*", "group")) },
  { "igmp.s", at("igmp", "suppress") }, { "igmp.qrv", at("igmp", "robustness") },
  { "igmp.qqic", at("igmp", "query_interval") },
  { "igmp.num_src", either(at("igmp", "source_count"), at("igmp", "records", "*", "source_count")) },
  { "igmp.saddr", either(at("igmp", "sources", "*"), at("igmp", "records", "*", "sources", "*")) },
  { "igmp.num_grp_recs", at("igmp", "record_count") },
  { "igmp.record_type", at("igmp", "records", "*", "type") },
  { "igmp.aux_data_len", at("igmp", "records", "*", "auxiliary_length") },
  -- What pings, pieces and unknown protocols carry.
  { "data.data", payload(function(parts)
    local message = parts.icmp or parts.icmpv6
    return not parts.tcp and not parts.udp and not parts.igmp and (not message or message.identifier)
  end), more = true },
}

-- The header that each is of.
local LAYERS = { eth = "ethernet", arp = "arp", ip = "ipv4", ipv6 = "ipv6", tcp = "tcp", udp = "udp", icmp = "icmp",
  icmpv6 = "icmpv6", igmp = "igmp", data = "payload" }
for _, field in ipairs(M.FIELDS) do field.layer = LAYERS[field[1]:match "^[^.]+"] end

-- ---------------------------------------------------------------------------------------------------- theirs

-- Checksums are looked at, pieces and segments left as they are, numbers as they stand there.
local PREFERENCES = { "ip.defragment:FALSE", "ipv6.defragment:FALSE", "ip.check_checksum:TRUE",
  "tcp.check_checksum:TRUE", "udp.check_checksum:TRUE",
  "tcp.desegment_tcp_streams:FALSE", "tcp.relative_sequence_numbers:FALSE" }

local NOTHING = {}

--- Has tshark read a capture; it must not complain of the file.
-- @param extra names of more fields
-- @return for each packet a table: the values of a field by its name, a list
function M.read(path, extra)
  local fields, errors = {}, netns.folder() .. "/errors"
  for i, field in ipairs(M.FIELDS) do fields[i] = field[1] end
  for _, name in ipairs(extra) do fields[#fields + 1] = name end
  local command = ("%stshark -n -r %s -o %s -T fields -E occurrence=a -E 'aggregator=|' -e %s 2>%s"
    ):format(netns.CLEAN, path, concat(PREFERENCES, " -o "), concat(fields, " -e "), errors)
  local code, text = netstack.run(function() return netns.start(command):wait(60) end, { clock = "real" })
  assert.equal(0, code)
  -- It says of root that it is root, and means that it should not capture.
  assert.equal("", (netns.read(errors):gsub('Running as user "root"[^\n]*\n', "")))
  local list = {}
  for line in text:gmatch("[^\n]+") do
    local said, i = {}, 0
    for values in (line .. "\t"):gmatch("([^\t]*)\t") do
      i = i + 1
      local all = NOTHING
      if values ~= "" then
        all = {}
        for value in (values .. "|"):gmatch("([^|]*)|") do all[#all + 1] = value end
      end
      said[fields[i]] = all
    end
    list[#list + 1] = said
  end
  return list
end

--- Whether a value of theirs, decimal, hexadecimal or a word, is one of ours.
function M.same(theirs, ours)
  if ours == UNKNOWN then return theirs == "2" or theirs == "3" end -- not verified, not there
  if type(ours) == "boolean" then ours = ours and 1 or 0 end
  if type(ours) == "number" then
    return tonumber(theirs) == ours or theirs == (ours == 1 and "True" or ours == 0 and "False")
  end
  return theirs == ours
end

-- What an ICMP error quotes.
local function quoted(parts)
  local message = parts.icmp or parts.icmpv6
  if not message then return nil end
  local errors = parts.icmp and only(3, 4, 5, 11, 12) or only(1, 2, 3, 4)
  return errors[message.type] and packet.dissect(parts.payload) or nil
end

local function agree(theirs, ours, more)
  if more and (ours[1] == nil or #theirs > 1) then theirs = { theirs[ours[1] and 1] } end
  if #theirs ~= #ours then return false end
  for i, value in ipairs(ours) do
    if not M.same(theirs[i], value) then return false end
  end
  return true
end

--- Compares what they say of a packet with what we say of it, and of the one that it quotes: a field has a value for
-- each.
-- @param parts the packet, dissected
-- @param compared counts fields by their names
-- @return differences
function M.compare(said, parts, compared)
  local inner, differences = quoted(parts), {}
  for _, field in ipairs(M.FIELDS) do
    local name, get, layer = field[1], field[2], field.layer
    local theirs, ours = said[name], NOTHING
    if parts[layer] or inner and inner[layer] then
      ours = get(parts)
      for _, value in ipairs(inner and not field.more and get(inner) or {}) do
        -- Of these tshark verifies some, and takes for whole what was cut.
        if field.sum and (value == UNKNOWN or theirs[#ours + 1] == "2") then value = theirs[#ours + 1] or value end
        ours[#ours + 1] = value
      end
    end
    if ours[1] ~= nil then compared[name] = (compared[name] or 0) + 1 end
    if not agree(theirs, ours, field.more) then
      for i, value in ipairs(ours) do ours[i] = tostring(value) end
      differences[#differences + 1] = ("%s: tshark has %s, we have %s"):format(name, concat(theirs, " "),
        concat(ours, " "))
    end
  end
  return differences
end

return M
