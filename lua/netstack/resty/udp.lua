--- UDP sockets of stacks with the methods, results and error strings of nginx's cosockets.
-- @module netstack.resty.udp

local check = require "netstack.check"
local core = require "netstack.core"
local errors = require "netstack.resty.errors"
local common = require "netstack.resty.socket"
local owners = require "netstack.resty.owner"
local sockets = require "netstack.socket"
local udp = require "netstack.udp"
local worker = require "netstack.resty.driver"

local min, setmetatable, tonumber, type = math.min, setmetatable, tonumber, type
local text = errors.text

-- No more of a datagram is received, as there.
local LARGEST = 8192

local M = {}

---@class netstack.resty.udp
local Udp = {}
local metatable = {
  __index = Udp,
  __name = "netstack.resty.udp",
  __tostring = function(self) return self.socket and tostring(self.socket) or "udp (closed)" end,
}

--- A new socket, without a peer.
function M.new(stack)
  return setmetatable({
    stack = sockets.weak(stack),
    socket = false, -- there is one once there is a peer
    host = false, -- to bind to
    timeout = common.seconds(nil),
    reading = false, writing = false, -- the coroutine that waits
    owner = false,
  }, metatable)
end

local function close(self)
  owners.release(self)
  if self.socket then self.socket:close() end
  self.socket = false
end

--- Sets the address that datagrams come from.
-- @tparam string host
-- @treturn integer|nil 1
-- @treturn string "bad address"
---@param host string
---@return integer|nil, string?
function Udp:bind(host)
  common.check_self(self, metatable, "bind")
  if type(host) ~= "string" then check.bad(1, "bind", "string expected, got " .. type(host)) end
  if not core.parse_address(host:match("^[^%%]*")) then return nil, "bad address" end
  self.host = host
  return 1
end

--- Sets the peer: only its datagrams are received.
-- @tparam string host address, or a name that the stack knows
-- @tparam integer port
-- @treturn integer|nil 1
-- @treturn string error
---@param host string
---@param port integer
---@return integer|nil, string?
function Udp:setpeername(host, port)
  common.check_self(self, metatable, "setpeername")
  if type(host) ~= "string" then check.bad(1, "setpeername", "string expected, got " .. type(host)) end
  if common.is_unix(host) then return nil, "not supported" end
  local number, err = common.port(port)
  if not number then return nil, err end
  if common.waits(self.reading) or common.waits(self.writing) then return nil, "socket busy" end
  close(self)
  local stack = self.stack.stack
  if not stack then return nil, "closed" end
  local ok
  ok, err = worker.start(stack)
  if not ok then return nil, err end
  if not worker.can_wait() then return nil, "not supported" end
  local socket
  socket, err = udp.new(stack)
  if not socket then return nil, text(err) end
  self.socket = socket
  owners.adopt(self)
  if self.host then ok, err = socket:setsockname(self.host, 0) end
  if ok then ok, err = socket:setpeername(host, number) end
  if ok then return 1 end
  close(self)
  return nil, text(err, host)
end

-- Calls a method that may wait.
local function call(self, side, method, argument)
  local socket = self.socket
  if not socket then return nil, "closed" end
  if common.waits(self[side]) then return nil, "socket busy" end
  socket:settimeout(self.timeout)
  self[side] = coroutine.running()
  local data, err = socket[method](socket, argument)
  self[side] = false
  if data then return data end
  return nil, text(err)
end

--- Sends a datagram.
-- @tparam string|number|boolean|nil|table data; of tables their elements, nested ones too
-- @treturn integer|nil 1
-- @treturn string "closed", "message too long", "connection refused" (nobody took an earlier one), "timeout"
---@param data string|number|boolean|nil|table
---@return integer|nil, string?
function Udp:send(data)
  common.check_self(self, metatable, "send")
  local sent, err = call(self, "writing", "send", common.text(data))
  if not sent then return nil, err end
  return 1
end

--- Receives a datagram.
-- @tparam[opt=8192] integer size it is cut to so many bytes, 8192 at most
-- @treturn string|nil data
-- @treturn string "timeout", "closed", "connection refused" (nobody took what was sent)
---@param size? integer
---@return string|nil, string?
function Udp:receive(size)
  common.check_self(self, metatable, "receive")
  local max = size == nil and LARGEST or tonumber(size)
  if not max or max < 1 then check.bad(1, "receive", "bad size argument") end
  return call(self, "reading", "receive", min(max - max % 1, LARGEST))
end

--- Sets how long `receive` and `send` may take.
-- @tparam number time milliseconds; 0: the default, 60 s
---@param time number
function Udp:settimeout(time)
  common.check_self(self, metatable, "settimeout")
  self.timeout = common.seconds(time, 1, "settimeout")
end

-- Its request has ended.
Udp.abandon = close

--- Closes the socket.
-- @treturn integer|nil 1
-- @treturn string "closed": it was
---@return integer|nil, string?
function Udp:close()
  common.check_self(self, metatable, "close")
  if not self.socket then return nil, "closed" end
  if common.waits(self.reading) or common.waits(self.writing) then return nil, "socket busy" end
  close(self)
  return 1
end

return M
