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

--- All addresses of a host, in the order in which its stack knows them.
-- @tparam stack|nil stack
-- @tparam string host an address, which stands for itself, or a name
-- @treturn {string,...}|nil
-- @treturn string "host not found"
function M.all(stack, host)
  if parse(host:match("^[^%%]*")) then return { host } end
  local hosts = stack and hosts_of[stack]
  local known = hosts and hosts[host:lower()]
  if type(known) == "string" then return { known } end
  if not known or #known == 0 then return nil, "host not found" end
  local copy = {}
  for i, address in ipairs(known) do copy[i] = address end
  return copy
end

--- The names of an address, in alphabetical order.
-- @tparam stack|nil stack
-- @tparam string address
-- @treturn {string,...} empty: it has none
function M.of(stack, address)
  local canonical, found = parse(address), {}
  for name in pairs(stack and hosts_of[stack] or {}) do
    for _, known in ipairs(M.all(stack, name)) do
      if canonical and parse(known) == canonical then
        found[#found + 1] = name
        break
      end
    end
  end
  table.sort(found)
  return found
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
