--- Routes of a lab: the shortest ways over any number of routers; of equally long ones, over the router that was linked
-- first.
--
-- A host on one segment needs a gateway only. Everybody else is given each prefix. What lies behind a NAT is not to be
-- found from outside, in IPv4.
-- @module netstack.lab.routes

local prefix = require "netstack.lab.prefix"

local ipairs, pairs = ipairs, pairs

local M = {}

-- The addresses and the prefixes of a port, by family ("4", "6"). Link-local ones lead nowhere.
local function read(port)
  local found = {}
  for _, text in ipairs(port.interface:addresses() or {}) do
    local bytes, length = prefix.parse(text)
    if bytes and not (#bytes == 16 and bytes:sub(1, 2) == "\254\128") then
      local family = #bytes == 4 and "4" or "6"
      local list = found[family] or { prefixes = {} }
      found[family] = list
      list.address = list.address or text:match("^[^/]+")
      list.prefixes[#list.prefixes + 1] = prefix.text(prefix.network(bytes, length), length)
    end
  end
  return found
end

-- A router's way from one segment to another: not from a NAT's outside to its inside.
local function may_cross(from, to, family)
  return family == "6" or from.node.kind ~= "nat" or not from.outside or to.outside
end

-- Adds to `routes` what `node` finds by going from segment to segment.
local function search(node, family, known, routes)
  local seen, at, queue = {}, 1, {}
  for _, port in ipairs(node.ports) do
    if not seen[port.segment] then
      seen[port.segment] = true
      queue[#queue + 1] = { segment = port.segment }
    end
  end
  while queue[at] do
    local here = queue[at]
    at = at + 1
    for _, entry in ipairs(here.segment.routers) do
      local mine = known(entry)[family]
      local gateway = here.gateway or mine and mine.address
      if entry.node ~= node and gateway then
        for _, exit in ipairs(entry.node.ports) do
          if not seen[exit.segment] and may_cross(entry, exit, family) then
            seen[exit.segment] = true
            queue[#queue + 1] = { segment = exit.segment, gateway = gateway }
            for _, port in ipairs(exit.segment.ports) do
              local there = known(port)[family]
              for _, text in ipairs(there and there.prefixes or {}) do routes[#routes + 1] = { text, gateway } end
              if there then break end -- the others' prefixes are the same
            end
          end
        end
      end
    end
  end
end

local DEFAULTS = { { "4", "0.0.0.0/0" }, { "6", "::/0" } }

-- The first router of the segment that leads anywhere.
local function gateways(node, known, routes)
  local port = node.ports[1]
  for _, default in ipairs(DEFAULTS) do
    local family = default[1]
    for _, entry in ipairs(port.segment.routers) do
      local there = known(entry)[family]
      if there and not (family == "4" and entry.node.kind == "nat" and entry.outside) then
        routes[#routes + 1] = { default[2], there.address }
        break
      end
    end
  end
end

-- Gives a node its routes, and takes away those of ours that are no longer so.
local function install(node, routes)
  local wanted = {}
  for _, route in ipairs(routes) do
    local text, gateway = route[1], route[2]
    if not wanted[text] then
      wanted[text] = gateway
      if node.routes[text] ~= gateway then node.stack:add_route(text, gateway) end
    end
  end
  local old = {}
  for text in pairs(node.routes) do
    if not wanted[text] then old[#old + 1] = text end
  end
  table.sort(old)
  for _, text in ipairs(old) do node.stack:remove_route(text) end
  node.routes = wanted
end

-- Which sides of a NAT are outside: what its links say; else the links that it was named first in, and one at least on
-- either side.
local function face(node)
  local outside, inside, last = nil, nil, nil
  for _, port in ipairs(node.ports) do
    port.outside = port.says_outside
    if port.outside == nil then port.outside = port.side == 1 end
    if port.outside then outside = outside or port else inside = inside or port end
    last = port
  end
  if not inside and outside ~= last then
    for _, port in ipairs(node.ports) do port.outside = port.says_outside or port == outside end
  elseif not outside and last and last.says_outside == nil then
    last.outside = true
  end
  for _, port in ipairs(node.ports) do port.interface:masquerade(port.outside) end
end

--- Sets the routes of all nodes that are stacks.
-- @tparam {table,...} nodes
function M.update(nodes)
  local cache = {}
  local function known(port)
    local found = cache[port]
    if not found then
      found = read(port)
      cache[port] = found
    end
    return found
  end
  for _, node in ipairs(nodes) do
    if node.kind == "nat" then face(node) end
  end
  for _, node in ipairs(nodes) do
    if node.stack and node.ports[1] then
      local routes = {}
      if node.kind == "host" and not node.ports[2] then
        gateways(node, known, routes)
      else
        search(node, "4", known, routes)
        search(node, "6", known, routes)
      end
      install(node, routes)
    end
  end
end

return M
