--- Who is told of a link's packets: any number of functions, each with its key.
-- @module netstack.watch

local core = require "netstack.core"

local ipairs = ipairs
local kept, trace = core.kept, core.classes.link.trace

local M = {}

local directions = { "a->b", "b->a" }

--- Makes a new link known.
-- @tparam link link
-- @tparam string medium
function M.begin(link, medium)
  local own = kept(link)
  own.medium, own.watchers, own.names = medium, {}, { "a", "b" }
end

--- The link's medium.
-- @tparam link link
-- @treturn string "ip" or "ethernet"
function M.medium(link) return kept(link).medium end

--- Names the ends, for those who read of its packets.
-- @tparam link link
-- @tparam string a
-- @tparam string b
function M.name(link, a, b) kept(link).names = { a, b } end

--- The names of the ends.
-- @tparam link link
-- @treturn string
-- @treturn string
function M.names(link)
  local ends = kept(link).names
  return ends[1], ends[2]
end

--- Has `fn` called with each packet that enters, as `link:trace` tells of it, beside all others that watch.
-- @tparam link link
-- @param key whose place this is: each key has one function
-- @tparam function|nil fn
-- @treturn integer|nil 1
-- @treturn string "closed"
function M.set(link, key, fn)
  local own = kept(link)
  local watchers = {}
  for _, watcher in ipairs(own.watchers) do
    if watcher.key ~= key then watchers[#watchers + 1] = watcher end
  end
  if fn then watchers[#watchers + 1] = { key = key, fn = fn } end
  own.watchers = watchers
  if not watchers[1] then return trace(link, nil) end
  local medium, ends = own.medium, own.names
  return trace(link, function(event)
    local side = event.direction
    event.direction, event.from, event.to, event.link = directions[side], ends[side], ends[3 - side], medium
    for i = 1, #watchers do watchers[i].fn(event) end
  end)
end

return M
