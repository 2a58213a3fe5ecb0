--- Names in a lab: what may be one, and what each stands for on every stack, without a packet.
-- @module netstack.lab.names

local check = require "netstack.check"
local core = require "netstack.core"
local names = require "netstack.names"

local format, ipairs, pairs, setmetatable, type = string.format, ipairs, pairs, setmetatable, type
local bad = check.bad

local M = {}

--- Raises what is wrong with a new node's name.
-- @tparam netstack.lab lab
-- @param name
-- @tparam string kind the function whose first argument it is
function M.check(lab, name, kind)
  if type(name) ~= "string" then bad(1, kind, "string expected, got " .. type(name)) end
  if not name:match("^[%w_][%w_.-]*$") or #name > 63 then
    bad(1, kind, "1 to 63 letters, digits or any of _ . - expected")
  end
  if core.parse_address(name) or name:match("^[%d.]+$") then bad(1, kind, "a name expected, got an address") end
  if lab.by_name[name:lower()] then bad(1, kind, format("there is a '%s' already", name)) end
end

-- What others call a node, as seen by one of them: IPv4 first, and what is near before what is far.
local function addresses_for(node, asker)
  local near = {}
  for _, port in ipairs(asker.ports) do near[port.segment] = true end
  local lists = { {}, {}, {}, {} }
  for _, port in ipairs(node.ports) do
    local far = not near[port.segment] and not (node.kind == "nat" and port.outside)
    for _, text in ipairs(port.interface:addresses() or {}) do
      local address = text:match("^[^/]+")
      local list = lists[(address:find(":", 1, true) and 3 or 1) + (far and 1 or 0)]
      if not address:lower():find("^fe[89ab]") then list[#list + 1] = address end
    end
  end
  local all = {}
  for _, list in ipairs(lists) do
    for _, address in ipairs(list) do all[#all + 1] = address end
  end
  return all[1] and all
end

--- Has a stack know all names of its lab, which it keeps alive.
-- @tparam netstack.lab lab
-- @tparam table node
-- @tparam[opt] table hosts what it knows besides, and first
-- @tparam[opt] {string,...} dns servers it asks
function M.tell(lab, node, hosts, dns)
  local own, weak = {}, setmetatable({ lab = lab, node = node }, { __mode = "v" })
  for name, address in pairs(hosts or {}) do own[name:lower()] = address end
  names.set(node.stack, setmetatable(own, { __index = function(_, name)
    local here = weak.lab
    local found = here and here.by_name[name]
    if not found or not found.stack then return nil end
    here:update()
    return addresses_for(found, weak.node)
  end }), dns)
end

--- Whose address this is.
-- @tparam netstack.lab lab
-- @tparam string address its bytes
-- @treturn table|nil node
function M.owner(lab, address)
  for _, node in ipairs(lab.nodes) do
    for _, port in ipairs(node.stack and node.ports or {}) do
      for _, text in ipairs(port.interface:addresses() or {}) do
        if core.parse_address(text:match "^[^/%%]+") == address then return node end
      end
    end
  end
end

return M
