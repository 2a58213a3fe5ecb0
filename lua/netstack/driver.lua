--- Stacks in a loop that is not ours: what the adapters for cqueues, luv, copas and nginx share.
--
-- The loop watches one descriptor, the bell, and calls `turn` when it is readable: when something came on a device, a
-- timer is due, or a call gave a stack work. That drives every stack of the process, and wakes the coroutines whose
-- tickets were answered. A loop that cannot watch descriptors calls `turn` again when the last one said, or earlier
-- when the adapter's `ring` was called. A coroutine that has to wait drives everything once, since often that is
-- enough; then the adapter parks it. Who cannot be parked waits in place, as outside of any loop, or is refused.
-- @module netstack.driver

local core = require "netstack.core"
local direct = require "netstack.direct"
local loops = require "netstack.loop"
local scheduler = require "netstack.scheduler"
local waiters = require "netstack.waiter"

local outside, read_clock = scheduler.outside, loops.clock
local core_bell, core_step, look = direct.bell, direct.step, direct.look
local await_ticket, collect, expire = waiters.await_ticket, waiters.collect, waiters.expire
local error = error
local huge, min = math.huge, math.min

-- So long the loop is kept alive, in seconds, by closed connections whose last bytes are not acknowledged.
local LINGER = 5

local M = {}

---@class netstack.driver.Adapter
---@field can_park fun(): boolean, string? whether the caller is a coroutine that the loop can have wait; if not, it
-- waits in place, or gets the error
---@field park fun(waiter: table) has it wait for `unpark`; called again while waiter.waits
---@field unpark fun(waiter: table) has it go on, from the loop: not before this returns
---@field ring? fun() the stacks want to be driven earlier than `turn` said; in place of the bell's descriptor
---@field no_run? string what `netstack.run` raises, where it must not stop the loop
local adapter -- nil: not attached
local previous -- what did the waiting before
local spare, count = {}, 0 -- waiters
local failed, failure = false, nil -- what a callback raised while a coroutine, which it does not concern, drove
local idle_since -- when only closed connections were left to be driven

-- For an adapter without the descriptor: when it calls `turn` by itself or because it was rung for, of the loop's time.
local expected = huge
local held = false -- a call that goes on to `let_go` does not ring
local quiet = false -- nothing has given the stacks work since they were driven; known only to such adapters
-- Coroutines that were woken and have not gone on yet; known only to adapters that call `release`. They may give the
-- stacks more to do: as long as there are some, what there is to do is left to the next turn, which does all at once.
local woken = 0

-- Sets the bell to the time at which there is something to do, unless a stack knows of something earlier. Returns the
-- time; nil: never.
local function rest(loop, now)
  local timer = loop.timers[1]
  local due = (now or failed) and 0 or timer and timer.key
  if idle_since then due = min(due or idle_since + LINGER, idle_since + LINGER) end
  return (core_bell(loop.base, due))
end

local function ring()
  expected = 0
  adapter.ring()
end

-- The same for a caller that the loop does not see: an adapter without the descriptor is told.
local function hurry(loop, now)
  local at = rest(loop, now)
  if at and at < expected and adapter.ring then ring() end
end

-- What the core calls when something gives the stacks work.
local function heed()
  quiet = false
  if not held then ring() end
end

-- Does what can be done now. Returns whether there is more.
local function step(loop)
  held = false -- also after a function of the user's that raised before `let_go`
  local time = read_clock(loop)
  local id, more, _, others, raised, err = core_step(time, true)
  if raised then failed, failure = true, err end
  if id then collect(loop, id, others) end
  local timer = loop.timers[1]
  if timer and timer.key <= time then expire(loop, time, true) end
  quiet = adapter.ring and not more
  return more
end

--- Drives the stacks. For the loop to call when the bell rings; it then rings again when it is to be called next.
-- @treturn number|nil seconds until then; nil: when something gives the stacks work
-- @treturn boolean|nil whether a callback raised
-- @return what it raised
function M.try_turn()
  if scheduler.run_id() then return nil end -- which drives them itself
  local loop = outside()
  look()
  local more = step(loop)
  local raised, err = failed, failure
  failed, failure = false, nil
  local at = rest(loop, raised or more)
  expected = at or huge
  return at and at - read_clock(loop), raised, err
end

--- The same; raises what a callback raised.
-- @treturn number|nil seconds
function M.turn()
  local delay, raised, err = M.try_turn()
  if raised then error(err, 0) end
  return delay
end

--- Has the bell ring now.
function M.ring()
  hurry(outside(), true)
end

--- What calls until `let_go` leave to do is seen to by that: an adapter without the descriptor is not rung for it.
function M.hold() held = true end

--- Sees to it, unless a run does: drives the stacks, or has them driven when those who were woken before have gone on.
function M.let_go()
  if woken > 0 or scheduler.run_id() then
    held = false
    if not quiet and expected > 0 then ring() end
    return
  end
  local loop = outside()
  hurry(loop, step(loop))
end

-- What a waiter held is free for others.
local function release(waiter)
  local loop = waiter.guest_of
  if not loop then return end
  loop.guests, waiter.guest_of = loop.guests - 1, false
  waiters.give_id(waiter)
end

local function go_on(waiter)
  release(waiter)
  if not waiter.woken then return end
  woken, waiter.woken = woken - 1, false
end

--- A waiter that was woken is none any more. An adapter whose coroutines may be dropped before they go on calls this in
-- `unpark`, and `drop` when one was.
function M.release(waiter)
  release(waiter)
  woken, waiter.woken = woken + 1, true
end

--- Ends a wait whose coroutine is gone.
function M.drop(waiter)
  if waiter.waits then waiters.disarm(waiter.guest_of, waiter) end
  waiters.leave_timers(outside(), waiter)
  go_on(waiter)
end

--- Waits for a ticket in a coroutine that the adapter can have wait.
-- @tparam userdata ticket
-- @tparam ?number deadline of the monotonic clock
-- @treturn integer|nil 1
-- @treturn string "timeout", or what `dismiss` was told
function M.await(ticket, deadline)
  local loop = outside()
  if deadline then deadline = deadline - loop.base end
  local more = false
  if not quiet and (woken == 0 or expected > 0) then more = step(loop) end
  local waiter
  if count > 0 then
    waiter, spare[count], count = spare[count], nil, count - 1
  else
    waiter = waiters.fields { unpark = false, guest_of = false, woken = false }
    waiter.unpark, waiter.stays = adapter.unpark, true
  end
  waiters.take_id(waiter)
  local ok, err
  if await_ticket(loop, waiter, ticket, deadline) then
    hurry(loop, more)
    waiters.give_id(waiter)
    ok = 1
  else
    loop.guests, waiter.guest_of, idle_since = loop.guests + 1, loop, nil
    if expected > 0 and (not quiet or (deadline and deadline < expected)) then hurry(loop, more) end
    adapter.park(waiter)
    while waiter.waits do adapter.park(waiter) end
    go_on(waiter)
    ok, err = waiter.ok or nil, waiter.err or nil
  end
  count = count + 1
  spare[count] = waiter
  return ok, err
end

-- The function for `netstack.waiting`.
local function wait(ticket, deadline)
  if scheduler.run_id() then return scheduler.wait(ticket, deadline, nil, true) end
  local can, refusal = adapter.can_park()
  if can then return M.await(ticket, deadline) end
  local loop = outside()
  if not refusal then return scheduler.wait(ticket, deadline and deadline - loop.base, nil, true) end
  hurry(loop, step(loop))
  if ticket:arm() then return 1 end
  return nil, refusal
end

--- What waits without a coroutine, again and again; it does not count as one that the loop is needed for.
-- @tparam function fn called once for each `watch`, when stacks are driven, which it must not do; with 1, or with nil
-- and "timeout"
-- @treturn table for `watch` and `unwatch`
function M.watcher(fn)
  local waiter = waiters.fields { position = 0, watched_in = false }
  waiter.stays = true
  waiter.unpark = function()
    waiters.give_id(waiter)
    fn(waiter.ok or nil, waiter.err or nil)
  end
  return waiter
end

--- Has it wait until a ticket is done, or the deadline has come.
-- @tparam table waiter
-- @tparam userdata ticket
-- @tparam ?number deadline of the monotonic clock
-- @treturn boolean whether it waits: if not, the ticket is done already
function M.watch(waiter, ticket, deadline)
  local loop = outside()
  if deadline then deadline = deadline - loop.base end
  waiters.take_id(waiter)
  if await_ticket(loop, waiter, ticket, deadline) then
    waiters.give_id(waiter)
    return false
  end
  waiter.watched_in = loop
  if not quiet or (deadline and deadline < expected) then hurry(loop) end
  return true
end

--- Takes that back.
-- @treturn boolean whether it waited, and the ticket was not done
function M.unwatch(waiter)
  if not waiter.waits then return false end
  local pending = waiters.disarm(waiter.watched_in, waiter)
  waiters.give_id(waiter)
  return pending
end

--- Takes it back for good: nothing keeps the waiter any more.
function M.forget(waiter)
  M.unwatch(waiter)
  if waiter.watched_in then waiters.leave_timers(waiter.watched_in, waiter) end
end

--- Ends the waits of all coroutines.
-- @tparam string err what they return after nil
function M.dismiss(err)
  waiters.each(function(waiter)
    local loop = waiter.guest_of
    if not loop or not waiter.waits then return end
    waiters.disarm(loop, waiter)
    waiters.wake(loop, waiter, nil, err)
  end)
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

--- Whether nothing comes by itself that anybody may wait for: no timer runs but those of connections in TIME-WAIT.
-- @treturn boolean
function M.is_idle()
  return not waiters.first(outside()) and core.only_time_wait()
end

--- An adapter without the descriptor will not call `turn` until it is rung for.
function M.pause() expected = huge end

--- Gives the waiting to a loop.
-- @tparam table to can_park, park, unpark
-- @treturn integer|nil the bell's descriptor, to be watched for reading; it rings at once. 0: there is none, since the
-- adapter has `ring`
-- @treturn string "full": no descriptor is left, "no memory"
function M.attach(to)
  if adapter then error("the stacks are driven by a loop already", 3) end
  local fd, err = 0, nil
  if to.ring then
    core.bell_call(heed)
  else
    fd, err = core.bell_open()
  end
  if not fd then return nil, err end
  previous = scheduler.host(wait, to.no_run)
  adapter, spare, count, idle_since, expected, held, quiet, woken = to, {}, 0, nil, huge, false, false, 0
  M.ring()
  return fd
end

--- Takes the waiting back; raises while coroutines wait. The bell stays open.
function M.detach()
  scheduler.host(nil)
  scheduler.waiting(previous)
  if adapter.ring then core.bell_call(nil) end
  adapter, previous, spare, count = nil, nil, {}, 0
end

return M
