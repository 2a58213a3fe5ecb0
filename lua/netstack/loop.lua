--- The one loop in which everything waits: `netstack.run`, waits of callers that cannot yield, and calls outside run.
--
-- A round of the loop resumes the tasks that were ready when it began, drives the stacks, wakes the tasks whose
-- tickets were answered and those whose deadline has come. When that leaves nothing ready, the clock moves to the next
-- event. Each step costs what happened in it: ready tasks are a linked list, tickets report themselves by the number of
-- the task that waits, deadlines are in a heap.
-- @module netstack.loop

local core = require "netstack.core"
local direct = require "netstack.direct"
local heap = require "netstack.heap"
local monotonic = require "netstack.monotonic"
local protected = require "netstack.protected"
local report = require "netstack.report"
local waiters = require "netstack.waiter"

local core_step = direct.step
local collect, disarm, expire, make_ready, wake = waiters.collect, waiters.disarm, waiters.expire, waiters.make_ready,
  waiters.wake
local give_id, take = waiters.give_id, waiters.take
local resume, status, close = protected.resume, protected.status, protected.close
local error, pcall, select, type = error, pcall, select, type
local huge, min = math.huge, math.min
local unpack = table.unpack or unpack -- luacheck: ignore 143

-- How deep waits that drive in place may nest: each holds at least 3 of the 200 nested C calls that PUC Lua grants, and
-- LuaJIT, which does not count them, overruns the C stack.
local DEEPEST = 40
-- A function clock is asked again after at most so many real seconds.
local CLOCK_STEP = 0.001
-- So many rounds in which tasks did nothing but `sleep(0)`, or calls that may not wait, are taken for polling: time
-- then moves on.
local PATIENCE = 2000

local M = {}

--- What a task yields to the loop, and nothing else may.
M.PARKED = {}
local PARKED = M.PARKED

--- Raised out of a wait of a task that was dropped while it could not yield.
M.DROPPED = setmetatable({}, { __tostring = function() return "the task was cancelled" end })
local DROPPED = M.DROPPED

--- A loop whose time begins now.
-- @tparam[opt] string|function clock "virtual", "real", a function, or nil: real while a device has an fd
-- @tparam[opt] number limit time at which it gives up
-- @treturn table loop
function M.new(clock, limit)
  local loop = {
    time = 0.0, -- seconds since it began; a float, so that integers cannot overflow
    source = false, -- what tells real time; false: time jumps
    base = 0, -- what `source` said at time 0
    adapts = clock == nil,
    limit = limit,
    timers = heap.new(),
    also = {}, -- the next waiter's number for the same ticket, by number
    first = false, last = false, pushes = 0, -- ready waiters, linked by `link`
    oldest = nil, youngest = nil, count = 0, -- tasks that have not ended, linked by `younger` and `older`
    ordinary = 0, -- how many of them are not daemons
    running = false, -- the task being resumed
    depth = 0, -- loops on the C stack, beside the first
    halted = false, -- it is over: each nested loop is left at once
    failed = false, failure = nil, -- why it is over, when that is an error
    lingering = false, -- only waiting for closed connections
    outside = false, -- serves calls outside run; has no tasks
    progress = false, -- called each second of real time
    guests = 0, -- coroutines of a loop that is not ours which wait here
  }
  if clock == "real" then
    loop.source = monotonic
  elseif type(clock) == "function" then
    loop.source = function()
      local time = clock()
      if type(time) ~= "number" then error("the clock returned a " .. type(time) .. ", not a number", 0) end
      return time
    end
    loop.step = CLOCK_STEP
  end
  if loop.source then loop.base = loop.source() end
  return loop
end

--- The loop's time now.
-- @tparam table loop
-- @treturn number seconds since it began; never goes back
local function read_clock(loop)
  local source = loop.source
  if source then
    local time = source() - loop.base
    if time > loop.time then loop.time = time end
  end
  return loop.time
end
M.clock = read_clock

--- Lets a default clock follow the devices: real while one has an fd. Time goes on without a jump.
-- @tparam table loop
local function adapt(loop)
  if not loop.adapts or core.has_fd() == (loop.source ~= false) then return end
  local time = read_clock(loop)
  if loop.source then
    loop.source = false
  else
    loop.source, loop.base = monotonic, monotonic() - time
  end
end
M.adapt = adapt

--- Ends a loop with an error, if nothing else has.
-- @tparam table loop
-- @param err any value
local function fail(loop, err)
  if not loop.failed then loop.failed, loop.failure = true, err end
  loop.halted = true
end
M.fail = fail

--- Puts a task among those of a loop, and makes it ready.
-- @tparam table loop
-- @tparam table task new
function M.add(loop, task)
  waiters.take_id(task)
  task.position = 0
  task.older, loop.youngest = loop.youngest, task
  if task.older then task.older.younger = task else loop.oldest = task end
  if not task.daemon then loop.ordinary = loop.ordinary + 1 end
  make_ready(loop, task)
end

-- Takes a task that has ended out of its loop, and tells its joiners.
local function finish(loop, task, over)
  task.over = over
  if task.waits then disarm(loop, task) end
  give_id(task)
  local older, younger = task.older, task.younger
  if older then older.younger = younger else loop.oldest = younger end
  if younger then younger.older = older else loop.youngest = older end
  task.older, task.younger, task.args, task.ok, task.err, task.loop = nil, nil, false, false, false, nil
  local joiners = task.joiners
  if joiners then
    task.joiners = false
    task.heirs = #joiners
    for i = 1, #joiners do
      local joiner = joiners[i]
      if over == "failed" then joiner.inherits = task end
      wake(loop, joiner, 1)
    end
  end
  if over == "failed" and (not joiners or #joiners == 0) then fail(loop, task.failure) end
  if not task.daemon then
    loop.ordinary = loop.ordinary - 1
    if loop.ordinary == 0 then loop.halted = true end
  end
end

-- Runs the pending to-be-closed variables of a task that will not go on. What they raise ends the run.
local function close_task(loop, task)
  if not close then return end
  local ok, err = close(task.thread)
  if not ok and err ~= DROPPED then fail(loop, err) end
end

--- Drops a task where it is.
-- @tparam table loop
-- @tparam table task
-- @treturn boolean false when it had ended already
function M.drop(loop, task)
  if task.over then return false end
  finish(loop, task, "cancelled")
  -- A joiner that has been woken by an error but has not taken it leaves the error to nobody.
  local failed = task.inherits
  if failed then
    task.inherits = false
    failed.heirs = failed.heirs - 1
    if failed.heirs == 0 and not failed.handled then fail(loop, failed.failure) end
  end
  -- One that drives in place is on the C stack and notices itself.
  task.in_place = false
  if status(task.thread) == "suspended" then close_task(loop, task) end
  return true
end

--- Drops every task, in the order in which they were spawned.
-- @tparam table loop
function M.drop_all(loop)
  while loop.oldest do
    local task = loop.oldest
    if not M.drop(loop, task) then loop.oldest = task.younger end -- SIGINT came while it ended
  end
  loop.first, loop.last = false, false
end

-- Takes note of what a task did when it was resumed.
local function settle(loop, task, ok, ...)
  loop.running = false
  if ok and (...) == PARKED and not task.over then return end
  if task.over then
    -- Dropped while it ran. What it raised on its way out has nobody to go to.
    if not ok and close then close(task.thread) end
    if status(task.thread) == "suspended" then close_task(loop, task) end
  elseif not ok then
    local err = (...)
    -- To-be-closed variables of a failed coroutine are pending still, and may replace the error.
    if close then err = select(2, close(task.thread)) end
    if err == DROPPED then return finish(loop, task, "cancelled") end
    task.failure = err
    finish(loop, task, "failed")
  elseif (...) ~= PARKED then
    if status(task.thread) == "dead" then
      local n = select("#", ...)
      if n > 0 then task.results = { n = n, ... } end
      return finish(loop, task, "returned")
    end
    if close then close(task.thread) end
    task.failure = "a task yielded to netstack.run by coroutine.yield"
    finish(loop, task, "failed")
  end
end

-- Whether nobody but observers waits for a time.
local function only_observers(timers)
  for i = 1, timers.n do
    if not timers[i].observes then return false end
  end
  return true
end

-- Moves time to the next event, or waits for it. Returns why that is not possible: "deadlock" or "timeout".
local function advance(loop, next)
  adapt(loop)
  local timer, limit = waiters.first(loop), loop.limit
  local target = next
  if timer and (not target or timer.key < target) then target = timer.key end
  if not next and not loop.first and only_observers(loop.timers) then
    local _, alive = core.has_fd()
    if not alive then return "deadlock" end
  end
  local last = limit and (not target or target > limit)
  if last then target = limit end
  if loop.source then
    local time = read_clock(loop)
    if last and time >= limit then return "timeout" end
    local wait = target and target - time
    if loop.step then wait = min(wait or huge, loop.step) end
    if not wait or wait > 0 then core.wait_io(wait) end
  elseif not target then
    core.wait_io(nil)
  else
    if target > loop.time then loop.time = target end
    if last then return "timeout" end
  end
end

-- Whether a wait in place is over, which then leaves the queue at once: tasks before it in the queue, resumed on top of
-- it, could come to need what it will do next, and not get it.
local function take_goal(loop, goal)
  if goal.waits then return not goal.in_place end
  if goal.in_place then
    local before, at = nil, loop.first
    while at ~= goal do before, at = at, at.link end
    if before then before.link = goal.link else loop.first = goal.link end
    if loop.last == goal then loop.last = before end
    goal.link, goal.in_place = nil, nil
  end
  return true
end

-- Goes on until `goal`, a waiter that is in place, has been woken: "done". Other ends: "halted", "deadlock", "timeout",
-- "settled" (nothing to linger for).
local function turn(loop, goal)
  local idle = 0 -- rounds in which nothing but resumed tasks made progress
  local rounds, looked = 0, loop.progress and core.monotonic()
  adapt(loop)
  while true do
    if goal and take_goal(loop, goal) then return "done" end
    local task, mark = loop.first, loop.pushes
    -- Tasks that were spawned meanwhile start before the stacks are driven: what a task began before it waited must not
    -- be answered before the server that it had spawned could listen.
    while task and (task.pushed <= mark or task.args) do
      local link = task.link
      loop.first, task.link = link, false
      if not link then loop.last = false end
      if task.in_place then
        task.in_place = false
      elseif not task.over then
        loop.running = task
        local args = task.args
        if args then
          task.args = false
          settle(loop, task, resume(task.thread, unpack(args, 1, args.n)))
        else
          settle(loop, task, resume(task.thread, task.ok or nil, task.err or nil))
        end
      end
      if loop.halted then return "halted" end
      if goal and take_goal(loop, goal) then return "done" end
      task = loop.first
    end

    if looked then
      rounds = rounds + 1
      if rounds % 256 == 0 and core.monotonic() >= looked + 1 then
        looked = core.monotonic()
        loop.progress(loop.time)
      end
    end

    local time = loop.source and read_clock(loop) or loop.time
    if loop.source and loop.limit and time > loop.limit then return "timeout" end
    -- Lua devices and traces may have given the stacks work, or have waited, with all that entails.
    local id, more, next, others = core_step(time)
    if id then
      idle = 0
      local only = not others and not loop.first and take(loop, id)
      if only then -- which is so for each message of a conversation: no need to queue
        loop.running = only
        settle(loop, only, resume(only.thread, 1))
      else
        collect(loop, id, others)
      end
    else
      idle = idle + 1
    end
    if loop.halted then return "halted" end
    if goal and take_goal(loop, goal) then return "done" end

    -- What arrives at the very time of a deadline is still in time. And in virtual time, where many things happen at
    -- the same instant, what one of them leads to comes before the next.
    local timer = loop.timers[1]
    if timer and timer.key <= time and (not more or loop.source) then
      -- This is no progress: the deadline may be that of a call which polls (`settimeout(0)`).
      expire(loop, time, loop.source ~= false)
      timer = loop.timers[1]
    end

    if loop.lingering and not goal and core.unsettled() == 0 then return "settled" end
    local polls = idle > PATIENCE and not loop.source and (next or timer or loop.limit)
    if not id and not more and (not loop.first or polls) then
      idle = 0
      local outcome = advance(loop, next)
      if outcome then return outcome end
    end
  end
end
M.turn = turn

--- Leaves a task that is over, from where it cannot yield.
-- @param poison whether all that is left of the running coroutine is to be left
local function leave(poison)
  -- A pcall in a loop, on 5.1, would catch this for ever; raised at each new line it gets out of any loop.
  if poison and protected.lua51 and coroutine.running() then
    debug.sethook(function() error(DROPPED, 0) end, "l")
  end
  error(DROPPED, 0)
end
M.leave = leave

-- Takes back a wait that ends with an error.
local function abandon(loop, waiter)
  disarm(loop, waiter)
  if not waiter.number then give_id(waiter) end
end

-- Turns within the call that protects it, so that an interrupt finds the loop as it was, or is seen to have failed.
local function descend(loop, waiter)
  local running, depth = loop.running, loop.depth
  loop.running, loop.depth, waiter.in_place = false, depth + 1, true
  local outcome = turn(loop, waiter)
  loop.running, loop.depth = running, depth
  return outcome
end

--- Waits without yielding: goes on with the loop from within until an armed waiter is woken.
-- @tparam table loop
-- @tparam table waiter armed; lost when this raises, unless it is a task
-- @return what the wait returns; raises when nothing can end it
function M.drive(loop, waiter)
  if loop.halted or waiter.over then
    abandon(loop, waiter)
    leave(waiter.number)
  elseif loop.depth >= DEEPEST then
    abandon(loop, waiter)
    error("waits where tasks cannot yield are nested too deep (netstack.pcall can be yielded through)", 0)
  end
  local running, depth = loop.running, loop.depth
  local ok, outcome = pcall(descend, loop, waiter)
  if not ok then loop.running, loop.depth = running, depth end
  if ok and outcome == "done" and not waiter.over then return waiter.ok or nil, waiter.err or nil end

  local text
  if ok and outcome == "deadlock" then
    text = report.make(loop, "deadlock: nothing is pending that could end this wait", waiter)
  elseif ok and outcome == "timeout" then
    text = M.timeout_report(loop, waiter)
  end
  waiter.in_place = false
  abandon(loop, waiter)
  if text and outcome == "deadlock" then error(text, 0) end
  if loop.outside then
    -- There is no run that could be over: what a callback raised is the caller's.
    loop.first, loop.last = false, false
    error(outcome, 0)
  end
  if text then
    fail(loop, text)
  elseif not ok then
    fail(loop, outcome)
  end
  leave(waiter.number)
end

--- The report of a loop whose limit has passed.
-- @tparam table loop
-- @tparam ?table waiter
-- @treturn string
function M.timeout_report(loop, waiter)
  return report.make(loop, ("timeout: not over after %.6g s"):format(loop.limit), waiter)
end

return M
