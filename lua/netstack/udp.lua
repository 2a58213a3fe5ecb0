--- UDP sockets: LuaSocket's methods over a handle of the core.
-- @module netstack.udp

local core = require "netstack.core"
local sockets = require "netstack.socket"

local handle_of = require("netstack.check").handle
local wait_for, deadline_of = sockets.wait_for, sockets.deadline_of
local handle_methods = core.classes.udp
local try_send, try_sendto = handle_methods.try_send, handle_methods.try_sendto
local try_receive, try_receivefrom = handle_methods.try_receive, handle_methods.try_receivefrom

---@class netstack.udp
local Udp = {}
local metatable = sockets.class("udp", Udp)

--- A new socket, bound to nothing.
-- @tparam stack stack
-- @treturn udp|nil
-- @treturn string "closed", "no memory"
local function new(stack)
  local handle, err = core.udp(stack)
  if not handle then return nil, err end
  return sockets.new(metatable, handle, stack)
end

--- Binds to a local address; "*" is every address of both families.
-- @tparam string host
-- @tparam integer port 0: one chosen at random
-- @treturn integer|nil 1
-- @treturn string "address already in use", "address not available", "invalid address"
---@param host string
---@param port integer
---@return integer|nil, string?
function Udp:setsockname(host, port)
  return handle_methods.setsockname(handle_of(self, "setsockname"), host, port)
end

--- Sets the peer: send goes there, and only its datagrams are received. "*" takes it away.
-- @tparam string host address, or a name of `hosts`
-- @tparam integer port
-- @treturn integer|nil 1
-- @treturn string error
---@param host string
---@param port? integer
---@return integer|nil, string?
function Udp:setpeername(host, port)
  local handle = handle_of(self, "setpeername")
  local address, err = sockets.resolve(self, host, 1, "setpeername")
  if not address then return nil, err end
  return handle_methods.setpeername(handle, address, port)
end

--- Sends a datagram to the peer; returns when IP has taken it whole.
-- @tparam string data
-- @treturn integer|nil bytes
-- @treturn string "not connected", "message too long", "port unreachable" (of an earlier one), "timeout", ...
---@param data string
---@return integer|nil, string?
function Udp:send(data)
  local handle = handle_of(self, "send")
  local sent, err = try_send(handle, data)
  if sent or err ~= "wouldblock" then return sent, err end
  local deadline = deadline_of(self)
  repeat
    local ok, why = wait_for(self, "write", deadline, "send")
    if not ok then return nil, why end
    sent, err = try_send(handle, data)
  until sent or err ~= "wouldblock"
  return sent, err
end

--- Sends a datagram to a host; returns when IP has taken it whole.
-- @tparam string data
-- @tparam string host address, or a name of `hosts`
-- @tparam integer port
-- @treturn integer|nil bytes
-- @treturn string "message too long", "no route", "host not found", "wrong ip version", "permission denied" (broadcast)
---@param data string
---@param host string
---@param port integer
---@return integer|nil, string?
function Udp:sendto(data, host, port)
  local handle = handle_of(self, "sendto")
  local address, failure = sockets.resolve(self, host, 2, "sendto")
  if not address then return nil, failure end
  local sent, err = try_sendto(handle, data, address, port)
  if sent or err ~= "wouldblock" then return sent, err end
  local deadline = deadline_of(self)
  repeat
    local ok, why = wait_for(self, "write", deadline, "sendto")
    if not ok then return nil, why end
    sent, err = try_sendto(handle, data, address, port)
  until sent or err ~= "wouldblock"
  return sent, err
end

--- Receives a datagram.
-- @tparam[opt] integer max cut to so many bytes; without it a datagram comes whole
-- @treturn string|nil data
-- @treturn integer|string original length, when it was cut; or the error: "timeout", "port unreachable", "closed"
---@param max? integer
---@return string|nil, (integer|string)?
function Udp:receive(max)
  local handle = handle_of(self, "receive")
  local data, extra = try_receive(handle, max)
  if data or extra ~= "wouldblock" then return data, extra end
  local deadline = deadline_of(self)
  repeat
    local ok, why = wait_for(self, "read", deadline, "receive")
    if not ok then return nil, why end
    data, extra = try_receive(handle, max)
  until data or extra ~= "wouldblock"
  return data, extra
end

--- Receives a datagram and tells whose it is.
-- @tparam[opt] integer max cut to so many bytes
-- @treturn string|nil data
-- @treturn string host, or the error
-- @treturn integer port
-- @treturn integer original length, when it was cut
---@param max? integer
---@return string|nil, string?, integer?, integer?
function Udp:receivefrom(max)
  local handle = handle_of(self, "receivefrom")
  local data, host, port, length = try_receivefrom(handle, max)
  if data or host ~= "wouldblock" then return data, host, port, length end
  local deadline = deadline_of(self)
  repeat
    local ok, why = wait_for(self, "read", deadline, "receivefrom")
    if not ok then return nil, why end
    data, host, port, length = try_receivefrom(handle, max)
  until data or host ~= "wouldblock"
  return data, host, port, length
end

--- Closes the socket. What IP has taken is still sent.
-- @treturn integer 1
---@return integer
function Udp:close()
  return handle_methods.close(handle_of(self, "close"))
end

sockets.delegate(Udp, handle_methods, "getsockname", "getpeername", "setoption", "getoption")

return { new = new, metatable = metatable }
