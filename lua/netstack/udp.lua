--- UDP sockets: LuaSocket's methods over a handle of the core.
-- @module netstack.udp

local core = require "netstack.core"
local sockets = require "netstack.socket"

local handle_of = require("netstack.check").handle
local answer = sockets.answer
local handle_methods = core.classes.udp
local try_send, try_sendto = handle_methods.try_send, handle_methods.try_sendto
local try_receive, try_receivefrom = handle_methods.try_receive, handle_methods.try_receivefrom

---@class netstack.udp: netstack.socket
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
-- @treturn string "not connected", "message too long", "port unreachable" (reported about an earlier one), "timeout"
---@param data string
---@return integer|nil, string?
function Udp:send(data)
  local handle = handle_of(self, "send")
  return answer(self, "write", "send", false, try_send, data, nil, nil, try_send(handle, data))
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
  local address, err = sockets.resolve(self, host, 2, "sendto")
  if not address then return nil, err end
  return answer(self, "write", "sendto", false, try_sendto, data, address, port,
    try_sendto(handle, data, address, port))
end

--- Receives a datagram.
-- @tparam[opt] integer max cut to so many bytes; without it a datagram comes whole
-- @treturn string|nil data
-- @treturn integer|string original length, when it was cut; or the error: "timeout", "port unreachable", "closed"
---@param max? integer
---@return string|nil, (integer|string)?
function Udp:receive(max)
  local handle = handle_of(self, "receive")
  return answer(self, "read", "receive", false, try_receive, max, nil, nil, try_receive(handle, max))
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
  return answer(self, "read", "receivefrom", false, try_receivefrom, max, nil, nil, try_receivefrom(handle, max))
end

--- Closes the socket. What IP has taken is still sent.
-- @treturn integer 1
---@return integer
function Udp:close()
  return handle_methods.close(handle_of(self, "close"))
end

--- The local address: "*" and "unspec" of a socket bound to both families.
---@return string|nil # host
---@return integer|string # port, or the error: "not connected" (it is not even bound), "closed"
---@return "inet"|"inet6"|"unspec"|nil # family
function Udp:getsockname()
  return handle_methods.getsockname(handle_of(self, "getsockname"))
end

--- The peer's address.
---@return string|nil # host
---@return integer|string # port, or the error: "not connected", "closed"
---@return "inet"|"inet6"|nil # family
function Udp:getpeername()
  return handle_methods.getpeername(handle_of(self, "getpeername"))
end

--- Sets an option; an unknown one raises.
---@param option string `broadcast reuseaddr dont-fragment ipv6-v6only ip-multicast-loop ipv6-multicast-loop` (boolean),
-- `ip-ttl ipv6-unicast-hops ip-tos ip-multicast-ttl ipv6-multicast-hops` (integer), `ip-add-membership
-- ip-drop-membership ipv6-add-membership ipv6-drop-membership` (a table: `multiaddr`, the group, and `interface`, a
-- name, an address or a number from 1; by route without it), `ip-multicast-if` (such an interface)
---@param value boolean|integer|string|{multiaddr: string, interface: string|integer|nil}
---@return integer|nil # 1
---@return string? # "closed"; of memberships: "invalid address", "no route", "address already in use" (it is a member),
-- "address not available" (it is none), "full", "wrong ip version"
function Udp:setoption(option, value)
  return handle_methods.setoption(handle_of(self, "setoption"), option, value)
end

--- The value of an option; an unknown one raises.
---@param option string as of `setoption`
---@return boolean|integer|string|nil
---@return string? # "closed"
function Udp:getoption(option)
  return handle_methods.getoption(handle_of(self, "getoption"), option)
end

return { new = new, metatable = metatable }
