--- Stacks in libuv: sockets of stacks, used in any coroutine, wait while `uv.run` goes on; where the caller cannot
-- yield, in a callback for example, they drive the stacks, and nothing else, until they are answered.
--
--     require "netstack.luv".attach()
--     coroutine.wrap(function() print(stack:connect("10.0.0.1", 80)) end)()
--     uv.run()
--
-- Every stack of the process is driven, its timers too. `uv.run` goes on while a coroutine waits for a stack, and at
-- most 5 s for closed connections whose last bytes are not acknowledged; idle stacks do not keep it. An error in a
-- coroutine that waited is raised in the callback that resumed it, with the coroutine's traceback.
-- @module netstack.luv

local driver = require "netstack.driver"
local protected = require "netstack.protected"
local uv = require "luv"

local M = {}

-- Handles, once there were any. They are stopped, not closed: closing takes a loop that goes on, or luv crashes when
-- the program ends.
local poll, check
local bell -- the descriptor `poll` is for
local attached = false
local first, last = 1, 0 -- of `ready`
local ready = {} -- waiters whose coroutines are to be resumed
local draining = false

local adapter = {}

function adapter.can_park()
  return protected.yielding_thread() ~= nil
end

function adapter.park(waiter)
  waiter.coroutine = protected.yielding_thread()
  poll:ref()
  protected.yield()
end

function adapter.unpark(waiter)
  last = last + 1
  ready[last] = waiter
  if not draining then driver.ring() end
end

-- In the loop, where coroutines may be resumed.
local function turn()
  draining = true
  local ok, err = pcall(driver.turn)
  while ok and first <= last do
    local thread = ready[first].coroutine
    ready[first], first = nil, first + 1
    ok, err = protected.resume(thread)
    if not ok then err = debug.traceback(thread, tostring(err)) end
  end
  draining = false
  if first <= last then driver.ring() end
  if not ok then error(err, 0) end
end

-- Runs after each look at descriptors; libuv asks then whether anything keeps it.
local function hold()
  if driver.is_needed() then poll:ref() else poll:unref() end
end

--- Has libuv's loop drive the stacks. Repeating it is harmless.
-- @treturn integer|nil 1
-- @treturn string "full": no descriptor is left, "no memory"
---@return integer|nil, string?
function M.attach()
  if attached then return 1 end
  local fd, err = driver.attach(adapter)
  if not fd then return nil, err end
  if fd ~= bell then poll, check, bell = uv.new_poll(fd), uv.new_check(), fd end
  attached = true
  poll:start("r", turn)
  poll:ref()
  check:start(hold)
  check:unref()
  return 1
end

--- Takes the stacks out of the loop; raises while coroutines wait for them.
-- @treturn integer 1; harmless twice
---@return integer
function M.detach()
  if not attached then return 1 end
  driver.detach()
  attached = false
  poll:stop()
  check:stop()
  return 1
end

return M
