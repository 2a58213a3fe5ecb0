--- What LuaSocket's TCP and UDP objects have in common: an object of LuaSocket's shape around a socket of netstack, its
-- class, which changes as the socket does ("tcp{master}" becomes "tcp{client}"), and its number.
--
-- Numbers (`getfd`) are no descriptors of the system. They start where those of no process are, so that one given to
-- the system by mistake is refused. An object that may be of either family has one from its first address on, as in
-- LuaSocket, which opens a descriptor then.
-- @module netstack.luasocket.object

local check = require "netstack.check"
local dns = require "netstack.luasocket.dns"
local errors = require "netstack.luasocket.errors"
local names = require "netstack.names"
local sockets = require "netstack.socket"

local translate = errors.translate
local error, format, getmetatable, ipairs, setmetatable, tonumber, type = error, string.format, getmetatable,
  ipairs, setmetatable, tonumber, type

local WRONG_FAMILY = errors.text["wrong ip version"]

local M = {}

--- What `getfd` of a closed socket gives, and of one that has no address yet.
M.INVALID = -1

local next_number = 0x40000000
local number_of = setmetatable({}, { __mode = "k" }) -- socket of netstack -> its number
local by_number = setmetatable({}, { __mode = "v" })
-- Sockets whose object gave them up by setfd(-1) and that nobody took over yet: nothing else holds them.
local given_up = {} -- luacheck: ignore 241 (written only: it holds them)

-- The number of a socket, which it gets when it is first asked for.
local function number_for(socket)
  local number = number_of[socket]
  if not number then
    number = next_number
    next_number = number + 1
    number_of[socket], by_number[number] = number, socket
  end
  return number
end

--- The socket with a number.
-- @tparam number number
-- @treturn socket|nil
function M.numbered(number)
  return by_number[number]
end

--- Makes an object.
-- @tparam table metatable of the class that it begins as
-- @tparam socket socket of netstack
-- @tparam stack|table stack or the weak reference to it
-- @tparam string|nil family "inet" or "inet6" when it has only that
-- @tparam boolean bare whether it has no address yet and may still become of either family
-- @treturn table
function M.new(metatable, socket, stack, family, bare)
  return setmetatable({
    socket = socket,
    stack = sockets.weak(stack),
    family = family,
    closed = false,
    bare = bare,
    last = nil, -- what getstats told when a TCP object was closed
  }, metatable)
end

--- The addresses that a host stands for, of the object's family; "*" is every address of it. The object is to have one.
-- @treturn {string,...}|nil
-- @treturn string error
function M.addresses(self, host, method)
  if type(host) ~= "string" then
    check.bad(1, method, "string expected, got " .. (host == nil and "no value" or type(host)), 4)
  end
  local family = self.family
  self.bare = false
  if host == "*" then return { family == "inet" and "0.0.0.0" or family == "inet6" and "::" or "*" } end
  local all = names.all(self.stack.stack, host)
  if not all then return nil, "host not found" end
  if not family then return all end
  local fitting = {}
  for _, address in ipairs(all) do
    if dns.family(address) == family then fitting[#fitting + 1] = address end
  end
  if not fitting[1] then return nil, WRONG_FAMILY end
  return fitting
end

--- A port, which LuaSocket takes as text, too (URLs have it so).
function M.port(port, method)
  if type(port) == "number" then return port end
  local number = type(port) == "string" and tonumber(port)
  if number then return number end
  check.bad(2, method, "number expected, got " .. (port == nil and "no value" or type(port)), 4)
end

--- Calls `attempt(address)` for one address after the other until one will do.
-- @tparam {string,...} addresses
-- @tparam function attempt
-- @return what the last attempt returned, in LuaSocket's words
function M.try_each(addresses, attempt)
  local ok, err
  for i = 1, #addresses do
    ok, err = attempt(addresses[i])
    if ok or err == "timeout" or err == "closed" then break end
  end
  return translate(ok, err)
end

--- Makes a class: the methods of one kind, seen under one name.
-- @tparam string name as "tcp{client}"
-- @tparam table methods
-- @treturn table metatable
function M.class(name, methods)
  local index = setmetatable({ class = name }, { __index = methods })
  return {
    __index = index,
    __name = name,
    -- Unlike a netstack socket's, this never changes while the class does not: programs use it to tell objects apart.
    __tostring = function(self) return format("%s: 0x%x", name, number_for(self.socket)) end,
    __close = function(self) self:close() end,
    luasocket = true,
  }
end

--- The socket of netstack that an object of any class holds; nil for anything else.
function M.socket_of(object)
  local metatable = getmetatable(object)
  return type(metatable) == "table" and metatable.luasocket and object.socket or nil
end

--- Gives a table of methods those that both kinds have.
-- @tparam table methods
-- @tparam {[string]=boolean,...} absent options that LuaSocket has and a stack does not
function M.common(methods, absent)
  function methods:close()
    self.closed = true
    return self.socket:close()
  end

  function methods:settimeout(seconds, mode)
    if type(seconds) == "string" then seconds = tonumber(seconds) or seconds end
    if type(mode) == "string" then mode = mode:sub(1, 1) end -- LuaSocket, too, takes "total" for "t"
    if mode ~= nil and mode ~= "b" and mode ~= "t" and mode ~= "r" then
      error("bad argument #2 to 'settimeout' (invalid timeout mode)", 2)
    elseif seconds ~= nil and type(seconds) ~= "number" then
      error("bad argument #1 to 'settimeout' (number expected, got " .. type(seconds) .. ")", 2)
    end
    return self.socket:settimeout(seconds, mode)
  end

  function methods:gettimeout()
    local block, total = self.socket:gettimeout()
    return block or -1, total or -1
  end

  --- A number for those who want one; `-1` once the socket is closed.
  function methods:getfd()
    if self.closed or self.bare then return M.INVALID end
    return number_for(self.socket)
  end

  --- Takes over the socket with another object's number; `-1` gives the own one up without closing it.
  function methods:setfd(number)
    if type(number) ~= "number" then
      error("bad argument #1 to 'setfd' (number expected, got " .. type(number) .. ")", 2)
    elseif number == M.INVALID then
      if not self.closed then given_up[number_for(self.socket)] = self.socket end
      self.closed = true
      return
    end
    local socket = by_number[number]
    if not socket or getmetatable(socket) ~= getmetatable(self.socket) then
      error("bad argument #1 to 'setfd' (no such socket)", 2)
    end
    given_up[number] = nil
    self.socket, self.closed, self.bare, self.last = socket, false, false, nil
  end

  function methods:getfamily()
    if self.family then return self.family == "inet6" and "inet6" or "inet4" end
    local _, _, family = self.socket:getsockname()
    return family == "inet6" and "inet6" or "inet4"
  end

  function methods:getsockname()
    if self.closed then return nil, "closed" end
    local host, port, family = self.socket:getsockname()
    if host then return host, port, family end
    if port ~= "not connected" then return translate(nil, port) end
    family = self.family
    return family == "inet" and "0.0.0.0" or family == "inet6" and "::" or "*", 0, family or "unspec"
  end

  function methods:getpeername()
    if self.closed then return nil, "closed" end
    return translate(self.socket:getpeername())
  end

  local function option(name, method)
    if type(name) ~= "string" then
      error(format("bad argument #1 to '%s' (string expected, got %s)", method, type(name)), 3)
    end
  end

  function methods:setoption(name, value)
    option(name, "setoption")
    if self.closed or absent[name] then return nil, "setsockopt failed" end
    local ok, err = self.socket:setoption(name, value)
    if not ok then return nil, err == "closed" and "setsockopt failed" or errors.text[err] or err end
    return ok
  end

  function methods:getoption(name)
    option(name, "getoption")
    -- The call that met an error has told it, and nothing is left for this option.
    if name == "error" then return nil end
    if self.closed or absent[name] then return nil, "getsockopt failed" end
    local value, err = self.socket:getoption(name)
    if value == nil then return nil, err == "closed" and "getsockopt failed" or errors.text[err] or err end
    return value
  end
end

return M
