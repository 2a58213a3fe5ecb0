--- Raw sockets: whole IP packets out and in.
-- @module netstack.raw

local core = require "netstack.core"
local sockets = require "netstack.socket"

local handle_of = require("netstack.check").handle
local answer = sockets.answer
local handle_methods = core.classes.raw
local try_send, try_receive = handle_methods.try_send, handle_methods.try_receive

---@class netstack.raw: netstack.socket
local Raw = {}
local metatable = sockets.class("raw", Raw)

--- A new socket for packets of one IP protocol.
-- @tparam stack stack
-- @tparam string family "ipv4" or "ipv6"
-- @tparam integer protocol 0 to 255; IPv6: the first next header
-- @treturn raw|nil
-- @treturn string "closed", "no memory"
local function new(stack, family, protocol)
  local handle, err = core.raw(stack, family, protocol)
  if not handle then return nil, err end
  return sockets.new(metatable, handle, stack)
end

--- Sends a packet with its IP header; a length or checksum of 0 in an IPv4 header is filled in.
-- @tparam string packet
-- @treturn integer|nil bytes
-- @treturn string "no route", "message too long", "wrong ip version" (not a header of this family), "timeout"
---@param packet string
---@return integer|nil, string?
function Raw:send(packet)
  local handle = handle_of(self, "send")
  return answer(self, "write", "send", false, try_send, packet, nil, nil, try_send(handle, packet))
end

--- Receives a copy of a matching packet, with its IP header, put together when it came in fragments.
-- @tparam[opt] integer max cut to so many bytes
-- @treturn string|nil packet
-- @treturn integer|string original length, when it was cut; or the error
---@param max? integer
---@return string|nil, (integer|string)?
function Raw:receive(max)
  local handle = handle_of(self, "receive")
  return answer(self, "read", "receive", false, try_receive, max, nil, nil, try_receive(handle, max))
end

--- Closes the socket.
---@return integer # 1
function Raw:close()
  return handle_methods.close(handle_of(self, "close"))
end

return { new = new, metatable = metatable }
