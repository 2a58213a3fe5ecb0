local WORLD = require "spec.resty_world"
local nginx = require "spec.nginx"

describe("The driver of netstack.resty", function()
  if nginx.absent(it, pending) then return end
  local socket = require "socket"

  local server

  setup(function()
    server = nginx.start { http = [[
      init_by_lua_block {
        local direct = require "netstack.direct"
        local step = direct.step
        steps = 0
        function direct.step(...)
          steps = steps + 1
          return step(...)
        end
      }
    ]] .. WORLD }
  end)

  teardown(nginx.finish)

  local function run(code) return server:run(code) end

  it("lets another request finish during a bulk transfer", function()
    -- One request moves data back and forth in the worker, with nothing else to wait for.
    local bulk = server:open("/run", [[
      local socket = resty.tcp(a)
      socket:connect("10.0.0.2", 80)
      local moved, ends = 0, ngx.now() + 1
      repeat
        socket:send("give 1000000\n")
        moved = moved + #assert(socket:receive(1000000))
        ngx.update_time()
      until ngx.now() > ends
      return moved
    ]])
    local slowest, count, ends = 0, 0, socket.gettime() + 0.6
    while socket.gettime() < ends do
      local start = socket.gettime()
      assert.equal(204, (server:request("/empty")))
      slowest, count = math.max(slowest, socket.gettime() - start), count + 1
    end
    local _, moved = bulk:wait()
    assert.is_true(tonumber(moved) > 10e6, moved)
    assert.is_true(count > 5, count)
    assert.is_true(slowest < 0.5, slowest)
  end)

  it("costs nothing while nothing happens", function()
    local waiting = server:open("/run", [[
      local socket = resty.tcp(a)
      socket:connect("10.0.0.2", 80)
      socket:send("wait 1.3\n")
      return socket:receive()
    ]])
    socket.sleep(0.2)
    local before = server:cpu()
    socket.sleep(1)
    local used = server:cpu() - before
    assert.is_true(used < 0.015, used) -- one tick of the clock that counts it
    assert.same({ 200, "waited" }, { waiting:wait() })
  end)

  it("loses no wake-up in many operations", function()
    assert.equal("100000", run [[
      local socket, done = resty.tcp(a), 0
      socket:settimeout(5000)
      socket:connect("10.0.0.2", 80)
      for i = 1, 100000 do
        socket:send("x\n")
        assert(socket:receive() == "x")
        done = done + 1
      end
      return done
    ]])
  end)

  it("drives the stacks when nobody waits for them", function()
    assert.equal("200", run [[
      local told, peer = require("ngx.semaphore").new(), b:udp()
      peer:setsockname("*", 99)
      local reader = ngx.thread.spawn(function()
        for _ = 1, 200 do
          peer:receive()
          told:post()
        end
      end)
      local socket = resty.udp(a)
      socket:setpeername("10.0.0.2", 99)
      for i = 1, 200 do
        socket:send("x")
        if not told:wait(1) then return i end
      end
      ngx.thread.wait(reader)
      peer:close()
      return 200
    ]])
  end)

  it("drives the stacks once for many who wait", function()
    local function steps_of(count)
      return tonumber(run(([[
        local before, threads = steps, {}
        for i = 1, %d do
          threads[i] = ngx.thread.spawn(function()
            local socket = resty.tcp(a)
            assert(socket:connect("10.0.0.2", 80))
            for _ = 1, 100 do
              socket:send("x\n")
              assert(socket:receive() == "x")
            end
          end)
        end
        for i = 1, #threads do ngx.thread.wait(threads[i]) end
        return (steps - before) / 100
      ]]):format(count)))
    end
    -- There and back.
    local alone, many = steps_of(1), steps_of(12)
    assert.is_true(alone >= 1 and alone < 3, alone)
    assert.is_true(many >= 1 and many < 12, many)
  end)

  -- A waiter keeps its place in the timers from wait to wait.
  it("ends each wait in its own time, whatever the last one's was", function()
    assert.equal("timeout closed", run [[
      local socket = resty.tcp(a)
      assert(socket:connect("10.0.0.2", 80))
      local function timed(milliseconds)
        socket:settimeout(milliseconds)
        local start = netstack.now()
        local line, err = socket:receive()
        return line, err, netstack.now() - start
      end
      local function echo(milliseconds)
        socket:send("x\n")
        assert(timed(milliseconds) == "x")
      end
      echo(60000)
      local _, short, took = timed(60) -- an earlier end than the one that was set
      assert(took >= 0.06 and took < 1, took)
      for _ = 1, 20 do echo(80) end
      local _, long, later = timed(300) -- a later one
      assert(short == long and later >= 0.3 and later < 1.5, later)
      socket:send("wait 0.2\n") -- past where the timers had it
      assert(timed(60000) == "waited")
      for _ = 1, 3 do echo(40) end
      socket:send("wait 0.1\n")
      ngx.sleep(0.12)
      assert(timed(1000) == "waited")
      socket:close()
      return long .. " " .. select(2, socket:receive())
    ]])
  end)
end)
