--- What TCP, UDP and raw sockets have in common in Lua: a table over a handle of the core, its timeouts, and the one
-- way in which a method waits.
-- @module netstack.socket

local check = require "netstack.check"
local core = require "netstack.core"
local names = require "netstack.names"
local scheduler = require "netstack.scheduler"

local wait, deadline = scheduler.wait, scheduler.deadline
local error, getmetatable, setmetatable, tostring, type = error, getmetatable, setmetatable, tostring, type

local M = {
  made = false, -- called with each new socket
}

--- The ticket that is answered when the socket can be read or written.
-- @tparam table self
-- @tparam string side "read" or "write"
-- @treturn userdata|nil
-- @treturn string "closed", "no memory"
local function ticket_of(self, side)
  local ticket = self[side]
  if ticket then return ticket end
  local err
  ticket, err = core.wait_ticket(self.handle, side)
  if not ticket then return nil, err end
  self[side] = ticket
  return ticket
end
M.ticket_of = ticket_of

--- Waits until the socket can be read or written; the caller then tries again.
-- @tparam table self
-- @tparam string side "read" or "write"
-- @tparam number|nil limit the absolute deadline
-- @tparam string what for reports
-- @treturn integer|nil 1
-- @treturn string "timeout", ...
function M.wait_for(self, side, limit, what)
  local ticket, why = ticket_of(self, side)
  if not ticket then return nil, why end
  local ok, err = wait(ticket, limit, what)
  if ok and self.aborted then return nil, "connection aborted" end
  return ok, err
end

--- Gives what the core answered, once it is an answer: as long as it is "wouldblock", waits and asks again.
-- @tparam table self
-- @tparam string side "read" or "write"
-- @tparam string what for reports
-- @tparam ?number limit the absolute deadline; false: not known yet
-- @tparam function try the core's method
-- @param a its arguments
-- @param b
-- @param c
-- @param ... what it said last
-- @return what it says at last
local function answer(self, side, what, limit, try, a, b, c, ...)
  local first, err = ...
  if first or err ~= "wouldblock" then return ... end
  if limit == false then limit = M.deadline_of(self) end
  local ok, why = M.wait_for(self, side, limit, what)
  if not ok then return nil, why end
  return answer(self, side, what, limit, try, a, b, c, try(self.handle, a, b, c))
end
M.answer = answer

--- When a wait that begins now must end; nil: never.
-- @tparam table self
-- @tparam ?number ends when the whole call must end, as told before; nil: the call begins now
-- @treturn ?number
-- @treturn ?number ends
function M.deadline_of(self, ends)
  local block, total = self.block, self.total
  if not block and not total then return nil end
  if total and not ends then ends = deadline(total) end
  local limit = block and deadline(block)
  if not limit or (ends and ends < limit) then limit = ends end
  return limit, ends
end

---@class netstack.socket
local Socket = {}

--- Sets how long calls may wait.
---@param seconds? number nil or negative: for ever; 0: not at all
---@param mode? "b"|"t" each wait of a call (the default), or the call as a whole
---@return integer # 1
function Socket:settimeout(seconds, mode)
  check.handle(self, "settimeout")
  if seconds ~= nil and (type(seconds) ~= "number" or seconds ~= seconds) then
    error("bad argument #1 to 'settimeout' (number expected, got " .. type(seconds) .. ")", 2)
  end
  if seconds and seconds < 0 then seconds = nil end
  if mode == nil or mode == "b" then
    self.block = seconds
  elseif mode == "t" or mode == "r" then
    self.total = seconds
  else
    error("bad argument #2 to 'settimeout' (invalid timeout mode)", 2)
  end
  return 1
end

--- The timeouts.
---@return number|nil # of each wait
---@return number|nil # of a whole call
function Socket:gettimeout()
  check.handle(self, "gettimeout")
  return self.block, self.total
end

--- Makes a socket class from its methods.
-- @tparam string name
-- @tparam table methods
-- @treturn table metatable
function M.class(name, methods)
  methods.settimeout = Socket.settimeout
  methods.gettimeout = Socket.gettimeout
  return {
    __index = methods,
    __name = "netstack." .. name,
    __tostring = function(self) return tostring(self.handle) end,
    __close = function(self) self:close() end,
  }
end

--- A socket over a handle. The stack is held weakly: a socket does not keep it alive.
function M.new(metatable, handle, stack)
  local socket = setmetatable({
    handle = handle,
    stack = stack and M.weak(stack) or nil,
    block = nil, -- timeout of each wait
    total = nil, -- timeout of the whole call
    read = nil, -- ticket, made at the first wait
    write = nil,
  }, metatable)
  local made = M.made
  if made then made(socket) end
  return socket
end

local weak_values = { __mode = "v" }
local references = setmetatable({}, { __mode = "k" })

--- The one weak reference to a stack.
function M.weak(stack)
  if getmetatable(stack) == weak_values then return stack end
  local reference = references[stack]
  if not reference then
    reference = setmetatable({ stack = stack }, weak_values)
    references[stack] = reference
  end
  return reference
end

--- The address of a host that a user named.
-- @treturn string|nil address
-- @treturn string "host not found"
function M.resolve(self, host, position, method)
  if type(host) ~= "string" then
    check.bad(position, method, "string expected, got " .. (host == nil and "no value" or type(host)))
  end
  local reference = self.stack
  return names.resolve(reference and reference.stack, host)
end

return M
