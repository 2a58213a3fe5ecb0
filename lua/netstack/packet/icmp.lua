--- ICMP (RFC 792, RFC 1191).
-- @module netstack.packet.icmp

local bytes = require "netstack.packet.bytes"
local struct = require "netstack.packet.struct"

local byte = string.byte
local field, u8, u16, u32, ipv4 = struct.field, struct.u8, struct.u16, struct.u32, struct.ipv4

local M = {}

local function layout(...)
  return struct.layout("icmp", { field("type", u8), field("code", u8, 0), field("checksum", u16), ... },
    { "checksum_ok" })
end

local bare = layout()
local echo = layout(field("identifier", u16, 0), field("sequence", u16, 0))
-- `length`: of what is quoted, in 32-bit words, where extensions follow it (RFC 4884).
local unreachable = layout(field("unused_byte", u8, 0, true), field("length", u8, 0, true), field("mtu", u16, 0, true))
local exceeded = layout(field("unused_byte", u8, 0, true), field("length", u8, 0, true),
  field("unused", u16, 0, true))
local layouts = {
  [0] = echo, [8] = echo, [13] = echo, [14] = echo,
  [3] = unreachable,
  [4] = layout(field("unused", u32, 0, true)),
  [5] = layout(field("gateway", ipv4)),
  [11] = exceeded,
  [12] = layout(field("pointer", u8, 0), field("length", u8, 0, true), field("unused", u16, 0, true)),
}

--- Reads a message.
-- @return nil, where its data begins and ends; nil and why when there is no whole message
function M.dissect(data, at, last, context)
  local fields = {}
  local next_at = (layouts[byte(data, at)] or bare).read(data, at, last, fields)
  if not next_at then return nil, "icmp: truncated" end
  context.packet.icmp = fields
  if context.whole then fields.checksum_ok = bytes.fold(bytes.sum(data, at, last)) == 0xffff end
  return nil, next_at, last
end

--- Writes a message.
function M.build(fields, payload, context)
  local form = type(fields) == "table" and layouts[fields.type] or bare
  struct.check_names(fields, form.names, "icmp")
  local message = form.write(fields, { checksum = 0 }, context.fill) .. payload
  return struct.with_checksum(fields, context.fill, message, 2)
end

return M
