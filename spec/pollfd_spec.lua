-- What a loop that is not ours waits for: a stack's pollfd with one and with several devices, and the bell. Datagram
-- sockets stand for TUN devices here, so that no privilege is needed.

local core = require "netstack.core"
local helper = require "spec.helper"
local netstack = require "netstack"

local has_socket, socket = pcall(require, "socket")

describe("pollfd", function()
  if not has_socket then
    it("needs LuaSocket", function() pending("LuaSocket is not installed") end)
    return
  end
  local devices, sockets

  before_each(function() devices, sockets = {}, {} end)
  after_each(function()
    for _, device in ipairs(devices) do device:close() end
    for _, one in ipairs(sockets) do one:close() end
    helper.nothing_left()
  end)

  -- A device on a socket; what is sent to `port` arrives there. The socket stays open, as a second descriptor of it.
  local function device()
    local near = assert(socket.udp())
    assert(near:setsockname("127.0.0.1", 0))
    sockets[#sockets + 1] = near
    devices[#devices + 1] = assert(netstack.tun { fd = near:getfd(), mtu = 1500 })
    return devices[#devices], (select(2, near:getsockname()))
  end

  local function send(port)
    local far = assert(socket.udp())
    far:sendto("\69", "127.0.0.1", port) -- no packet that a stack makes anything of
    far:close()
  end

  -- Whether a descriptor becomes readable.
  local function readable(fd, timeout)
    local object = { getfd = function() return fd end, dirty = function() return false end }
    return socket.select({ object }, nil, timeout or 0)[1] ~= nil
  end

  it("is the device's own while there is one, and one for all when there are several", function()
    local stack = helper.watch(assert(netstack.new()))
    assert.is_nil(stack:pollfd())
    assert.is_nil(stack:events())
    local one, first = device()
    local two, second = device()
    local interface = assert(stack:attach(one, { addresses = { "10.1.0.2/24" } }))
    assert.equal(one:fd(), stack:pollfd())
    assert(stack:attach(two, { addresses = { "10.2.0.2/24" } }))
    local fd = stack:pollfd()
    assert.is_true(fd ~= one:fd() and fd ~= two:fd())
    assert.equal("r", stack:events())
    assert.is_false(readable(fd))
    for _, port in ipairs { first, second } do
      send(port)
      assert.is_true(readable(fd, 5))
      stack:poll(0)
      assert.is_false(readable(fd))
    end
    -- It stands for what comes later, and no longer for what went.
    local three, third = device()
    assert(stack:attach(three, { addresses = { "10.3.0.2/24" } }))
    send(third)
    assert.is_true(readable(fd, 5))
    stack:poll(1)
    interface:detach()
    two:close() -- whose socket is open still
    send(first)
    send(second)
    assert.is_false(readable(fd, 0.05))
    assert.equal(fd, stack:pollfd())
    stack:close()
    assert.same({ nil, "closed" }, { stack:pollfd() })
    assert.same({ nil, "closed" }, { stack:events() })
  end)

  it("has a bell, which rings for devices, timers, work and answers", function()
    local fd = assert(core.bell_open())
    assert.equal(fd, core.bell_open())
    local a, b = helper.pair()
    local base = core.monotonic()
    core.run_begin()
    local function quiet()
      core.wait_io(0)
      repeat local id, more, _, others = core.step(core.monotonic() - base) until not id and not more and not others
      core.bell(base)
    end
    quiet()
    assert.is_false(readable(fd))
    core.bell(base, core.monotonic() - base + 0.05)
    assert.is_false(readable(fd))
    assert.is_true(readable(fd, 5))
    quiet()

    local server, client = b:udp(), a:udp()
    assert(server:setsockname("*", 53))
    client:sendto("x", "10.0.0.2", 53)
    assert.is_true(readable(fd)) -- the other stack has work
    quiet()
    assert.is_false(readable(fd))
    local ticket = assert(core.wait_ticket(client.handle, "read"))
    core.await(ticket, 1000000)
    ticket:cancel()
    client:close()
    server:close()
    assert.is_true(readable(fd)) -- an answer is to be told
    quiet()

    -- A device counts while somebody waits for it.
    local one, port = device()
    send(port)
    assert.is_false(readable(fd, 0.05))
    local waiting = assert(one:wait_ticket("read"))
    core.await(waiting, 1000001)
    assert.is_true(readable(fd, 5))
    quiet()
    assert.is_true(waiting:done())
    assert.is_false(readable(fd))
    local stack = helper.watch(assert(netstack.new()))
    assert(stack:attach(one, { addresses = { "10.1.0.2/24" } }))
    quiet()
    send(port)
    assert.is_true(readable(fd, 5))
    stack:close()
    quiet()
    assert.is_false(readable(fd))
    core.run_end()
  end)

  it("is a process's own: a child that was forked leaves its parent's alone", function()
    local has_ffi, ffi = pcall(require, "ffi")
    if not has_ffi then return pending("fork needs LuaJIT's ffi") end
    ffi.cdef "int fork(void); void _exit(int); int waitpid(int, int *, int);"
    local stack = helper.watch(assert(netstack.new()))
    local ports = {}
    for n = 1, 2 do
      local one
      one, ports[n] = device()
      assert(stack:attach(one, { addresses = { ("10.%d.0.2/24"):format(n) } }))
    end
    local fd, bell = stack:pollfd(), core.bell_open()
    core.bell(core.monotonic())
    local child = ffi.C.fork()
    if child == 0 then
      local ok = pcall(function()
        send(ports[1])
        local own = stack:pollfd()
        assert(readable(own, 5))
        stack:poll(0)
        assert(not readable(own))
        assert(core.bell_open())
        stack:close()
      end)
      ffi.C._exit(ok and 0 or 1)
    end
    local status = ffi.new "int[1]"
    ffi.C.waitpid(child, status, 0)
    assert.equal(0, status[0])
    for n = 1, 2 do
      send(ports[n])
      assert.is_true(readable(fd, 5))
      assert.is_true(readable(bell, 5))
      stack:poll(n)
      assert.is_false(readable(fd))
    end
  end)
end)
