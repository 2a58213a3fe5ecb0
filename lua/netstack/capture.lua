--- Captures of links: each packet once, as it enters; a comment says why it was dropped, or what else happened to it.
-- @module netstack.capture

local pcap = require "netstack.pcap"
local scheduler = require "netstack.scheduler"
local watch = require "netstack.watch"

local concat = table.concat

---@class netstack.capture
local Capture = {}
Capture.__index = Capture

local M = {}

local function comment(event)
  if event.cause and not event.duplicated then return "dropped: " .. event.cause end
  local said = {}
  if event.cause then said[#said + 1] = "dropped: " .. event.cause end
  if event.corrupted then said[#said + 1] = "corrupted" end
  if event.reordered then said[#said + 1] = "reordered" end
  if event.duplicated then
    said[#said + 1] = event.copy_cause and "duplicated, the copy dropped: " .. event.copy_cause or "duplicated"
  end
  return said[1] and concat(said, "; ")
end

--- Begins a capture.
-- @tparam string path
-- @treturn netstack.capture|nil
-- @treturn string what the system says
---@param path string
---@return netstack.capture|nil, string?
function M.new(path)
  local writer, err = pcap.writer(path)
  if not writer then return nil, err end
  return setmetatable({ path = path, writer = writer, links = {}, failure = false, pending = false }, Capture)
end

local function stop(self)
  for _, link in ipairs(self.links) do watch.set(link, self, nil) end
  self.links, self.writer = {}, nil
end

-- The packets of a run are in the file when it is over. What can't be written is told once, and is the capture's end.
local function flush(self)
  self.pending = false
  local writer, err = self.writer, self.failure
  if not writer then return 1 end
  if not err then
    local ok, why = writer:flush()
    if ok then return 1 end
    err = why
  end
  writer:close()
  stop(self)
  return nil, self.path .. ": " .. err:gsub("^.-: ", "")
end

local function note(self, ok, err)
  if not ok and err ~= "closed" and not self.failure then self.failure = err end
  if not self.pending then
    self.pending = true
    scheduler.after(function() return flush(self) end)
  end
end

--- Adds a link: one interface of the file, named "a-b" by its ends.
-- @tparam link link
-- @treturn integer|nil 1
-- @treturn string "closed", or what the system says
function Capture:add(link)
  local writer = self.writer
  if not writer then return nil, "closed" end
  local a, b = watch.names(link)
  local id, err = writer:interface { name = a .. "-" .. b, link = watch.medium(link) }
  if not id then return nil, err end
  self.links[#self.links + 1] = link
  return watch.set(link, self, function(event)
    local said = comment(event)
    note(self, writer:packet(id, event.time, event.packet, said and { comment = said } or nil))
  end)
end

--- Ends the capture.
-- @treturn integer|nil 1, also the second time
-- @treturn string what the system says, if it had not yet said so
---@return integer|nil, string?
function Capture:close()
  local writer = self.writer
  if not writer then return 1 end
  local ok, err = flush(self)
  if not ok then return nil, err end
  ok, err = writer:close()
  stop(self)
  if not ok then return nil, self.path .. ": " .. err end
  return 1
end

Capture.__close = Capture.close

function Capture:__tostring()
  return "capture " .. self.path .. (self.writer and "" or " (closed)")
end

return M
