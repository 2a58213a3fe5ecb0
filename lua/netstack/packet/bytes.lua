--- Bytes of packets: numbers in network order, the Internet checksum, addresses.
-- @module netstack.packet.bytes

local core = require "netstack.core"

local byte, char, floor, format, tonumber, type = string.byte, string.char, math.floor, string.format, tonumber, type

local M = {}

--- The number in the two bytes at a place.
function M.get16(data, at)
  local a, b = byte(data, at, at + 1)
  return a * 256 + b
end

--- The number in the four bytes at a place.
function M.get32(data, at)
  local a, b, c, d = byte(data, at, at + 3)
  return ((a * 256 + b) * 256 + c) * 256 + d
end

--- A number as two bytes; what exceeds them is left out.
function M.put16(value)
  return char(floor(value / 256) % 256, value % 256)
end

--- A number as four bytes; what exceeds them is left out.
function M.put32(value)
  return char(floor(value / 16777216) % 256, floor(value / 65536) % 256, floor(value / 256) % 256, value % 256)
end

--- The sum of the 16-bit words from one place to another (RFC 1071), an odd byte at the end being the high one. Sums of
-- parts of even length add up.
function M.sum(data, first, last)
  local high, low, at = 0, 0, first
  while at + 15 <= last do
    local a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p = byte(data, at, at + 15)
    high = high + a + c + e + g + i + k + m + o
    low = low + b + d + f + h + j + l + n + p
    at = at + 16
  end
  while at < last do
    local a, b = byte(data, at, at + 1)
    high, low, at = high + a, low + b, at + 2
  end
  if at == last then high = high + byte(data, at) end
  return high * 256 + low
end

--- The one's complement sum in 16 bits: 0xffff over what a right checksum covers, itself included.
function M.fold(sum)
  while sum > 0xffff do sum = sum % 0x10000 + floor(sum / 0x10000) end
  return sum
end

--- The text of the four or sixteen bytes of an address.
M.address = core.format_address

--- The bytes of an address's text.
-- @return bytes, or nil when it is no address of `size` bytes
function M.parse_address(text, size)
  local bytes = type(text) == "string" and core.parse_address(text)
  return bytes and #bytes == size and bytes or nil
end

--- The text of the six bytes of a station's address.
function M.mac(data, at)
  return format("%02x:%02x:%02x:%02x:%02x:%02x", byte(data, at, at + 5))
end

--- The six bytes of a station's address; nil when the text is none.
function M.parse_mac(text)
  if type(text) ~= "string" or not text:find("^%x%x:%x%x:%x%x:%x%x:%x%x:%x%x$") then return nil end
  return (text:gsub("(%x%x):?", function(digits) return char(tonumber(digits, 16)) end))
end

return M
