--- What drives the stacks of an nginx worker: one coroutine, in a timer, that turns them, sleeps on its semaphore until
-- the next timer, and is woken by whatever gives them work. It goes on while somebody waits, while something is due but
-- the end of connections in TIME-WAIT, or while a stack that was started when the worker was is open; else it stops, so
-- that nothing keeps a Lua state that nginx made for one request, and starts again when there is something to do.
--
-- nginx handles what semaphores wake before it looks at its descriptors again, so coroutines that wake each other could
-- keep it from those for ever. Whoever waits after 5 ms of that sleeps for a millisecond first.
-- @module netstack.resty.driver

local core = require "netstack.core"
local driver = require "netstack.driver"
local monotonic = require "netstack.monotonic"
local owners = require "netstack.resty.owner"
local semaphores = require "ngx.semaphore"
local weak_list = require "netstack.resty.weak_list"

local ngx = ngx -- luacheck: ignore 113
local get_phase, now, sleep, timer_at = ngx.get_phase, ngx.now, ngx.sleep, ngx.timer.at
local await, try_turn, is_yieldable = driver.await, driver.try_turn, core.is_yieldable
local ceil, max, min = math.ceil, math.max, math.min

-- Seconds. A busy worker looks at its descriptors at least so often.
local BUSY, BREATH = 0.005, 0.001
-- What nginx takes for a time and is never reached: 11 days.
local FOREVER = 1e6
-- From the worker's exit until stacks are closed.
local GRACE = 2
-- A timer tells of the worker's exit. It is set anew, each time for twice as long, while the driver runs: it keeps a
-- Lua state about as long again as that has been driven.
local FIRST_WATCH, LONGEST_WATCH = 0.05, 3600

local YIELDABLE = { rewrite = true, server_rewrite = true, access = true, content = true, timer = true,
  ssl_cert = true, ssl_client_hello = true, ssl_session_fetch = true }

local M = {}

local attached = false
local running = false -- the driver's coroutine is there, or about to be
local watching = false -- a timer is set that tells of the worker's exit
local signalled = false -- the semaphore was posted since the stacks were last driven
local bell -- the driver's semaphore
local leaves -- when stacks are closed, since the worker exits
local left = false -- they are

local function close(object) object:close() end

local stacks, others = weak_list.new(), weak_list.new()
local started = {} -- stacks that are driven as long as they are open; held

--- Has something closed as soon as the worker exits.
-- @param object with a method `close`
function M.at_exit(object) weak_list.add(others, object) end

--- Whether the worker exits.
function M.exiting() return leaves ~= nil end

-- Gives nginx a turn with its descriptors, unless it just had one: then it has looked at the clock. To ask for the time
-- costs as much as some waits do, so not all of them look.
local seen, since = -1, 0
local asked, PACE = 0, 8
local function breathe()
  asked = asked + 1
  if asked % PACE ~= 0 then return end
  local time = now()
  if time ~= seen then
    seen, since = time, monotonic()
  elseif monotonic() - since > BUSY then
    sleep(BREATH)
    seen, since = now(), monotonic()
  end
end

-- Handlers have it look at the clock without that.
local function mind_clock()
  local update_time = ngx.update_time
  ngx.update_time = function() -- luacheck: ignore 122
    update_time()
    seen = now()
  end
end

-- Forgets the started stacks that are closed. Returns whether others are left.
local function keeps()
  local open = 0
  for i = 1, #started do
    local stack = started[i]
    started[i] = nil
    if core.is_open(stack) then
      open = open + 1
      started[open] = stack
    end
  end
  return open > 0
end

local function noop() end

local watch

local function set_watch(period)
  watching = timer_at(period, watch, period) and true or false
end

-- The worker exits. What is to be woken by that is woken only if nginx is, which a timer that is due does.
local function leave()
  if leaves then return end
  leaves = monotonic() + GRACE
  weak_list.each(others, close)
  M.ring()
  timer_at(0, noop)
end

function watch(premature, period)
  if premature or ngx.worker.exiting() then return leave() end
  if running then set_watch(min(period * 2, LONGEST_WATCH)) else watching = false end
end

-- Turns the stacks until nothing is left to do at this time: nearly always once, which LuaJIT compiles before a loop,
-- but not in it. Returns the seconds until there is; nil: not by itself.
local function turn()
  signalled = false
  local delay, raised, err = try_turn()
  while raised or (delay and delay <= 0) do
    if raised then ngx.log(ngx.ERR, "netstack: ", tostring(err)) end
    breathe()
    signalled = false
    delay, raised, err = try_turn()
  end
  return delay
end

local function go_on(premature)
  if premature or ngx.worker.exiting() then leave() elseif not watching then set_watch(FIRST_WATCH) end
  while true do
    owners.reap()
    local delay = turn()
    local needed = driver.is_needed()
    if leaves then
      local rest = leaves - monotonic()
      if rest <= 0 then
        if not left then
          left = true
          weak_list.each(stacks, close)
          turn()
          driver.dismiss("closed")
        end
        break
      end
      if not needed and not signalled then break end
      delay = min(delay or rest, rest)
    elseif not needed and not signalled and owners.count() == 0 and driver.is_idle() and not keeps() then
      driver.pause()
      break
    end
    bell:wait(delay and max(ceil(delay * 1000) / 1000, BREATH) or FOREVER)
    breathe()
  end
end

-- The driver's coroutine. Where memory is short it may fail; others wait for it.
local function drive(premature)
  running = true
  local ok, err = pcall(go_on, premature)
  running = false
  if not ok then
    ngx.log(ngx.ERR, "netstack: ", tostring(err))
    running = timer_at(BREATH, drive) and true or false
  end
end

--- Has the stacks driven soon. Callable wherever Lua code runs, but when nginx reads its configuration.
function M.ring()
  if signalled and running then return end
  signalled = true
  if not running then
    local ok, err = timer_at(0, drive)
    running = ok and true or false
    if not ok then ngx.log(ngx.ERR, "netstack: nobody drives the stacks: ", err) end
  end
  bell:post(1)
end

local adapter = {
  ring = M.ring,
  no_run = "netstack.run in an nginx worker that drives stacks: it would stop the worker, and set their clocks; " ..
    "what runs, a lab for one, belongs in a Lua state of its own: ngx.run_worker_thread, with a thread_pool",
}

--- The caller, if it could wait.
-- @treturn thread|nil
function M.can_wait()
  if not YIELDABLE[get_phase()] then return nil end
  local yields, thread = is_yieldable()
  return yields and thread or nil
end

--- Has the caller wait, which can, for a ticket.
-- @tparam userdata ticket
-- @tparam ?number deadline of the monotonic clock
-- @treturn integer|nil 1
-- @treturn string "timeout", "closed" (the worker exits)
function M.await(ticket, deadline)
  if left then return nil, "closed" end
  breathe()
  return await(ticket, deadline)
end

function adapter.can_park()
  if not M.can_wait() then return false, "not supported" end
  if left then return false, "closed" end
  breathe()
  return true
end

function adapter.park(waiter)
  local semaphore = waiter.semaphore
  if not semaphore then
    semaphore = assert(semaphores.new(0))
    waiter.semaphore, waiter.abandon, waiter.owner = semaphore, driver.drop, false
  end
  owners.adopt(waiter)
  if not running then M.ring() end -- there may be nothing to do but to end the wait, some time
  local ok, err = semaphore:wait(FOREVER)
  owners.release(waiter)
  if not ok and err ~= "timeout" then error(err, 0) end
end

-- The coroutine may be gone: another light thread has nginx drop it where it waits.
function adapter.unpark(waiter)
  driver.release(waiter)
  if waiter.semaphore then waiter.semaphore:post(1) end
end

--- Has the worker's stacks driven, this one among them.
-- @tparam stack stack
-- @tparam ?boolean keep whether it is driven as long as it is open, and held
-- @treturn integer|nil 1
-- @treturn string "not supported": nginx reads its configuration; "closed": the worker exits, or a stack to keep is
-- closed
function M.start(stack, keep)
  local phase = get_phase()
  if phase == "init" then return nil, "not supported" end
  if left or (keep and not core.is_open(stack)) then return nil, "closed" end
  if not attached then
    bell = bell or assert(semaphores.new(0))
    owners.tell(bell)
    mind_clock()
    driver.attach(adapter)
    attached = true
  end
  weak_list.add(stacks, stack)
  if keep then
    local known = false
    for i = 1, #started do known = known or started[i] == stack end
    -- A stack of a request may be one of a Lua state that ends with it: it must not last for the stack's sake.
    if not known and phase == "init_worker" then started[#started + 1] = stack end
    M.ring()
  end
  return 1
end

return M
