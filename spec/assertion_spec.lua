-- An assertion of lwIP that a packet can provoke: IPv6 reassembly beyond 65,495 bytes (ip6_frag.c). The stack dies, the
-- process and the other stacks do not.
local netstack = require "netstack"
local packets = require "spec.packets"

-- The guard lets no such packet through; without it the same specs show what is promised.
if require "netstack.core".guarded() then
  describe("An assertion inside lwIP", function()
    it("is not provoked through the guard", function()
      local stack, far = netstack.piped { mtu = 65535 }
      local data = ("x"):rep(64000)
      assert(far:send(packets.fragment6("fd00::2", "fd00::1", 17, 1, 0, true, data)))
      assert(far:send(packets.fragment6("fd00::2", "fd00::1", 17, 1, 64000, false, data:sub(1, 1500))))
      stack:poll(0)
      stack:poll(100)
      assert.is_nil(stack:stats().cause)
      packets.leaves_nothing(stack)
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

-- What kills the stack at the other end of a pipe with a large mtu.
local function kill(far)
  local data = ("x"):rep(65000)
  assert(far:send(packets.fragment6("fd00::2", "fd00::1", 17, 1, 0, true, data:sub(1, 64000))))
  assert(far:send(packets.fragment6("fd00::2", "fd00::1", 17, 1, 64000, false, data:sub(1, 1500))))
end

describe("An assertion inside lwIP", function()
  it("ends its stack, which tells why, and frees its memory", function()
    local stack, far = netstack.piped { mtu = 65535 }
    local channel = stack:channel()
    local socket = stack:udp()
    socket:setsockname("*", 7)
    local ticket = channel:submit("udp.bind", { host = "*", port = 8 })
    stack:poll(0)
    local waiting = channel:submit("udp.recv", { handle = ticket:result().handle })
    stack:poll(0)
    kill(far)
    stack:poll(0)
    assert.same({ nil, "closed" }, { stack:poll(0) })
    local stats = stack:stats()
    assert.is_true(stats.closed)
    assert.matches("ip6_reass", stats.cause)
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
    local victim, far = netstack.piped { mtu = 65535 }
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
      kill(far)
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
      local stack, far = netstack.piped { mtu = 65535, loopback = true }
      stack:bind("*", 80)
      kill(far)
      stack:poll(0)
      assert.is_true(stack:stats().closed)
      assert(netstack.new({ loopback = true })):close()
    end
    collectgarbage()
  end)
end)
