-- The scheduler without sockets; the blocks at the end, marked TCP, need whole stacks.
local netstack = require "netstack.scheduler"
local core = require "netstack.core"

local run, spawn, daemon, sleep, now = netstack.run, netstack.spawn, netstack.daemon, netstack.sleep, netstack.now
local unpack = table.unpack or unpack -- luacheck: ignore 143
local HERE = "scheduler_spec.lua:"
local lua51 = _VERSION == "Lua 5.1" and not rawget(_G, "jit")

-- The error of a call, which has to fail.
local function failure(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  return err
end

local function pack(...)
  return { n = select("#", ...), ... }
end

-- A list to add to, and its text.
local function new_log()
  local log = {}
  return function(entry)
    if entry == nil then return table.concat(log, " ") end
    log[#log + 1] = entry
  end
end

-- Runs fn where a task cannot yield, on every Lua.
local function unyieldable(fn)
  local results
  table.sort({ 1, 2 }, function()
    results = results or pack(fn())
    return false
  end)
  return unpack(results, 1, results.n)
end

local function seconds(time)
  return ("%.6g"):format(time)
end

describe("run", function()
  it("returns what the function returns, nils kept", function()
    assert.same({ n = 4, nil, 1, nil, nil }, pack(run(function() return nil, 1, nil, nil end)))
    assert.same({ n = 0 }, pack(run(function() end)))
  end)

  it("passes arguments on, with or without options", function()
    local function echo(...) return select("#", ...), ... end
    assert.same({ n = 4, 3, 1, nil, nil }, pack(run(echo, nil, 1, nil, nil)))
    assert.same({ n = 2, 1, "x" }, pack(run(echo, { clock = "virtual" }, "x")))
    assert.equal(0, (run(echo, {})))
  end)

  it("raises for what is not a function", function()
    assert.matches("bad argument #1 to 'run' %(function expected, got nil%)", failure(run))
    assert.matches("bad argument #1 to 'run' %(function expected, got table%)", failure(run, {}))
  end)

  it("raises for options that are wrong or unknown, where it was called", function()
    local function wrong(opts) return failure(function() run(print, opts) end) end
    assert.matches(HERE .. "%d+: bad argument #2 to 'run' %(unknown option 'clok'%)", wrong { clok = 1 })
    assert.matches("bad argument #2 to 'run' %(table expected, got number%)", wrong(1))
    assert.matches("bad argument #2 to 'run' %(option 'clock': ", wrong { clock = "lunar" })
    assert.matches("bad argument #2 to 'run' %(option 'clock': ", wrong { clock = 1 })
    assert.matches("bad argument #2 to 'run' %(option 'timeout': ", wrong { timeout = "1" })
    assert.matches("bad argument #2 to 'run' %(option 'timeout': ", wrong { timeout = -1 })
    assert.matches("bad argument #2 to 'run' %(option 'timeout': ", wrong { timeout = 0 / 0 })
    assert.matches("bad argument #2 to 'run' %(option 'linger': ", wrong { linger = true })
    assert.matches("bad argument #2 to 'run' %(option 'seed': ", wrong { seed = 1.5 })
    assert.matches("bad argument #2 to 'run' %(unknown option 'a'%)", wrong { b = 1, a = 1, c = 1 })
  end)

  it("raises inside run, and can be called again after that", function()
    assert.matches("run inside run", failure(run, function() run(print) end))
    assert.equal(1, run(function() return 1 end))
  end)

  it("runs in a coroutine", function()
    local wrapped = coroutine.wrap(function() return run(function() sleep(1) return now() end) end)
    assert.equal(1, wrapped())
  end)

  it("waits for every task, also for those spawned late", function()
    local log = new_log()
    run(function()
      spawn(function()
        sleep(2)
        spawn(function() sleep(2) log("late") end)
      end)
      log("main")
    end)
    assert.equal("main late", log())
  end)

  it("raises what the function raises, unchanged", function()
    local err = {}
    assert.equal(err, failure(run, function() error(err) end))
    assert.equal("text", failure(run, function() error("text", 0) end))
    assert.is_false(failure(run, function() sleep(1) error(false) end))
  end)

  it("knows its seed", function()
    assert.equal(7, run(netstack.seed, { seed = 7 }))
    assert.is_nil((run(netstack.seed)))
    assert.is_nil(netstack.seed())
  end)

  it("keeps nothing when it is over", function()
    local weak = setmetatable({}, { __mode = "k" })
    local kept = run(function()
      local first
      for _ = 1, 5 do
        local held = {}
        local task = daemon(function() sleep(math.huge) return held end)
        weak[task], weak[held] = true, true
        first = first or task
      end
      spawn(function() sleep(1) end)
      sleep(0.5)
      return first
    end)
    pcall(run, function() weak[spawn(function() sleep(10) end)] = true; sleep(1); error("x") end)
    pcall(run, function() weak[spawn(function() sleep(10) end)] = true; sleep(20) end, { timeout = 1 })
    assert.is_false(kept:cancel())
    kept = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(weak))
  end)
end)

describe("the clock", function()
  it("is virtual without a device that has an fd: it jumps, from 0", function()
    local started = core.monotonic()
    run(function()
      assert.equal(0, now())
      sleep(3600)
      assert.equal(3600, now())
      sleep(0.5)
      assert.equal(3600.5, now())
    end)
    assert.is_true(core.monotonic() - started < 60)
    run(function() assert.equal(0, now()) end)
  end)

  it("can be real", function()
    local started = core.monotonic()
    local told = run(function()
      sleep(0.02)
      return now()
    end, { clock = "real" })
    local took = core.monotonic() - started
    assert.is_true(told >= 0.02 and told <= took)
  end)

  it("can be a function, whose first answer is time 0", function()
    local time = 100
    local function clock()
      time = time + 0.25
      return time
    end
    local told = run(function()
      sleep(2)
      return now()
    end, { clock = clock })
    assert.is_true(told >= 2 and told < 4)
  end)

  it("may be a function that some task moves", function()
    local time, log = 0, new_log()
    run(function()
      spawn(function() sleep(3) log("woken") end)
      sleep(0)
      for i = 1, 5 do
        time = i
        sleep(0)
        sleep(0)
        log(i)
      end
    end, { clock = function() return time end })
    assert.equal("1 2 woken 3 4 5", log())
  end)

  it("never goes back", function()
    local times, i = { 5, 6, 3, 9 }, 0
    run(function()
      assert.equal(1, now())
      assert.equal(1, now())
      assert.equal(4, now())
    end, { clock = function()
      i = i + 1
      return times[i] or 9
    end })
  end)

  it("must tell numbers", function()
    local n = 0
    local err = failure(run, function() sleep(1) end, { clock = function()
      n = n + 1
      return n == 1 and 0 or nil
    end })
    assert.matches("the clock returned a nil", err)
  end)

  it("is the monotonic one outside run", function()
    local before = core.monotonic()
    local told = now()
    assert.is_true(before <= told and told <= core.monotonic())
  end)
end)

describe("timeout", function()
  it("drops everything and says who waited", function()
    local log = new_log()
    local err = failure(run, function()
      spawn(function() sleep(50) log("never") end)
      sleep(100)
      log("never")
    end, { timeout = 5 })
    assert.matches("^timeout:", err)
    assert.matches("task 1 %(spawned at .*" .. HERE .. "%d+%) sleeps until 100 s", err)
    assert.matches("task 2 %(spawned at .*" .. HERE .. "%d+%) sleeps until 50 s", err)
    assert.equal("", log())
  end)

  it("lets pass what ends in time, to the second", function()
    assert.equal("done", run(function() sleep(5) return "done" end, { timeout = 5 }))
  end)

  it("is of the real clock, when that is used", function()
    assert.matches("^timeout:", failure(run, function() sleep(10) end, { clock = "real", timeout = 0.01 }))
  end)

  it("ends tasks that poll a virtual clock for ever", function()
    assert.matches("^timeout:", failure(run, function() while true do sleep(0) end end, { timeout = 1 }))
  end)

  it("cannot be caught in the run", function()
    local err = failure(run, function()
      unyieldable(function() pcall(sleep, 100) end)
      sleep(1)
    end, { timeout = 5 })
    assert.matches("^timeout:", err)
  end)
end)

describe("spawn", function()
  it("starts tasks in order, when the caller waits", function()
    local log = new_log()
    run(function()
      for i = 1, 3 do spawn(log, i) end
      log("main")
    end)
    assert.equal("main 1 2 3", log())
  end)

  it("passes arguments on, nils kept", function()
    run(function()
      local task = spawn(function(...) return select("#", ...), ... end, nil, 2, nil)
      assert.same({ n = 4, 3, nil, 2, nil }, pack(task:join()))
      assert.equal(0, spawn(function(...) return select("#", ...) end):join())
    end)
  end)

  it("takes C functions", function()
    run(function() assert.equal("number", spawn(type, 1):join()) end)
  end)

  it("raises outside run, and for what is not a function", function()
    assert.matches(HERE .. "%d+: spawn outside run", failure(function() spawn(print) end))
    assert.matches("daemon outside run", failure(daemon, print))
    assert.matches(HERE .. "%d+: bad argument #1 to 'spawn' %(function expected, got string%)",
      failure(run, function() local t = spawn("x") return t end))
    assert.matches("bad argument #1 to 'daemon'", failure(run, function() daemon() end))
  end)

  it("resumes in the order in which tasks became ready", function()
    local log = new_log()
    run(function()
      for i = 1, 4 do spawn(function() sleep(i % 2 + 1) log(i) end) end
    end)
    assert.equal("2 4 1 3", log())
  end)

  it("gives tasks a telling tostring", function()
    run(function()
      local line = debug.getinfo(1, "l").currentline + 1
      local task = spawn(function() end)
      assert.matches("^task 2 %(spawned at .*" .. HERE .. line .. "%)$", tostring(task))
    end)
  end)
end)

describe("join", function()
  it("returns what the function returned, to all, at once when it has ended", function()
    run(function()
      local task = spawn(function() sleep(1) return 1, nil, 3, nil end)
      local other = spawn(function() return pack(task:join()) end)
      assert.same({ n = 4, 1, nil, 3, nil }, pack(task:join()))
      assert.equal(1, now())
      assert.same({ n = 4, 1, nil, 3, nil }, pack(task:join(0)))
      assert.equal(4, other:join().n)
      assert.equal(1, now())
    end)
  end)

  it("returns after run what it would have in it", function()
    local task = run(function() return (spawn(function() return "x" end)) end)
    assert.equal("x", task:join())
  end)

  it("wakes joiners in the order in which they came", function()
    local log = new_log()
    run(function()
      local task = spawn(sleep, 2)
      for i = 1, 3 do spawn(function() sleep(1 - i / 4) task:join() log(i) end) end
    end)
    assert.equal("3 2 1", log())
  end)

  it("times out, and can be tried again", function()
    run(function()
      local task = spawn(function() sleep(2) return "x" end)
      assert.same({ n = 2, nil, "timeout" }, pack(task:join(0)))
      assert.equal(0, now())
      assert.same({ n = 2, nil, "timeout" }, pack(task:join(1)))
      assert.equal(1, now())
      assert.equal("x", task:join(1))
      assert.equal(2, now())
    end)
  end)

  it("raises the error of the task unchanged, which is then handled", function()
    local err = {}
    run(function()
      local task = spawn(function() sleep(1) error(err) end)
      local other = spawn(function() return select(2, netstack.pcall(task.join, task)) end)
      local ok, got = netstack.pcall(task.join, task)
      assert.is_false(ok)
      assert.equal(err, got)
      assert.equal(err, other:join())
      assert.equal(err, failure(task.join, task))
      sleep(1)
    end)
  end)

  it("raises for a wrong timeout, and for oneself", function()
    run(function()
      local task = spawn(sleep, 1)
      assert.matches(HERE .. "%d+: bad argument #1 to 'join' %(number expected, got string%)",
        failure(function() task:join("1") end))
      assert.matches("bad argument #1 to 'join'", failure(task.join, task, -1))
      assert.matches("bad argument #1 to 'join'", failure(task.join, task, 0 / 0))
      local itself
      itself = spawn(function() return failure(itself.join, itself) end)
      assert.matches("cannot join itself", itself:join())
    end)
  end)

  it("waits where the caller cannot yield", function()
    run(function()
      local task = spawn(function() sleep(1) return "x" end)
      assert.equal("x", unyieldable(function() return task:join() end))
      assert.same({ n = 2, nil, "timeout" }, pack(unyieldable(function() return spawn(sleep, 2):join(1) end)))
    end)
  end)
end)

describe("an error nobody joined", function()
  it("ends the run with it, unchanged, right then", function()
    local err, log = {}, new_log()
    assert.equal(err, failure(run, function()
      spawn(function() sleep(1) error(err) end)
      spawn(function() sleep(2) log("never") end)
      sleep(3)
      log("never")
    end))
    assert.equal("", log())
  end)

  it("passes failed assertions on", function()
    local err = failure(run, function()
      spawn(function() assert.equal(1, 2) end)
      sleep(1)
    end)
    assert.is_table(err)
    assert.matches("Expected objects to be equal", tostring(err))
  end)

  it("counts also when a joiner gave up", function()
    assert.equal("late", failure(run, function()
      local task = spawn(function() sleep(2) error("late", 0) end)
      assert.equal("timeout", select(2, task:join(1)))
      sleep(5)
    end))
  end)

  it("counts when the joiner is cancelled before it could take it", function()
    assert.equal("lost", failure(run, function()
      local bad, joiner
      bad = spawn(function()
        sleep(1)
        spawn(function() assert.is_true(joiner:cancel()) end) -- is ready just before the joiner is
        error("lost", 0)
      end)
      joiner = spawn(function() netstack.pcall(bad.join, bad) end)
      sleep(5)
    end))
  end)

  it("counts in a daemon", function()
    assert.equal("daemon", failure(run, function()
      daemon(function() error("daemon", 0) end)
      sleep(1)
    end))
  end)

  it("counts when a task yields by itself", function()
    assert.matches("coroutine.yield", failure(run, function() coroutine.yield(1) end))
  end)

  it("gets through waits that drive in place", function()
    local err = {}
    assert.equal(err, failure(run, function()
      spawn(function() sleep(1) error(err) end)
      unyieldable(function() sleep(5) end)
    end))
  end)
end)

describe("cancel", function()
  it("drops a task where it waits; joiners get cancelled", function()
    local log = new_log()
    run(function()
      local task = spawn(function() sleep(5) log("never") end)
      local joiner = spawn(function() return pack(task:join()) end)
      sleep(1)
      assert.is_true(task:cancel())
      assert.same({ n = 2, nil, "cancelled" }, joiner:join())
      assert.same({ n = 2, nil, "cancelled" }, pack(task:join()))
      assert.is_false(task:cancel())
      assert.equal(1, now())
    end)
    assert.equal("", log())
  end)

  it("drops one that has not started, and one that is ready", function()
    local log = new_log()
    run(function()
      assert.is_true(spawn(log, "never"):cancel())
      local ready = spawn(function() sleep(0) log("never") end)
      sleep(0)
      assert.is_true(ready:cancel())
      sleep(1)
    end)
    assert.equal("", log())
  end)

  it("of a task that has ended is false", function()
    run(function()
      local task = spawn(function() return 1 end)
      task:join()
      assert.is_false(task:cancel())
      assert.equal(1, task:join())
    end)
  end)

  it("of oneself does not return", function()
    local log = new_log()
    run(function()
      local task, other
      task = spawn(function() task:cancel() log("never") end)
      other = spawn(function() unyieldable(function() other:cancel() log("never") end) log("never") end)
      assert.same({ n = 2, nil, "cancelled" }, pack(task:join()))
      assert.same({ n = 2, nil, "cancelled" }, pack(other:join()))
    end)
    assert.equal("", log())
  end)

  it("of a task that drives in place makes it leave", function()
    local log = new_log()
    run(function()
      local task = spawn(function() unyieldable(function() sleep(10) log("never") end) log("never") end)
      local other = spawn(function()
        sleep(1)
        task:cancel()
      end)
      assert.equal("cancelled", select(2, task:join()))
      other:join()
      assert.equal(1, now())
    end)
    assert.equal("", log())
  end)

  it("of a joiner leaves the others", function()
    run(function()
      local task = spawn(function() sleep(2) return "x" end)
      local gone, stays = spawn(task.join, task), spawn(task.join, task)
      sleep(1)
      gone:cancel()
      assert.equal("x", stays:join())
    end)
  end)

  if coroutine.close then -- luacheck: ignore 143
    local tbc = assert((loadstring or load)([[ -- luacheck: ignore 113
      local sleep, closing, seconds = ...
      local guard <close> = setmetatable({}, { __close = closing })
      sleep(seconds)
      error("late", 0)]]))

    it("closes pending variables on 5.4", function()
      local log = new_log()
      run(function()
        local task = spawn(tbc, sleep, function() log("closed") end, 5)
        sleep(1)
        task:cancel()
        log("cancelled")
        daemon(tbc, sleep, function() log("daemon") end, 50)
        sleep(1)
      end)
      assert.equal("closed cancelled daemon", log())
    end)

    it("closes those of failed tasks, too, and raises what that raises", function()
      local log = new_log()
      assert.equal("late", failure(run, tbc, nil, sleep, function() log("closed") end, 1))
      assert.equal("closed", log())
      assert.equal("oops", failure(run, function()
        local task = spawn(tbc, sleep, function() error("oops", 0) end, 5)
        sleep(1)
        task:cancel()
        sleep(1)
      end))
    end)
  end
end)

describe("daemon", function()
  it("is cancelled when the last ordinary task has ended", function()
    local ticks, task = 0, nil
    run(function()
      task = daemon(function()
        while true do
          sleep(1)
          ticks = ticks + 1
        end
      end)
      spawn(sleep, 3.5)
    end)
    assert.equal(3, ticks)
    assert.equal("cancelled", select(2, task:join()))
  end)

  it("alone makes no deadlock", function()
    run(function() daemon(function() sleep(math.huge) end) end)
  end)

  it("does not keep others from one", function()
    local err = failure(run, function()
      daemon(sleep, math.huge)
      sleep(math.huge)
    end)
    assert.matches("^deadlock:", err)
    assert.matches("a daemon", err)
  end)

  it("ends where it cannot yield, even in a loop of protected calls", function()
    local turns = 0
    run(function()
      daemon(function()
        while true do
          pcall(function() sleep(1) end)
          turns = turns + 1
        end
      end)
      sleep(3.5)
    end)
    assert.equal(3, turns)
  end)
end)

describe("sleep", function()
  it("returns 1", function()
    run(function()
      assert.same({ n = 1, 1 }, pack(sleep(0)))
      assert.same({ n = 1, 1 }, pack(sleep(1)))
      assert.same({ n = 1, 1 }, pack(unyieldable(function() return sleep(1) end)))
    end)
    assert.same({ n = 1, 1 }, pack(sleep(1)))
  end)

  it("of 0 lets the others have their turn and takes no time", function()
    local log = new_log()
    run(function()
      spawn(function() for i = 1, 3 do log("a" .. i) sleep(0) end end)
      spawn(function() for i = 1, 3 do log("b" .. i) sleep(0) end end)
      daemon(sleep, 1)
      for _ = 1, 100 do sleep(0) end
      assert.equal(0, now())
    end)
    assert.equal("a1 b1 a2 b2 a3 b3", log())
  end)

  it("of 0 in a loop does not hold virtual time still for ever", function()
    run(function()
      local flag
      spawn(function() sleep(1) flag = true end)
      repeat sleep(0) until flag
      assert.equal(1, now())
    end)
  end)

  it("raises for what is no time", function()
    local function wrong(value) return failure(function() sleep(value) end) end
    assert.matches(HERE .. "%d+: bad argument #1 to 'sleep' %(number expected, got nil%)", wrong(nil))
    assert.matches("bad argument #1 to 'sleep' %(number expected, got string%)", wrong("1"))
    assert.matches("bad argument #1 to 'sleep' %(non%-negative number expected, got %-1%)", wrong(-1))
    assert.matches("bad argument #1 to 'sleep'", wrong(0 / 0))
    run(function() assert.matches("bad argument #1 to 'sleep'", wrong(-1)) end)
  end)

  it("outside run takes no real time, and none off the next run", function()
    local started = core.monotonic()
    sleep(1000)
    assert.is_true(core.monotonic() - started < 60)
    run(function() assert.equal(0, now()) end)
  end)

  it("that ends with a timeout and began before it has its consequences first", function()
    run(function()
      local task = spawn(sleep, 2)
      sleep(1)
      assert.equal(1, task:join(1))
      local sleeper
      local hasty = spawn(function() return select(2, sleeper:join(1)) end)
      sleeper = spawn(sleep, 1)
      assert.equal("timeout", hasty:join())
    end)
  end)

  it("wakes equal deadlines in the order of the calls", function()
    local log = new_log()
    run(function()
      for i = 1, 5 do spawn(function() sleep(1) log(i) end) end
    end)
    assert.equal("1 2 3 4 5", log())
  end)
end)

describe("deadlock", function()
  it("is reported with who waits for what", function()
    local line
    local err = failure(run, function()
      line = debug.getinfo(1, "l").currentline + 1
      local task = spawn(function() sleep(math.huge) end)
      task:join()
    end)
    assert.matches("^deadlock:", err)
    assert.matches("task 1 %(.-%) waits for task 2 %(spawned at .-" .. HERE .. line .. "%)", err)
    assert.matches("task 2 %(spawned at .-" .. HERE .. line .. "%) sleeps for ever", err)
  end)

  it("is raised where the answer can only come from beneath", function()
    run(function()
      local beneath
      beneath = spawn(function()
        local above = spawn(function()
          return failure(unyieldable, function() beneath:join() end)
        end)
        return unyieldable(function() return above:join() end)
      end)
      local err = beneath:join()
      assert.matches("^deadlock:", err)
      assert.matches("where it cannot yield", err)
    end)
  end)

  it("is raised outside run", function()
    assert.matches("^deadlock:", failure(sleep, math.huge))
    assert.equal(1, sleep(1))
  end)
end)

describe("waits where the caller cannot yield", function()
  it("drive the other tasks from within", function()
    local log = new_log()
    run(function()
      spawn(function() for i = 1, 3 do sleep(1) log(i) end end)
      unyieldable(function() sleep(2.5) end)
      log("main")
    end)
    assert.equal("1 2 main 3", log())
  end)

  it("are found in coroutines of the user's", function()
    run(function()
      local next_time = coroutine.wrap(function()
        while true do
          sleep(1)
          coroutine.yield(now())
        end
      end)
      spawn(function() sleep(1.5) end)
      assert.equal(1, next_time())
      assert.equal(2, next_time())
      sleep(1)
      assert.equal(4, next_time())
    end)
  end)

  it("are found in plain protected calls", function()
    run(function()
      assert.same({ n = 2, true, 1 }, pack(pcall(sleep, 1)))
      assert.same({ n = 2, true, 1 }, pack(xpcall(function() return sleep(1) end, debug.traceback)))
      assert.equal(2, now())
    end)
  end)

  it("are found in gsub", function()
    run(function()
      assert.equal("1 2", (("a b"):gsub("%a", function() sleep(1) return seconds(now()) end)))
    end)
  end)

  it("nest, each going on when its turn has come", function()
    local log = new_log()
    run(function()
      for i = 1, 10 do
        spawn(function()
          unyieldable(function() sleep(11 - i) end)
          log(i)
        end)
      end
    end)
    assert.equal("10 9 8 7 6 5 4 3 2 1", log())
  end)

  it("nest only so deep, and say so", function()
    local err = failure(run, function()
      for _ = 1, 1000 do spawn(unyieldable, function() sleep(1) end) end
    end)
    assert.matches("nested too deep", err)
  end)

  if lua51 then
    it("leave the task usable when Lua refused to yield", function()
      run(function()
        local object = setmetatable({}, { __index = function() sleep(1) end })
        local task = spawn(function()
          local ok, err = netstack.pcall(function() return object.x end)
          assert.is_false(ok)
          assert.matches("attempt to yield across", err)
          sleep(5)
          return now()
        end)
        assert.equal(5, task:join())
      end)
    end)
  end
end)

describe("pcall", function()
  it("is yielded through by tasks, which then go on side by side", function()
    local log = new_log()
    run(function()
      for i = 1, 3 do
        spawn(function()
          log(select(2, netstack.pcall(function()
            netstack.pcall(sleep, 4 - i)
            sleep(1)
            return i
          end)))
        end)
      end
    end)
    assert.equal("3 2 1", log())
  end)

  it("passes arguments, results and errors, nils kept", function()
    local function check()
      assert.same({ n = 4, true, nil, 1, nil }, pack(netstack.pcall(function(...) return ... end, nil, 1, nil)))
      local err = {}
      assert.same({ n = 2, false, err }, pack(netstack.pcall(error, err)))
      assert.same({ n = 2, false }, pack(netstack.pcall(error, nil)))
      assert.is_false((netstack.pcall(nil)))
    end
    check()
    run(check)
    run(function() unyieldable(check) end)
  end)

  it("is yielded through in other coroutines", function()
    local co = coroutine.create(function(...)
      return netstack.pcall(function(...)
        local got = coroutine.yield(...)
        error(got, 0)
      end, ...)
    end)
    assert.same({ n = 3, true, 1, 2 }, pack(coroutine.resume(co, 1, 2)))
    assert.same({ n = 3, true, false, "x" }, pack(coroutine.resume(co, "x")))
  end)

  it("can be cancelled in", function()
    run(function()
      local task = spawn(netstack.pcall, sleep, 10)
      sleep(1)
      task:cancel()
    end)
  end)
end)

describe("xpcall", function()
  it("is yielded through, takes arguments, calls the handler", function()
    local function check(wait)
      assert.same({ n = 3, true, 1, nil }, pack(netstack.xpcall(function(...)
        wait(1)
        return ...
      end, error, 1, nil)))
      assert.same({ n = 2, false, "<x>" }, pack(netstack.xpcall(function(text)
        wait(1)
        error(text, 0)
      end, function(err) return "<" .. err .. ">" end, "x")))
    end
    run(check, nil, sleep)
    run(function() unyieldable(function() check(sleep) end) end)
    check(sleep)
  end)

  it("lets the traceback handler see where it failed", function()
    run(function()
      local function culprit()
        sleep(1)
        error("here")
      end
      local line = debug.getinfo(culprit, "S").linedefined + 2
      local ok, text = netstack.xpcall(function() culprit() return 1 end, debug.traceback)
      assert.is_false(ok)
      assert.matches("here\nstack traceback:", text)
      assert.matches("\n.*" .. HERE .. line .. ":", text)
    end)
  end)
end)

describe("waiting", function()
  it("takes functions and nil, and gives the one before", function()
    assert.matches(HERE .. "%d+: bad argument #1 to 'waiting'", failure(function() netstack.waiting(1) end))
    local function first() return 1 end
    assert.is_nil(netstack.waiting(first))
    assert.equal(first, netstack.waiting(print))
    assert.equal(print, netstack.waiting(nil))
    assert.is_nil(netstack.waiting())
  end)

  it("decides what wait returns", function()
    local ticket = {}
    netstack.waiting(function(...) return nil, "timeout", select("#", ...), ... end)
    local got = pack(netstack.wait(ticket, 5, "what"))
    local deadline, time = netstack.deadline(10), now()
    netstack.waiting(nil)
    assert.same({ n = 5, nil, "timeout", 2, ticket, 5 }, got)
    assert.is_true(deadline > time and deadline <= time + 10)
  end)
end)

describe("deadline", function()
  it("is absolute in the clock of the wait", function()
    assert.is_nil(netstack.deadline(nil))
    run(function()
      sleep(2)
      assert.equal(5, netstack.deadline(3))
      assert.equal(5, unyieldable(function() return netstack.deadline(3) end))
    end)
    local first = netstack.deadline(1)
    sleep(1)
    assert.equal(first + 1, netstack.deadline(1))
  end)
end)

describe("a run", function()
  it("does the same each time", function()
    local function once()
      local log = new_log()
      pcall(run, function()
        local tasks = {}
        for i = 1, 20 do
          tasks[i] = spawn(function()
            sleep(i * 7 % 5)
            log(i)
            if i % 3 == 0 then tasks[i - 1]:cancel() end
            if tasks[i + 1] then netstack.pcall(tasks[i + 1].join, tasks[i + 1], i % 4) end
            log("-" .. i)
            if i == 19 then error("x") end
          end)
        end
      end)
      return log()
    end
    local first = once()
    assert.equal(first, once())
    assert.is_true(#first > 40)
  end)
end)

-- TCP: the following need whole stacks.
local ok, whole = pcall(require, "netstack")
if ok and whole.pair then
  describe("TCP waits", function()
    local s1, s2
    before_each(function() s1, s2 = whole.pair() end)
    after_each(function()
      s1:close()
      s2:close()
    end)

    it("go through tasks", function()
      run(function()
        local server = assert(s2:bind("10.0.0.2", 80))
        spawn(function()
          local conn = assert(server:accept())
          assert(conn:send(assert(conn:receive("*l")):upper() .. "\n"))
          conn:close()
        end)
        local conn = assert(s1:connect("10.0.0.2", 80))
        assert(conn:send("hello\n"))
        assert.equal("HELLO", conn:receive("*l"))
        conn:close()
        server:close()
      end)
    end)

    it("outside run drive everything", function()
      local server = assert(s2:bind("10.0.0.2", 80))
      local conn = assert(s1:connect("10.0.0.2", 80))
      local other = assert(server:accept())
      assert(conn:send("x\n"))
      assert.equal("x", other:receive("*l"))
      other:settimeout(3)
      assert.equal("timeout", select(2, other:receive("*l")))
      assert.matches("^deadlock:", failure(conn.receive, conn, "*l"))
      conn:close()
      other:close()
      server:close()
    end)

    it("of two tasks for one thing, of which one gives up, wake the other", function()
      run(function()
        local server = assert(s2:bind("10.0.0.2", 80))
        local patient = spawn(function() return assert(server:accept()):close() end)
        local hasty = spawn(function() return server:accept() end)
        sleep(1)
        assert.is_true(hasty:cancel())
        assert(s1:connect("10.0.0.2", 80)):close()
        assert.equal(1, patient:join())
        server:close()
      end)
    end)

    it("name what they wait for in a deadlock report", function()
      local err = failure(run, function()
        local server = assert(s2:bind("10.0.0.2", 80))
        server:accept()
      end)
      assert.matches("^deadlock:", err)
      assert.matches("task 1 %(.-%) waits for ", err)
    end)

    it("are seen in plain pcall and in iterators of the user's", function()
      run(function()
        local server = assert(s2:bind("10.0.0.2", 80))
        daemon(function()
          while true do
            local good, conn = pcall(server.accept, server)
            if good and conn then
              conn:send("a\nb\n")
              conn:close()
            end
          end
        end)
        local conn = assert(s1:connect("10.0.0.2", 80))
        local lines = coroutine.wrap(function()
          local line = conn:receive("*l")
          while line do
            coroutine.yield(line)
            line = conn:receive("*l")
          end
        end)
        local all = {}
        for line in lines do all[#all + 1] = line end
        assert.same({ "a", "b" }, all)
        conn:close()
      end)
    end)
  end)
end
