--- Stacks in a loop that is not ours: what the adapters for cqueues, luv and copas share.
--
-- The loop watches one descriptor, the bell, and calls `turn` when it is readable: when something came on a device, a
-- timer is due, or a call gave a stack work. That drives every stack of the process, and wakes the coroutines whose
-- tickets were answered. A coroutine that has to wait drives everything once, since often that is enough; then the
-- adapter parks it. Who cannot be parked waits in place, as outside of any loop.
-- @module netstack.driver

local core = require "netstack.core"
local loops = require "netstack.loop"
local scheduler = require "netstack.scheduler"
local waiters = require "netstack.waiter"

local outside, read_clock = scheduler.outside, loops.clock
local await_ticket, collect, expire = waiters.await_ticket, waiters.collect, waiters.expire
local error, pcall = error, pcall
local min = math.min

-- So long the loop is kept alive, in seconds, by closed connections whose last bytes are not acknowledged.
local LINGER = 5

local M = {}

---@class netstack.driver.Adapter
---@field can_park fun(): boolean whether the caller is a coroutine that the loop can have wait
---@field park fun(waiter: table) has it wait for `unpark`; called again while waiter.waits
---@field unpark fun(waiter: table) has it go on, from the loop: not before this returns
local adapter -- nil: not attached
local previous -- what did the waiting before
local spare, count = {}, 0 -- waiters
local failed, failure = false, nil -- what a callback raised while a coroutine, which it does not concern, drove
local idle_since -- when only closed connections were left to be driven

-- Sets the bell to the time at which there is something to do, unless a stack knows of something earlier.
local function rest(loop, now)
  local timer = loop.timers[1]
  local due = (now or failed) and 0 or timer and timer.key
  if idle_since then due = min(due or idle_since + LINGER, idle_since + LINGER) end
  core.bell(loop.base, due)
end

-- Does what can be done now. Returns whether there is more.
local function step(loop)
  local time = read_clock(loop)
  local id, more, _, others = core.step(time)
  if id then collect(loop, id, others) end
  local timer = loop.timers[1]
  if timer and timer.key <= time then expire(loop, time, true) end
  return more
end

--- Drives the stacks. For the loop to call when the bell rings; it then rings again when it is to be called next.
-- Raises what a callback raised.
function M.turn()
  if scheduler.run_id() then return end -- which drives them itself
  local loop = outside()
  core.wait_io(0)
  local ok, more = pcall(step, loop)
  if not ok then failed, failure = true, more end
  local raises, err = failed, failure
  failed, failure = false, nil
  rest(loop, not ok or more)
  if raises then error(err, 0) end
end

--- Has the bell ring now.
function M.ring()
  core.bell(outside().base, 0)
end

-- The function for `netstack.waiting`.
local function wait(ticket, deadline)
  if scheduler.run_id() then return scheduler.wait(ticket, deadline, nil, true) end
  local loop = outside()
  if deadline then deadline = deadline - loop.base end
  if not adapter.can_park() then return scheduler.wait(ticket, deadline, nil, true) end
  local ok, more = pcall(step, loop)
  if not ok then failed, failure = true, more end
  local waiter
  if count > 0 then
    waiter, spare[count], count = spare[count], nil, count - 1
  else
    waiter = waiters.new()
    waiter.unpark = adapter.unpark
  end
  local err
  if await_ticket(loop, waiter, ticket, deadline) then
    rest(loop, more)
    ok = 1
  else
    loop.guests, idle_since = loop.guests + 1, nil
    rest(loop, more)
    repeat adapter.park(waiter) until not waiter.waits
    loop.guests = loop.guests - 1
    ok, err = waiter.ok or nil, waiter.err or nil
  end
  count = count + 1
  spare[count] = waiter
  return ok, err
end

--- Whether the loop must go on for the stacks' sake: coroutines wait for them, or closed connections have bytes that
-- are not acknowledged, which is waited for no longer than 5 s.
-- @treturn boolean
function M.is_needed()
  if scheduler.run_id() then return true end
  local loop = outside()
  if loop.guests > 0 then return true end
  if core.unsettled() == 0 then
    idle_since = nil
    return false
  end
  local time = read_clock(loop)
  if not idle_since then
    idle_since = time
    rest(loop)
  end
  return time - idle_since < LINGER
end

--- Gives the waiting to a loop.
-- @tparam table to can_park, park, unpark
-- @treturn integer|nil the bell's descriptor, to be watched for reading; it rings at once
-- @treturn string "full": no descriptor is left, "no memory"
function M.attach(to)
  if adapter then error("the stacks are driven by a loop already", 3) end
  local fd, err = core.bell_open()
  if not fd then return nil, err end
  previous = scheduler.host(wait)
  adapter, spare, count, idle_since = to, {}, 0, nil
  M.ring()
  return fd
end

--- Takes the waiting back; raises while coroutines wait. The bell stays open.
function M.detach()
  scheduler.host(nil)
  scheduler.waiting(previous)
  for i = 1, count do waiters.give_id(spare[i]) end
  adapter, previous, spare, count = nil, nil, {}, 0
end

return M
