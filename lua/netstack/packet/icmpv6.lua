--- ICMPv6 (RFC 4443), neighbour discovery (RFC 4861), multicast listeners (RFC 2710, RFC 3810).
-- @module netstack.packet.icmpv6

local bytes = require "netstack.packet.bytes"
local membership = require "netstack.packet.membership"
local nd = require "netstack.packet.nd"
local struct = require "netstack.packet.struct"

local byte = string.byte
local type = type
local field, bits, u8, u16, u32, ipv6 = struct.field, struct.bits, struct.u8, struct.u16, struct.u32, struct.ipv6

local M = {}

local query, records = membership.query("icmpv6", ipv6), membership.records("icmpv6", ipv6)

-- A form of message: members of its header, what follows ("options", "query", "records"), the hop limit it must have.
local function form(members, follows, hops)
  local all = { field("type", u8), field("code", u8, 0), field("checksum", u16) }
  for _, member in ipairs(members) do all[#all + 1] = member end
  local layout = struct.layout("icmpv6", all, { "checksum_ok" })
  if follows == "query" then
    for name in pairs(query.names) do layout.names[name] = true end
    layout.names.sources = true
  elseif follows then
    layout.names[follows] = true
  end
  return { layout = layout, follows = follows, hops = hops }
end

local bare = form {}
-- `length`: of what is quoted, in 64-bit words, where extensions follow it (RFC 4884).
local quoting = form { bits(4, { "length", 8, quiet = true }, { "unused", 24, quiet = true }) }
local echo = form { field("identifier", u16, 0), field("sequence", u16, 0) }
local reserved = field("reserved", u32, 0, true)
local target, group = field("target", ipv6), field("group", ipv6, "::")
local delay = { field("max_response", u16, 0), field("reserved", u16, 0, true), group }
local forms = {
  [1] = quoting, [3] = quoting,
  [2] = form { field("mtu", u32) },
  [4] = form { field("pointer", u32, 0) },
  [128] = echo, [129] = echo,
  [130] = form(delay, "query", 1), [131] = form(delay, nil, 1), [132] = form(delay, nil, 1),
  [133] = form({ reserved }, "options", 255),
  [134] = form({
    field("hop_limit", u8, 0),
    bits(1, { "managed", 1 }, { "other", 1 }, { "home_agent", 1 }, { "preference", 2 }, { "proxy", 1 },
      { "reserved_bits", 2, quiet = true }),
    field("router_lifetime", u16, 1800), field("reachable_time", u32, 0), field("retransmit_timer", u32, 0),
  }, "options", 255),
  [135] = form({ reserved, target }, "options", 255),
  [136] = form({ bits(4, { "router", 1 }, { "solicited", 1 }, { "override", 1 }, { "reserved", 29, quiet = true }),
    target }, "options", 255),
  [137] = form({ reserved, target, field("destination", ipv6) }, "options", 255),
  [143] = form({ field("reserved", u16, 0, true), field("record_count", u16) }, "records", 1),
}

--- Reads a message.
-- @return nil, where its data, or what is not understood of it, begins and ends; nil and why when it is not all there
function M.dissect(data, at, last, context)
  local fields = {}
  local this = forms[byte(data, at)] or bare
  local next_at = this.layout.read(data, at, last, fields)
  if not next_at then return nil, "icmpv6: truncated" end
  context.packet.icmpv6 = fields
  if context.whole then
    fields.checksum_ok = bytes.fold(struct.pseudo(context, 58, last - at + 1) + bytes.sum(data, at, last)) == 0xffff
  end
  if this.follows == "options" then
    fields.options, next_at = nd.read(data, next_at, last)
    if next_at <= last then context.packet.malformed = "icmpv6: options" end
  elseif this.follows == "records" then
    fields.records, next_at = records.read(data, next_at, last, fields.record_count)
  elseif this.follows == "query" then
    next_at = query.read(data, next_at, last, fields) or next_at
  end
  return nil, next_at, last
end

--- Writes a message.
function M.build(fields, payload, context)
  local this = type(fields) == "table" and forms[fields.type] or bare
  struct.check_names(fields, this.layout.names, "icmpv6")
  local follows, list = "", this.follows and fields[this.follows] or {}
  if this.follows == "options" then follows = nd.write(list)
  elseif this.follows == "records" then follows = records.write(list, context.fill)
  elseif this.follows == "query" then follows = query.write(fields, context.fill) end
  context.hops = this.hops
  local message = this.layout.write(fields, { checksum = 0, record_count = this.follows == "records" and #list or nil },
    context.fill) .. follows .. payload
  return struct.with_checksum(fields, context.fill, message, 2, struct.pseudo(context, 58, #message, fields))
end

return M
