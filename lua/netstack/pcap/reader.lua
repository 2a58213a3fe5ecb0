--- Reads pcapng and classic pcap, of either byte order. Nothing in a file makes it read or keep more than a block at
-- once.
-- @module netstack.pcap.reader

local byte, concat, floor, format, min, sub = string.byte, table.concat, math.floor, string.format, math.min, string.sub
local error, ipairs, pcall, setmetatable, type = error, ipairs, pcall, setmetatable, type

---@class netstack.pcap.reader
local Reader = {}
Reader.__index = Reader

local M = {}

local MOST = 16777216 -- bytes of a block: what Wireshark takes
local LINKS = { [1] = "ethernet", [12] = "ip", [14] = "ip", [101] = "ip", [228] = "ip", [229] = "ip" }

-- What a failure raises, and `read` returns.
local function fail(offset, why)
  error({ reason = format("offset %.0f: %s", offset, why) }, 0)
end

local function u16(self, data, at)
  local a, b = byte(data, at, at + 1)
  if self.big then a, b = b, a end
  return a + b * 256
end

local function u32(self, data, at)
  local a, b, c, d = byte(data, at, at + 3)
  if self.big then a, b, c, d = d, c, b, a end
  return a + (b + (c + d * 256) * 256) * 256
end

-- Reads `size` bytes, by parts: a length in a file says nothing about how much of it there is. Nil at the file's end,
-- when `may_end`.
local function take(self, size, may_end)
  local parts, got = {}, 0
  while got < size do
    local part, err = self.file:read(min(size - got, 65536))
    if not part then
      if err then fail(self.offset + got, err) end
      if may_end and got == 0 then return nil end
      fail(self.offset + got, "the file ends within a block")
    end
    got = got + #part
    parts[#parts + 1] = part
  end
  self.offset = self.offset + size
  return concat(parts)
end

-- Seconds of a time in 64 bits; one that exceeds the 53 bits of a number is divided as by hand.
local function seconds(high, low, units)
  if high < 2097152 or units > 1e11 then return (high * 4294967296 + low) / units end
  local rest = high % units
  local whole = floor(high / units)
  for _, part in ipairs { floor(low / 65536), low % 65536 } do
    rest = rest * 65536 + part
    whole = whole * 65536 + floor(rest / units)
    rest = rest % units
  end
  return whole + rest / units
end

-- Options between two places of a block: by code, the first of each.
local function read_options(self, data, at, last, offset)
  local found = {}
  while at + 3 <= last do
    local code, length = u16(self, data, at), u16(self, data, at + 2)
    if code == 0 then break end
    if at + 3 + length > last then fail(offset + at - 1, "an option of " .. length .. " bytes") end
    found[code] = found[code] or sub(data, at + 4, at + 3 + length)
    at = at + 4 + length + -length % 4
  end
  return found
end

local function interface_of(self, id, offset)
  local interface = self.interfaces[id]
  if not interface then fail(offset, "no interface " .. id) end
  return interface
end

-- A packet whose data begins at a place of a block.
local function packet_of(interface, id, data, at, length, original, time)
  return { interface = id, interface_name = interface.name, link = interface.link, time = time,
    data = sub(data, at, at + length - 1), original_length = original }
end

-- How many in a second; the highest bit says of which base.
local function resolution(code)
  if code >= 128 then return 2 ^ (code - 128) end
  return 10 ^ code
end

local function described(self, data, offset)
  if #data < 8 then fail(offset, "an interface in " .. #data .. " bytes") end
  local found = read_options(self, data, 9, #data, offset)
  local interface = { name = found[2], link = LINKS[u16(self, data, 1)] or u16(self, data, 1),
    snaplen = u32(self, data, 5), units = 1e6, shift = 0 }
  if found[9] and #found[9] >= 1 then interface.units = resolution(byte(found[9])) end
  if found[14] and #found[14] == 8 then
    local low, high = u32(self, found[14], self.big and 5 or 1), u32(self, found[14], self.big and 1 or 5)
    if high >= 0x80000000 then high = high - 4294967296 end
    interface.shift = high * 4294967296 + low
  end
  self.interfaces[self.count] = interface
  self.count = self.count + 1
end

-- The Enhanced Packet Block, and the one it replaced, whose interface's number has two bytes.
local function stamped(self, data, offset, id)
  if #data < 20 then fail(offset, "a packet in " .. #data .. " bytes") end
  local interface = interface_of(self, id, offset)
  local length, original = u32(self, data, 13), u32(self, data, 17)
  if 20 + length > #data then fail(offset, "a packet of " .. format("%.0f", length) .. " bytes") end
  local time = seconds(u32(self, data, 5), u32(self, data, 9), interface.units) + interface.shift
  local packet = packet_of(interface, id, data, 21, length, original, time)
  packet.comment = read_options(self, data, 21 + length + -length % 4, #data, offset)[1]
  return packet
end

local blocks = {
  [1] = described,
  [2] = function(self, data, offset)
    if #data < 20 then fail(offset, "a packet in " .. #data .. " bytes") end
    return stamped(self, data, offset, u16(self, data, 1))
  end,
  [3] = function(self, data, offset)
    if #data < 4 then fail(offset, "a packet in " .. #data .. " bytes") end
    local interface, original = interface_of(self, 0, offset), u32(self, data, 1)
    local length = min(original, interface.snaplen > 0 and interface.snaplen or original)
    if 4 + length > #data then fail(offset, "a packet of " .. format("%.0f", length) .. " bytes") end
    return packet_of(interface, 0, data, 5, length, original)
  end,
  [6] = function(self, data, offset)
    if #data < 20 then fail(offset, "a packet in " .. #data .. " bytes") end
    return stamped(self, data, offset, u32(self, data, 1))
  end,
}

local SECTION = "\10\13\13\10" -- the same in both byte orders

-- The next packet of a pcapng; nil at its end.
local function next_block(self)
  while true do
    local offset = self.offset
    local head = take(self, 8, true)
    if not head then return nil end
    local section, magic = sub(head, 1, 4) == SECTION, ""
    if section then
      magic = take(self, 4)
      if magic == "\26\43\60\77" then self.big = true
      elseif magic == "\77\60\43\26" then self.big = false
      else fail(offset + 8, "no byte order") end
      self.interfaces, self.count = {}, 0
    end
    local length, kind = u32(self, head, 5), u32(self, head, 1)
    if length % 4 ~= 0 or length < (section and 28 or 12) or length > MOST then
      fail(offset + 4, format("a block of %.0f bytes", length))
    end
    local data = magic .. take(self, length - 12 - #magic)
    if u32(self, take(self, 4), 1) ~= length then
      fail(self.offset - 4, "another length than where the block begins")
    end
    local read = not section and blocks[kind]
    local packet = read and read(self, data, offset + 8)
    if packet then return packet end
  end
end

-- The next packet of a classic file; nil at its end.
local function next_record(self)
  local offset = self.offset
  local head = take(self, 16, true)
  if not head then return nil end
  local length = u32(self, head, 9)
  if length > MOST then fail(offset + 8, format("a packet of %.0f bytes", length)) end
  local time = u32(self, head, 1) + u32(self, head, 5) / self.units
  local data = take(self, length)
  return packet_of(self.interfaces[0], 0, data, 1, length, u32(self, head, 13), time)
end

local CLASSIC = {
  ["\212\195\178\161"] = { false, 1e6 }, ["\161\178\195\212"] = { true, 1e6 },
  ["\77\60\178\161"] = { false, 1e9 }, ["\161\178\60\77"] = { true, 1e9 },
}

local function begin(self)
  local magic = self.file:read(4)
  if magic == SECTION then
    -- Its block is read from its beginning; the four bytes are given back first.
    local file, first = self.file, true
    self.file = {
      read = function(_, size)
        if not first then return file:read(size) end
        first = false
        local rest, err = file:read(size - 4)
        if not rest then return nil, err end
        return magic .. rest
      end,
      close = function() return file:close() end,
    }
    self.next = next_block
    return
  end
  local order = CLASSIC[magic or ""]
  if not order then fail(0, "no capture") end
  self.offset = 4
  self.big, self.units, self.next = order[1], order[2], next_record
  local link = u16(self, sub(take(self, 20), self.big and 19 or 17), 1)
  self.interfaces[0] = { link = LINKS[link] or link }
end

--- Reads a capture's beginning.
-- @param file
-- @tparam boolean own whether closing the reader closes it
function M.new(file, own)
  local self = setmetatable({ file = file, own = own, interfaces = {}, count = 0, offset = 0 }, Reader)
  local ok, err = pcall(begin, self)
  if ok then return self end
  self:close()
  if type(err) ~= "table" then error(err, 0) end
  return nil, err.reason
end

--- The next packet: `interface` (its number in the section, from 0), `interface_name`, `link` ("ip", "ethernet", or the
-- number of another), `time` in seconds (nil in blocks that have none), `data`, `original_length` in bytes, `comment`.
-- @treturn table|nil nil at the end
-- @treturn string what is wrong and where, when that is why: "offset 96: a block of 7 bytes"; it is told again each
-- time. "closed" after `close`
---@return table|nil packet
---@return string|nil err
function Reader:read()
  if not self.file then return nil, self.failure or "closed" end
  if self.failure or self.ended then return nil, self.failure end
  local ok, packet = pcall(self.next, self)
  if ok then
    self.ended = packet == nil
    return packet
  end
  if type(packet) ~= "table" then error(packet, 0) end
  self.failure = packet.reason
  return nil, self.failure
end

--- Iterates over the packets that are left, as `for packet in reader:packets() do`. A file that is damaged ends it,
-- too: `reader:error()` says so.
---@return fun(): table|nil
function Reader:packets()
  return function() return (self:read()) end
end

--- What was wrong with the file; nil: nothing, so far.
---@return string|nil
function Reader:error()
  return self.failure
end

--- Closes the file, if the reader opened it.
---@return integer 1
function Reader:close()
  local file = self.file
  self.file = nil
  if file and self.own then file:close() end
  return 1
end

return M
