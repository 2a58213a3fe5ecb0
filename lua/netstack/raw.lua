--- Raw sockets: whole IP packets out and in.
-- @module netstack.raw

local core = require "netstack.core"
local sockets = require "netstack.socket"

local handle_of = require("netstack.check").handle
local wait_for, deadline_of = sockets.wait_for, sockets.deadline_of
local handle_methods = core.classes.raw
local try_send, try_receive = handle_methods.try_send, handle_methods.try_receive

---@class netstack.raw
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
  local sent, err = try_send(handle, packet)
  if sent or err ~= "wouldblock" then return sent, err end
  local deadline = deadline_of(self)
  repeat
    local ok, why = wait_for(self, "write", deadline, "send")
    if not ok then return nil, why end
    sent, err = try_send(handle, packet)
  until sent or err ~= "wouldblock"
  return sent, err
end

--- Receives a copy of a matching packet, with its IP header, put together when it came in fragments.
-- @tparam[opt] integer max cut to so many bytes
-- @treturn string|nil packet
-- @treturn integer|string original length, when it was cut; or the error
---@param max? integer
---@return string|nil, (integer|string)?
function Raw:receive(max)
  local handle = handle_of(self, "receive")
  local packet, extra = try_receive(handle, max)
  if packet or extra ~= "wouldblock" then return packet, extra end
  local deadline = deadline_of(self)
  repeat
    local ok, why = wait_for(self, "read", deadline, "receive")
    if not ok then return nil, why end
    packet, extra = try_receive(handle, max)
  until packet or extra ~= "wouldblock"
  return packet, extra
end

--- @treturn integer 1
---@return integer
function Raw:close()
  return handle_methods.close(handle_of(self, "close"))
end

return { new = new, metatable = metatable }
