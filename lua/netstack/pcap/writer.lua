--- Writes pcapng, little-endian on every machine, with times in nanoseconds.
-- @module netstack.pcap.writer

local check = require "netstack.check"

local char, concat, floor, rep = string.char, table.concat, math.floor, string.rep
local setmetatable, tostring, type = setmetatable, tostring, type

---@class netstack.pcap.writer
local Writer = {}
Writer.__index = Writer

local M = {}

local LINKS = { ip = 101, ethernet = 1 } -- LINKTYPE_RAW, LINKTYPE_ETHERNET
local NANOSECONDS = 9 -- if_tsresol: negative powers of ten
local MOST = 0x7fffffff

local function u16(value)
  return char(value % 256, floor(value / 256))
end

local function u32(value)
  return char(value % 256, floor(value / 256) % 256, floor(value / 65536) % 256, floor(value / 16777216))
end

local function padded(data)
  return data .. rep("\0", -#data % 4)
end

local function option(code, value)
  return u16(code) .. u16(#value) .. padded(value)
end

-- Options, closed by their end where there are any.
local function option_list(...)
  local text = concat { ... }
  return text == "" and text or text .. "\0\0\0\0"
end

local function block(kind, body)
  local length = u32(#body + 12)
  return u32(kind) .. length .. body .. length
end

-- Nanoseconds in two halves of 32 bits, to the nearest. A product of seconds and 1e9 would need more than the 53 bits
-- that a number has.
local function timestamp(time)
  local seconds = floor(time)
  local nanoseconds = floor((time - seconds) * 1e9 + 0.5)
  local low = seconds % 1048576 * 1e9 + nanoseconds
  local high = floor(seconds / 1048576) * 1e9 + floor(low / 1048576) -- in units of 2^20 ns
  return u32(floor(high / 4096)), u32(floor(high % 4096 * 1048576 + low % 1048576))
end

local function text(value)
  if type(value) ~= "string" then return "string expected, got " .. type(value) end
  if #value > 65535 then return "65535 bytes at most" end
end

local interface_rules = { name = text, description = text, link = check.one_of("ip", "ethernet") }
local packet_rules = { comment = text, original_length = check.integer(0, 0xffffffff) }

--- Begins a capture.
-- @tparam output output
function M.new(output)
  local self = setmetatable({ output = output, interfaces = 0 }, Writer)
  -- Byte order, version 1.0, a section of unknown length.
  local ok, err = output:write(block(0x0a0d0d0a, u32(0x1a2b3c4d) .. "\1\0\0\0" .. rep("\255", 8)))
  if not ok then return nil, err end
  return self
end

--- Describes an interface; each packet is of one.
-- @tparam[opt] table options `name`, `description`, `link`: "ip" (the default) or "ethernet"
-- @treturn integer|nil its number, from 0
-- @treturn string what the system says, once; "closed" after that
---@param options? { name?: string, description?: string, link?: "ip"|"ethernet" }
---@return integer|nil id
---@return string|nil err
function Writer:interface(options)
  local o = check.options(options, interface_rules, 1, "interface")
  local ok, err = self.output:write(block(1, u16(LINKS[o.link or "ip"]) .. "\0\0\0\0\0\0" .. option_list(
    o.name and option(2, o.name) or "", o.description and option(3, o.description) or "",
    option(9, char(NANOSECONDS)))))
  if not ok then return nil, err end
  self.interfaces = self.interfaces + 1
  return self.interfaces - 1
end

--- Writes a packet.
-- @tparam integer id of the interface
-- @tparam number time in seconds, 0 or more, written in nanoseconds, to the nearest: exact for whole nanoseconds below
-- 48 days
-- @tparam string data the packet, or as much of it as is to be kept
-- @tparam[opt] table options `comment`; `original_length` in bytes, when more was there
-- @treturn integer|nil 1
-- @treturn string what the system says, once: "No space left on device"; "closed" after that
---@param id integer
---@param time number
---@param data string
---@param options? { comment?: string, original_length?: integer }
---@return integer|nil
---@return string|nil err
function Writer:packet(id, time, data, options)
  if type(id) ~= "number" or id % 1 ~= 0 or id < 0 or id >= self.interfaces then
    check.bad(1, "packet", "no such interface: " .. tostring(id))
  end
  if type(time) ~= "number" or not (time >= 0 and time < 2 ^ 33) then
    check.bad(2, "packet", "seconds, 0 or more, expected")
  end
  if type(data) ~= "string" then check.bad(3, "packet", "string expected, got " .. type(data)) end
  if #data > MOST then check.bad(3, "packet", "too long") end
  local o = check.options(options, packet_rules, 4, "packet")
  local high, low = timestamp(time)
  return self.output:write(block(6, u32(id) .. high .. low .. u32(#data) .. u32(o.original_length or #data) ..
    padded(data) .. option_list(o.comment and option(1, o.comment) or "")))
end

--- Hands what was written so far to the system.
-- @treturn integer|nil 1
-- @treturn string what the system says, once; "closed" after that
---@return integer|nil
---@return string|nil err
function Writer:flush() return self.output:flush() end

--- Ends the capture: all of it is handed to the system.
-- @treturn integer|nil 1, also the second time
-- @treturn string what the system says, if it had not yet said so: the disk may be full
---@return integer|nil
---@return string|nil err
function Writer:close()
  return self.output:close()
end

return M
