--- Addresses for a lab's segments, where nobody names any.
--
-- A link has 10.0.N.0/24 and fd00:0:0:N::/64, a network of switches 10.128.0.0/20 and so on, which has room for 4094
-- hosts; in either, hosts are counted from 1. Prefixes that were named are left out, and who joins a segment where one
-- of IPv4 was named gets an address of that.
-- @module netstack.lab.numbering

local prefix = require "netstack.lab.prefix"

local byte, floor, format, max = string.byte, math.floor, string.format, math.max

---@class netstack.lab.Numbering
local Numbering = {}
Numbering.__index = Numbering

local M = {}

-- Blocks of 256 addresses below 10.0.0.0/8: links take the lower half one by one, switches the upper in sixteens.
local HALF = 32768
local SWITCH_BLOCKS = 16

--- A new plan.
function M.new()
  return setmetatable({ taken = {}, next_link = 0, next_switch = HALF, segments = 0 }, Numbering)
end

local function number_of(bytes)
  local a, b, c, d = byte(bytes, 1, 4)
  return ((a * 256 + b) * 256 + c) * 256 + d
end

local function text_of(number)
  return format("%d.%d.%d.%d", floor(number / 16777216), floor(number / 65536) % 256, floor(number / 256) % 256,
    number % 256)
end

local TEN = 10 * 16777216

local function block_of(bytes)
  if #bytes ~= 4 or byte(bytes) ~= 10 then return nil end
  return (number_of(bytes) - TEN) / 256
end

--- Takes note of an address that somebody named.
-- @tparam string bytes
-- @tparam integer length of its prefix
-- @tparam table segment
-- @treturn boolean false: the lab has given the prefix to another segment
function Numbering:take(bytes, length, segment)
  local network = prefix.network(bytes, max(length, 8))
  local first = block_of(network)
  if first then
    first = floor(first)
    local count = length >= 24 and 1 or 2 ^ (24 - max(length, 8))
    for block = first, first + count - 1 do
      local owner = self.taken[block]
      if owner and owner ~= true and owner ~= segment then return false end
    end
    for block = first, first + count - 1 do self.taken[block] = self.taken[block] or true end
  end
  if #bytes == 4 then
    segment.used = segment.used or {}
    segment.used[number_of(bytes)] = true
    if not segment.first and length <= 30 then
      segment.first, segment.length4, segment.room = number_of(network), length, 2 ^ (32 - length) - 2
    end
  end
  return true
end

-- A segment's number, for its IPv6 prefix.
local function count_in(self, segment)
  segment.number = self.segments
  self.segments = self.segments + 1
end

local function free(self, from, count, limit)
  local block = from
  while block + count <= limit do
    local busy
    for i = block, block + count - 1 do busy = busy or self.taken[i] end
    if not busy then return block end
    block = block + count
  end
end

-- Gives a segment its prefixes.
local function number(self, segment)
  local switched = segment.switches[1] ~= nil
  local count = switched and SWITCH_BLOCKS or 1
  local block = free(self, switched and self.next_switch or self.next_link, count, switched and 2 * HALF or HALF)
  if not block then return nil, "full" end
  for i = block, block + count - 1 do self.taken[i] = segment end
  if switched then self.next_switch = block + count else self.next_link = block + 1 end
  segment.first, segment.length4, segment.room = TEN + block * 256, switched and 20 or 24, count * 256 - 2
  return 1
end

--- The next addresses of a segment: IPv4, and IPv6 where the mtu allows it (RFC 8200 5).
-- @tparam table segment
-- @tparam boolean ipv6
-- @treturn {string,...}|nil
-- @treturn string "full"
function Numbering:addresses(segment, ipv6)
  if not segment.first then
    local ok, err = number(self, segment)
    if not ok then return nil, err end
  end
  repeat
    if segment.hosts >= segment.room then return nil, "full" end
    segment.hosts = segment.hosts + 1
  until not segment.used or not segment.used[segment.first + segment.hosts]
  local host = segment.hosts
  local list = { format("%s/%d", text_of(segment.first + host), segment.length4) }
  if ipv6 then
    if not segment.number then count_in(self, segment) end
    local network = segment.number == 0 and "fd00:" or format("fd00:0:0:%x:", segment.number)
    list[2] = format("%s:%x/64", network, host)
  end
  return list
end

return M
