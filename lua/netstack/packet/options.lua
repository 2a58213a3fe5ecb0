--- Options as IPv4 (RFC 791) and TCP (RFC 9293) have them, and those of IPv6's extension headers (RFC 8200 §4.2).
-- @module netstack.packet.options

local struct = require "netstack.packet.struct"

local byte, char, concat, find, rep, sub = string.byte, string.char, table.concat, string.find, string.rep, string.sub
local ipairs, pairs, tostring, type = ipairs, pairs, tostring, type
local fail = struct.fail

local M = {}

--- Reads the options of a header: in order `"nop"`, `"eol"`, the name of one whose value stands under that name, or
-- `{ type =, data = }`; `{ bytes = }` for what cannot be read.
-- @tparam string data
-- @tparam integer at
-- @tparam integer last
-- @tparam[opt] table kinds type -> `{ name =, read(data) -> value | nil }`
function M.read(data, at, last, kinds)
  local list, n, first = {}, 0, at
  while at <= last do
    local kind, length = byte(data, at), 1
    n = n + 1
    if kind == 1 then
      list[n] = "nop"
    elseif kind == 0 then
      list[n] = "eol"
      local rest = sub(data, at + 1, last)
      if #rest ~= (first - at - 1) % 4 or find(rest, "[^%z]") then list[n + 1] = { bytes = rest } end
      break
    else
      length = at < last and byte(data, at + 1) or 0
      if length < 2 or at + length - 1 > last then
        list[n] = { bytes = sub(data, at, last) }
        break
      end
      local content = sub(data, at + 2, at + length - 1)
      local known = kinds and kinds[kind]
      local value = known and list[known.name] == nil and known.read(content)
      if value then
        list[n], list[known.name] = known.name, value
      else
        list[n] = { type = kind, data = content }
      end
    end
    at = at + length
  end
  return list
end

-- One that is given as a table.
local function raw(item, where)
  struct.check_names(item, { type = true, data = true, bytes = true }, where)
  if item.bytes then return struct.text(item.bytes, where .. ".bytes") end
  local why = struct.unfit(item.type, 255)
  if why then fail(where .. ".type", why) end
  local data = struct.text(item.data, where .. ".data")
  if #data > 253 then fail(where .. ".data", "253 bytes at most") end
  return char(item.type, #data + 2) .. data
end

--- Writes options and pads them to a multiple of four bytes. Named ones that are not in the list follow it.
-- @tparam table list
-- @tparam string where
-- @tparam[opt] table kinds as for `read`, each with `type` and `write(value, where) -> data`
-- @tparam[opt] table order names of kinds
function M.write(list, where, kinds, order)
  if type(list) ~= "table" then fail(where, "table expected, got " .. type(list)) end
  local parts, written, by_name = {}, {}, {}
  for _, kind in pairs(kinds or {}) do by_name[kind.name] = kind end
  local function named(name)
    local value = list[name]
    if value == nil or written[name] then return end
    written[name] = true
    local content = by_name[name].write(value, where .. "." .. name)
    parts[#parts + 1] = char(by_name[name].type, #content + 2) .. content
  end
  local known = {}
  for i, item in ipairs(list) do
    known[i] = true
    if item == "nop" then parts[#parts + 1] = "\1"
    elseif item == "eol" then parts[#parts + 1] = "\0"
    elseif by_name[item] then named(item)
    elseif type(item) == "table" then parts[#parts + 1] = raw(item, where .. "[" .. i .. "]")
    else fail(where, "unknown option '" .. tostring(item) .. "'") end
  end
  for _, name in ipairs(order or {}) do
    known[name] = true
    named(name)
  end
  struct.check_names(list, known, where)
  local text = concat(parts)
  text = text .. rep("\0", -#text % 4)
  if #text > 40 then fail(where, "40 bytes at most") end
  return text
end

--- Reads the options of an extension header of IPv6: a list of `{ type =, data = }`, `{ type = 0 }` being Pad1.
-- @return list, or nil when they do not end where the header does
function M.read6(data, at, last)
  local list = {}
  while at <= last do
    local kind = byte(data, at)
    if kind == 0 then
      list[#list + 1] = { type = 0 }
      at = at + 1
    else
      local length = at < last and byte(data, at + 1)
      if not length or at + 1 + length > last then return nil end
      list[#list + 1] = { type = kind, data = sub(data, at + 2, at + 1 + length) }
      at = at + 2 + length
    end
  end
  return list
end

--- Writes options of an extension header of IPv6, padded so that header and options are a multiple of eight bytes.
function M.write6(list, where)
  if type(list) ~= "table" then fail(where, "table expected, got " .. type(list)) end
  local parts = {}
  for i, item in ipairs(list) do
    local place = where .. "[" .. i .. "]"
    if type(item) == "table" and item.type == 0 then
      parts[i] = "\0"
    else
      struct.check_names(item, { type = true, data = true }, place)
      local why = struct.unfit(item.type, 255)
      if why then fail(place .. ".type", why) end
      local data = struct.text(item.data, place .. ".data")
      if #data > 255 then fail(place .. ".data", "255 bytes at most") end
      parts[i] = char(item.type, #data) .. data
    end
  end
  local text = concat(parts)
  local missing = (-#text - 2) % 8
  if missing == 1 then return text .. "\0" end
  if missing > 1 then return text .. char(1, missing - 2) .. rep("\0", missing - 2) end
  return text
end

return M
