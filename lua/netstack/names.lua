--- Names of hosts: what a stack's `hosts` say. There is no DNS yet, so any other name is "host not found".
-- @module netstack.names

local core = require "netstack.core"

local parse = core.parse_address
local hosts_of = setmetatable({}, { __mode = "k" }) -- stack -> its table of names

local M = {}

--- Gives a stack its table of names.
-- @tparam stack stack
-- @tparam table hosts name -> address, or a list of addresses
function M.set(stack, hosts)
  hosts_of[stack] = hosts
end

--- The address of a host: an address stands for itself.
-- @tparam stack|nil stack
-- @tparam string host
-- @treturn string|nil
-- @treturn string "host not found"
function M.resolve(stack, host)
  if host == "*" or parse(host:match("^[^%%]*")) then return host end
  if host:find(":", 1, true) or host:match("^[%d.]+$") then return host end -- meant as an address: the core complains
  local hosts = stack and hosts_of[stack]
  local address = hosts and hosts[host:lower()]
  if type(address) == "table" then address = address[1] end
  if not address then return nil, "host not found" end
  return address
end

return M
