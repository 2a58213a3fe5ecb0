--- IPv4 (RFC 791).
-- @module netstack.packet.ipv4

local bytes = require "netstack.packet.bytes"
local options = require "netstack.packet.options"
local struct = require "netstack.packet.struct"

local sub = string.sub
local field, bits, u8, u16, ipv4 = struct.field, struct.bits, struct.u8, struct.u16, struct.ipv4

local M = {}

local header = struct.layout("ipv4", {
  bits(1, { "version", 4, default = 4, quiet = true }, { "header_length", 4, scale = 4 }),
  field("tos", u8, 0), field("total_length", u16), field("id", u16, 0),
  bits(2, { "reserved", 1, quiet = true }, { "dont_fragment", 1 }, { "more_fragments", 1 },
    { "fragment_offset", 13, scale = 8 }),
  field("ttl", u8, 64), field("protocol", u8, 255), field("checksum", u16),
  field("source", ipv4), field("destination", ipv4),
}, { "options", "checksum_ok" })

--- Reads a header.
-- @return the protocol, where its data begins and ends; nil and why when there is no whole header
function M.dissect(data, at, last, context)
  local fields = {}
  local next_at = header.read(data, at, last, fields)
  if not next_at then return nil, "ipv4: truncated" end
  local length, total = fields.header_length, fields.total_length
  if fields.version then return nil, "ipv4: version " .. fields.version end
  if length < 20 or at + length - 1 > last then return nil, "ipv4: header_length " .. length end
  local packet = context.packet
  packet.ipv4 = fields
  fields.checksum_ok = bytes.fold(bytes.sum(data, at, at + length - 1)) == 0xffff
  if length > 20 then fields.options = options.read(data, next_at, at + length - 1) end
  next_at = at + length
  if total < length then
    packet.malformed = "ipv4: total_length " .. total
    return nil, next_at, last
  end
  local stop = at + total - 1
  context.addresses = sub(data, at + 12, at + 19)
  context.whole = stop <= last and not fields.more_fragments
  if stop > last then packet.truncated = true else last = stop end
  if fields.fragment_offset > 0 then return nil, next_at, last end
  return fields.protocol, next_at, last
end

--- The bytes of source and destination, for checksums.
function M.addresses(fields)
  struct.check_names(fields, header.names, "ipv4")
  local source, destination = struct.addresses(fields, ipv4, "ipv4")
  return source .. destination
end

--- Writes a header in front of what it carries.
function M.build(fields, body, context)
  local opts = fields.options and options.write(fields.options, "ipv4.options") or ""
  local length = 20 + #opts
  local total = length + #body
  if total > 65535 and (fields.total_length == nil or context.fill) then
    struct.fail("ipv4", "65535 bytes at most, with its header")
  end
  local raw = header.write(fields, { header_length = length, total_length = total, checksum = 0,
    protocol = not fields.protocol and context.protocol or nil, ttl = not fields.ttl and context.hops or nil },
    context.fill)
  return struct.with_checksum(fields, context.fill, raw .. opts, 10) .. body
end

return M
