-- Clients that go away, wherever their requests wait.
local WORLD = require "spec.resty_world"
local nginx = require "spec.nginx"

describe("netstack.resty, when clients go away,", function()
  if nginx.absent(it, pending) then return end

  local COUNT, BATCH = 400, 40
  local server

  setup(function()
    server = nginx.start { http = WORLD .. [[
      init_by_lua_block {
        require("netstack.resty").install()
        spec = {}
      }
    ]] }
  end)

  teardown(nginx.finish)

  -- What is left: coroutines that wait for stacks, objects that requests own, sockets, leases.
  local function state()
    return server:run [[
      collectgarbage "stop" -- which is not what ends anything here
      local open, queue = {}, require("netstack.resty.pool").find(a, "one")
      for _, stack in ipairs { a, b } do
        for _, one in ipairs(stack:sockets()) do
          if one.state ~= "TIME-WAIT" then open[#open + 1] = one.protocol .. " " .. tostring(one.state) end
        end
      end
      return ("%d waits, %d owned, %d leases: %s"):format(require("netstack.scheduler").outside().guests,
        require("netstack.resty.owner").count(), queue and queue.count or 0, table.concat(open, ", "))
    ]]
  end

  local function abort(code)
    for _ = 1, COUNT / BATCH do
      local requests = {}
      for i = 1, BATCH do requests[i] = server:open("/run", code) end
      assert.equal(204, (server:request("/empty"))) -- they have come to where they wait
      for _, request in ipairs(requests) do request:abort() end
    end
  end

  for _, case in ipairs {
    { "connects", [[ resty.tcp(a):connect("10.0.0.9", 80) ]] },
    { "receives", [[
      local socket = resty.tcp(a)
      socket:connect("10.0.0.2", 80)
      socket:receive()
    ]] },
    { "sends", [[
      local socket = resty.tcp(a)
      socket:connect("10.0.0.2", 81)
      socket:send(("x"):rep(600000))
    ]], 'spec.listener = resty.listen(b, "*", 81, 1000)', "spec.listener:close()" },
    { "queues for a connection", [[
      local socket = resty.tcp(a)
      socket:connect("10.0.0.2", 80, { pool = "one", pool_size = 1, backlog = 100 })
    ]], [[
      ngx.timer.at(0, function()
        local socket = resty.tcp(a)
        socket:connect("10.0.0.2", 80, { pool = "one", pool_size = 1, backlog = 100 })
        spec.over = require("ngx.semaphore").new()
        spec.over:wait(10)
      end)
    ]], "spec.over:post()" },
    { "accepts", "spec.listener:accept()", 'spec.listener = resty.listen(b, "*", 81)', "spec.listener:close()" },
    { "waits in a client that is bound", [[
      resty.with(a, function()
        local socket = ngx.socket.tcp()
        socket:connect("10.0.0.2", 80)
        socket:receive()
      end)
    ]] },
    { "waits in light threads", [[
      local socket, other = resty.tcp(a), resty.udp(a)
      socket:connect("10.0.0.2", 80)
      other:setpeername("10.0.0.2", 53)
      ngx.thread.spawn(socket.receive, socket)
      other:receive()
    ]] },
    { "waits for a socket that others have", "spec.udp:receive()",
      "spec.udp = a:udp() spec.udp:setsockname('*', 53)", "spec.udp:close()" },
  } do
    it("leaves nothing of a request that " .. case[1], function()
      local before = state()
      if case[3] then server:run(case[3]) end
      abort(case[2])
      if case[4] then
        server:run "ngx.sleep(0.02) return 1"
        -- Before that ends which they waited for.
        local waits = tonumber(state():match("^%d+"))
        assert.is_true(waits <= tonumber(before:match("^%d+")) + 1, waits)
        server:run(case[4])
      end
      local after
      nginx.eventually(function()
        after = state()
        return after == before
      end)
      assert.equal(before, after)
    end)
  end

  it("gives up what a peer never takes", function()
    local before = state()
    assert.equal("60 FIN-WAIT-1", server:run [[
      spec.listener = resty.listen(b, "*", 81) -- nobody accepts
      local socket, linger = resty.tcp(a), nil
      for i = 1, 20 do
        local name, value = debug.getupvalue(socket.abandon, i)
        if name == "LINGER" then linger = value end
      end
      local seconds = linger.timeout
      linger.timeout = 0.1
      socket:settimeout(10)
      assert(socket:connect("10.0.0.2", 81))
      socket:send(("x"):rep(600000))
      socket:close()
      linger.timeout = seconds
      for _, one in ipairs(a:sockets()) do
        if one.state ~= "TIME-WAIT" then return seconds .. " " .. one.state end
      end
    ]])
    nginx.eventually(function()
      return server:run [[
        local open = 0
        for _, one in ipairs(a:sockets()) do if one.state ~= "TIME-WAIT" then open = open + 1 end end
        return open
      ]] == "0"
    end, 2)
    server:run "spec.listener:close()"
    nginx.eventually(function() return state() == before end)
  end)

  it("closes a connection that was handed to who is gone", function()
    local before = state()
    server:run [[
      local options = { pool = "one", pool_size = 1, backlog = 1 }
      local first, second = resty.tcp(a), resty.tcp(a)
      assert(first:connect("10.0.0.2", 80, options))
      local thread = ngx.thread.spawn(second.connect, second, "10.0.0.2", 80, options)
      first:setkeepalive()
      return tostring(ngx.thread.kill(thread))
    ]]
    nginx.eventually(function() return state() == before end)
  end)

  it("keeps no memory of them", function()
    local function round()
      abort "local socket = resty.tcp(a) socket:connect('10.0.0.2', 80) socket:receive()"
      abort "resty.tcp(a):connect('10.0.0.9', 80)"
      -- TIME-WAIT is over then.
      return tonumber(server:run "ngx.sleep(1.2) collectgarbage() collectgarbage() return collectgarbage 'count'")
    end
    round()
    local before = round()
    local after = round()
    assert.is_true(after - before < 100, after .. " KB after " .. before)
  end)
end)
