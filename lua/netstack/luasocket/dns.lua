--- LuaSocket's `dns` over what a stack knows of names.
-- @module netstack.luasocket.dns

local check = require "netstack.check"
local names = require "netstack.names"

local error, ipairs, tostring, type = error, ipairs, tostring, type

local NOT_FOUND = "host not found"
-- What getnameinfo calls the ports that LuaSocket's own modules ask for; others are their number.
local SERVICES = { ["21"] = "ftp", ["25"] = "smtp", ["80"] = "http", ["443"] = "https" }

local M = {}

local function check_name(name, method)
  if type(name) ~= "string" then check.bad(1, method, "string expected, got " .. type(name), 5) end
end

--- The family of an address.
-- @tparam string address
-- @treturn string "inet" or "inet6"
function M.family(address)
  return address:find(":", 1, true) and "inet6" or "inet"
end

--- The `dns` table of a stack.
-- @tparam stack stack
-- @treturn table
function M.new(stack)
  local function addresses_of(name, method)
    check_name(name, method)
    if name == "*" then return nil end
    return names.all(stack, name)
  end

  -- LuaSocket's "resolved" table about a host.
  local function resolved(name, addresses)
    local found = names.of(stack, addresses[1])
    return { name = found[1] or name, alias = {}, ip = addresses }
  end

  return {
    --- The first address of a host, and a table of all: `{name=, alias={}, ip={...}}`.
    toip = function(name)
      local addresses = addresses_of(name, "toip")
      if not addresses then return nil, NOT_FOUND end
      local about = resolved(name, addresses)
      about.name = name
      return addresses[1], about
    end,

    --- The name of an address, and a table as `toip` gives it.
    tohostname = function(address)
      local addresses = addresses_of(address, "tohostname")
      if not addresses then return nil, NOT_FOUND end
      local found = names.of(stack, addresses[1])
      if not found[1] then return nil, NOT_FOUND end
      return found[1], resolved(found[1], addresses)
    end,

    --- The stack's name.
    gethostname = function() return stack:name() end,

    --- A list of `{family=, addr=}`.
    getaddrinfo = function(name)
      local addresses = addresses_of(name, "getaddrinfo")
      if not addresses then return nil, NOT_FOUND end
      local list = {}
      for i, address in ipairs(addresses) do list[i] = { family = M.family(address), addr = address } end
      return list
    end,

    --- A list of names, one for each address of the host, and the name of the service, when one is given.
    getnameinfo = function(host, service)
      if host == nil and service == nil then error("host and serv cannot be both nil", 2) end
      local list = {}
      if host ~= nil then
        local addresses = addresses_of(host, "getnameinfo")
        if not addresses then return nil, NOT_FOUND end
        for i, address in ipairs(addresses) do list[i] = names.of(stack, address)[1] or address end
      end
      if service == nil then return list end
      return list, SERVICES[tostring(service)] or tostring(service)
    end,
  }
end

return M
