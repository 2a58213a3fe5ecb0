--- What TCP, UDP and raw sockets have in common in Lua: a table over a handle of the core, its timeouts, and the one
-- way in which a method waits.
-- @module netstack.socket

local check = require "netstack.check"
local core = require "netstack.core"
local names = require "netstack.names"
local scheduler = require "netstack.scheduler"

local wait, deadline, now = scheduler.wait, scheduler.deadline, scheduler.now
local ticket_arm = core.classes.ticket.arm
local error, getmetatable, setmetatable, tostring, type = error, getmetatable, setmetatable, tostring, type

local M = {}

--- Waits until the socket can be read or written; the caller then tries again.
-- @tparam table self
-- @tparam string side "read" or "write"
-- @tparam number|nil absolute deadline
-- @tparam string what for reports
-- @treturn integer|nil 1
-- @treturn string "timeout", ...
function M.wait_for(self, side, limit, what)
  local ticket = self[side]
  local armed = ticket and ticket_arm(ticket)
  if armed == nil then -- none yet, or another task waits with it
    local err
    ticket, err = core.wait_ticket(self.handle, side)
    if not ticket then return nil, err end
    self[side] = ticket
    armed = ticket_arm(ticket)
  end
  if armed then return 1 end
  local ok, err = wait(ticket, limit, what)
  if ok then return 1 end
  ticket:cancel()
  return nil, err
end

--- When a wait that begins now must end; nil: never.
function M.deadline_of(self)
  local block, total = self.block, self.total
  if not block and not total then return nil end
  return deadline(block and (total and total < block and total or block) or total)
end

local function settimeout(self, seconds, mode)
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

local function gettimeout(self)
  check.handle(self, "gettimeout")
  return self.block, self.total
end

--- Makes a socket class from its methods.
-- @tparam string name
-- @tparam table methods
-- @treturn table metatable
function M.class(name, methods)
  --- Sets how long calls may wait: each wait ("b") or the whole call ("t"); nil or negative: for ever.
  methods.settimeout = settimeout
  methods.gettimeout = gettimeout
  return {
    __index = methods,
    __name = "netstack." .. name,
    __tostring = function(self) return tostring(self.handle) end,
    __close = function(self) self:close() end,
  }
end

--- A socket over a handle. The stack is held weakly: a socket does not keep it alive.
function M.new(metatable, handle, stack)
  return setmetatable({
    handle = handle,
    stack = stack and M.weak(stack) or nil,
    block = nil, -- timeout of each wait
    total = nil, -- timeout of the whole call
    read = nil, -- ticket, made at the first wait
    write = nil,
  }, metatable)
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

--- Adds methods that are the handle's own.
-- @tparam table methods
-- @tparam table originals the handle's methods
-- @param ... names
function M.delegate(methods, originals, ...)
  for _, name in ipairs { ... } do
    local method = originals[name]
    methods[name] = function(self, ...)
      return method(check.handle(self, name), ...)
    end
  end
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

M.now = now

return M
