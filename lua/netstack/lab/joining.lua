--- Ends of links: which segment they are in, which addresses they have.
--
-- A *segment* is who hear each other: the two ends of a link, or all ends of links at switches that are linked. It
-- has `ports`, of them `routers`, `switches`, and what numbering gave it.
-- @module netstack.lab.joining

local check = require "netstack.check"
local prefix = require "netstack.lab.prefix"

local format, ipairs, tostring, type = string.format, ipairs, tostring, type
local bad = check.bad

local M = {}

--- The option `addresses`: a list for either end, nil where there is none. Raises what is wrong with it.
-- @param value
-- @treturn {table,...}
function M.addresses(value)
  if value == nil then return {} end
  if type(value) ~= "table" then bad(3, "link", "option 'addresses': table expected, got " .. type(value)) end
  local lists = {}
  for side = 1, 2 do
    local one = value[side]
    if type(one) == "string" then one = { one } end
    if one and type(one) ~= "table" then
      bad(3, "link", "option 'addresses': an address, or a list of them, for either end expected")
    end
    for _, text in ipairs(one or {}) do
      if type(text) ~= "string" or not prefix.parse(text) then
        bad(3, "link", format("option 'addresses': invalid address '%s'", tostring(text)))
      end
    end
    lists[side] = one or nil
  end
  return lists
end

--- The segment that a link makes or is in; nil where switches would go in circles.
-- @tparam table x a node
-- @tparam table y
-- @treturn table|nil
function M.segment(x, y)
  if x.switch and y.switch then return x.segment ~= y.segment and x.segment or nil end
  if x.switch or y.switch then return (x.switch and x or y).segment end
  return { ports = {}, routers = {}, switches = {}, hosts = 0 }
end

--- Whether the hosts of one network of switches have room in another.
-- @tparam table to
-- @tparam table from
-- @treturn boolean
function M.fits(to, from)
  return not to.first or not from.first or to.hosts + from.hosts <= to.room
end

--- Has two networks of switches be one: the hosts of the second are numbered as those of the first.
-- @tparam table numbering
-- @tparam table to
-- @tparam table from
-- @treturn integer|nil 1
-- @treturn string "full"
function M.merge(numbering, to, from)
  if not to.first and from.first then
    for _, key in ipairs { "first", "length4", "room", "number", "hosts", "used" } do to[key] = from[key] end
  end
  for _, node in ipairs(from.switches) do
    node.segment = to
    to.switches[#to.switches + 1] = node
  end
  for _, port in ipairs(from.ports) do
    port.segment = to
    to.ports[#to.ports + 1] = port
    if port.numbered and from.first ~= to.first then
      local list, err = numbering:addresses(to, port.ipv6)
      if not list then return nil, err end
      port.interface:set_addresses(list)
    end
  end
  for _, port in ipairs(from.routers) do to.routers[#to.routers + 1] = port end
  return 1
end

--- Joins one end of a link to its node.
-- @tparam table numbering
-- @tparam table edge
-- @tparam integer side 1 or 2
-- @tparam table node
-- @tparam device device
-- @tparam table segment
-- @tparam[opt] {string,...} given addresses
-- @treturn table|nil port
-- @treturn string why not
function M.join(numbering, edge, side, node, device, segment, given)
  local port = { node = node, edge = edge, side = side, segment = segment }
  if node.switch then
    local number, err = node.switch:attach(device)
    if not number then return nil, err end
    return port
  end
  local mtu = device:mtu() > 0 and device:mtu() or node.mtu
  port.numbered, port.ipv6 = given == nil, mtu >= 1280
  local list, err = given, nil
  if not list then list, err = numbering:addresses(segment, port.ipv6) end
  if not list then return nil, err end
  port.interface, err = node.stack:attach(device, { addresses = list })
  if not port.interface then return nil, err end
  return port
end

--- Counts a port among those of its node and of its segment.
-- @tparam table node
-- @tparam table port
function M.enlist(node, port)
  node.ports[#node.ports + 1] = port
  if not node.stack then return end
  local segment = port.segment
  segment.ports[#segment.ports + 1] = port
  if node.kind ~= "host" then segment.routers[#segment.routers + 1] = port end
end

return M
