-- An assertion of lwIP that a peer can provoke: it acknowledges the probe of its closed window that took the last byte,
-- keeps the window closed, and at the next probe there is nothing to send (tcp_out.c). The stack dies, the process and
-- the other stacks do not.
local netstack = require "netstack"
local helper = require "spec.helper"
local packets = require "spec.packets"

-- Kills a stack at the other end of a pipe. `pass(seconds)` lets time pass.
local function kill(stack, far, pass)
  local listener = assert(stack:bind("*", 99))
  local function play(segment)
    segment.from_port, segment.to_port, segment.window = 1000, 99, 0
    assert(far:send(helper.build(helper.IPV6, segment)))
    pass(0.001)
  end
  -- The last segment of this connection that came out.
  local function last()
    local found
    for _, packet in ipairs(packets.drain(far)) do
      local p = packets.parse(packet)
      if p.protocol == 6 and p.source_port == 99 then found = helper.parse(packet) end
    end
    return assert(found, "nothing came")
  end
  play { seq = 1000, flags = helper.SYN }
  local answer = last()
  play { seq = 1001, ack = answer.seq + 1, flags = helper.ACK }
  local socket = assert(listener:accept())
  assert(socket:send("x"))
  pass(5)
  assert.equal("x", last().data)
  play { seq = 1001, ack = answer.seq + 2, flags = helper.ACK }
  pass(60)
end

-- The guard lets no such packet through; without it the same specs show what is promised.
if require "netstack.core".guarded() then
  describe("An assertion inside lwIP", function()
    it("is not provoked through the guard", function()
      local stack, far = netstack.piped { seed = 1 }
      local now = 0
      kill(stack, far, function(seconds)
        now = now + seconds
        stack:poll(now)
      end)
      assert.is_nil(stack:stats().cause)
      stack:close()
    end)

    it("ends only its stack, with the guard off", function()
      local path = assert(os.getenv("NETSTACK_UNGUARDED"), "run by `make test`, which builds what this needs")
      local at = 0
      while arg[at - 1] do at = at - 1 end -- the interpreter, before its options and busted
      local command = ("LUA_CPATH='%s;;' '%s' '%s' spec/assertion_spec.lua 2>&1"):format(path, arg[at], arg[0])
      local pipe = assert(io.popen(command))
      local said = pipe:read("*a")
      pipe:close()
      assert.matches("%d+ successes / 0 failures / 0 errors", said)
      assert.not_matches("^0 successes", said)
    end)
  end)
  return
end

local run, spawn, sleep = netstack.run, netstack.spawn, netstack.sleep

-- Outside run.
local function kill_at_once(stack, far)
  local now = 0
  kill(stack, far, function(seconds)
    now = now + seconds
    stack:poll(now)
  end)
end

describe("An assertion inside lwIP", function()
  it("ends its stack, which tells why, and frees its memory", function()
    local stack, far = netstack.piped { seed = 1 }
    local channel = stack:channel()
    local socket = stack:udp()
    socket:setsockname("*", 7)
    local ticket = channel:submit("udp.bind", { host = "*", port = 8 })
    stack:poll(0)
    local waiting = channel:submit("udp.recv", { handle = ticket:result().handle })
    stack:poll(0)
    kill_at_once(stack, far)
    assert.same({ nil, "closed" }, { stack:poll(0) })
    local stats = stack:stats()
    assert.is_true(stats.closed)
    assert.matches("persist", stats.cause)
    assert.same({ nil, "closed" }, { waiting:result() })
    assert.same({ nil, "closed" }, { channel:submit("udp.bind", { host = "*", port = 9 }) })
    assert.same({ nil, "closed" }, { socket:sendto("x", "fd00::2", 9) })
    assert.same({ nil, "closed" }, { socket:receive() })
    assert.matches("%(closed%)$", tostring(stack))
    assert.equal(1, socket:close())
    assert.equal(1, far:send("x")) -- the device is detached and open
    assert.equal(1, stack:close())
    assert.is_true(stack:stats().closed) -- still told
  end)

  it("is answered closed to every waiting task, and leaves other stacks alone", function()
    local victim, far = netstack.piped { seed = 1 }
    local a, b = netstack.pair()
    run(function()
      local listener, udp, raw = victim:bind("*", 80), victim:udp(), victim:raw("ipv6", 99)
      udp:setsockname("*", 7)
      local tasks = {
        spawn(function() return listener:accept() end),
        spawn(function() return udp:receive() end),
        spawn(function() return raw:receive() end),
        spawn(function() return victim:connect("fd00::2", 80) end),
        spawn(function() return victim:ping("fd00::2", { timeout = 1000 }) end),
      }
      local server = b:bind("*", 80)
      spawn(function()
        local connection = server:accept()
        connection:send(connection:receive("*a"))
        connection:close()
      end)
      local client = a:connect("10.0.0.2", 80)
      client:send(("before "):rep(1000))
      sleep(0.5)
      kill(victim, far, sleep)
      for _, task in ipairs(tasks) do
        local ok, err = task:join(10)
        assert.same({ nil, "closed" }, { ok, err })
      end
      client:send(("after "):rep(1000))
      client:shutdown("send")
      assert.equal(("before "):rep(1000) .. ("after "):rep(1000), client:receive("*a"))
      client:close()
      server:close()
      for _, socket in ipairs { listener, udp, raw } do socket:close() end
      sleep(1000)
    end)
    victim:close()
    packets.leaves_nothing(a, b)
  end)

  it("can happen again and again", function()
    for _ = 1, 20 do
      local stack, far = netstack.piped { seed = 1, loopback = true }
      stack:bind("*", 80)
      kill_at_once(stack, far)
      assert.is_true(stack:stats().closed)
      assert(netstack.new({ loopback = true })):close()
    end
    collectgarbage()
  end)
end)
