--- The last packets that entered some links.
-- @module netstack.busted.tape

local ladder = require "netstack.ladder"
local watch = require "netstack.watch"

local byte, concat, format = string.byte, table.concat, string.format
local floor, ipairs, min = math.floor, ipairs, math.min

local MOST_HEADS = 256 -- SYNs that are kept

local Tape = {}
Tape.__index = Tape

local M = {}

--- A tape, to be given links.
-- @tparam integer size how many packets it keeps
-- @tparam[opt] string direction "a->b" or "b->a": only these
-- @treturn table tape; its `count` is how many packets there were
function M.new(size, direction)
  return setmetatable({ size = size, direction = direction, count = 0, kept = {}, heads = {}, syns = 0, links = {} },
    Tape)
end

-- Whether it may be a TCP segment with SYN: now and then another packet looks like one.
local function begins(data, link)
  local at = link == "ethernet" and 14 or 0
  local first = byte(data, at + 1)
  if not first then return false end
  local ipv4 = floor(first / 16) == 4
  if byte(data, at + (ipv4 and 10 or 7)) ~= 6 then return false end
  local flags = byte(data, at + (ipv4 and first % 16 * 4 or 40) + 14)
  return flags and floor(flags / 2) % 2 == 1
end

-- What a ladder is told of a packet. When each arrives would make the lines long.
local function row_of(event)
  return { time = event.time, from = event.from, to = event.to, data = event.packet, dropped = event.cause,
    link = event.link, corrupted = event.corrupted, reordered = event.reordered, duplicated = event.duplicated,
    copy_cause = event.copy_cause }
end

-- Takes a packet down. Those that begin connections are kept longer: sequence numbers are relative to them.
local function note(self, event, ends)
  local count = self.count
  local one = { event = event, ends = ends, number = count }
  self.count = count + 1
  if self.size > 0 then self.kept[count % self.size + 1] = one end
  if begins(event.packet, event.link) then
    self.heads[self.syns % MOST_HEADS + 1] = one
    self.syns = self.syns + 1
  end
end

--- Adds a link.
-- @tparam link link
-- @treturn integer|nil 1
-- @treturn string "closed"
function Tape:add(link)
  local a, b = watch.names(link)
  local ends = { a = a, b = b }
  self.links[#self.links + 1] = { link = link, ends = ends }
  return watch.set(link, self, function(event)
    if not self.direction or event.direction == self.direction then note(self, event, ends) end
  end)
end

--- Stops; what was kept stays. Repeating it is harmless.
-- @treturn integer 1
function Tape:close()
  for _, one in ipairs(self.links) do watch.set(one.link, self, nil) end
  return 1
end

-- The `size` last of `count` entries of a ring, those of one link, and older than number `before`.
local function part_of(ring, count, size, ends, before, list)
  for i = count - min(count, size), count - 1 do
    local one = ring[i % size + 1]
    if one.ends == ends and one.number < before then list[#list + 1] = row_of(one.event) end
  end
  return list
end

--- What was kept, as ladders, one for each link, in the order in which the links came.
-- @treturn string lines
function Tape:text()
  local count, texts = self.count, {}
  for _, one in ipairs(self.links) do
    local ends = one.ends
    local list = part_of(self.heads, self.syns, MOST_HEADS, ends, count - self.size, {})
    local heads = #list
    part_of(self.kept, count, self.size, ends, count, list)
    if #list > heads then
      local text = ladder.draw(list, { left = ends.a, right = ends.b })
      -- The heads were drawn for their numbers only.
      for _ = 1, heads do text = text:gsub("\n[^\n]*", "", 1) end
      texts[#texts + 1] = text
    end
  end
  return concat(texts):sub(1, -2)
end

--- How much of it is kept: "the last 20 of 57 packets".
-- @treturn string
function Tape:title()
  local count, size = self.count, self.size
  if count > size then return format("the last %d of %d packets", size, count) end
  return count == 1 and "the only packet" or format("all %d packets", count)
end

return M
