--- IPv6 and its extension headers (RFC 8200).
-- @module netstack.packet.ipv6

local options = require "netstack.packet.options"
local struct = require "netstack.packet.struct"

local byte, char, sub = string.byte, string.char, string.sub
local concat, ipairs, pairs, type = table.concat, ipairs, pairs, type
local field, bits, u8, u16, u32, ipv6 = struct.field, struct.bits, struct.u8, struct.u16, struct.u32, struct.ipv6

local M = {}

local header = struct.layout("ipv6", {
  bits(4, { "version", 4, default = 6, quiet = true }, { "traffic_class", 8 }, { "flow_label", 20 }),
  field("payload_length", u16), field("next_header", u8, 59), field("hop_limit", u8, 64),
  field("source", ipv6), field("destination", ipv6),
}, { "extensions" })

local fragment = struct.layout("ipv6.extensions", {
  field("next_header", u8, 59), field("reserved", u8, 0, true),
  bits(2, { "offset", 13, scale = 8 }, { "reserved_bits", 2, quiet = true }, { "more_fragments", 1 }),
  field("id", u32, 0),
}, { "type" })

-- An extension header of options; the length counts eight bytes, the first not counted.
local function read_options(data, at, last, extension)
  extension.options = options.read6(data, at + 2, last)
  return extension.options ~= nil
end

local function write_options(extension, where)
  return options.write6(extension.options or {}, where .. ".options")
end

local kinds = {
  hop_by_hop = { number = 0, read = read_options, write = write_options, names = { "options" } },
  destination = { number = 60, read = read_options, write = write_options, names = { "options" } },
  routing = {
    number = 43, names = { "routing_type", "segments_left", "data" },
    read = function(data, at, last, extension)
      extension.routing_type, extension.segments_left = byte(data, at + 2, at + 3)
      extension.data = sub(data, at + 4, last)
      return true
    end,
    write = function(extension, where)
      for _, name in ipairs { "routing_type", "segments_left" } do
        local why = struct.unfit(extension[name] or 0, 255)
        if why then struct.fail(where .. "." .. name, why) end
      end
      local data = struct.text(extension.data, where .. ".data")
      return char(extension.routing_type or 0, extension.segments_left or 0) .. data .. ("\0"):rep((-#data - 4) % 8)
    end,
  },
  fragment = { number = 44 },
}
local by_number = {}
for name, kind in pairs(kinds) do
  by_number[kind.number], kind.name = kind, name
  local names = { type = true, next_header = true }
  for _, other in ipairs(kind.names or {}) do names[other] = true end
  kind.names = kind == kinds.fragment and fragment.names or names
end

-- Where packets go in the end: checksums cover the last address of a routing header (RFC 8200 §8.1, RFC 8754 §2).
local function final(extension, destination)
  if extension.type ~= "routing" or (extension.segments_left or 0) == 0 then return destination end
  local data, routing_type = extension.data or "", extension.routing_type or 0
  if routing_type == 4 and #data >= 20 then return sub(data, 5, 20) end
  if (routing_type == 0 or routing_type == 2) and #data >= 20 then return sub(data, -16) end
  return destination
end

--- Reads a header and those that extend it.
-- @return the protocol, where its data begins and ends; nil and why when there is no whole header
function M.dissect(data, at, last, context)
  local fields, packet = {}, context.packet
  local next_at = header.read(data, at, last, fields)
  if not next_at then return nil, "ipv6: truncated" end
  if fields.version then return nil, "ipv6: version " .. fields.version end
  packet.ipv6 = fields
  local source, destination = sub(data, at + 8, at + 23), sub(data, at + 24, at + 39)
  local stop = next_at + fields.payload_length - 1
  context.whole = stop <= last
  if stop > last then packet.truncated = true else last = stop end
  at = next_at
  local protocol, first = fields.next_header, true
  local kind = by_number[protocol]
  while kind do
    local extension = { type = kind.name }
    if kind == kinds.fragment then
      next_at = fragment.read(data, at, last, extension)
    else
      next_at = at + 7 <= last and at + (byte(data, at + 1) + 1) * 8 or nil
      if next_at and next_at - 1 > last then next_at = nil end
      extension.next_header = byte(data, at)
      if next_at and not kind.read(data, at, next_at - 1, extension) then next_at = nil end
    end
    if not next_at then
      packet.malformed = "ipv6: " .. kind.name
      return nil, at, last
    end
    if first then fields.extensions, first = {}, false end
    fields.extensions[#fields.extensions + 1] = extension
    at, protocol = next_at, extension.next_header
    destination = final(extension, destination)
    if extension.more_fragments then context.whole = false end
    if (extension.offset or 0) > 0 then return nil, at, last end
    kind = by_number[protocol]
  end
  context.addresses = source .. destination
  return protocol, at, last
end

--- The bytes of source and destination, for checksums.
function M.addresses(fields)
  struct.check_names(fields, header.names, "ipv6")
  local source, destination = struct.addresses(fields, ipv6, "ipv6")
  if type(fields.extensions) == "table" then
    for _, extension in ipairs(fields.extensions) do
      if type(extension) == "table" then destination = final(extension, destination) end
    end
  end
  return source .. destination
end

--- Writes a header, and those that extend it, in front of what it carries.
function M.build(fields, body, context)
  local extensions = fields.extensions or {}
  if type(extensions) ~= "table" then struct.fail("ipv6.extensions", "table expected, got " .. type(extensions)) end
  local parts, protocol = {}, context.protocol or 59
  for i = #extensions, 1, -1 do
    local extension, where = extensions[i], "ipv6.extensions[" .. i .. "]"
    local kind = type(extension) == "table" and kinds[extension.type]
    if not kind then struct.fail(where .. ".type", "hop_by_hop, routing, fragment or destination expected") end
    struct.check_names(extension, kind.names, where)
    if kind == kinds.fragment then
      parts[i] = fragment.write(extension, { next_header = not extension.next_header and protocol or nil })
    else
      local content = kind.write(extension, where)
      if #content > 2046 then struct.fail(where, "2048 bytes at most") end
      local next_header = extension.next_header or protocol
      local why = struct.unfit(next_header, 255)
      if why then struct.fail(where .. ".next_header", why) end
      parts[i] = char(next_header, (#content + 2) / 8 - 1) .. content
    end
    protocol = kind.number
  end
  local payload = concat(parts) .. body
  if #payload > 65535 and (fields.payload_length == nil or context.fill) then
    struct.fail("ipv6", "65535 bytes at most behind its header")
  end
  return header.write(fields, { payload_length = #payload, next_header = not fields.next_header and protocol or nil,
    hop_limit = not fields.hop_limit and context.hops or nil }, context.fill) .. payload
end

return M
