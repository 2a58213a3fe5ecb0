--- Stacks in cqueues: sockets of stacks, used in any coroutine of a controller, wait as cqueues' own do.
--
--     local cq = cqueues.new()
--     require "netstack.cqueues".attach(cq)
--
-- The controller then drives every stack of the process, its timers too, and `loop` ends as it would without them: it
-- goes on while a coroutine waits for a stack, and at most 5 s for closed connections whose last bytes are not
-- acknowledged; idle stacks do not keep it.
-- @module netstack.cqueues

local condition = require "cqueues.condition"
local cqueues = require "cqueues"
local driver = require "netstack.driver"
local protected = require "netstack.protected"

local M = {}

local controller -- the one that drives; nil: none does
local bell = { events = function() return "r" end } -- as cqueues polls

local adapter = {}

function adapter.can_park()
  return cqueues.running() ~= nil and protected.yielding_thread() ~= nil
end

function adapter.park(waiter)
  waiter.condition = waiter.condition or condition.new()
  cqueues.poll(waiter.condition)
end

function adapter.unpark(waiter)
  waiter.condition:signal()
end

local function drive(mine)
  while controller == mine do
    local ok, err = pcall(driver.turn)
    if not ok then mine:wrap(function() error(err, 0) end) end -- for `loop` to return
    if ok then cqueues.poll(bell) end
  end
end

-- The coroutine that drives does not count as one: a controller that has no other, and is not needed, is empty.
local empty, step
empty = cqueues.interpose("empty", function(self)
  return empty(self) or self == controller and self:count() == 1 and not driver.is_needed()
end)
step = cqueues.interpose("step", function(self, timeout)
  if self == controller and self:empty() then timeout = 0 end
  return step(self, timeout)
end)

--- Has a controller drive the stacks. Repeating it is harmless; another one raises, until `detach`.
-- @tparam controller cq
-- @treturn integer|nil 1
-- @treturn string "full": no descriptor is left, "no memory"
---@param cq userdata
---@return integer|nil, string?
function M.attach(cq)
  if cqueues.type(cq) ~= "controller" then
    error("bad argument #1 to 'attach' (cqueues controller expected, got " .. type(cq) .. ")", 2)
  end
  if cq == controller then return 1 end
  local fd, err = driver.attach(adapter)
  if not fd then return nil, err end
  controller = cq
  function bell.pollfd() return fd end
  cq:wrap(drive, cq)
  return 1
end

--- Takes the stacks out of the controller; raises while coroutines wait for them.
-- @treturn integer 1; harmless twice
---@return integer
function M.detach()
  if not controller then return 1 end
  driver.detach()
  controller = nil
  cqueues.cancel(bell.pollfd()) -- which wakes the coroutine, so that it ends
  return 1
end

return M
