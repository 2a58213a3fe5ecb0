--- UDP (RFC 768).
-- @module netstack.packet.udp

local bytes = require "netstack.packet.bytes"
local struct = require "netstack.packet.struct"

local sub = string.sub
local field, u16 = struct.field, struct.u16

local M = {}

local header = struct.layout("udp", {
  field("source_port", u16), field("destination_port", u16), field("length", u16), field("checksum", u16),
}, { "checksum_ok", "surplus" })

--- Reads a header.
-- @return nil, where its data begins and ends; nil and why when there is no whole header
function M.dissect(data, at, last, context)
  local fields = {}
  local next_at = header.read(data, at, last, fields)
  if not next_at then return nil, "udp: truncated" end
  local stop = at + fields.length - 1
  if fields.length < 8 then return nil, "udp: length " .. fields.length end
  context.packet.udp = fields
  if stop > last then
    if context.whole then context.packet.malformed = "udp: length " .. fields.length end
    return nil, next_at, last
  end
  if context.whole and fields.checksum ~= 0 then
    fields.checksum_ok = bytes.fold(struct.pseudo(context, 17, fields.length) + bytes.sum(data, at, stop)) == 0xffff
  end
  if stop < last then fields.surplus = sub(data, stop + 1, last) end
  return nil, next_at, stop
end

--- Writes a datagram.
function M.build(fields, payload, context)
  struct.check_names(fields, header.names, "udp")
  local message = header.write(fields, { length = 8 + #payload, checksum = 0 }, context.fill) .. payload
  return struct.with_checksum(fields, context.fill, message, 6, struct.pseudo(context, 17, #message, fields), true) ..
    struct.text(fields.surplus, "udp.surplus")
end

return M
