--- Addresses with prefix lengths, as bytes.
-- @module netstack.lab.prefix

local core = require "netstack.core"

local byte, char, format, rep = string.byte, string.char, string.format, string.rep
local floor, tonumber = math.floor, tonumber

local M = {}

--- Takes "10.0.0.1/24" apart.
-- @tparam string text
-- @treturn string|nil the address's 4 or 16 bytes; nil: it is none
-- @treturn integer the prefix's length in bits
function M.parse(text)
  local address, length = text:match("^([^/]+)/?(%d*)$")
  local bytes = address and core.parse_address(address)
  if not bytes then return nil end
  length = length == "" and #bytes * 8 or tonumber(length)
  if length > #bytes * 8 then return nil end
  return bytes, length
end

--- The prefix's own address.
-- @tparam string bytes
-- @tparam integer length
-- @treturn string bytes
function M.network(bytes, length)
  local whole = floor(length / 8)
  if whole == #bytes then return bytes end
  local unit = 2 ^ (8 - length % 8)
  local at = byte(bytes, whole + 1)
  return bytes:sub(1, whole) .. char(at - at % unit) .. rep("\0", #bytes - whole - 1)
end

--- As text: "10.0.0.0/24".
-- @tparam string bytes
-- @tparam integer length
-- @treturn string
function M.text(bytes, length)
  return format("%s/%d", core.format_address(bytes), length)
end

return M
