--- Switches: Ethernet bridges that learn, to join the devices of stacks, links, TAP interfaces and other switches.
--
-- A frame goes to the port behind which its station was last heard; one for a station that is not known, for a group or
-- for everybody goes to all ports but the one it came from. There is no spanning tree: in a loop of switches frames go
-- round until they have passed 255 of them, or a queue drops them. Frames pass while the stacks are driven, by
-- `netstack.run` or a call that waits, not by `stack:poll` alone.
--
-- Where one port's device computes checksums and another's does not, the switch puts them in, or looks at them for the
-- last time. It cannot do that for fragments: ports whose stacks send datagrams longer than their mtu need the same
-- `checksum`.
-- @module netstack.switch

local check = require "netstack.check"
local core = require "netstack.core"

local type = type

local M = {}

local rules = {
  name = function(value)
    if type(value) ~= "string" then return "string expected, got " .. type(value) end
    if #value == 0 or #value > 63 then return "1 to 63 characters expected" end
  end,
  ageing = function(value)
    if type(value) ~= "number" then return "number expected, got " .. type(value) end
    if not (value >= 0 and value <= 1e6) then return "out of range: 0 to 1000000 seconds" end
  end,
  table_size = check.integer(1, 2 ^ 24),
}

--- A switch without ports; `switch:attach(device)` makes them.
-- @tparam[opt] table options `name` ("switchN"), `ageing` (300: seconds after which a station that was not heard again
-- is forgotten; 0: at once, so that every frame goes to all ports), `table_size` (8192: stations; with more, the one
-- that was not heard for longest is forgotten)
-- @treturn switch|nil
-- @treturn string "no memory"
---@param options? { name?: string, ageing?: number, table_size?: integer }
---@return netstack.switch|nil, string?
function M.new(options)
  options = check.options(options, rules, 1, "new")
  return core.switch(options.name, options.ageing or 300, options.table_size or 8192)
end

return M
