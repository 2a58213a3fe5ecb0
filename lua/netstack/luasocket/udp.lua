--- LuaSocket's UDP objects over those of netstack.
-- @module netstack.luasocket.udp

local errors = require "netstack.luasocket.errors"
local objects = require "netstack.luasocket.object"
local udp = require "netstack.udp"

local translate = errors.translate
local setmetatable = setmetatable

-- Options of LuaSocket's for which a stack has nothing.
local ABSENT = {
  ["dontroute"] = true,
  ["recv-buffer-size"] = true,
  ["reuseport"] = true,
  ["send-buffer-size"] = true,
}

local Udp = {}
local unconnected = objects.class("udp{unconnected}", Udp)
local connected = objects.class("udp{connected}", Udp)

local M = {}

--- A new object, "udp{unconnected}".
-- @tparam stack stack
-- @tparam[opt] string family "inet" or "inet6"
-- @treturn table|nil
-- @treturn string error
function M.new(stack, family)
  local socket, err = udp.new(stack)
  if not socket then return translate(nil, err) end
  return objects.new(unconnected, socket, stack, family, family == nil)
end

function Udp:setsockname(host, port)
  port = objects.port(port, "setsockname")
  local addresses, err = objects.addresses(self, host, "setsockname")
  if not addresses then return nil, err end
  if self.closed then return nil, "closed" end
  local socket = self.socket
  return objects.try_each(addresses, function(address) return socket:setsockname(address, port) end)
end

function Udp:setpeername(host, port)
  if host == "*" then
    if self.closed then return nil, "closed" end
    setmetatable(self, unconnected)
    return translate(self.socket:setpeername("*", 0))
  end
  port = objects.port(port, "setpeername")
  local addresses, err = objects.addresses(self, host, "setpeername")
  if not addresses then return nil, err end
  if self.closed then return nil, "closed" end
  local socket = self.socket
  local ok, why = objects.try_each(addresses, function(address) return socket:setpeername(address, port) end)
  if not ok then return nil, why end
  setmetatable(self, connected)
  return 1
end

function Udp:send(data)
  if self.closed then return nil, "closed" end
  return translate(self.socket:send(data))
end

function Udp:sendto(data, host, port)
  port = objects.port(port, "sendto")
  local addresses, err = objects.addresses(self, host, "sendto")
  if not addresses then return nil, err end
  if self.closed then return nil, "closed" end
  return translate(self.socket:sendto(data, addresses[1], port))
end

-- Without a size a datagram comes whole. LuaSocket does not tell how long one was that it cut, nor does this.
function Udp:receive(size)
  if self.closed then return nil, "closed" end
  local data, err = self.socket:receive(size)
  if data then return data end
  return translate(nil, err)
end

function Udp:receivefrom(size)
  if self.closed then return nil, "closed" end
  local data, host, port = self.socket:receivefrom(size)
  if data then return data, host, port end
  return translate(nil, host)
end

function Udp:dirty()
  return false
end

objects.common(Udp, ABSENT)

return M
