--- Tasks: what `netstack.spawn` and `netstack.daemon` return.
-- @module netstack.task

local loops = require "netstack.loop"
local protected = require "netstack.protected"
local waiters = require "netstack.waiter"

local can_yield, create, yield = protected.can_yield, protected.create, protected.yield
local PARKED = loops.PARKED
local error, format, getinfo, select, type = error, string.format, debug.getinfo, select, type
local unpack = table.unpack or unpack -- luacheck: ignore 143

local NO_ARGS = { n = 0 }

---@class netstack.Task
local methods = {}

local mt = {
  __name = "netstack.Task",
  __index = methods,
  __tostring = function(task)
    return format("task %d (spawned at %s:%d)", task.number, task.file, task.line)
  end,
}

local M = {}

--- Makes a task that will call `fn`, and makes it ready.
-- @tparam table loop
-- @tparam boolean daemon
-- @tparam number level stack level of the caller it is to be named after, as seen from the caller of this
-- @tparam function fn
-- @param ... arguments of fn
-- @treturn netstack.Task
function M.new(loop, daemon, level, fn, ...)
  local here = getinfo(level + 1, "Sl")
  -- A tail call leaves no caller to name on 5.1; where the function is defined says more than nothing.
  if not here or here.currentline < 0 then
    here = getinfo(fn, "S")
    here.currentline = here.linedefined
  end
  local n = select("#", ...)
  local body = fn
  if protected.lua51 and getinfo(fn, "S").what == "C" then body = function(...) return fn(...) end end
  local number = loop.count + 1
  loop.count = number
  local task = setmetatable(waiters.fields {
    number = number, -- in its run, from 1
    file = here.short_src,
    line = here.currentline,
    daemon = daemon,
    observes = false, -- whether what it waits for is no reason for time to pass
    loop = loop, -- nil once it has ended
    thread = create(body),
    args = n > 0 and { n = n, ... } or NO_ARGS, -- nil once it has started
    over = false, -- "returned", "failed" or "cancelled"
    results = false, -- what fn returned, with the count in n; nil for nothing
    failure = nil, -- what fn raised
    handled = false, -- whether a join raised that
    joiners = false, -- waiters, in the order in which they came
    heirs = 0, -- joiners woken by its failure that have not raised it yet
    inherits = false, -- the failed task it was woken by and has not raised the error of
  }, mt)
  loops.add(loop, task)
  return task
end

-- Why `timeout` is none; nil when it is one.
local function check_time(time)
  if type(time) ~= "number" then return "number expected, got " .. (time == nil and "nil" or type(time)) end
  if time ~= time or time < 0 then return "non-negative number expected, got " .. format("%.14g", time) end
end
M.check_time = check_time

-- What join gives once the task has ended.
local function outcome(task)
  if task.over == "returned" then
    local results = task.results
    if results then return unpack(results, 1, results.n) end
    return
  elseif task.over == "cancelled" then
    return nil, "cancelled"
  end
  task.handled = true
  error(task.failure, 0)
end

--- Waits until the task has ended. An error of the task is raised here unchanged, and counts as handled then. May be
-- called by any number of tasks, any number of times.
-- @tparam[opt] number timeout in seconds
-- @return what the function returned; nil, "timeout"; nil, "cancelled"
---@param timeout? number
---@return any ...
function methods:join(timeout)
  if timeout ~= nil then
    local why = check_time(timeout)
    if why then error("bad argument #1 to 'join' (" .. why .. ")", 2) end
  end
  if self.over then return outcome(self) end
  local loop = self.loop
  local joiner = loop.running
  if joiner == self then error("a task cannot join itself", 2) end
  local deadline = timeout and loops.clock(loop) + timeout
  local ok, err
  if joiner and can_yield(joiner.thread) then
    if not joiner.over then waiters.await_end(loop, joiner, self, deadline) end
    ok, err = yield(PARKED)
  else
    local waiter = joiner or waiters.new()
    waiters.await_end(loop, waiter, self, deadline)
    ok, err = loops.drive(loop, waiter)
    if not joiner then waiters.give_id(waiter) end
  end
  if joiner then joiner.inherits = false end
  if not ok then return nil, err end
  return outcome(self)
end

--- Drops the task where it waits, or before it started. Those who join it get nil, "cancelled"; on Lua 5.4 its pending
-- to-be-closed variables are closed. A task that cancels itself does not return from this. One that waits where it
-- cannot yield is left by an error instead.
-- @treturn boolean false when it had ended already
---@return boolean
function methods:cancel()
  local loop = self.loop
  if not loop then return false end
  local itself = loop.running == self
  loops.drop(loop, self)
  if itself then
    if can_yield(self.thread) then yield(PARKED) end
    loops.leave(true)
  end
  return true
end

return M
