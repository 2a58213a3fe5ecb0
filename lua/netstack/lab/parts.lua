--- Partitions: which packets no longer get from one part of a lab to another.
--
-- Hosts of different parts do not hear each other, whatever lies between them: what goes to an address of another part
-- is dropped as it leaves a host, what comes from one as it is about to arrive. A link that joins two parts carries
-- nothing.
-- @module netstack.lab.parts

local core = require "netstack.core"

local ipairs = ipairs

local set_rule, bar, unbar = core.classes.link.set_rule, core.classes.link.bar, core.classes.link.unbar

local M = {}

local function addresses(nodes)
  local list = {}
  for _, node in ipairs(nodes) do
    for _, port in ipairs(node.ports) do
      for _, text in ipairs(port.interface and port.interface:addresses() or {}) do
        list[#list + 1] = text:match("^[^/%%]+")
      end
    end
  end
  return core.filter(list)
end

--- Lets nothing get from one group to the other.
-- @tparam {table,...} from nodes
-- @tparam {table,...} to nodes
function M.part(from, to)
  local sources, destinations = addresses(from), addresses(to)
  local there = {}
  for _, node in ipairs(to) do
    there[node] = true
    for _, port in ipairs(node.ports) do bar(port.edge.link, 3 - port.side, sources, true) end
  end
  for _, node in ipairs(from) do
    for _, port in ipairs(node.ports) do
      bar(port.edge.link, port.side, destinations, false)
      if there[port.edge.ports[3 - port.side].node] then set_rule(port.edge.link, port.side, "cut", true) end
    end
  end
end

--- Lets everything through again.
-- @tparam {table,...} edges
function M.heal(edges)
  for _, edge in ipairs(edges) do
    for side = 1, 2 do
      unbar(edge.link, side)
      set_rule(edge.link, side, "cut", false)
    end
  end
end

return M
