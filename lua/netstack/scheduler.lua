--- Tasks and time: `netstack.run` and what belongs to it, and `wait`, the one place in which sockets wait.
--
-- A wait goes, in this order, to the function installed by `waiting`; to the loop by a yield, when the caller is a task
-- that can yield; else to the same loop, driven from within ("in place"). Outside run the loop is one without tasks,
-- whose time goes on from call to call until a run begins.
--
-- Decisions where the contract is silent: an error ends the run at once unless a task waits in `join` for it at that
-- moment; cancelling a task that has ended is `false`; `sleep` returns 1; a task woken by a join that failed and then
-- cancelled leaves the error to nobody, so it ends the run; tasks that only poll with `sleep(0)` on a virtual clock
-- cannot hold time still for ever.
-- @module netstack.scheduler

local core = require "netstack.core"
local loops = require "netstack.loop"
local monotonic = require "netstack.monotonic"
local protected = require "netstack.protected"
local report = require "netstack.report"
local tasks = require "netstack.task"
local waiters = require "netstack.waiter"

local can_yield, yield, core_knows = protected.can_yield, protected.yield, protected.core_knows
local await_ticket, read_clock, drive = waiters.await_ticket, loops.clock, loops.drive
local check_time, PARKED = tasks.check_time, loops.PARKED
local error, format, pcall, tostring, type = error, string.format, pcall, tostring, type
local unpack = table.unpack or unpack -- luacheck: ignore 143

local M = {}

local current -- the loop of the run that is on
local outer -- the loop that serves calls outside run; nil until the first of them
local spare -- its waiter; nil while that is in use
local taken = false -- whether a wait there has not ended
local installed -- the function given to `waiting`
local host -- that of a loop that is not ours, and drives the stacks in real time
local refusal -- why there can be no run beside it

-- What others have to do before stacks are driven, and when a run is over; each once, in the order given.
local at_begin, at_end = {}, {}

local function take(list)
  local taken_from = {}
  for i = 1, #list do taken_from[i], list[i] = list[i], nil end
  return taken_from
end

--- Has `fn` called before stacks are driven the next time: at once in a run, else when one begins or somebody waits.
-- @tparam function fn
function M.before(fn)
  if current then return fn() end
  at_begin[#at_begin + 1] = fn
end

--- Has `fn` called when this run is over, or the next; outside run nothing is ever over. What it returns as an error,
-- after nil, the run raises.
-- @tparam function fn
function M.after(fn) at_end[#at_end + 1] = fn end

local function prepare()
  if at_begin[1] then
    for _, fn in ipairs(take(at_begin)) do fn() end
  end
end

-- The loop outside run.
local function outside()
  prepare()
  -- SIGINT, or an error, ended a wait before it was seen to be over, and what it left is of no use.
  if taken and outer and outer.depth == 0 and outer.guests == 0 then outer, taken = nil, false end
  if not outer then
    core.run_begin()
    outer = loops.new(host and "real" or nil, nil)
    outer.outside = true
  end
  loops.adapt(outer)
  return outer
end
M.outside = outside

-- Ends the loop outside run, whose time is not that of the next one.
local function leave_outside(name, level)
  if not outer then return end
  if outer.depth > 0 then error(name .. " inside a wait", level + 1) end
  if outer.guests > 0 then error(name .. " while coroutines of another loop wait for stacks", level + 1) end
  core.run_end()
  outer = nil
end

local function bad(n, name, why)
  error(format("bad argument #%d to '%s' (%s)", n, name, why), 3)
end

-- The first argument of run, spawn and daemon.
local function check_function(fn, name, level)
  if type(fn) ~= "function" then
    error(format("bad argument #1 to '%s' (function expected, got %s)", name, type(fn)), level)
  end
end

local OPTIONS = {
  clock = function(value)
    if value ~= "virtual" and value ~= "real" and type(value) ~= "function" then
      return "'virtual', 'real' or a function expected, got " .. tostring(value)
    end
  end,
  timeout = check_time,
  linger = check_time,
  progress = function(value)
    if type(value) ~= "function" then return "function expected, got " .. type(value) end
  end,
  seed = function(value)
    if type(value) ~= "number" then return "integer expected, got " .. type(value) end
    if value % 1 ~= 0 then return "integer expected, got " .. format("%.14g", value) end
  end,
}

--- Why `opts` are none of run; nil when they are.
-- @tparam table opts
-- @treturn ?string
local function check_options(opts)
  if type(opts) ~= "table" then return "table expected, got " .. type(opts) end
  local unknown
  for key in pairs(opts) do
    local name = tostring(key)
    -- The least of them, so that the error does not depend on the order of pairs.
    if not OPTIONS[key] and (not unknown or name < unknown) then unknown = name end
  end
  if unknown then return "unknown option '" .. unknown .. "'" end
  for _, key in ipairs { "clock", "linger", "progress", "seed", "timeout" } do
    local why = opts[key] ~= nil and OPTIONS[key](opts[key])
    if why then return "option '" .. key .. "': " .. why end
  end
end
M.check_options = check_options

-- Goes on with the loop of a run until all ordinary tasks have ended, or something ends it before.
local function attend(loop, linger)
  local outcome = loops.turn(loop, nil)
  if outcome == "deadlock" then
    loops.fail(loop, report.make(loop, "deadlock: every task waits and nothing is pending"))
  elseif outcome == "timeout" then
    loops.fail(loop, loops.timeout_report(loop))
  end
  loops.drop_all(loop)
  if loop.failed or linger == 0 or core.unsettled() == 0 then return end
  -- Its end by time is no failure here, so neither is a time limit of the run.
  local limit = read_clock(loop) + linger
  if not loop.limit or limit < loop.limit then loop.limit = limit end
  loop.lingering, loop.halted = true, false
  loops.turn(loop, nil)
end

local function finish(loop)
  loop.halted = true
  loops.drop_all(loop)
  current = nil
  core.run_end()
  for _, fn in ipairs(take(at_end)) do
    local ok, err = fn()
    if not ok then loops.fail(loop, err) end
  end
end

-- A run from its beginning to its end. Whoever calls this protects it: SIGINT may raise an error at any instruction,
-- and must leave no run behind that is neither on nor over.
local function conduct(loop, linger)
  current = loop
  core.run_begin()
  local ok, err = pcall(attend, loop, linger)
  -- DROPPED comes from a wait in a callback that the end of the run overtook.
  if not ok and err ~= loops.DROPPED then loops.fail(loop, err) end
  finish(loop)
end

--- Runs `fn` as a task until it and every task it spawned have ended, driving every stack; then waits, at most
-- `opts.linger` seconds, until what closed connections had to send is acknowledged.
-- @tparam function fn
-- @tparam[opt] table opts `clock` ("virtual", "real" or a function), `timeout`, `seed`, `linger` (5), `progress`, which
-- is called about each second of real time with the run's time
-- @param ... arguments of fn
-- @return what fn returned; raises the first error that no task joined, and reports that start "deadlock:", "timeout:";
-- and raises inside a run, and where a loop drives the stacks that must not be stopped (`netstack.resty`)
---@param fn function
---@param opts? table
---@return any ...
function M.run(fn, opts, ...)
  check_function(fn, "run", 3)
  local why = opts ~= nil and check_options(opts)
  if why then bad(2, "run", why) end
  if current then error("run inside run", 2) end
  if refusal then error(refusal, 2) end
  leave_outside("run", 2)
  prepare()
  opts = opts or {}

  local loop = loops.new(opts.clock, opts.timeout)
  loop.seed, loop.progress = opts.seed, opts.progress
  local main = tasks.new(loop, false, 2, fn, ...)
  local ok, err = pcall(conduct, loop, opts.linger or 5)
  if not ok then
    loops.fail(loop, err)
    finish(loop)
  end
  if loop.failed then error(loop.failure, 0) end
  local results = main.results
  if results then return unpack(results, 1, results.n) end
end

local function check_run(name, level)
  if not current or current.halted or current.lingering then
    error(name .. " outside run: tasks are started by the function that netstack.run was given, or by its tasks", level)
  end
end

-- spawn and daemon.
local function start(name, daemon, fn, ...)
  check_function(fn, name, 4)
  check_run(name, 4)
  return (tasks.new(current, daemon, 3, fn, ...))
end

--- Starts a task; tasks start in the order in which they were spawned, when the caller waits.
-- @tparam function fn
-- @param ... its arguments
-- @treturn netstack.Task
---@param fn function
---@return netstack.Task
function M.spawn(fn, ...)
  local task = start("spawn", false, fn, ...)
  return task
end

--- Starts a task that run does not wait for: it is cancelled when the last ordinary task has ended.
-- @tparam function fn
-- @param ... its arguments
-- @treturn netstack.Task
---@param fn function
---@return netstack.Task
function M.daemon(fn, ...)
  local task = start("daemon", true, fn, ...)
  return task
end

--- Starts a daemon that looks on: its sleeps end when time has passed for the others' sake, and keep no run going in
-- which nothing else can happen.
-- @tparam string name of the function that was called, for the error outside run
-- @tparam function fn
-- @treturn netstack.Task
function M.observer(name, fn)
  check_run(name, 4)
  local task = tasks.new(current, true, 3, fn)
  task.observes = true
  return task
end

--- The time.
-- @treturn number seconds since this run began; outside run, of the monotonic real clock
---@return number
function M.now()
  if current then return read_clock(current) end
  return monotonic()
end

--- When a wait that may take `timeout` seconds from now must end, in the time in which `wait` wants it.
-- @tparam ?number timeout in seconds; nil is for ever
-- @treturn ?number
---@param timeout? number
---@return number? deadline
function M.deadline(timeout)
  if not timeout then return nil end
  if current then return read_clock(current) + timeout end
  -- An own scheduler knows no time but `now`.
  if installed then return monotonic() + timeout end
  return read_clock(outside()) + timeout
end

-- Waits in place for what `arm(loop, waiter, ...)` arms.
local function wait_in_place(loop, task, arm, ...)
  if task then
    if not task.over and arm(loop, task, ...) then return 1 end
    return drive(loop, task)
  end
  local waiter, ok, err = spare or waiters.new(), 1, nil
  spare, taken = nil, true
  if not arm(loop, waiter, ...) then ok, err = drive(loop, waiter) end
  if spare then waiters.give_id(waiter) else spare = waiter end
  taken = loop.depth > 0
  return ok, err
end

--- Waits until a ticket is done. May return early, and what happened meanwhile may have undone what the ticket told, so
-- callers look again in a loop. The deadline is absolute, made by `deadline`; when it has passed already, the others
-- and the stacks still get one turn.
-- @tparam userdata ticket
-- @tparam ?number deadline
-- @tparam ?string|function what it waits for, in reports
-- @tparam ?boolean here whether the function given to `waiting` is passed over
-- @treturn 1|nil 1, or nil and "timeout"
---@param ticket netstack.ticket
---@param deadline? number
---@param what? string|fun(): string
---@param here? boolean
---@return 1|nil ok
---@return string? err
function M.wait(ticket, deadline, what, here)
  if installed and not here then
    if installed ~= host and type(ticket) == "userdata" and ticket:arm() then return 1 end -- host arms it itself
    return installed(ticket, deadline)
  end
  local loop = current
  if not loop then return wait_in_place(outside(), nil, await_ticket, ticket, deadline, what) end
  local task = loop.running
  if task and not task.over then
    if core_knows then -- which saves asking twice in the path that every message takes
      local done = await_ticket(loop, task, ticket, deadline, what, task.thread)
      if done == nil then return yield(PARKED) end
      if done then return 1 end
    elseif can_yield(task.thread) then
      if await_ticket(loop, task, ticket, deadline, what) then return 1 end
      return yield(PARKED)
    end
  elseif task and can_yield(task.thread) then
    return yield(PARKED)
  end
  return wait_in_place(loop, task, await_ticket, ticket, deadline, what)
end

-- A sleep by the function that was installed, which knows of tickets only: this one is never answered.
local function sleep_elsewhere(seconds)
  local never, deadline = core.first_of {}, monotonic() + seconds
  if not never then error("no memory", 3) end
  repeat local ok = installed(never, deadline) until not ok or monotonic() >= deadline
  never:cancel()
  return 1
end

--- Waits for a while. `sleep(0)` lets the other ready tasks and the stacks have a turn. Where the caller cannot yield,
-- and outside run, everything is driven meanwhile.
-- @tparam number seconds
-- @treturn 1
---@param seconds number
---@return 1
function M.sleep(seconds)
  local why = check_time(seconds)
  if why then bad(1, "sleep", why) end
  if installed and not current then return sleep_elsewhere(seconds) end
  local loop = current or outside()
  local task = loop.running
  local deadline = read_clock(loop) + seconds
  if not task or not can_yield(task.thread) then return (wait_in_place(loop, task, waiters.await_time, deadline)) end
  if not task.over then
    if seconds == 0 then
      task.ok, task.err = 1, false
      if task.waits then waiters.disarm(loop, task) end
      waiters.make_ready(loop, task)
    else
      waiters.await_time(loop, task, deadline)
    end
  end
  return (yield(PARKED))
end

--- Says who waits, and how: `fn(ticket, deadline)` returns 1 when the ticket is done (or earlier), nil, "timeout" when
-- `netstack.now()` has reached the deadline. nil gives the waiting back to run.
-- @tparam ?function fn
-- @treturn ?function the one it replaces
---@param fn? fun(ticket: netstack.ticket, deadline: number?): 1|nil, string?
---@return function? previous
function M.waiting(fn)
  if fn ~= nil and type(fn) ~= "function" then bad(1, "waiting", "function or nil expected, got " .. type(fn)) end
  local previous = installed
  installed = fn
  return previous
end

--- Has the stacks driven by a loop that is not ours (netstack.driver): outside run, time is real then.
-- @tparam ?function fn as for `waiting`; nil: no longer
-- @tparam ?string no_run what `run` raises; nil: it drives the stacks in that loop's place
-- @treturn ?function the one it replaces
function M.host(fn, no_run)
  leave_outside(fn and "attach" or "detach", 3)
  host, refusal = fn, no_run
  return M.waiting(fn)
end

--- The task that is running.
-- @treturn ?netstack.Task nil outside of tasks
---@return netstack.Task?
function M.running()
  return current and current.running
end

--- Tells one run from another. @treturn table|nil
function M.run_id()
  return current
end

--- The seed of the run that is on.
-- @treturn ?number
---@return integer?
function M.seed()
  return current and current.seed
end

M.pcall, M.xpcall = protected.pcall, protected.xpcall

return M
