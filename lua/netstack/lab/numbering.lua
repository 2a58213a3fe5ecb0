--- Addresses for a lab's segments, where nobody names any.
--
-- A link has 10.0.N.0/24 and fd00:0:0:N::/64, a network of switches 10.128.0.0/20 and so on, which has room for 4094
-- hosts; in either, hosts are counted from 1. Prefixes that were named are left out.
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

local function block_of(bytes)
  if #bytes ~= 4 or byte(bytes) ~= 10 then return nil end
  return byte(bytes, 2) * 256 + byte(bytes, 3)
end

--- Takes note of a prefix that somebody named.
-- @tparam string bytes
-- @tparam integer length
-- @tparam table segment
-- @treturn boolean false: the lab has given it to another segment
function Numbering:take(bytes, length, segment)
  local first = block_of(prefix.network(bytes, max(length, 8)))
  if not first then return true end
  local count = length >= 24 and 1 or 2 ^ (24 - max(length, 8))
  for block = first, first + count - 1 do
    local owner = self.taken[block]
    if owner and owner ~= true and owner ~= segment then return false end
  end
  for block = first, first + count - 1 do self.taken[block] = self.taken[block] or true end
  return true
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
  segment.first, segment.length4, segment.room = block * 256, switched and 20 or 24, count * 256 - 2
  segment.number = self.segments
  self.segments = self.segments + 1
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
  if segment.hosts >= segment.room then return nil, "full" end
  segment.hosts = segment.hosts + 1
  local host = segment.hosts
  local low = segment.first + floor(host / 256) * 256
  local list = { format("10.%d.%d.%d/%d", floor(low / 65536), floor(low / 256) % 256, host % 256, segment.length4) }
  if ipv6 then
    local network = segment.number == 0 and "fd00:" or format("fd00:0:0:%x:", segment.number)
    list[2] = format("%s:%x/64", network, host)
  end
  return list
end

return M
