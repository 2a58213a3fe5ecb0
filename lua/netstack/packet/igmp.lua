--- IGMP (RFC 2236, RFC 3376).
-- @module netstack.packet.igmp

local bytes = require "netstack.packet.bytes"
local membership = require "netstack.packet.membership"
local struct = require "netstack.packet.struct"

local byte = string.byte
local field, u8, u16, ipv4 = struct.field, struct.u8, struct.u16, struct.ipv4

local M = {}

local QUERY, REPORT3 = 0x11, 0x22
local message = struct.layout("igmp", {
  field("type", u8), field("max_response", u8, 0), field("checksum", u16), field("group", ipv4, "0.0.0.0"),
})
local report = struct.layout("igmp", {
  field("type", u8), field("reserved_byte", u8, 0, true), field("checksum", u16), field("reserved", u16, 0, true),
  field("record_count", u16),
})
local query, records = membership.query("igmp", ipv4), membership.records("igmp", ipv4)

local names = { checksum_ok = true, records = true, sources = true }
for _, set in ipairs { message.names, report.names, query.names } do
  for name in pairs(set) do names[name] = true end
end

--- Reads a message.
-- @return nil, where what is not understood of it begins and ends; nil and why when there is no whole message
function M.dissect(data, at, last, context)
  local fields = {}
  local layout = byte(data, at) == REPORT3 and report or message
  local next_at = layout.read(data, at, last, fields)
  if not next_at then return nil, "igmp: truncated" end
  context.packet.igmp = fields
  if context.whole then fields.checksum_ok = bytes.fold(bytes.sum(data, at, last)) == 0xffff end
  if layout == report then
    fields.records, next_at = records.read(data, next_at, last, fields.record_count)
  elseif fields.type == QUERY then
    next_at = query.read(data, next_at, last, fields) or next_at
  end
  return nil, next_at, last
end

--- Writes a message.
function M.build(fields, payload, context)
  struct.check_names(fields, names, "igmp")
  local raw
  if fields.type == REPORT3 then
    local list = fields.records or {}
    raw = report.write(fields, { checksum = 0, record_count = #list }, context.fill) ..
      records.write(list, context.fill)
  else
    raw = message.write(fields, { checksum = 0 }, context.fill) .. query.write(fields, context.fill)
  end
  context.hops = 1
  return struct.with_checksum(fields, context.fill, raw .. payload, 2)
end

return M
