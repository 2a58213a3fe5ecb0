-- What holds in every loop that is not ours: each adapter's spec gives its loop, and gets these specs for it.
local assert = require "luassert"
local helper = require "spec.helper"
local netns = require "spec.netns"
local netstack = require "netstack"

local now = netstack.now

local MIB = 1048576
local M = {}

--- Why a loop's modules cannot be had here; nil when they can. `...`: their names.
function M.missing(...)
  for i = 1, select("#", ...) do
    local name = select(i, ...)
    local ok, err = pcall(require, name)
    if not ok then return name .. ": " .. tostring(err):match("^[^\n]*") end
  end
end

--- The specs.
-- @param loop a table of `adapter`, the module; `begin()`; `attach()`; `start(fn)`, a coroutine of the loop;
-- `run(is_over)` goes on until it is, or the loop ends by itself; `sleep(s)`; `listen(handle) -> port` has a server on
-- the host's loopback, `connect(port) -> socket` a client, both waiting in the loop, with `receive()` (a line), `send`
-- and `close`
-- @param busted its functions, which only a spec file sees
function M.specs(loop, busted)
  local it, pending, before_each, after_each = busted.it, busted.pending, busted.before_each, busted.after_each
  local with = netns.specs(it, pending)
  local live, failure

  -- A coroutine of the loop; `run` raises what it raises.
  local function go(fn)
    live = live + 1
    loop.start(function()
      local ok, err = netstack.pcall(fn)
      live = live - 1
      if not ok and failure == nil then failure = err end
    end)
  end

  local function run()
    loop.run(function() return live == 0 or failure ~= nil end)
    if failure ~= nil then error(failure, 0) end
    assert.equal(0, live, "coroutines that have not ended")
  end

  -- A server in the loop for one of the host's connections.
  local function listen(handle)
    live = live + 1
    return loop.listen(function(peer)
      handle(peer)
      live = live - 1
    end)
  end

  before_each(function()
    live, failure = 0, nil
    loop.begin()
    assert.equal(1, loop.attach())
  end)

  after_each(function()
    loop.adapter.detach()
    netns.finish()
  end)

  it("has stacks on a pipe, the loop's own sockets and its timers go on side by side", function()
    local a, b = helper.pair()
    local listener = assert(b:bind("*", 80))
    local log, running = {}, 0
    go(function()
      running = running + 1
      local server = assert(listener:accept())
      for _ = 1, 20 do
        server:send(assert(server:receive()) .. "\n")
        log[#log + 1] = "stack"
        loop.sleep(0.005)
      end
      assert.same({ nil, "closed", "" }, { server:receive() })
      server:close()
      listener:close()
      running = running - 1
    end)
    local port = listen(function(peer)
      for _ = 1, 20 do
        peer:send(assert(peer:receive()) .. "\n")
        log[#log + 1] = "host"
        loop.sleep(0.005)
      end
      peer:close()
    end)
    local function talk(socket)
      for i = 1, 20 do
        assert(socket:send("line " .. i .. "\n"))
        assert.equal("line " .. i, (socket:receive()))
      end
      socket:close()
    end
    go(function() talk(assert(a:connect("10.0.0.2", 80))) end)
    go(function() talk(loop.connect(port)) end)
    go(function()
      for _ = 1, 10 do
        loop.sleep(0.01)
        log[#log + 1] = "timer"
      end
    end)
    run()
    -- Each had many turns before any was through.
    local seen, turns = {}, {}
    for i, who in ipairs(log) do
      seen[who] = (seen[who] or 0) + 1
      if seen[who] == 10 then turns[#turns + 1] = i end
    end
    assert.same({ stack = 20, host = 20, timer = 10 }, seen)
    assert.is_true(turns[1] > 14, table.concat(log, " "))
  end)

  it("moves much both ways at once, byte for byte", function()
    local a, b = helper.pair()
    local listener = assert(b:bind("*", 80))
    local function talk(open, mine, theirs)
      go(function()
        local socket = assert(open())
        local halves = 2
        local function half()
          halves = halves - 1
          if halves == 0 then socket:close() end
        end
        go(function()
          helper.send_stream(socket, mine, 4 * MIB)
          assert(socket:shutdown("send"))
          half()
        end)
        assert.equal(4 * MIB, helper.receive_stream(socket, theirs))
        half()
      end)
    end
    talk(function() return listener:accept() end, 1, 2)
    talk(function() return a:connect("fd00::2", 80) end, 2, 1)
    run()
    listener:close()
  end)

  it("keeps deadlines, and sleeps, in real time", function()
    local a = helper.pair()
    local socket, log = a:udp(), {}
    assert(socket:setsockname("*", 53))
    for i, seconds in ipairs { 0.12, 0.04, 0.08 } do
      go(function()
        local waiting, start = a:udp(), now()
        assert(waiting:setsockname("*", 53 + i))
        waiting:settimeout(seconds)
        assert.same({ nil, "timeout" }, { waiting:receive() })
        assert.is_true(now() - start >= seconds)
        log[#log + 1] = seconds
        waiting:close()
      end)
    end
    go(function()
      local start = now()
      assert.equal(1, netstack.sleep(0.06))
      assert.is_true(now() - start >= 0.06)
      log[#log + 1] = "slept"
      assert.equal(1, netstack.sleep(0))
      socket:settimeout(0)
      assert.same({ nil, "timeout" }, { socket:receive() })
      socket:close()
    end)
    run()
    assert.same({ 0.04, "slept", 0.08, 0.12 }, log)
  end)

  it("hears of what another coroutine does, whether or not that waits for a stack", function()
    local a, b = helper.pair()
    local server, got = b:udp(), {}
    assert(server:setsockname("*", 53))
    go(function()
      for i = 1, 3 do got[i] = { server:receive(), now() } end
      server:close()
    end)
    local sent = {}
    go(function()
      local client, channel = a:udp(), a:channel()
      loop.sleep(0.05) -- both stacks are idle
      sent[1] = now()
      client:sendto("one", "10.0.0.2", 53)
      loop.sleep(0.05)
      sent[2] = now()
      local handle = assert(channel:request("udp.bind", { host = "*", port = 9 })).handle
      assert(channel:post("udp.send", { handle = handle, host = "10.0.0.2", port = 53, data = "two" }))
      loop.sleep(0.05)
      sent[3] = now()
      assert(channel:post("udp.send", { handle = handle, host = "fd00::2", port = 53, data = "three" }))
      assert(channel:post("udp.close", { handle = handle }))
      client:close()
    end)
    run()
    for i, text in ipairs { "one", "two", "three" } do
      assert.equal(text, got[i][1])
      assert.is_true(got[i][2] - sent[i] < 0.04, "late")
    end
  end)

  it("retransmits while nobody waits for a stack", function()
    local rule = { drop = 0 }
    local a, b = helper.bad_link(rule)
    local listener = assert(b:bind("*", 80))
    local server
    go(function() server = assert(listener:accept()) end)
    go(function()
      local client = assert(a:connect("10.0.0.2", 80))
      client:send("first ")
      loop.sleep(0.02)
      rule.drop = 1
      client:send("second")
      loop.sleep(0.02) -- what a coroutine sends through a device in Lua goes out when the stacks are driven next
      rule.drop = 0
      loop.sleep(0.6)
      server:settimeout(0)
      assert.same({ nil, "timeout", "first second" }, { server:receive() })
      client:close()
      server:close()
      listener:close()
    end)
    run()
  end)

  it("tells who waits that a socket, a stack or a device is closed", function()
    local a, b = helper.pair()
    local listener, other = assert(a:bind("*", 80)), assert(b:bind("*", 80))
    local left, right = netstack.pipe()
    local count, start = 0, now()
    for _, wait in ipairs {
      function() return listener:accept() end, function() return other:accept() end,
      function()
        local packet, err = left:receive(10)
        return packet, err == "empty" and "closed" or err -- it looks once more, and says what it finds
      end,
    } do
      go(function()
        assert.same({ nil, "closed" }, { wait() })
        count = count + 1
      end)
    end
    go(function()
      loop.sleep(0.01)
      listener:close()
      b:close()
      right:close()
    end)
    run()
    assert.equal(3, count)
    assert.is_true(now() - start < 5)
    left:close()
  end)

  it("drives in place where the caller is no coroutine of the loop", function()
    local a, b = helper.pair()
    local listener = assert(b:bind("*", 80))
    local client = assert(a:connect("10.0.0.2", 80))
    local server = assert(listener:accept())
    client:send("hello\n")
    assert.equal("hello", (server:receive()))
    server:settimeout(0.02)
    local start = now()
    assert.same({ nil, "timeout", "" }, { server:receive() })
    assert.is_true(now() - start >= 0.02)
    server:settimeout(nil)
    local ok, report = pcall(server.receive, server)
    assert.is_false(ok)
    assert.matches("^deadlock: ", report)
    -- In a coroutine too, where it cannot yield.
    go(function()
      client:send("sorted\n")
      table.sort({ 2, 1 }, function() return server:receive() == "" end)
      client:close()
      server:close()
    end)
    client:send("again\n")
    run()
    listener:close()
  end)

  it("leaves run what it is, unless coroutines wait", function()
    local a, b = helper.pair()
    local function hour()
      return netstack.run(function()
        local server = b:udp()
        server:setsockname("*", 53)
        netstack.spawn(function()
          netstack.sleep(3600)
          local client = a:udp()
          client:sendto("x", "10.0.0.2", 53)
          client:close()
        end)
        assert.equal("x", server:receive())
        server:close()
        return now()
      end)
    end
    assert.equal(3600, hour())
    local listener = assert(b:bind("*", 80))
    go(function()
      assert.equal(3600, hour())
      assert(listener:accept()):close()
      listener:close()
    end)
    go(function()
      loop.sleep(0.01)
      local ok, err = pcall(hour)
      assert.is_false(ok)
      assert.matches("run while coroutines of another loop wait for stacks$", err)
      ok, err = pcall(loop.adapter.detach)
      assert.is_false(ok)
      assert.matches("detach while coroutines of another loop wait for stacks$", err)
      assert(a:connect("10.0.0.2", 80)):close()
    end)
    run()
  end)

  it("is attached once, and gives the waiting back", function()
    local function mine() return 1 end
    assert.equal(1, loop.attach())
    assert.equal(1, loop.adapter.detach())
    assert.equal(1, loop.adapter.detach())
    assert.is_nil(netstack.waiting(mine))
    assert.equal(1, loop.attach())
    assert.equal(1, loop.adapter.detach())
    assert.equal(mine, netstack.waiting(nil))
    assert.equal(3, netstack.run(function()
      netstack.sleep(3)
      return now()
    end))
  end)

  with({ "nc" }, "serves the host's kernel through TUN, beside stacks on a pipe", function()
    local stack, namespace = netns.connected()
    local inner, outer = helper.pair()
    local listener, backend = assert(stack:bind("*", 5001)), assert(outer:bind("*", 80))
    netns.start("true") -- its folder
    local input = netns.folder() .. "/input"
    local file = assert(io.open(input, "w"))
    file:write(helper.stream(1)(65000))
    file:close()
    local ticks = 0
    for _ = 1, 2 do
      go(function() -- from the kernel to the inner stack
        local peer = assert(listener:accept())
        local onward = assert(inner:connect("10.0.0.2", 80))
        repeat
          local data = peer:receive_some()
          if data then assert(onward:send(data)) end
        until not data
        onward:shutdown("send")
        assert(peer:send(assert(onward:receive("*a"))))
        onward:close()
        peer:close()
      end)
      go(function()
        local peer = assert(backend:accept())
        local text = assert(peer:receive("*a"))
        assert(peer:send(#text .. " bytes, " .. (text == helper.stream(1)(65000) and "the same" or "others") .. "\n"))
        peer:close()
      end)
    end
    local clients = {}
    for i = 1, 2 do
      clients[i] = namespace:start(("sh -c 'exec nc -N 10.1.0.2 5001 <%s'"):format(input))
    end
    go(function()
      local limit = now() + 20
      while not (clients[1]:status() and clients[2]:status()) and now() < limit do
        ticks = ticks + 1
        loop.sleep(0.005)
      end
    end)
    run()
    for i = 1, 2 do assert.equal("65000 bytes, the same\n", clients[i]:output()) end
    assert.is_true(ticks > 0)
    listener:close()
    backend:close()
  end)

  with({}, "costs nothing while nothing happens", function()
    local stack, _, device = netns.connected()
    netstack.sleep(0.5) -- IPv6 looks around when an interface comes up
    local socket = stack:udp()
    assert(socket:setsockname("*", 9))
    go(function()
      socket:settimeout(2)
      local clock, before = os.clock(), device:stats()
      assert.same({ nil, "timeout" }, { socket:receive() })
      local after = device:stats()
      assert.is_true(os.clock() - clock < 0.04)
      local packets = after.rx_packets - before.rx_packets + after.tx_packets - before.tx_packets
      assert.is_true(after.syscalls - before.syscalls <= 6 + 4 * packets, after.syscalls - before.syscalls)
      socket:close()
    end)
    run()
  end)
end

return M
