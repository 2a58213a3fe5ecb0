--- The options of neighbour discovery (RFC 4861 §4.6, RFC 8106).
-- @module netstack.packet.nd

local membership = require "netstack.packet.membership"
local struct = require "netstack.packet.struct"

local byte, char, concat, rep, sub = string.byte, string.char, table.concat, string.rep, string.sub
local ipairs, pairs, type = ipairs, pairs, type
local field, bits, u8, u16, u32, mac, ipv6 = struct.field, struct.bits, struct.u8, struct.u16, struct.u32, struct.mac,
  struct.ipv6
local fail = struct.fail

local M = {}

-- What stands behind type and length.
local function layout(name, members, names)
  names = names or {}
  names[#names + 1] = "type"
  return struct.layout("icmpv6.options." .. name, members, names)
end

local kinds = {
  source_link_layer_address = { 1, layout("source_link_layer_address", { field("address", mac) }) },
  target_link_layer_address = { 2, layout("target_link_layer_address", { field("address", mac) }) },
  prefix_information = { 3, layout("prefix_information", {
    field("prefix_length", u8, 64), bits(1, { "on_link", 1 }, { "autonomous", 1 }, { "router", 1 },
      { "reserved_bits", 5, quiet = true }), field("valid_lifetime", u32, 2592000),
    field("preferred_lifetime", u32, 604800), field("reserved", u32, 0, true), field("prefix", ipv6),
  }) },
  mtu = { 5, layout("mtu", { field("reserved", u16, 0, true), field("mtu", u32) }) },
  recursive_dns_server = { 25, layout("recursive_dns_server", { field("reserved", u16, 0, true),
    field("lifetime", u32, 1800) }, { "addresses" }), list = true },
}
local by_number = {}
for name, kind in pairs(kinds) do
  kind.number, kind.layout, kind.name = kind[1], kind[2], name
  by_number[kind.number] = kind
end

-- An option that is understood; nil when it has not the size it should have.
local function read_known(kind, data, at, last)
  local option = { type = kind.name }
  local next_at = kind.layout.read(data, at, last, option)
  if not next_at then return nil end
  if kind.list then
    if (last - next_at + 1) % 16 ~= 0 then return nil end
    option.addresses = membership.read_addresses(ipv6, data, next_at, (last - next_at + 1) / 16)
  elseif next_at <= last then
    return nil
  end
  return option
end

--- Reads options: each with the name of its type, or `{ type = number, data = }`.
-- @return list, where they end, plus one: before the first that is none
function M.read(data, at, last)
  local list = {}
  while at < last do
    local number, length = byte(data, at, at + 1)
    length = length * 8
    if length == 0 or at + length - 1 > last then break end
    local kind = by_number[number]
    list[#list + 1] = kind and read_known(kind, data, at + 2, at + length - 1) or
      { type = number, data = sub(data, at + 2, at + length - 1) }
    at = at + length
  end
  return list, at
end

--- Writes options, each padded to a multiple of eight bytes.
function M.write(list)
  if type(list) ~= "table" then fail("icmpv6.options", "table expected, got " .. type(list)) end
  local parts = {}
  for i, option in ipairs(list) do
    local where = "icmpv6.options[" .. i .. "]"
    if type(option) ~= "table" then fail(where, "table expected, got " .. type(option)) end
    local kind = kinds[option.type]
    local content
    if kind then
      struct.check_names(option, kind.layout.names, where)
      content = kind.layout.write(option)
      if kind.list then
        content = content .. membership.write_addresses(ipv6, option.addresses, where .. ".addresses")
      end
    else
      struct.check_names(option, { type = true, data = true }, where)
      local why = struct.unfit(option.type, 255)
      if why then fail(where .. ".type", why) end
      content = struct.text(option.data, where .. ".data")
    end
    content = content .. rep("\0", (-#content - 2) % 8)
    if #content > 2038 then fail(where, "2040 bytes at most") end
    parts[i] = char(kind and kind.number or option.type, (#content + 2) / 8) .. content
  end
  return concat(parts)
end

return M
