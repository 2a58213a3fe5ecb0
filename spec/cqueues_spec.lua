local helper = require "spec.helper"
local netns = require "spec.netns"
local netstack = require "netstack"
local other_loops = require "spec.other_loops"

describe("netstack.cqueues", function()
  local missing = other_loops.missing("cqueues", "cqueues.socket")
  if missing then
    it("needs cqueues", function() pending(missing) end)
    return
  end
  local adapter = require "netstack.cqueues"
  local cqueues, sockets = require "cqueues", require "cqueues.socket"
  local cq
  local loop = { adapter = adapter, sleep = cqueues.sleep }

  function loop.begin() cq = cqueues.new() end
  function loop.attach() return adapter.attach(cq) end
  function loop.start(fn) cq:wrap(fn) end
  function loop.run() assert(cq:loop(30)) end -- which ends by itself

  local function dress(socket)
    return {
      receive = function() return socket:read() end,
      send = function(_, text) return socket:write(text) and socket:flush() end,
      close = function() socket:close() end,
    }
  end

  function loop.listen(handle)
    local listener = assert(sockets.listen { host = "127.0.0.1", port = 0 })
    assert(listener:listen())
    cq:wrap(function()
      local socket = listener:accept()
      handle(dress(socket))
      listener:close()
    end)
    return (select(3, listener:localname()))
  end

  function loop.connect(port)
    return dress(assert(sockets.connect { host = "127.0.0.1", port = port }))
  end

  other_loops.specs(loop, { it = it, pending = pending, before_each = before_each, after_each = after_each })

  local function run() assert(cq:loop(10)) end

  it("ends the loop while stacks are idle, and starts it again", function()
    local a, b = helper.pair()
    local listener = assert(b:bind("*", 80))
    local client, server
    run() -- nothing at all
    cq:wrap(function() client = assert(a:connect("10.0.0.2", 80)) end)
    cq:wrap(function() server = assert(listener:accept()) end)
    run()
    assert.is_true(cq:empty())
    cq:wrap(function() -- whose last act is not about stacks
      client:send("hello\n")
      cqueues.sleep(0.05)
    end)
    run()
    cq:wrap(function() assert.equal("hello", (server:receive())) end)
    run()
    client:close()
    server:close()
    listener:close()
    run()
    adapter.detach()
    run()
    assert.equal(0, cq:count())
  end)

  it("ends the loop after closed connections' last bytes are acknowledged", function()
    local a, b = helper.pair()
    local listener = assert(b:bind("*", 80))
    cq:wrap(function()
      local client = assert(a:connect("10.0.0.2", 80))
      client:send(("x"):rep(100000))
      client:close()
    end)
    run()
    local server = assert(listener:accept())
    assert.equal(100000, #server:receive("*a"))
    server:close()
    listener:close()
  end)

  it("gives the loop errors of coroutines and callbacks, and goes on", function()
    local a, b = helper.pair()
    local server = b:udp()
    assert(server:setsockname("*", 53))
    cq:wrap(function()
      assert.equal("x", (server:receive()))
      error("in a coroutine", 0)
    end)
    local client = a:udp()
    cq:wrap(function()
      cqueues.sleep(0.01)
      client:sendto("x", "10.0.0.2", 53)
    end)
    assert.same({ false, "in a coroutine" }, { (function(...) return (...), (select(2, ...)) end)(cq:loop(10)) })
    run()
    b:trace(function() error("in a callback", 0) end)
    cq:wrap(function()
      cqueues.sleep(0.01)
      client:sendto("y", "10.0.0.2", 53)
      cqueues.sleep(0.01)
      client:close()
    end)
    local ok, err = cq:loop(10)
    assert.is_false(ok)
    assert.equal("in a callback", err)
    b:trace(nil)
    cq:wrap(function()
      assert.equal("y", (server:receive()))
      server:close()
    end)
    run()
  end)

  it("serves coroutines of other controllers, and checks its argument", function()
    local a, b = helper.pair()
    local listener = assert(b:bind("*", 80))
    local inner, got = cqueues.new(), nil
    inner:wrap(function()
      local client = assert(a:connect("10.0.0.2", 80))
      got = client:receive()
      client:close()
    end)
    cq:wrap(function() assert(inner:loop()) end)
    cq:wrap(function()
      local server = assert(listener:accept())
      cqueues.sleep(0.01)
      server:send("hello\n")
      server:close()
      listener:close()
    end)
    run()
    assert.equal("hello", got)
    for _, wrong in ipairs { 1, "x", {} } do
      local ok, err = pcall(adapter.attach, wrong)
      assert.is_false(ok)
      assert.matches("bad argument #1 to 'attach' %(cqueues controller expected", err)
    end
    local ok, err = pcall(adapter.attach, inner)
    assert.is_false(ok)
    assert.matches("driven by a loop already", err)
  end)

  local with = netns.specs(it, pending)
  with({ "ping" }, "polls a stack by hand, too: pollfd, events and timeout are what it wants", function()
    local stack, namespace = netns.connected(1)
    assert(stack:attach(netns.keep(namespace:tun(2)), { addresses = { "10.2.0.2/24" } }))
    adapter.detach()
    local over = false
    cq:wrap(function()
      while not over do
        stack:poll(cqueues.monotime())
        cqueues.poll(stack, 0.2)
      end
    end)
    local pings = {}
    for n = 1, 2 do pings[n] = namespace:start(("ping -n -c 3 -i 0.05 -w 5 10.%d.0.2"):format(n)) end
    cq:wrap(function()
      local limit = netstack.now() + 10
      while not (pings[1]:status() and pings[2]:status()) and netstack.now() < limit do cqueues.sleep(0.01) end
      over = true
    end)
    run()
    for n = 1, 2 do netns.assert_answered(pings[n]:output(), 3) end
    stack:close()
  end)
end)
