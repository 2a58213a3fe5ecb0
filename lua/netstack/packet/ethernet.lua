--- Ethernet (without VLAN tags) and ARP (RFC 826) between Ethernet and IPv4.
-- @module netstack.packet.ethernet

local struct = require "netstack.packet.struct"

local field, u8, u16, mac, ipv4 = struct.field, struct.u8, struct.u16, struct.mac, struct.ipv4

local M = { ethernet = {}, arp = {} }

local header = struct.layout("ethernet", {
  field("destination", mac), field("source", mac), field("type", u16),
})

--- Reads the header of a frame.
-- @return the number of what follows, where it begins; nil and why when there is no whole header
function M.ethernet.dissect(data, at, last, context)
  local fields = {}
  local next_at = header.read(data, at, last, fields)
  if not next_at then return nil, "ethernet: truncated" end
  context.packet.ethernet = fields
  return fields.type, next_at, last
end

--- Writes a frame's header in front of what it carries.
function M.ethernet.build(fields, body, context)
  struct.check_names(fields, header.names, "ethernet")
  return header.write(fields, { type = context.ethertype }) .. body
end

local arp = struct.layout("arp", {
  field("hardware_type", u16, 1), field("protocol_type", u16, 0x0800), field("hardware_length", u8, 6),
  field("protocol_length", u8, 4), field("operation", u16, 1), field("sender_mac", mac), field("sender_address", ipv4),
  field("target_mac", mac, "00:00:00:00:00:00"), field("target_address", ipv4),
})

--- Reads an ARP packet; one of other networks or protocols is not understood. What follows it is padding.
function M.arp.dissect(data, at, last, context)
  local fields = {}
  local next_at = arp.read(data, at, last, fields)
  if not next_at then return nil, "arp: truncated" end
  if fields.hardware_length ~= 6 or fields.protocol_length ~= 4 then return nil, "arp: other lengths of addresses" end
  context.packet.arp = fields
  return nil, next_at, next_at - 1
end

--- Writes an ARP packet.
function M.arp.build(fields, payload)
  struct.check_names(fields, arp.names, "arp")
  return arp.write(fields) .. payload
end

return M
