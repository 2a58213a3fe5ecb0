--- Listeners of stacks for light threads of nginx.
-- @module netstack.resty.listen

local common = require "netstack.resty.socket"
local errors = require "netstack.resty.errors"
local sockets = require "netstack.socket"
local tcp = require "netstack.resty.tcp"
local worker = require "netstack.resty.driver"

local M = {}

---@class netstack.resty.listener
local Listener = {}
local metatable = {
  __index = Listener,
  __name = "netstack.resty.listener",
  __tostring = function(self) return tostring(self.socket) end,
}

--- A listener.
function M.new(stack, host, port, backlog)
  local ok, err = worker.start(stack)
  if not ok then return nil, err end
  if worker.exiting() then return nil, "closed" end
  local socket
  socket, err = stack:bind(host, port, backlog)
  if not socket then return nil, errors.text(err) end
  local listener = setmetatable({ stack = sockets.weak(stack), socket = socket }, metatable)
  worker.at_exit(listener)
  return listener
end

--- Waits for a connection, for ever unless a timeout is set.
-- @treturn netstack.resty.tcp|nil
-- @treturn string "closed": the listener, its stack, or the worker exits; "timeout"
---@return netstack.resty.tcp|nil, string?
function Listener:accept()
  common.check_self(self, metatable, "accept")
  local socket, err = self.socket:accept()
  if not socket then return nil, errors.text(err) end
  return tcp.wrap(self.stack, socket)
end

--- Sets how long `accept` may take.
---@param time? number milliseconds; nil or 0: for ever
function Listener:settimeout(time)
  common.check_self(self, metatable, "settimeout")
  self.socket:settimeout(time and time ~= 0 and common.seconds(time, 1, "settimeout") or nil)
end

--- The local address.
---@return string|nil host
---@return integer|string port, or the error
function Listener:getsockname()
  common.check_self(self, metatable, "getsockname")
  return self.socket:getsockname()
end

--- Closes it; connections that nobody has accepted are reset.
-- @treturn integer 1; harmless twice
---@return integer
function Listener:close()
  common.check_self(self, metatable, "close")
  return self.socket:close()
end

return M
