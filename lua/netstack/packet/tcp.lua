--- TCP (RFC 9293) and its options (RFC 7323, RFC 2018).
-- @module netstack.packet.tcp

local bytes = require "netstack.packet.bytes"
local options = require "netstack.packet.options"
local struct = require "netstack.packet.struct"

local byte, char, floor = string.byte, string.char, math.floor
local ipairs, pairs, type = ipairs, pairs, type
local get16, get32, put16, put32 = bytes.get16, bytes.get32, bytes.put16, bytes.put32
local field, u16, u32 = struct.field, struct.u16, struct.u32
local fail, unfit = struct.fail, struct.unfit

local M = {}

-- From the lowest bit; letters as in "SA".
local FLAGS = { "fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns" }
local LETTERS = { F = 1, S = 2, R = 3, P = 4, A = 5, ["."] = 5, U = 6, E = 7, C = 8, W = 8, N = 9 }
local names = {}
for i, name in ipairs(FLAGS) do names[name] = i end

-- The number of flags given as a table or as letters.
local function flag_bits(flags)
  local bits = {}
  if type(flags) == "string" then
    for letter in flags:gmatch(".") do
      local bit = LETTERS[letter] or fail("tcp.flags", "unknown flag '" .. letter .. "'")
      bits[bit] = true
    end
  elseif type(flags) == "table" then
    struct.check_names(flags, names, "tcp.flags")
    for name, bit in pairs(names) do bits[bit] = flags[name] and true or nil end
  else
    fail("tcp.flags", "table or string expected, got " .. type(flags))
  end
  local word = 0
  for bit in pairs(bits) do word = word + 2 ^ (bit - 1) end
  return word
end

local offset_and_flags = {
  size = 2, names = { "header_length", "reserved", "flags" },
  read = function(data, at, fields)
    local word = get16(data, at)
    fields.header_length = floor(word / 4096) * 4
    local reserved = floor(word / 512) % 8
    if reserved ~= 0 then fields.reserved = reserved end
    local flags = {}
    for i = 1, 9 do
      if word % 2 == 1 then flags[FLAGS[i]] = true end
      word = floor(word / 2)
    end
    fields.flags = flags
  end,
  write = function(fields, _, computed, fill)
    local length = not fill and fields.header_length or computed.header_length
    local why = unfit(length, 60) or length % 4 ~= 0 and "multiple of 4 expected"
    if why then fail("tcp.header_length", why) end
    why = unfit(fields.reserved or 0, 7)
    if why then fail("tcp.reserved", why) end
    return put16(length * 1024 + (fields.reserved or 0) * 512 + flag_bits(fields.flags or ""))
  end,
}

local header = struct.layout("tcp", {
  field("source_port", u16), field("destination_port", u16), field("seq", u32, 0), field("ack", u32, 0),
  offset_and_flags, field("window", u16, 65535), field("checksum", u16), field("urgent", u16, 0),
}, { "options", "checksum_ok" })

local function number(kind, name, size, most, get, put)
  return {
    type = kind, name = name,
    read = function(data) return #data == size and get(data, 1) or nil end,
    write = function(value, where)
      local why = unfit(value, most)
      if why then fail(where, why) end
      return put(value)
    end,
  }
end

local function pair(value, first, second, where)
  struct.check_names(value, { [first] = true, [second] = true }, where)
  for _, name in ipairs { first, second } do
    local why = unfit(value[name] or 0, 0xffffffff)
    if why then fail(where .. "." .. name, why) end
  end
  return put32(value[first] or 0) .. put32(value[second] or 0)
end

local kinds = {
  [2] = number(2, "mss", 2, 65535, get16, put16),
  [3] = number(3, "window_scale", 1, 255, byte, char),
  [4] = {
    type = 4, name = "sack_permitted",
    read = function(data) return data == "" or nil end,
    write = function() return "" end,
  },
  [5] = {
    type = 5, name = "sack",
    read = function(data)
      if data == "" or #data % 8 ~= 0 then return nil end
      local blocks = {}
      for at = 1, #data, 8 do blocks[#blocks + 1] = { left = get32(data, at), right = get32(data, at + 4) } end
      return blocks
    end,
    write = function(blocks, where)
      if type(blocks) ~= "table" then fail(where, "table expected, got " .. type(blocks)) end
      local text = ""
      for i, block in ipairs(blocks) do text = text .. pair(block, "left", "right", where .. "[" .. i .. "]") end
      return text
    end,
  },
  [8] = {
    type = 8, name = "timestamps",
    read = function(data) return #data == 8 and { value = get32(data, 1), echo = get32(data, 5) } or nil end,
    write = function(value, where) return pair(value, "value", "echo", where) end,
  },
}
-- In this order what follows the others is aligned.
local ORDER = { "mss", "sack_permitted", "timestamps", "sack", "window_scale" }

--- Reads a header.
-- @return nil, where its data begins and ends; nil and why when there is no whole header
function M.dissect(data, at, last, context)
  local fields = {}
  local next_at = header.read(data, at, last, fields)
  if not next_at then return nil, "tcp: truncated" end
  local length = fields.header_length
  if length < 20 or at + length - 1 > last then return nil, "tcp: header_length " .. length end
  context.packet.tcp = fields
  if length > 20 then fields.options = options.read(data, next_at, at + length - 1, kinds) end
  if context.whole then
    fields.checksum_ok = bytes.fold(struct.pseudo(context, 6, last - at + 1) + bytes.sum(data, at, last)) == 0xffff
  end
  return nil, at + length, last
end

--- Writes a segment.
function M.build(fields, payload, context)
  struct.check_names(fields, header.names, "tcp")
  local opts = fields.options and options.write(fields.options, "tcp.options", kinds, ORDER) or ""
  local message = header.write(fields, { header_length = 20 + #opts, checksum = 0 }, context.fill) .. opts .. payload
  return struct.with_checksum(fields, context.fill, message, 16, struct.pseudo(context, 6, #message, fields))
end

return M
