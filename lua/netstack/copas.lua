--- Stacks in copas: sockets of stacks, used in any of its threads, wait while the other threads go on.
--
--     require "netstack.copas".attach()
--     copas.addthread(function() print(stack:connect("10.0.0.1", 80)) end)
--     copas.loop()
--
-- Every stack of the process is driven, its timers too. Where `copas.loop` ends when nothing is left to do, it does so
-- after `detach` only.
-- @module netstack.copas

local copas = require "copas"
local driver = require "netstack.driver"
local protected = require "netstack.protected"

local M = {}

local fd -- the bell's descriptor; nil: not attached
local driving = false -- whether the thread that drives is there

-- All that copas can wait for is a socket to read from: LuaSocket's select takes whatever has these methods.
local Waiting = {}
Waiting.__index = Waiting

-- One with nothing to tell has no descriptor, so that select does not look at it.
function Waiting:getfd() return self.waiter.waits and -1 or fd end
function Waiting:dirty() return not self.waiter.waits end
function Waiting:receive()
  if self.waiter.waits then return nil, "timeout" end
  return ""
end
function Waiting.close() end -- copas closes what a thread that ends has waited for

local bell = setmetatable({ fd = -1, tells = false }, { __index = Waiting })
function bell:getfd() return self.fd end
function bell.dirty() return not fd end
function bell:receive() -- asked before the wait and after it
  self.tells = not self.tells
  if self.tells and fd then return nil, "timeout" end
  return ""
end

local adapter = {}

function adapter.can_park()
  return protected.yielding_thread() ~= nil
end

function adapter.park(waiter)
  waiter.socket = waiter.socket or setmetatable({ waiter = waiter }, Waiting)
  copas.receive(waiter.socket)
end

function adapter.unpark() end -- it is dirty now

local function drive()
  while fd do
    local ok, err = pcall(driver.turn)
    if not ok then copas.addthread(function() error(err, 0) end) end -- for the handler of errors
    if ok then copas.receive(bell) end
  end
  driving = false
end

--- Has copas drive the stacks. Repeating it is harmless.
-- @treturn integer|nil 1
-- @treturn string "full": no descriptor is left, "no memory"
---@return integer|nil, string?
function M.attach()
  if fd then return 1 end
  local err
  fd, err = driver.attach(adapter)
  if not fd then return nil, err end
  bell.fd = fd
  if not driving then
    driving = true
    copas.addthread(drive)
  end
  return 1
end

--- Takes the stacks out of copas; raises while threads wait for them.
-- @treturn integer 1; harmless twice
---@return integer
function M.detach()
  if not fd then return 1 end
  driver.detach()
  fd = nil -- at the next step the thread ends
  return 1
end

return M
