--- Waits: what a loop's waiters are armed on, and how they are woken.
--
-- A *waiter* is a task, or a table of the same fields for a wait outside of tasks. While it waits, `waits` says for
-- what, and it is armed on a `ticket`, on the end of the task `target`, or on neither (a sleep), and with or without a
-- place in `loop.timers`. A wake removes all traces of that and queues the waiter; `ok` and `err` are then what its
-- wait returns.
--
-- Coroutines of loops that are not ours wait again and again, each time for much less than they may. Their waiters
-- *stay*: they keep their place in the timers when a wait is over, and by the next one's time the place is at most too
-- early. It is put right when its time has come (`first`). `due` is the deadline of such a waiter.
--
-- Fields that come and go are false, not nil, while they are gone: a table that loses keys and gets others is rebuilt
-- again and again.
-- @module netstack.waiter

local direct = require "netstack.direct"
local heap = require "netstack.heap"
local report = require "netstack.report"

local core_ready, core_await, core_watch = direct.ready, direct.await, direct.watch
local push, remove, update = heap.push, heap.remove, heap.update
local SLEEP = report.SLEEP
local huge = math.huge

local M = {}

-- Waiters by the number the core reports them under. Numbers are reused so that this stays an array; a number whose
-- report may still come is never reused. Outlives the loops, so that a late report cannot meet another's number.
local slots, free, n_free, last_id = {}, {}, 0, 0

--- Gives a waiter its number.
-- @tparam table waiter
local function take_id(waiter)
  local id
  if n_free > 0 then
    id, n_free = free[n_free], n_free - 1
  else
    id = last_id + 1
    last_id = id
  end
  slots[id] = waiter
  waiter.id = id
end
M.take_id = take_id

--- Takes the number of a waiter back, which is not armed and will not wait again.
-- @tparam table waiter
function M.give_id(waiter)
  slots[waiter.id] = false
  n_free = n_free + 1
  free[n_free] = waiter.id
  waiter.id = false
end

--- Calls a function with each waiter that has a number, by number.
-- @tparam function fn
function M.each(fn)
  for id = 1, last_id do
    local waiter = slots[id]
    if waiter then fn(waiter) end
  end
end

--- Gives a table the fields of a waiter.
-- @tparam table waiter
-- @treturn table waiter
function M.fields(waiter)
  waiter.id, waiter.position, waiter.key, waiter.order = false, 0, 0, 0
  waiter.waits, waiter.ticket, waiter.target = false, false, false
  waiter.ok, waiter.err, waiter.link, waiter.pushed = false, false, false, 0
  waiter.over, waiter.in_place, waiter.thread = false, false, waiter.thread or false
  waiter.stays, waiter.due = false, false
  waiter.unpark = false -- of a coroutine of a loop that is not ours: has it go on
  return waiter
end

-- Begins to wait for a deadline, if there is one.
local function set_timer(loop, waiter, deadline)
  if not deadline or deadline >= huge then return end
  local timers = loop.timers
  if not waiter.stays then return push(timers, waiter, deadline) end
  waiter.due = deadline
  if timers[waiter.position] ~= waiter then -- in no timers, or in those of a loop that is no more
    waiter.position = 0
    push(timers, waiter, deadline)
  elseif deadline < waiter.key then
    update(timers, waiter, deadline)
  end
end

local function stop_timer(loop, waiter)
  if waiter.stays then
    waiter.due = false
  elseif waiter.position ~= 0 then
    remove(loop.timers, waiter)
  end
end

--- Takes a waiter that will not wait again out of the timers.
-- @tparam table loop
-- @tparam table waiter
function M.leave_timers(loop, waiter)
  waiter.due = false
  if waiter.position ~= 0 then remove(loop.timers, waiter) end
end

--- The waiter whose deadline is the first.
-- @tparam table loop
-- @treturn table|nil
local function first(loop)
  local timers = loop.timers
  local waiter = timers[1]
  while waiter and waiter.stays and waiter.due ~= waiter.key do
    if waiter.due then update(timers, waiter, waiter.due) else remove(timers, waiter) end
    waiter = timers[1]
  end
  return waiter
end
M.first = first

--- Makes a waiter ready, last in the order.
-- @tparam table loop
-- @tparam table waiter
local function make_ready(loop, waiter)
  local pushes = loop.pushes + 1
  loop.pushes, waiter.pushed = pushes, pushes
  local last = loop.last
  if last then last.link = waiter else loop.first = waiter end
  loop.last = waiter
end
M.make_ready = make_ready

--- Ends a wait.
-- @tparam table loop
-- @tparam table waiter
-- @param ok what the wait returns
-- @param err what it returns second
local function wake(loop, waiter, ok, err)
  waiter.ok, waiter.err = ok, err or false
  waiter.waits, waiter.ticket, waiter.target = false, false, false
  stop_timer(loop, waiter)
  if waiter.unpark then return waiter.unpark(waiter) end
  make_ready(loop, waiter)
end
M.wake = wake

-- Takes a waiter off its ticket. Returns false when the ticket is done: then its report is under way or was lost.
local function unwatch(loop, waiter)
  local also, id, ticket = loop.also, waiter.id, waiter.ticket
  local head = core_watch(ticket, 0)
  waiter.ticket = false
  if not head then
    -- The old number is spent: its report must not be taken for one of the next wait, but still reach the others.
    slots[id] = false
    take_id(waiter)
    return false
  end
  if head == id then
    head, also[id] = also[id], nil
  elseif head ~= 0 then
    local at = head
    while also[at] and also[at] ~= id do at = also[at] end
    also[at], also[id] = also[id], nil
  end
  if head and head ~= 0 then core_watch(ticket, head) end
  return true
end

-- Takes a waiter off the task it would join.
local function unjoin(waiter)
  local joiners = waiter.target.joiners
  waiter.target = false
  for i = 1, #joiners do
    if joiners[i] == waiter then return table.remove(joiners, i) end
  end
end

--- Takes back a wait that nobody will wait for any more.
-- @tparam table loop
-- @tparam table waiter
-- @treturn boolean false when its ticket was done
local function disarm(loop, waiter)
  local pending = true
  stop_timer(loop, waiter)
  if waiter.ticket then pending = unwatch(loop, waiter) end
  if waiter.target then unjoin(waiter) end
  waiter.waits = false
  return pending
end
M.disarm = disarm

-- What a waiter waits for, and until when.
local function arm(loop, waiter, what, deadline)
  waiter.waits = what
  set_timer(loop, waiter, deadline)
end

--- Arms a waiter on a ticket.
-- @tparam table loop
-- @tparam table waiter
-- @tparam userdata ticket
-- @tparam ?number deadline in the loop's time
-- @tparam ?string|function what it waits for, in reports
-- @tparam ?thread thread the coroutine that is to yield, when the core can find out whether it can
-- @treturn nil|boolean nil: armed; true: the ticket is done, nothing to wait for; false: the caller cannot yield
function M.await_ticket(loop, waiter, ticket, deadline, what, thread)
  -- A wait whose yield Lua refused (5.1, in a metamethod) left the waiter armed.
  if waiter.waits then disarm(loop, waiter) end
  local id = waiter.id
  local previous = core_await(ticket, id, thread)
  if previous ~= nil then
    if previous == true or previous == false then return previous end
    loop.also[id] = previous
  end
  waiter.ticket, waiter.waits = ticket, what or ticket
  set_timer(loop, waiter, deadline)
end

--- Arms a waiter on the clock.
-- @tparam table loop
-- @tparam table waiter
-- @tparam number deadline in the loop's time
function M.await_time(loop, waiter, deadline)
  if waiter.waits then disarm(loop, waiter) end
  arm(loop, waiter, SLEEP, deadline)
end

--- Arms a waiter on the end of a task.
-- @tparam table loop
-- @tparam table waiter
-- @tparam table target a task that has not ended
-- @tparam ?number deadline in the loop's time
function M.await_end(loop, waiter, target, deadline)
  if waiter.waits then disarm(loop, waiter) end
  local joiners = target.joiners
  if joiners then joiners[#joiners + 1] = waiter else target.joiners = { waiter } end
  waiter.target = target
  arm(loop, waiter, target, deadline)
end

--- A waiter for a wait outside of tasks.
-- @treturn table waiter
function M.new()
  local waiter = M.fields { position = 0 }
  take_id(waiter)
  return waiter
end

-- Wakes whoever waits for the ticket that was reported under `id`, in the order in which they began to wait.
local function answer(loop, id)
  local also = loop.also
  if also[id] then
    local chain = { id }
    while also[id] do
      local earlier = also[id]
      also[id], chain[#chain + 1] = nil, earlier
      id = earlier
    end
    for i = #chain, 2, -1 do
      local waiter = slots[chain[i]]
      if waiter and waiter.ticket then wake(loop, waiter, 1) end
    end
    id = chain[1]
  end
  local waiter = slots[id]
  if waiter and waiter.ticket then wake(loop, waiter, 1) end
end

--- Ends the wait of the task that a report is for, when it is for no other too; the caller resumes it at once.
-- @tparam table loop
-- @tparam integer id as the core reported it
-- @treturn table|nil task; nil: nothing was done
function M.take(loop, id)
  local task = slots[id]
  if not task or not task.ticket or not task.thread or task.in_place or loop.also[id] then return nil end
  task.waits, task.ticket = false, false
  if task.position ~= 0 then remove(loop.timers, task) end
  return task
end

--- Wakes those whose deadline has come.
-- @tparam table loop
-- @tparam number time
-- @tparam boolean all or only the first of them
function M.expire(loop, time, all)
  local waiter = first(loop)
  while waiter and waiter.key <= time do
    if waiter.waits == SLEEP or not disarm(loop, waiter) then
      wake(loop, waiter, 1)
    else
      wake(loop, waiter, nil, "timeout")
    end
    waiter = all and first(loop)
  end
end

--- Wakes those whose tickets were answered.
-- @tparam table loop
-- @tparam integer id the first that the core named
-- @tparam boolean others whether it has more to name
function M.collect(loop, id, others)
  local waiter = slots[id]
  if waiter and waiter.ticket and not loop.also[id] then wake(loop, waiter, 1) else answer(loop, id) end
  while others do
    id = core_ready()
    if not id then return end
    answer(loop, id)
  end
end

return M
