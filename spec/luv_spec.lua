local helper = require "spec.helper"
local netns = require "spec.netns"
local netstack = require "netstack"
local other_loops = require "spec.other_loops"
local protected = require "netstack.protected"

describe("netstack.luv", function()
  local missing = other_loops.missing("luv")
  if missing then
    it("needs luv", function() pending(missing) end)
    return
  end
  local adapter, uv = require "netstack.luv", require "luv"
  local loop = { adapter = adapter, begin = function() end, attach = adapter.attach }

  function loop.start(fn) coroutine.wrap(fn)() end

  function loop.run() -- ends by itself
    local guard = uv.new_timer()
    guard:start(30000, 0, uv.stop)
    guard:unref()
    uv.run()
    guard:close()
    uv.run "nowait"
  end

  -- Has a coroutine wait until a callback is called; what it was called with.
  local function await(begin)
    local thread, arguments = protected.yielding_thread(), nil
    begin(function(...)
      arguments = { ... }
      if coroutine.status(thread) == "suspended" then assert(coroutine.resume(thread)) end
    end)
    while not arguments do coroutine.yield() end
    return arguments[1], arguments[2]
  end

  function loop.sleep(seconds)
    local timer = uv.new_timer()
    await(function(done) timer:start(math.ceil(seconds * 1000), 0, done) end)
    timer:close()
  end

  local function dress(socket)
    local text, ended, wake = "", false, nil
    socket:read_start(function(_, data)
      if data then text = text .. data else ended = true end
      if wake then wake() end
    end)
    return {
      receive = function()
        while not text:find("\n") and not ended do await(function(done) wake = done end) end
        local line, rest = text:match("^(.-)\n(.*)$")
        text = rest or text
        return line
      end,
      send = function(_, data) return socket:write(data) end,
      close = function() socket:close() end,
    }
  end

  function loop.listen(handle)
    local listener = uv.new_tcp()
    assert(listener:bind("127.0.0.1", 0))
    assert(listener:listen(8, function()
      local socket = uv.new_tcp()
      listener:accept(socket)
      listener:close()
      loop.start(function() handle(dress(socket)) end)
    end))
    return listener:getsockname().port
  end

  function loop.connect(port)
    local socket = uv.new_tcp()
    assert(not await(function(done) socket:connect("127.0.0.1", port, done) end))
    return dress(socket)
  end

  other_loops.specs(loop, { it = it, pending = pending, before_each = before_each, after_each = after_each })

  it("ends the loop while stacks are idle, and starts it again", function()
    local a, b = helper.pair()
    local listener = assert(b:bind("*", 80))
    local client, server, line
    loop.run() -- nothing at all
    loop.start(function() client = assert(a:connect("10.0.0.2", 80)) end)
    loop.start(function() server = assert(listener:accept()) end)
    loop.run()
    loop.start(function() -- whose last act is not about stacks
      client:send("hello\n")
      loop.sleep(0.05)
    end)
    loop.run()
    loop.start(function() line = server:receive() end)
    loop.run()
    assert.equal("hello", line)
    client:close()
    server:close()
    listener:close()
    assert.is_false(uv.loop_alive())
  end)

  it("has callbacks, which cannot yield, drive in place", function()
    local a, b = helper.pair()
    local listener, line = assert(b:bind("*", 80)), nil
    loop.start(function()
      local server = assert(listener:accept())
      loop.sleep(0.01)
      server:send("hello\n")
      line = server:receive()
      server:close()
    end)
    local timer = uv.new_timer()
    timer:start(10, 0, function()
      local client = assert(a:connect("10.0.0.2", 80))
      client:settimeout(0.02)
      assert.same({ nil, "timeout", "" }, { client:receive() }) -- the loop stands still
      client:send("bye\n")
      client:close()
      timer:close()
    end)
    loop.run()
    listener:close()
    assert.equal("bye", line)
  end)

  -- luv prints what a callback raises, and ends the process.
  netns.specs(it, pending)({}, "raises errors of coroutines in the loop's callback", function()
    adapter.detach()
    netns.start("true") -- its folder
    local path = netns.folder() .. "/script.lua"
    local file = assert(io.open(path, "w"))
    file:write [[
      local netstack, uv = require "netstack", require "luv"
      require "netstack.luv".attach()
      local a, b = netstack.pair()
      local server = b:udp()
      server:setsockname("*", 53)
      coroutine.wrap(function() error("raised by " .. server:receive(), 0) end)()
      a:udp():sendto("a coroutine", "10.0.0.2", 53)
      uv.run()
      print "not reached"
    ]]
    file:close()
    netstack.run(function()
      local program = netns.start(netns.quote(netns.lua()) .. " " .. path)
      local status, text = program:wait()
      assert.is_true(status ~= 0)
      assert.matches("raised by a coroutine\nstack traceback:\n.*script.lua:6:", text)
      assert.is_nil(text:find("not reached", 1, true))
    end, { clock = "real" })
  end)
end)
