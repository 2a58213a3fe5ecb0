--- Packets taken apart into tables and built from them, in plain Lua.
--
-- A packet is a table with a table for each header it has, and two strings: `payload`, what the last of them carries
-- ("" for nothing), and `trailer`, what follows the end of the IP or ARP packet (padding; nil for nothing). Numbers
-- are as they stand in the header, in network order, except that lengths, offsets and IPv4's fragment offset count
-- bytes everywhere. Addresses are text as everywhere in netstack, those of stations `"02:00:00:00:00:01"`. Fields
-- marked * are computed by `build` where they are absent, those with a value after = have that default, 0 or false
-- where none is said; addresses and ports without a default have to be given.
--
-- - `ethernet`: `destination`, `source`, `type`*
-- - `arp`: `operation` = 1 (request; 2 reply), `sender_mac`, `sender_address`, `target_mac` = all zeros,
--   `target_address`, `hardware_type` = 1, `protocol_type` = 0x0800, `hardware_length` = 6, `protocol_length` = 4
-- - `ipv4`: `source`, `destination`, `ttl` = 64, `protocol`*, `tos`, `id`, `dont_fragment`, `more_fragments`,
--   `fragment_offset`, `reserved`, `header_length`*, `total_length`*, `checksum`*, `checksum_ok`, `options`: a list of
--   `"nop"`, `"eol"`, `{ type =, data = }`
-- - `ipv6`: `source`, `destination`, `hop_limit` = 64, `next_header`*, `traffic_class`, `flow_label`,
--   `payload_length`*, `extensions`: a list of tables with `type` and `next_header`*: `"hop_by_hop"` and
--   `"destination"` (`options`, a list of `{ type =, data = }`), `"routing"` (`routing_type`, `segments_left`,
--   `data`), `"fragment"` (`offset`, `more_fragments`, `id`)
-- - `tcp`: `source_port`, `destination_port`, `seq`, `ack`, `flags` (a table of `fin syn rst psh ack urg ece cwr ns`,
--   or letters for `build`: F S R P A U E C N, as in `"SA"`), `window` = 65535 (not scaled), `urgent`,
--   `header_length`*, `checksum`*, `checksum_ok`, `options`: `mss`, `window_scale` (a shift), `sack_permitted`, `sack`
--   (a list of `{ left =, right = }`), `timestamps` (`{ value =, echo = }`); its list has their order: these names,
--   `"nop"`, `"eol"`, `{ type =, data = }` for others. Those that are not in the list are written behind it, and one
--   in the list that has no value is left out
-- - `udp`: `source_port`, `destination_port`, `length`*, `checksum`* (0: there is none), `checksum_ok`, `surplus`
--   (what follows the datagram in the IP packet)
-- - `icmp`: `type`, `code`, `checksum`*, `checksum_ok`; `identifier`, `sequence` (echo, timestamp); `mtu`
--   (unreachable), `gateway` (redirect), `pointer` (parameter problem); `length` (RFC 4884, in words). What an error
--   quotes is `payload`, which `dissect` can read in turn
-- - `icmpv6`: the same with `mtu` (packet too big) and `pointer`; `target`, `destination`, `router`, `solicited`,
--   `override`, `options` (neighbour discovery); `hop_limit`, `managed`, `other`, `home_agent`, `preference`, `proxy`,
--   `router_lifetime` = 1800 (seconds), `reachable_time`, `retransmit_timer` (milliseconds) (router advertisement);
--   `max_response` (milliseconds), `group`, and as for `igmp`. Options are a list of tables with `type`:
--   `"source_link_layer_address"`, `"target_link_layer_address"` (`address`), `"prefix_information"` (`prefix`,
--   `prefix_length` = 64, `on_link`, `autonomous`, `router`, `valid_lifetime` = 2592000, `preferred_lifetime` =
--   604800, in seconds), `"mtu"` (`mtu`), `"recursive_dns_server"` (`lifetime` = 1800 seconds, `addresses`), or a
--   number (`data`)
-- - `igmp`: `type`, `max_response` (tenths of a second, coded), `group`, `checksum`*, `checksum_ok`; version 3:
--   `sources`, `source_count`*, `suppress`, `robustness`, `query_interval`; `records`, `record_count`*: tables with
--   `type`, `group`, `sources`, `auxiliary`
--
-- `checksum_ok` is absent where it cannot be told: a fragment, a packet that was cut, UDP without a checksum. Reserved
-- bits are there only when they are not 0. `truncated` is true when an IP header says that more bytes follow than are
-- there; `malformed` says what could not be understood, and then the bytes from there on are the payload.
-- @module netstack.packet

local check = require "netstack.check"
local ethernet = require "netstack.packet.ethernet"
local icmp = require "netstack.packet.icmp"
local icmpv6 = require "netstack.packet.icmpv6"
local igmp = require "netstack.packet.igmp"
local ipv4 = require "netstack.packet.ipv4"
local ipv6 = require "netstack.packet.ipv6"
local struct = require "netstack.packet.struct"
local summary = require "netstack.packet.summary"
local tcp = require "netstack.packet.tcp"
local udp = require "netstack.packet.udp"

local byte, floor, sub = string.byte, math.floor, string.sub
local error, ipairs, pcall, type = error, ipairs, pcall, type

local M = {}

local networks = { [0x0800] = ipv4, [0x86dd] = ipv6, [0x0806] = ethernet.arp }
-- Protocols above IP, by their number there; ICMP and IGMP are IPv4's.
local transports = {
  { name = "tcp", module = tcp, protocol = 6 },
  { name = "udp", module = udp, protocol = 17 },
  { name = "icmp", module = icmp, protocol = 1, only = ipv4 },
  { name = "icmpv6", module = icmpv6, protocol = 58, only = ipv6 },
  { name = "igmp", module = igmp, protocol = 2, only = ipv4 },
}
local by_protocol = {}
for _, transport in ipairs(transports) do by_protocol[transport.protocol] = transport end

local dissect_rules = { link = check.one_of("ip", "ethernet") }
local build_rules = { fill = check.of_type("boolean") }

local names = { ethernet = true, arp = true, ipv4 = true, ipv6 = true, payload = true, trailer = true,
  malformed = true, truncated = true }
for _, transport in ipairs(transports) do names[transport.name] = true end

--- Takes a packet apart. Nothing is lost: `build` gives the same bytes again.
-- @tparam string data a packet, or a frame
-- @tparam[opt] table options `link`: "ip" (the default) or "ethernet", what the bytes begin with
-- @treturn table|nil the packet
-- @treturn string why nothing of it could be understood: its first header is not all there, or of no known version
---@param data string
---@param options? { link?: "ip"|"ethernet" }
---@return table|nil packet
---@return string|nil err
function M.dissect(data, options)
  if type(data) ~= "string" then check.bad(1, "dissect", "string expected, got " .. type(data)) end
  options = check.options(options, dissect_rules, 2, "dissect")
  local packet, at, last = {}, 1, #data
  local network
  local context = { packet = packet }
  if options.link == "ethernet" then
    local kind, next_at = ethernet.ethernet.dissect(data, at, last, context)
    if not kind then return nil, next_at end
    network, at = networks[kind], next_at
  else
    local version = floor((byte(data) or 0) / 16)
    network = version == 4 and ipv4 or version == 6 and ipv6
    if not network then return nil, "neither IPv4 nor IPv6" end
  end
  if network then
    local protocol, next_at, stop = network.dissect(data, at, last, context)
    if stop then
      at, last = next_at, stop
    else
      if options.link ~= "ethernet" then return nil, next_at end
      packet.malformed = next_at
    end
    local transport = by_protocol[protocol]
    if transport and (not transport.only or transport.only == network) then
      local _
      _, next_at, stop = transport.module.dissect(data, at, last, context)
      -- What is left of a header in a fragment or a quoted packet is nobody's fault.
      if not stop and context.whole then packet.malformed = next_at end
      packet.payload = stop and sub(data, next_at, stop)
    end
  end
  packet.payload = packet.payload or sub(data, at, last)
  if last < #data then packet.trailer = sub(data, last + 1) end
  return packet
end

-- Whether it is a piece of a packet: then lengths and checksums above IP are of the whole.
local function is_fragment(packet)
  local fields = packet.ipv4
  if fields then return fields.more_fragments or (fields.fragment_offset or 0) ~= 0 end
  local extensions = packet.ipv6 and packet.ipv6.extensions
  if type(extensions) ~= "table" then return false end
  for _, extension in ipairs(extensions) do
    if type(extension) == "table" and extension.type == "fragment" then return true end
  end
  return false
end

-- The bytes of a packet; raises what `struct.fail` raises.
local function assemble(packet, fill)
  struct.check_names(packet, names, "packet")
  local context, network = {}, packet.ipv4 and ipv4 or packet.ipv6 and ipv6 or nil
  if packet.ipv4 and packet.ipv6 then struct.fail("packet", "both ipv4 and ipv6") end
  if network then context.addresses = network.addresses(packet.ipv4 or packet.ipv6) end
  context.fill = fill and not is_fragment(packet)
  local data, built = struct.text(packet.payload, "payload"), nil
  for _, transport in ipairs(transports) do
    local fields = packet[transport.name]
    if fields then
      if built then struct.fail("packet", "both " .. built .. " and " .. transport.name) end
      if network and transport.only and transport.only ~= network then
        struct.fail(transport.name, "not over " .. (network == ipv4 and "ipv4" or "ipv6"))
      end
      built, context.protocol = transport.name, transport.protocol
      data = transport.module.build(fields, data, context)
    end
  end
  context.fill = fill
  if packet.arp then
    if network or built then
      struct.fail("packet", "both arp and " .. (built or network == ipv4 and "ipv4" or "ipv6"))
    end
    data, context.ethertype = ethernet.arp.build(packet.arp, data), 0x0806
  elseif network then
    data = network.build(packet.ipv4 or packet.ipv6, data, context)
    context.ethertype = network == ipv4 and 0x0800 or 0x86dd
  end
  if packet.ethernet then data = ethernet.ethernet.build(packet.ethernet, data, context) end
  return data .. struct.text(packet.trailer, "trailer")
end

--- Builds the bytes of a packet. What is given is written as it is, so that wrong lengths, checksums and reserved bits
-- can be made.
-- @tparam table packet headers may be missing: without `ethernet` it is an IP packet, without that the message alone
-- @tparam[opt] table options `fill` (false): lengths and checksums are computed even where they are given, as when a
-- packet from `dissect` was changed; in a fragment only those of IP, as the others are of the whole packet
-- @treturn string|nil the bytes
-- @treturn string what is wrong with which field: "tcp.window: out of range: 0 to 65535"
---@param packet table
---@param options? { fill?: boolean }
---@return string|nil data
---@return string|nil err
function M.build(packet, options)
  if type(packet) ~= "table" then check.bad(1, "build", "table expected, got " .. type(packet)) end
  options = check.options(options, build_rules, 2, "build")
  local ok, data = pcall(assemble, packet, options.fill)
  if ok then return data end
  if type(data) ~= "table" or not data.reason then error(data, 0) end
  return nil, data.reason
end

--- One line about a packet, in tcpdump's words.
-- @tparam string data
-- @tparam[opt] table options as of `dissect`
-- @treturn string
---@param data string
---@param options? { link?: "ip"|"ethernet" }
---@return string
function M.summary(data, options)
  if type(data) ~= "string" then check.bad(1, "summary", "string expected, got " .. type(data)) end
  options = check.options(options, dissect_rules, 2, "summary")
  local packet, err = M.dissect(data, options)
  if not packet then return ("%s, length %d"):format(err, #data) end
  local quoted = packet.icmp and M.dissect(packet.payload)
  return summary.line(packet, quoted)
end

return M
