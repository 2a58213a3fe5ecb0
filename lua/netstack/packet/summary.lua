--- A packet in one line, in tcpdump's words.
-- @module netstack.packet.summary

local concat, format = table.concat, string.format
local ipairs, tostring, type = ipairs, tostring, type

local M = {}

local FLAGS = { { "fin", "F" }, { "syn", "S" }, { "rst", "R" }, { "psh", "P" }, { "ack", "." }, { "urg", "U" },
  { "ece", "E" }, { "cwr", "W" }, { "ns", "e" } }

local function flag_letters(flags)
  local letters = {}
  for _, flag in ipairs(FLAGS) do
    if flags[flag[1]] then letters[#letters + 1] = flag[2] end
  end
  return letters[1] and concat(letters) or "none"
end

local OPTIONS = {
  mss = function(value) return "mss " .. value end,
  window_scale = function(value) return "wscale " .. value end,
  sack_permitted = function() return "sackOK" end,
  timestamps = function(value) return format("TS val %.0f ecr %.0f", value.value, value.echo) end,
  sack = function(blocks, ack)
    local parts = {}
    for i, block in ipairs(blocks) do
      parts[i] = format("{%.0f:%.0f}", (block.left - ack) % 4294967296, (block.right - ack) % 4294967296)
    end
    return "sack " .. #blocks .. " " .. concat(parts)
  end,
}

local function tcp_options(options, ack)
  local parts = {}
  for i, item in ipairs(options) do
    local known = OPTIONS[item]
    parts[i] = known and known(options[item], ack) or type(item) == "string" and item or
      item.type and "unknown-" .. item.type or "malformed"
  end
  return concat(parts, ",")
end

-- What sequence numbers are counted from: seq and ack of the first that went this way, and the other way.
local ABSOLUTE = { seq = 0, ack = 0 }

local function tcp(packet, base, brief)
  local fields, parts = packet.tcp, {}
  local length, flags = #packet.payload, fields.flags
  parts[1] = format("Flags [%s]", flag_letters(flags))
  local seq = (fields.seq - base.seq) % 4294967296
  if length > 0 then
    parts[#parts + 1] = format("seq %.0f:%.0f", seq, (seq + length) % 4294967296)
  elseif flags.syn or flags.fin or flags.rst then
    parts[#parts + 1] = format("seq %.0f", seq)
  end
  if flags.ack then parts[#parts + 1] = format("ack %.0f", (fields.ack - base.ack) % 4294967296) end
  parts[#parts + 1] = "win " .. fields.window
  if flags.urg then parts[#parts + 1] = "urg " .. fields.urgent end
  local options = fields.options
  if options and brief then
    options = options.mss and { "mss", mss = options.mss } or options.sack and { "sack", sack = options.sack }
  end
  if options then parts[#parts + 1] = "options [" .. tcp_options(options, base.ack) .. "]" end
  parts[#parts + 1] = "length " .. length
  return concat(parts, ", ")
end

local UNREACHABLE = { [0] = "net", [1] = "host", [2] = "protocol", [3] = "port" }

-- What an unreachable message is about, when what it quotes tells.
local function unreachable(fields, quoted)
  if fields.code == 4 then return "unreachable - need to frag (mtu " .. (fields.mtu or 0) .. ")" end
  local what = UNREACHABLE[fields.code] or "code " .. fields.code
  if not quoted or not quoted.ipv4 then return what .. " unreachable" end
  if fields.code == 3 and quoted.udp then
    return format("%s udp port %d unreachable", quoted.ipv4.destination, quoted.udp.destination_port)
  end
  return format("%s %s unreachable", what, quoted.ipv4.destination)
end

local ICMP = {
  [0] = function(fields) return format("echo reply, id %d, seq %d", fields.identifier, fields.sequence) end,
  [8] = function(fields) return format("echo request, id %d, seq %d", fields.identifier, fields.sequence) end,
  [3] = unreachable,
  [5] = function(fields) return "redirect to host " .. fields.gateway end,
  [11] = function(fields)
    return fields.code == 0 and "time exceeded in-transit" or "ip reassembly time exceeded"
  end,
  [12] = function(fields) return "parameter problem - octet " .. fields.pointer end,
}

local UNREACHABLE6 = { [0] = "no route", [1] = "administratively prohibited", [3] = "address", [4] = "port" }

local ICMP6 = {
  [1] = function(fields) return "destination unreachable, unreachable " ..
    (UNREACHABLE6[fields.code] or "code " .. fields.code) end,
  [2] = function(fields) return format("packet too big, mtu %.0f", fields.mtu) end,
  [3] = function(fields) return fields.code == 0 and "time exceeded in-transit" or "ip reassembly time exceeded" end,
  [4] = function(fields) return format("parameter problem, octet %.0f", fields.pointer) end,
  [128] = ICMP[8],
  [129] = ICMP[0],
  [130] = function(fields) return "multicast listener query, " .. fields.group end,
  [131] = function(fields) return "multicast listener report, " .. fields.group end,
  [132] = function(fields) return "multicast listener done, " .. fields.group end,
  [133] = function() return "router solicitation" end,
  [134] = function() return "router advertisement" end,
  [135] = function(fields) return "neighbor solicitation, who has " .. fields.target end,
  [136] = function(fields) return "neighbor advertisement, tgt is " .. fields.target end,
  [137] = function(fields) return format("redirect, %s to %s", fields.destination, fields.target) end,
  [143] = function(fields)
    return format("multicast listener report v2, %d group record(s)", fields.record_count)
  end,
}

local IGMP = {
  [0x11] = function(fields) return (fields.sources and "igmp query v3, " or "igmp query v2, ") .. fields.group end,
  [0x12] = function(fields) return "igmp v1 report " .. fields.group end,
  [0x16] = function(fields) return "igmp v2 report " .. fields.group end,
  [0x17] = function(fields) return "igmp leave " .. fields.group end,
  [0x22] = function(fields) return format("igmp v3 report, %d group record(s)", fields.record_count) end,
}

local function message(kinds, fields, other)
  local kind = kinds[fields.type]
  return kind and kind(fields, other) or "type " .. fields.type
end

local function arp(fields)
  if fields.operation == 1 then
    return format("ARP, Request who-has %s tell %s", fields.target_address, fields.sender_address)
  elseif fields.operation == 2 then
    return format("ARP, Reply %s is-at %s", fields.sender_address, fields.sender_mac)
  end
  return "ARP, operation " .. fields.operation
end

-- Whether it is a piece of a packet, and which.
local function piece(packet)
  local fields = packet.ipv4
  if fields then
    if fields.more_fragments or fields.fragment_offset > 0 then
      return fields.id, fields.fragment_offset, fields.more_fragments
    end
    return nil
  end
  for _, extension in ipairs(packet.ipv6.extensions or {}) do
    if extension.type == "fragment" then return extension.id, extension.offset, extension.more_fragments end
  end
end

-- The number of what an IP packet carries.
local function protocol(packet)
  if packet.ipv4 then return packet.ipv4.protocol end
  local extensions = packet.ipv6.extensions
  return extensions and extensions[#extensions].next_header or packet.ipv6.next_header
end

--- What a packet says, without from where and where to.
-- @tparam table packet
-- @tparam[opt] table options `base`: `seq` and `ack` that TCP's numbers are counted from; `brief`: of TCP's options mss
-- or SACK only; `quoted`: what an ICMP message quotes, dissected
function M.content(packet, options)
  local text
  options = options or {}
  local payload = #packet.payload
  if packet.arp then return arp(packet.arp) .. ", length 28" end
  if packet.tcp then text = tcp(packet, options.base or ABSOLUTE, options.brief)
  elseif packet.udp then text = "UDP, length " .. payload
  elseif packet.icmp then
    text = format("ICMP %s, length %d", message(ICMP, packet.icmp, options.quoted), payload + 8)
  elseif packet.icmpv6 then
    text = "ICMP6, " .. message(ICMP6, packet.icmpv6)
    if packet.icmpv6.type < 130 then text = format("%s, length %d", text, payload + 8) end
  elseif packet.igmp then text = message(IGMP, packet.igmp)
  elseif packet.ipv4 or packet.ipv6 then text = format("ip-proto-%d, length %d", protocol(packet), payload)
  else text = "length " .. payload end
  if packet.ipv4 or packet.ipv6 then
    local id, offset, more = piece(packet)
    if id then
      text = format("%s, fragment (id %.0f, offset %d%s)", text, id, offset, more and ", more" or "")
    end
  end
  if packet.truncated then text = text .. " [|cut]" end
  if packet.malformed then text = format("%s [malformed: %s]", text, packet.malformed) end
  for _, name in ipairs { "ipv4", "tcp", "udp", "icmp", "icmpv6", "igmp" } do
    if packet[name] and packet[name].checksum_ok == false then
      text = format("%s [bad %s checksum]", text, name)
    end
  end
  return text
end

--- The line.
-- @tparam table packet
-- @tparam[opt] table quoted what an ICMP message quotes, dissected
function M.line(packet, quoted)
  local ip, ports = packet.ipv4 or packet.ipv6, packet.tcp or packet.udp
  local text = M.content(packet, { quoted = quoted })
  if ip then
    local from = ip.source .. (ports and "." .. tostring(ports.source_port) or "")
    local to = ip.destination .. (ports and "." .. tostring(ports.destination_port) or "")
    return format("%s %s > %s: %s", packet.ipv4 and "IP" or "IP6", from, to, text)
  elseif packet.arp or not packet.ethernet then
    return text
  end
  local frame = packet.ethernet
  return format("%s > %s, ethertype 0x%04x, %s", frame.source, frame.destination, frame.type, text)
end

return M
