--- Names of hosts: what a stack's `hosts` say, and then its `dns` servers.
-- @module netstack.names

local core = require "netstack.core"
local dns = require "netstack.dns"

local parse = core.parse_address
local hosts_of = setmetatable({}, { __mode = "k" }) -- stack -> its table of names
local servers_of = setmetatable({}, { __mode = "k" }) -- stack -> the addresses of its DNS servers
local ALWAYS = { localhost = { "127.0.0.1", "::1" } } -- never asked for (RFC 6761 6.3)

local M = {}

--- Gives a stack its table of names and its servers.
-- @tparam stack stack
-- @tparam[opt] table hosts name -> address, or a list of addresses
-- @tparam[opt] {string,...} servers addresses
function M.set(stack, hosts, servers)
  hosts_of[stack] = hosts
  servers_of[stack] = servers
end

-- The address or the list of them that need not be asked for.
local function known_as(stack, name)
  local hosts = stack and hosts_of[stack]
  name = name:lower()
  return hosts and hosts[name] or ALWAYS[name]
end

-- What the servers say of a name that is in no table.
local function ask(stack, name)
  local servers = stack and (servers_of[stack] or core.learned_dns(stack))
  if not servers or not servers[1] then return nil, "host not found" end
  return dns.lookup(stack, servers, name)
end

local function copy_of(list)
  local copy = {}
  for i, item in ipairs(list) do copy[i] = item end
  return copy
end

--- All addresses of a host, in the order in which its stack knows them.
-- @tparam stack|nil stack
-- @tparam string host an address, which stands for itself, or a name
-- @treturn {string,...}|nil
-- @treturn string "host not found"
function M.all(stack, host)
  if parse(host:match("^[^%%]*")) then return { host } end
  local known = known_as(stack, host)
  if type(known) == "string" then return { known } end
  if not known then
    local found, err = ask(stack, host)
    return found and copy_of(found), err
  end
  if #known == 0 then return nil, "host not found" end
  return copy_of(known)
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
  local address = known_as(stack, host)
  if type(address) == "table" then return address[1], not address[1] and "host not found" or nil end
  if address then return address end
  local found, err = ask(stack, host)
  return found and found[1], err
end

return M
