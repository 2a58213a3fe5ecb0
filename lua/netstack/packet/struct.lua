--- Layouts of headers: one description reads a header into named fields and writes it from them.
--
-- A layout is a list of members, each of which reads and writes one field or, as bits do, several. Reading never fails
-- once all bytes are there; writing raises `struct.fail` for values that do not fit.
-- @module netstack.packet.struct

local bytes = require "netstack.packet.bytes"

local byte, char, concat, floor, sub = string.byte, string.char, table.concat, math.floor, string.sub
local error, format, ipairs, pairs, tostring, type = error, string.format, ipairs, pairs, tostring, type
local get16, get32, put16, put32 = bytes.get16, bytes.get32, bytes.put16, bytes.put32

local M = {}

--- Raises an error that `packet.build` returns.
-- @tparam string where "tcp.window"
-- @tparam string why
function M.fail(where, why)
  error({ reason = where .. ": " .. why }, 0)
end
local fail = M.fail

--- Why a value is no integer from 0 to `most`; nil when it is one.
function M.unfit(value, most)
  if type(value) ~= "number" then return "number expected, got " .. type(value) end
  if value % 1 ~= 0 then return "number has no integer representation" end
  if value < 0 or value > most then return format("out of range: 0 to %.0f", most) end
end
local unfit = M.unfit

--- Raises for a field that nobody knows.
function M.check_names(fields, names, where)
  if type(fields) ~= "table" then fail(where, "table expected, got " .. type(fields)) end
  local wrong
  for key in pairs(fields) do
    local text = tostring(key)
    if not names[key] and (not wrong or text < wrong) then wrong = text end
  end
  if wrong then fail(where, "unknown field '" .. wrong .. "'") end
end

local function number(size, read, write)
  local most = 256 ^ size - 1
  return {
    size = size, read = read, zero = 0,
    write = function(value)
      local why = unfit(value, most)
      if why then return nil, why end
      return write(value)
    end,
  }
end

local function address(size)
  local name = size == 4 and "IPv4" or "IPv6"
  return {
    size = size,
    read = function(data, at) return bytes.address(sub(data, at, at + size - 1)) end,
    write = function(value)
      local raw = bytes.parse_address(value, size)
      if not raw then return nil, name .. " address expected, got " .. tostring(value) end
      return raw
    end,
  }
end

--- Kinds of fields.
M.u8 = number(1, byte, char)
M.u16 = number(2, get16, put16)
M.u32 = number(4, get32, put32)
M.ipv4 = address(4)
M.ipv6 = address(16)
M.mac = {
  size = 6, read = bytes.mac,
  write = function(value)
    local raw = bytes.parse_mac(value)
    if not raw then return nil, "station address expected, got " .. tostring(value) end
    return raw
  end,
}

-- What is to be written for a field: what was computed counts where nothing is given, or first when all is to be filled
-- in anew.
local function choose(fields, name, computed, fill)
  local value = fields[name]
  if computed and (value == nil or fill) and computed[name] ~= nil then return computed[name] end
  return value
end

--- A member: one field.
-- @tparam string name
-- @tparam table kind
-- @param[opt] default what is written when nothing is given; without one it must be given
-- @tparam[opt] boolean quiet the default is not told when read: reserved fields
function M.field(name, kind, default, quiet)
  local read, write = kind.read, kind.write
  return {
    size = kind.size, names = { name },
    read = function(data, at, fields)
      local value = read(data, at)
      if not quiet or value ~= default then fields[name] = value end
    end,
    write = function(fields, where, computed, fill)
      local value = choose(fields, name, computed, fill)
      if value == nil then value = default end
      if value == nil then fail(where .. "." .. name, "missing") end
      local raw, why = write(value)
      if not raw then fail(where .. "." .. name, why) end
      return raw
    end,
  }
end

--- A member: `size` bytes of bit fields, the highest first.
-- @tparam integer size
-- @tparam table ... each `{ name, width, scale =, default =, quiet = }`; one bit is a boolean
function M.bits(size, ...)
  local parts, names, shift = { ... }, {}, size * 8
  local kind = size == 1 and M.u8 or size == 2 and M.u16 or M.u32
  for i, part in ipairs(parts) do
    shift = shift - part[2]
    part.unit, part.range, part.most = 2 ^ shift, 2 ^ part[2], (2 ^ part[2] - 1) * (part.scale or 1)
    names[i] = part[1]
  end
  return {
    size = size, names = names,
    read = function(data, at, fields)
      local word = kind.read(data, at)
      for i = 1, #parts do
        local part = parts[i]
        local value = floor(word / part.unit) % part.range
        if not part.quiet or value ~= (part.default or 0) then
          if part[2] == 1 then value = value == 1 else value = value * (part.scale or 1) end
          fields[part[1]] = value
        end
      end
    end,
    write = function(fields, where, computed, fill)
      local word = 0
      for i = 1, #parts do
        local part = parts[i]
        local name = part[1]
        local value = choose(fields, name, computed, fill)
        if value == nil or value == false then value = part.default or 0 end
        if part[2] == 1 and value == true then value = 1 end
        local why = unfit(value, part.most)
        if not why and value % (part.scale or 1) ~= 0 then why = "multiple of " .. part.scale .. " expected" end
        if why then fail(where .. "." .. name, why) end
        word = word + value / (part.scale or 1) * part.unit
      end
      return (kind.write(floor(word)))
    end,
  }
end

--- A layout.
-- @tparam string where whose it is, in errors
-- @tparam table members
-- @tparam[opt] table names of fields that are not in the layout
-- @return layout: `size`, `names`, `read(data, at, last, fields)`, `write(fields[, computed[, fill]])`
function M.layout(where, members, names)
  local layout, count = { size = 0, names = {} }, #members
  for _, member in ipairs(members) do
    layout.size = layout.size + member.size
    for _, name in ipairs(member.names) do layout.names[name] = true end
  end
  for _, name in ipairs(names or {}) do layout.names[name] = true end
  local size = layout.size

  -- Where it ends, plus one; nil when bytes are missing.
  function layout.read(data, at, last, fields)
    if at + size - 1 > last then return nil end
    for i = 1, count do
      local member = members[i]
      member.read(data, at, fields)
      at = at + member.size
    end
    return at
  end

  function layout.write(fields, computed, fill)
    local parts = {}
    for i = 1, count do parts[i] = members[i].write(fields, where, computed, fill) end
    return concat(parts)
  end

  return layout
end

--- Puts the checksum into a message that has 0 there, unless the fields give one.
-- @tparam table fields
-- @tparam boolean fill whether a given one is replaced
-- @tparam string message
-- @tparam integer offset of the checksum
-- @tparam[opt=0] integer sum of the pseudo header
-- @tparam[opt] boolean never_zero 0 would mean none (RFC 768)
function M.with_checksum(fields, fill, message, offset, sum, never_zero)
  if fields.checksum ~= nil and not fill then return message end
  local value = 0xffff - bytes.fold((sum or 0) + bytes.sum(message, 1, #message))
  if value == 0 and never_zero then value = 0xffff end
  return sub(message, 1, offset) .. put16(value) .. sub(message, offset + 3)
end

--- The sum of the pseudo header that a checksum covers (RFC 9293 §3.1, RFC 8200 §8.1); the length of a message counts
-- modulo 65535, as all does in this sum.
-- @tparam table context its `addresses`, the bytes of source and destination
-- @tparam integer protocol
-- @tparam integer length
-- @tparam[opt] table fields when the checksum they give is what counts, nobody asks for addresses
function M.pseudo(context, protocol, length, fields)
  local addresses = context.addresses
  if addresses then return bytes.sum(addresses, 1, #addresses) + protocol + length end
  if not fields or fields.checksum == nil or context.fill then
    fail("checksum", "without ipv4 or ipv6 it has to be given")
  end
end

--- The bytes of a header's source and destination.
function M.addresses(fields, kind, where)
  local function one(name)
    local raw, why = kind.write(fields[name])
    if not raw then fail(where .. "." .. name, fields[name] == nil and "missing" or why) end
    return raw
  end
  return one "source", one "destination"
end

--- A text given for a field; "" for none.
function M.text(value, where)
  if value == nil then return "" end
  if type(value) ~= "string" then fail(where, "string expected, got " .. type(value)) end
  return value
end

return M
