local bound = require "netstack.luasocket"
local core = require "netstack.core"
local netstack = require "netstack"

local run, spawn, sleep = netstack.run, netstack.spawn, netstack.sleep
local has_luasocket, luasocket = pcall(require, "socket")

local function pack(...)
  return { n = select("#", ...), ... }
end

-- Two bound tables on two stacks that a pipe joins, and the stacks.
local function pair(config)
  local a, b = netstack.pair(config)
  return bound(a), bound(b), a, b
end

-- A connection: the client's and the server's end, and the listener.
local function connection(client, server, host)
  local listener = assert(server.bind("*", 80))
  local c = assert(client.connect(host or "10.0.0.2", 80))
  return c, assert(listener:accept()), listener
end

-- Data that no part of is like another.
local function stream(length)
  local parts = {}
  for i = 1, math.ceil(length / 10) do parts[i] = ("%010d"):format(i) end
  return table.concat(parts):sub(1, length)
end

describe("a bound table", function()
  local TYPES = {
    _VERSION = "string", _DEBUG = "boolean", _SETSIZE = "number", _SOCKETINVALID = "number", _DATAGRAMSIZE = "number",
    BLOCKSIZE = "number", dns = "table", sinkt = "table", sourcet = "table",
    __unload = "function", bind = "function", choose = "function", connect = "function", connect4 = "function",
    connect6 = "function", gettime = "function", load = "function", newtry = "function", protect = "function",
    select = "function", sink = "function", skip = "function", sleep = "function", source = "function",
    tcp = "function", tcp4 = "function", tcp6 = "function", try = "function", udp = "function", udp4 = "function",
    udp6 = "function",
  }

  it("has every key of LuaSocket's module, and each of the right type", function()
    local socket = bound(netstack.new())
    for key, kind in pairs(TYPES) do assert.equal(kind, type(socket[key]), key) end
    for key in pairs(socket) do assert.is_string(TYPES[key], key) end
    if not has_luasocket then return end
    for key, value in pairs(luasocket) do
      -- http.lua and the like add themselves.
      if not package.loaded["socket." .. key] then assert.equal(type(value), type(socket[key]), key) end
    end
    for _, name in ipairs { "dns", "sinkt", "sourcet" } do
      for key, value in pairs(luasocket[name]) do
        if key ~= "http-chunked" then assert.equal(type(value), type(socket[name][key]), name .. "." .. key) end
      end
    end
  end)

  it("makes objects that have every method of LuaSocket's", function()
    if not has_luasocket then return pending("LuaSocket is not installed") end
    local socket = bound(netstack.new())
    for _, kind in ipairs { "tcp", "udp" } do
      local theirs, mine = luasocket[kind](), socket[kind]()
      for key, value in pairs(getmetatable(theirs).__index) do assert.equal(type(value), type(mine[key]), key) end
      theirs:close()
    end
  end)

  it("is for a stack only", function()
    assert.error_matches(function() bound() end, "bad argument #1 to 'luasocket' %(stack expected, got nil%)")
    assert.error_matches(function() bound({}) end, "bad argument #1 to 'luasocket' %(stack expected, got table%)")
  end)

  it("is one of its own each time, and does not mix with another", function()
    local a, b, sa, sb = pair()
    assert.not_equal(a, bound(sa))
    run(function()
      local at_b, at_a = assert(b.bind("*", 80)), assert(a.bind("*", 80))
      local from_a, from_b = assert(a.connect("10.0.0.2", 80)), assert(b.connect("10.0.0.1", 80))
      assert.equal("10.0.0.1", (from_a:getsockname()))
      assert.equal("10.0.0.2", (from_b:getsockname()))
      assert.equal("10.0.0.1", (assert(at_b:accept()):getpeername()))
      assert.equal("10.0.0.2", (assert(at_a:accept()):getpeername()))
    end)
    sa:close()
    assert.same({ nil, "closed" }, { a.tcp() })
    assert.is_truthy(b.tcp())
    sb:close()
  end)
end)

describe("a TCP object", function()
  it("tells its class", function()
    local a, b = pair()
    local master = a.tcp()
    assert.matches("^tcp{master}: ", tostring(master))
    assert.equal("tcp{master}", master.class)
    local c, s, listener = connection(a, b)
    assert.matches("^tcp{client}: ", tostring(c))
    assert.matches("^tcp{client}: ", tostring(s))
    assert.matches("^tcp{server}: ", tostring(listener))
    assert.not_equal(tostring(c), tostring(s))
    local text = tostring(c)
    c:close()
    assert.equal(text, tostring(c))
  end)

  it("connects over both families, by number and by text, and answers as LuaSocket does", function()
    local a, b = pair()
    local listener = assert(b.bind("*", 80))
    assert.same({ "*", 80, "unspec" }, { listener:getsockname() })
    for _, host in ipairs { "10.0.0.2", "fd00::2" } do
      local master = a.tcp()
      assert.equal(1, master:connect(host, "80"))
      local s = assert(listener:accept())
      local family = host:find ":" and "inet6" or "inet"
      assert.same({ host, 80, family }, { master:getpeername() })
      assert.same({ host, 80, family }, { s:getsockname() })
      assert.equal(family == "inet" and "inet4" or "inet6", s:getfamily())
      assert.equal(7, master:send("hello\r\n"))
      assert.equal(s, b.select({ s }, nil, 1)[1])
      assert.equal(true, s:dirty())
      assert.equal("hello", s:receive())
      assert.equal(false, s:dirty())
      assert.equal(3, master:send("abcdef", 2, 3))
      assert.equal("bc", s:receive(2))
      assert.same({ nil, "already connected" }, { master:connect(host, 80) })
      master:close()
      assert.same({ nil, "closed", "" }, { s:receive() })
    end
  end)

  it("has LuaSocket's errors", function()
    local a, b = pair()
    assert.same({ nil, "connection refused" }, { a.connect("10.0.0.2", 81) })
    assert.same({ nil, "connection refused" }, { a.connect("fd00::2", 81) })
    assert.same({ nil, "host not found" }, { a.connect("nobody", 80) })
    assert.same({ nil, "host not found" }, { a.connect("1.2.3.4.5", 80) })
    assert.same({ nil, "host not found" }, { a.bind("nobody", 80) })
    assert.same({ nil, "Cannot assign requested address" }, { a.bind("9.9.9.9", 80) })
    assert.same({ nil, "Network is unreachable" }, { bound(netstack.new()).connect("10.0.0.9", 80) })
    assert.same({ nil, "Address family for hostname not supported" }, { a.tcp4():connect("fd00::2", 80) })
    assert.same({ nil, "Address family for hostname not supported" }, { a.tcp6():connect("10.0.0.2", 80) })
    assert.same({ nil, "Address family for hostname not supported" }, { a.connect4("fd00::2", 80) })
    assert.same({ nil, "Address family for hostname not supported" }, { a.connect6("10.0.0.2", 80) })
    local c, s, listener = connection(a, b)
    assert.same({ nil, "address already in use" }, { b.bind("*", 80) })
    assert.same({ nil, "address already in use" }, { b.tcp():bind("10.0.0.2", 80) })
    assert.equal(1, c:settimeout(0))
    assert.same({ nil, "timeout", "" }, { c:receive() })
    assert.equal(1, listener:settimeout(0))
    assert.same({ nil, "timeout" }, { listener:accept() })
    assert.same({ nil, "Transport endpoint is not connected" }, { a.tcp():getpeername() })
    c:close()
    assert.same({ nil, "closed", "" }, { c:receive() })
    assert.same({ nil, "closed", 0 }, { c:send("x") })
    assert.same({ nil, "closed" }, { c:getsockname() })
    assert.same({ nil, "closed" }, { c:connect("10.0.0.2", 80) })
    assert.same({ nil, "setsockopt failed" }, { c:setoption("keepalive", true) })
    assert.equal(-1, c:getfd())
    assert.equal(1, c:close())
    assert.equal(1, c:shutdown())
    s:close()
    listener:close()
  end)

  it("says closed when the peer resets", function()
    local a, b = pair()
    run(function()
      local c, s = connection(a, b)
      s:setoption("linger", { on = true, timeout = 0 })
      s:close()
      assert.same({ nil, "closed", "" }, { c:receive() })
    end)
  end)

  it("connects in the background with a timeout of 0", function()
    local a, b = netstack.new(), netstack.new()
    local to_a, to_b
    -- A wire that takes 50 ms.
    local function later(device, packet)
      netstack.daemon(function()
        sleep(0.05)
        device():input(packet)
      end)
    end
    to_a = netstack.device { transmit = function(packet) later(function() return to_b end, packet) end }
    to_b = netstack.device { transmit = function(packet) later(function() return to_a end, packet) end }
    assert(a:attach(to_a, { addresses = { "10.0.0.1/24" } }))
    assert(b:attach(to_b, { addresses = { "10.0.0.2/24" } }))
    a, b = bound(a), bound(b)
    run(function()
      local listener = assert(b.bind("*", 80)) -- collected, it would send in the middle of something
      for port = 80, 81 do
        local c = a.tcp()
        c:settimeout(0)
        assert.same({ nil, "timeout" }, { c:connect("10.0.0.2", port) })
        assert.same({ nil, "timeout" }, { c:connect("10.0.0.2", port) })
        assert.equal(0, #select(2, a.select(nil, { c }, 0)))
        local began = netstack.now()
        local _, writable = a.select(nil, { c }, 5)
        assert.equal(c, writable[1])
        assert.near(0.1, netstack.now() - began, 1e-6)
        assert.same(port == 80 and { 1 } or { nil, "connection refused" }, { c:connect("10.0.0.2", port) })
        c:close()
      end
      sleep(1)
      listener:close()
      sleep(1)
    end)
  end)

  it("tells its timeouts, and waits for no longer", function()
    local a, b = pair()
    run(function()
      local c = connection(a, b)
      assert.same({ -1, -1 }, { c:gettimeout() })
      assert.equal(1, c:settimeout(2))
      assert.equal(1, c:settimeout(5, "t"))
      assert.same({ 2, 5 }, { c:gettimeout() })
      local began = a.gettime()
      assert.same({ nil, "timeout", "" }, { c:receive(10) })
      assert.near(2, a.gettime() - began, 0.001)
      c:settimeout(nil)
      c:settimeout(-1, "t")
      assert.same({ -1, -1 }, { c:gettimeout() })
      c:settimeout(2, "block")
      c:settimeout(5, "total")
      assert.same({ 2, 5 }, { c:gettimeout() })
    end)
    assert.error_matches(function() a.tcp():settimeout("x") end, "bad argument #1 to 'settimeout'")
    assert.error_matches(function() a.tcp():settimeout(1, "q") end, "invalid timeout mode")
  end)

  it("counts, and counts on from what it is told", function()
    local a, b = pair()
    local c, s = connection(a, b)
    c:send("12345")
    s:receive(5)
    assert.same({ 0, 5 }, { (c:getstats()), (select(2, c:getstats())) })
    assert.equal(5, (s:getstats()))
    assert.equal(1, s:setstats(100, 200, 300))
    c:send("123")
    s:receive(3)
    local received, sent, age = s:getstats()
    assert.same({ 103, 200 }, { received, sent })
    assert.is_true(age >= 300)
    s:close()
    assert.same({ 103, 200 }, { (s:getstats()), (select(2, s:getstats())) })
  end)

  it("binds to its family only", function()
    local a, b = pair()
    local four, six = b.tcp4(), b.tcp6()
    assert.equal("inet4", four:getfamily())
    assert.equal("inet6", six:getfamily())
    assert.same({ "0.0.0.0", 0, "inet" }, { four:getsockname() })
    assert.equal(1, four:bind("*", 80))
    assert.equal(1, four:listen())
    assert.same({ "0.0.0.0", 80, "inet" }, { four:getsockname() })
    assert.same({ nil, "connection refused" }, { a.connect("fd00::2", 80) })
    assert.equal(1, six:bind("*", 80))
    assert.equal(1, six:listen(5))
    assert.same({ "::", 80, "inet6" }, { six:getsockname() })
    assert.is_truthy(a.connect6("fd00::2", 80))
    local c = assert(a.connect("10.0.0.2", 80, "10.0.0.1", 4000))
    assert.same({ "10.0.0.1", 4000, "inet" }, { c:getsockname() })
  end)

  it("has options, and refuses unknown ones", function()
    local a, b = pair()
    local c = connection(a, b)
    assert.equal(1, c:setoption("tcp-nodelay", true))
    assert.equal(true, c:getoption("tcp-nodelay"))
    assert.same({ nil, "setsockopt failed" }, { c:setoption("recv-buffer-size", 1000) })
    assert.same({ nil, "getsockopt failed" }, { c:getoption("reuseport") })
    assert.is_nil(c:getoption("error"))
    assert.error_matches(function() c:setoption("nonsense", 1) end, "bad argument #1 to 'setoption'")
    assert.error_matches(function() c:shutdown("nonsense") end, "bad argument #1 to 'shutdown'")
  end)

  it("hands its socket to another object by number", function()
    local a, b = pair()
    local c, s = connection(a, b)
    local number = c:getfd()
    assert.equal(number, c:getfd())
    c:setfd(-1)
    assert.same({ -1, nil, "closed" }, { c:getfd(), c:getpeername() })
    collectgarbage()
    local other = a.tcp()
    other:setfd(number)
    assert.equal(2, other:send("ok"))
    assert.equal("ok", s:receive(2))
    assert.error_matches(function() other:setfd(5) end, "no such socket")
    assert.error_matches(function() a.udp():setfd(number) end, "no such socket")
  end)

  it("has a number once it has an address or a family, and answers nothing without one", function()
    local a, b = pair()
    for _, kind in ipairs { "tcp", "udp" } do
      assert.equal(-1, a[kind]():getfd())
      assert.is_true(a[kind .. "4"]():getfd() > 0)
      assert.is_true(a[kind .. "6"]():getfd() > 0)
    end
    local c, s, listener = connection(a, b)
    for _, object in ipairs { c, s, listener } do assert.is_true(object:getfd() > 0) end
    local u = a.udp()
    u:sendto("x", "10.0.0.2", 9)
    assert.is_true(u:getfd() > 0)

    for _, object in ipairs { c, listener, u } do
      object:setfd(a.tcp():getfd())
      assert.equal(-1, object:getfd())
    end
    assert.same({ nil, "closed", "" }, { c:receive() })
    assert.same({ nil, "closed", 0 }, { c:send("x") })
    assert.same({ nil, "closed" }, { c:connect("10.0.0.2", 80) })
    assert.same({ nil, "closed" }, { listener:accept() })
    assert.same({ nil, "closed" }, { listener:listen() })
    assert.same({ nil, "closed" }, { listener:bind("*", 81) })
    assert.same({ nil, "closed" }, { u:receive() })
    assert.same({ nil, "closed" }, { u:receivefrom() })
    assert.same({ nil, "closed" }, { u:send("x") })
    assert.same({ nil, "closed" }, { u:sendto("x", "10.0.0.2", 9) })
    assert.same({ nil, "closed" }, { u:setsockname("*", 9) })
    assert.same({ nil, "closed" }, { u:setpeername("10.0.0.2", 9) })
    assert.same({ nil, "closed" }, { u:setpeername("*") })
  end)

  it("is refused in the background, next door too, and tells so once", function()
    local a = bound(netstack.new { loopback = true })
    for _, tell in ipairs { "getoption", "connect" } do
      local c = a.tcp()
      c:settimeout(0)
      assert.same({ nil, "timeout" }, { c:connect("127.0.0.1", 80) })
      assert.equal(c, select(2, a.select(nil, { c }, 1))[1])
      if tell == "getoption" then
        assert.equal("connection refused", c:getoption("error"))
      else
        assert.same({ nil, "connection refused" }, { c:connect("127.0.0.1", 80) })
      end
      assert.is_nil(c:getoption("error"))
      local listener = assert(a.bind("*", 80))
      assert.same({ nil, "timeout" }, { c:connect("127.0.0.1", 80) })
      assert.is_nil(c:getoption("error"))
      assert.equal(c, select(2, a.select(nil, { c }, 1))[1])
      assert.is_nil(c:getoption("error"))
      assert.equal(1, c:connect("127.0.0.1", 80))
      c:close()
      listener:close()
    end
  end)

  it("tries each address of a name", function()
    local pipe_a, pipe_b = netstack.pipe()
    local a = netstack.new { hosts = { both = { "fd00::2", "10.0.0.2" }, six = "fd00::2" } }
    local b = netstack.new { hosts = { here = { "10.0.0.2", "fd00::2" } } }
    a:attach(pipe_a, { addresses = { "10.0.0.1/24", "fd00::1/64" } })
    b:attach(pipe_b, { addresses = { "10.0.0.2/24", "fd00::2/64" } })
    a, b = bound(a), bound(b)
    assert(b.tcp4():bind("*", 80))
    local listener = assert(b.bind("10.0.0.2", 81))
    local c = assert(a.connect("BOTH", 81))
    assert.equal("10.0.0.2", (c:getpeername()))
    assert.equal("10.0.0.2", (assert(a.connect4("both", 81)):getpeername()))
    assert.same({ nil, "connection refused" }, { a.connect6("both", 81) })
    assert.same({ nil, "Address family for hostname not supported" }, { a.connect4("six", 81) })
    assert.equal("10.0.0.2", (assert(b.bind("here", 82)):getsockname()))
    listener:close()
  end)
end)

describe("a UDP object", function()
  it("sends and receives over both families", function()
    local a, b = pair()
    for _, host in ipairs { "10.0.0.2", "fd00::2" } do
      local u = b.udp()
      assert.matches("^udp{unconnected}: ", tostring(u))
      assert.equal(1, u:setsockname("*", 53))
      local c = a.udp()
      assert.equal(1, c:setpeername(host, 53))
      assert.matches("^udp{connected}: ", tostring(c))
      assert.equal(3, c:send("abc"))
      local from = host:gsub("2$", "1")
      local data, ip, port = u:receivefrom()
      assert.same({ "abc", from }, { data, ip })
      assert.equal(6, u:sendto("answer", ip, tostring(port)))
      assert.same({ n = 1, "ans" }, pack(c:receive(3)))
      c:send("")
      assert.equal("", u:receive())
      c:send("12345")
      assert.equal(3, pack(u:receivefrom(2)).n)
      assert.equal(1, c:setpeername("*"))
      assert.matches("^udp{unconnected}: ", tostring(c))
      u:close()
    end
  end)

  it("has LuaSocket's errors", function()
    local a = pair()
    local u = a.udp()
    u:settimeout(0)
    assert.equal(1, u:setsockname("*", 0))
    assert.same({ nil, "timeout" }, { u:receive() })
    assert.same({ nil, "timeout" }, { u:receivefrom() })
    assert.same({ nil, "Message too long" }, { u:sendto(("x"):rep(70000), "10.0.0.2", 1) })
    assert.same({ nil, "host not found" }, { u:sendto("x", "nobody", 1) })
    assert.same({ nil, "Address family for hostname not supported" }, { a.udp4():sendto("x", "fd00::2", 1) })
    assert.same({ nil, "Transport endpoint is not connected" }, { u:send("x") })
    assert.same({ nil, "Transport endpoint is not connected" }, { u:getpeername() })
    local c = a.udp()
    c:setpeername("10.0.0.2", 1)
    c:settimeout(1)
    assert.equal(1, c:send("x"))
    assert.same({ nil, "connection refused" }, { c:receive() })
    assert.same({ nil, "setsockopt failed" }, { c:setoption("dontroute", true) })
    assert.error_matches(function() c:setoption("nonsense", true) end, "bad argument #1 to 'setoption'")
    assert.equal(1, c:close())
    assert.same({ nil, "closed" }, { c:receive() })
    assert.equal(-1, c:getfd())
  end)

  it("has a family", function()
    local a = pair()
    assert.same({ "0.0.0.0", 0, "inet" }, { a.udp4():getsockname() })
    local six = a.udp6()
    assert.equal(1, six:setsockname("*", 7))
    assert.same({ "::", 7, "inet6" }, { six:getsockname() })
    assert.same({ "inet4", "inet6" }, { a.udp():getfamily(), six:getfamily() })
  end)
end)

describe("select", function()
  it("returns those that are ready, in order, in both sets", function()
    local a, b = pair()
    run(function()
      local c, s, listener = connection(a, b)
      local other = assert(a.connect("10.0.0.2", 80))
      local u = b.udp()
      u:setsockname("*", 53)
      c:send("x")
      sleep(0.1)
      local readable, writable, err = b.select({ u, s, listener }, { u, s }, 10)
      assert.is_nil(err)
      assert.equal(0, netstack.now() - 0.1)
      assert.same({ s, listener }, { readable[1], readable[2], readable[3] })
      assert.same({ 1, 2 }, { readable[s], readable[listener] })
      assert.is_nil(readable[u])
      assert.same({ u, s }, { writable[1], writable[2], writable[3] })
      other:close()
    end)
  end)

  it("waits for the first of several, in a task, for the timeout or for ever", function()
    local a, b = pair()
    run(function()
      local c, s, listener = connection(a, b)
      local u = b.udp()
      u:setsockname("*", 53)
      local list = { s, listener, u }
      local readable, writable, err = b.select(list, nil, 2)
      assert.same({ 0, 0, "timeout", 2 }, { #readable, #writable, err, netstack.now() })
      spawn(function()
        sleep(3)
        a.udp():sendto("x", "10.0.0.2", 53)
        sleep(1)
        c:send("x")
        sleep(1)
        assert(a.connect("fd00::2", 80))
      end)
      for i, expected in ipairs { u, s, listener } do
        readable, writable, err = b.select(list)
        assert.same({ 1, 0, 4 + i }, { #readable, #writable, netstack.now() })
        assert.equal(expected, readable[1])
        assert.is_nil(err)
        if expected == u then u:receive() elseif expected == s then s:receive(1) else listener:accept() end
      end
      c:close()
      readable = b.select(list, nil, -1)
      assert.equal(s, readable[1])
      assert.equal(nil, s:receive(1))
    end)
  end)

  it("may be called by several tasks for the same socket", function()
    local a, b = pair()
    run(function()
      local c, s, listener = connection(a, b)
      local woken = 0
      for _ = 1, 3 do
        spawn(function()
          if b.select({ s, listener })[1] == s then woken = woken + 1 end
        end)
      end
      local _, _, err = b.select({ s }, nil, 1)
      assert.equal("timeout", err)
      c:send("x")
      sleep(1)
      assert.equal(3, woken)
    end)
  end)

  it("tells of room to send", function()
    local a, b = pair { tcp_buffer_size = 4096 }
    run(function()
      local c, s = connection(a, b)
      c:settimeout(0)
      local writable, err, last, _
      repeat
        c:send(("x"):rep(1000))
        last = netstack.now()
        _, writable, err = a.select(nil, { c }, 1)
      until err
      assert.same({ 0, "timeout" }, { #writable, err })
      assert.near(1, netstack.now() - last, 1e-6)
      s:settimeout(1)
      last = netstack.now()
      spawn(function()
        sleep(1)
        repeat until not s:receive(1000)
      end)
      _, writable = a.select(nil, { c })
      assert.equal(c, writable[1])
      assert.near(1, netstack.now() - last, 1e-6)
    end)
  end)

  it("sleeps when there is nothing to wait for, and ignores what is closed or no socket", function()
    local a, b = pair()
    run(function()
      local c = connection(a, b)
      c:close()
      local readable, writable, err = a.select({ c, {} }, nil, 1)
      assert.same({ 0, 0, "timeout", 1 }, { #readable, #writable, err, netstack.now() })
      a.select(nil, nil, 1)
      assert.equal(2, netstack.now())
    end)
    assert.error_matches(function() a.select(1) end, "bad argument #1 to 'select'")
    assert.error_matches(function() a.select(nil, 1) end, "bad argument #2 to 'select'")
    assert.error_matches(function() a.select(nil, nil, {}) end, "bad argument #3 to 'select'")
    assert.error(function() a.select({ 1 }, nil, 0) end)
    local many = {}
    for i = 1, a._SETSIZE + 1 do many[i] = many end
    assert.error_matches(function() a.select(many, nil, 0) end,
      "bad argument #1 to 'select' %(more than 65536 sockets%)")
  end)

  it("takes sinks, sources and wrappers, by their getfd", function()
    local a, b = pair()
    local c, s = connection(a, b)
    c:send("x")
    local source = b.source("by-length", s, 1)
    local wrapper = { getfd = function() return s:getfd() end }
    local readable, writable = b.select({ source, wrapper }, { a.sink("keep-open", c) }, 1)
    assert.same({ 1, 2 }, { readable[source], readable[wrapper] })
    assert.equal(1, #writable)
  end)

  it("works outside run and where nothing can yield", function()
    local a, b = pair()
    local c, s, listener = connection(a, b)
    local _, _, err = b.select({ s, listener }, nil, 0.01)
    assert.equal("timeout", err)
    c:send("x")
    assert.equal(s, b.select({ s, listener }, nil, 1)[1])
    run(function()
      s:receive(1)
      spawn(function()
        sleep(1)
        c:send("y")
      end)
      local readable
      table.sort({ 1, 2 }, function()
        readable = readable or b.select({ listener, s })
        return false
      end)
      assert.equal(s, readable[1])
    end)
  end)

  it("waits by the function that was installed", function()
    local a, b, sa, sb = pair()
    local c, s, listener = connection(a, b)
    local calls = 0
    local previous = netstack.waiting(function(ticket)
      calls = calls + 1
      if calls == 3 then c:send("x") end
      sa:poll(netstack.now())
      sb:poll(netstack.now())
      return ticket:done() and 1 or 1 -- may return early
    end)
    local ok, readable = pcall(b.select, { s, listener })
    netstack.waiting(previous)
    assert.is_true(ok, readable)
    assert.equal(s, readable[1])
    assert.is_true(calls >= 3)
  end)

  it("does not hold time still when it only polls", function()
    local a, b = pair()
    run(function()
      local c, s = connection(a, b)
      spawn(function()
        sleep(1)
        c:send("x")
      end)
      repeat until b.select({ s }, nil, 0)[1]
      assert.equal(1, netstack.now())
      spawn(function()
        sleep(1)
        c:send("y")
      end)
      repeat until b.select({ s }, { s }, 0)[s] and s:receive(2)
    end)
  end)

  it("leaves nothing behind", function()
    local a, b, sa, sb = pair()
    run(function()
      local c, s, listener = connection(a, b)
      for _ = 1, 1000 do b.select({ s, listener }, nil, 0.001) end
      c:close()
      s:close()
      listener:close()
    end)
    a, b = nil, nil -- luacheck: ignore 311
    sa:close()
    sb:close()
    collectgarbage()
    collectgarbage()
    assert.is_nil(core.ready())
  end)
end)

describe("tickets of several waits", function()
  it("are answered with the first of them", function()
    local stack = netstack.new { loopback = true }
    local u, v = stack:udp(), stack:udp()
    u:setsockname("127.0.0.1", 1000)
    v:setsockname("127.0.0.1", 1001)
    local first, second = core.wait_ticket(u.handle, "read"), core.wait_ticket(v.handle, "read")
    first:arm()
    second:arm()
    local group = core.first_of { first, second }
    assert.is_false(group:done())
    assert.same({ nil, "wouldblock" }, { group:result() })
    u:sendto("x", "127.0.0.1", 1001)
    stack:poll(0)
    assert.same({ false, true, true }, { first:done(), second:done(), group:done() })
    assert.equal(1, group:result())
    assert.is_true(core.first_of({ second }):done())
    assert.is_false(core.first_of({}):done())
    group = core.first_of { first }
    first:cancel()
    assert.is_true(group:done())
    group = core.first_of { first }
    assert.is_true(group:done())
    assert.error(function() core.first_of { 1 } end)
    assert.error(function() core.first_of() end)
    stack:close()
  end)
end)

describe("time", function()
  it("goes on with the clock of a run", function()
    local a = pair()
    local wall = os.time()
    assert.near(wall, a.gettime(), 2)
    run(function()
      local before = a.gettime()
      assert.near(wall, before, 2)
      a.sleep(1000)
      assert.near(1000, a.gettime() - before, 1e-6)
      a.sleep(-1)
      assert.near(1000, a.gettime() - before, 1e-6)
    end)
    assert.near(wall, a.gettime(), 2)
    assert.error_matches(function() a.sleep("x") end, "bad argument #1 to 'sleep'")
  end)

  it("is the same each time in a run with a seed", function()
    local a = pair()
    local function times()
      return run(function()
        a.sleep(0.1)
        return a.gettime()
      end, { seed = 1 })
    end
    assert.equal(1000000000.1, times())
    assert.equal(1000000000.1, times())
  end)
end)

describe("dns", function()
  it("knows what the stack knows", function()
    local stack = netstack.new { name = "box", hosts = { web = { "10.0.0.2", "fd00::2" }, mail = "10.0.0.3" } }
    local dns = bound(stack).dns
    assert.equal("box", dns.gethostname())
    assert.same({ "10.0.0.2", { name = "web", alias = {}, ip = { "10.0.0.2", "fd00::2" } } }, { dns.toip("web") })
    assert.equal("10.0.0.9", (dns.toip("10.0.0.9")))
    assert.same({ nil, "host not found" }, { dns.toip("nobody") })
    assert.same({ nil, "host not found" }, { dns.toip("*") })
    assert.same({ "mail", { name = "mail", alias = {}, ip = { "10.0.0.3" } } }, { dns.tohostname("10.0.0.3") })
    assert.equal("web", (dns.tohostname("fd00:0::2")))
    assert.same({ nil, "host not found" }, { dns.tohostname("10.0.0.9") })
    assert.same({ { family = "inet", addr = "10.0.0.2" }, { family = "inet6", addr = "fd00::2" } },
      dns.getaddrinfo("web"))
    assert.same({ { family = "inet6", addr = "::1" } }, dns.getaddrinfo("::1"))
    assert.same({ { family = "inet", addr = "127.0.0.1" }, { family = "inet6", addr = "::1" } },
      dns.getaddrinfo("LocalHost"))
    assert.same({ nil, "host not found" }, { dns.getaddrinfo("nobody") })
    assert.same({ "web", "web" }, dns.getnameinfo("web"))
    assert.same({ { "mail" }, "http" }, { dns.getnameinfo("10.0.0.3", "80") })
    assert.same({ { "10.0.0.9" } }, { dns.getnameinfo("10.0.0.9") })
    assert.error_matches(function() dns.getnameinfo() end, "cannot be both nil")
    assert.error_matches(function() dns.toip() end, "bad argument #1 to 'toip'")
  end)
end)

describe("exceptions", function()
  local socket = bound(netstack.new())

  it("are returned by protect, and nothing else is", function()
    assert.same({ n = 3, 1, nil, 2 }, pack(socket.protect(function(...) return ... end)(1, nil, 2)))
    assert.same({ n = 3, 1, 2, nil }, pack(socket.try(1, 2, nil)))
    assert.same({ n = 2, nil, "oops" }, pack(socket.protect(function() socket.try(nil, "oops", 3) end)()))
    assert.same({ n = 2, nil, "oops" }, pack(socket.protect(function() socket.try(false, "oops") end)()))
    assert.same({ n = 2 }, pack(socket.protect(function() socket.try() end)()))
    local value = {}
    local ok, err = pcall(socket.protect(function() error(value) end))
    assert.is_false(ok)
    assert.equal(value, err)
    ok, err = pcall(socket.protect(function() error("text", 0) end))
    assert.same({ false, "text" }, { ok, err })
    ok, err = pcall(socket.try, nil, "unprotected")
    assert.is_false(ok)
    assert.equal("unprotected", tostring(err))
  end)

  it("call the finalizer first, only when something failed", function()
    local log = {}
    local try = socket.newtry(function() log[#log + 1] = "finalized" end)
    assert.equal(5, socket.protect(function() return try(5) end)())
    assert.same({}, log)
    assert.same({ n = 2, nil, "e" }, pack(socket.protect(function() try(nil, "e") end)()))
    assert.same({ "finalized" }, log)
  end)

  it("nest", function()
    local inner = socket.protect(function() socket.try(nil, "inner") end)
    local outer = socket.protect(function()
      local ok, err = inner()
      socket.try(ok, "outer of " .. err)
    end)
    assert.same({ n = 2, nil, "outer of inner" }, pack(outer()))
  end)

  it("can be yielded through", function()
    run(function()
      local log = {}
      local protected = socket.protect(function(name)
        sleep(1)
        log[#log + 1] = name
        local try = socket.newtry(function()
          sleep(1)
          log[#log + 1] = name .. " finalized"
        end)
        try(nil, name)
      end)
      local tasks = {}
      for i, name in ipairs { "a", "b" } do
        tasks[i] = spawn(function() return protected(name) end)
      end
      assert.same({ nil, "a" }, { tasks[1]:join() })
      assert.same({ nil, "b" }, { tasks[2]:join() })
      assert.same({ "a", "b", "a finalized", "b finalized" }, log)
      assert.equal(2, netstack.now())
    end)
  end)

  it("work outside run", function()
    local protected = socket.protect(function()
      socket.sleep(0.001)
      socket.try(nil, "here")
    end)
    assert.same({ nil, "here" }, { protected() })
    assert.same({ true, nil, "here" }, { coroutine.resume(coroutine.create(protected)) })
  end)
end)

describe("sinks and sources", function()
  it("are chosen by name", function()
    local socket = bound(netstack.new())
    local f = socket.choose { default = function(...) return "default", ... end, x = function(...) return "x", ... end }
    assert.same({ "x", 1, 2 }, { f("x", 1, 2) })
    assert.same({ "default", 1 }, { f(1) })
    assert.error_matches(function() f("nonsense") end, "unknown key %(nonsense%)")
    assert.equal(3, socket.skip(2, 1, 2, 3))
    assert.same({ n = 0 }, pack(socket.skip(9, 1)))
    assert.same({ n = 2, 1, 2 }, pack(socket.skip(0, 1, 2)))
  end)

  it("move data", function()
    local a, b = pair()
    run(function()
      local data = stream(300000)
      local c, s, listener = connection(a, b)
      spawn(function()
        local sink = a.sink("keep-open", c)
        for i = 1, #data, 1000 do assert(sink(data:sub(i, i + 999))) end
        assert.equal(1, sink())
        sink = a.sink("close-when-done", c)
        assert(sink("the end"))
        assert.equal(1, sink())
        assert.equal(-1, c:getfd())
      end)
      local parts = {}
      local source = b.source("by-length", s, #data)
      local chunk = source() -- a loop's iterator could not wait on 5.1
      while chunk do
        assert.is_true(#chunk <= b.BLOCKSIZE)
        parts[#parts + 1] = chunk
        chunk = source()
      end
      assert.is_true(table.concat(parts) == data)
      source = b.source("until-closed", s)
      chunk = source()
      assert.equal("the end", chunk)
      assert.is_nil(source())
      assert.equal(-1, s:getfd())
      c = assert(a.connect("10.0.0.2", 80))
      s = listener:accept()
      s:settimeout(1)
      assert.same({ nil, "timeout" }, { b.source("by-length", s, 5)() })
      assert.same({ nil, "timeout" }, { b.source(s)() })
      c:close()
    end)
  end)
end)

describe("load", function()
  if not has_luasocket then return pending("LuaSocket is not installed") end

  -- Answers each request with what it sent, headers aside.
  local function echo_server(socket, port)
    local listener = assert(socket.bind("*", port))
    while true do
      local s = listener:accept()
      netstack.daemon(function()
        local line, length = s:receive(), 0
        repeat
          local header = s:receive()
          length = tonumber(header:lower():match("^content%-length: (%d+)")) or length
        until header == ""
        local body = length > 0 and s:receive(length) or line
        s:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-From: %s\r\n\r\n"):format(#body, (s:getsockname())))
        s:send(body)
        s:close()
      end)
    end
  end

  it("gives LuaSocket's modules, once per table, and leaves package.loaded alone", function()
    local a, b = pair()
    local before = {}
    for name, value in pairs(package.loaded) do before[name] = value end
    local http = a.load "socket.http"
    assert.equal("function", type(http.request))
    assert.equal(http, a.load "socket.http")
    assert.equal(http, a.http)
    assert.not_equal(http, b.load "socket.http")
    assert.not_equal(a.load "ltn12", before["ltn12"])
    assert.equal(a, a.load "socket")
    for name in ("socket.url socket.headers socket.smtp socket.ftp socket.tp mime ltn12"):gmatch "%S+" do
      assert.equal("table", type(a.load(name)), name)
    end
    assert.equal("aGVsbG8=", (a.load "mime".b64("hello")))
    for name in pairs(before) do assert.equal(before[name], package.loaded[name]) end
    for name in pairs(package.loaded) do assert.equal(before[name], package.loaded[name]) end
  end)

  it("gets and posts some MB over both families, on two stacks at once", function()
    local a, b = pair()
    run(function()
      netstack.daemon(echo_server, b, 8080)
      netstack.daemon(echo_server, a, 8080)
      local data = stream(3 * 1024 * 1024)
      local function both(socket, four, six)
        local http, ltn12 = socket.load "socket.http", socket.load "ltn12"
        for _, host in ipairs { four, six } do
          local body, status, headers = http.request("http://" .. host .. ":8080/path")
          assert.same({ "GET /path HTTP/1.1", 200 }, { body, status })
          assert.equal(host:gsub("[][]", ""), headers["x-from"])
          body, status = http.request("http://" .. host .. ":8080/", data)
          assert.equal(200, status)
          assert.is_true(body == data)
          local parts = {}
          assert(http.request {
            url = "http://" .. host .. ":8080/",
            method = "POST",
            headers = { ["content-length"] = #data },
            source = ltn12.source.string(data),
            sink = ltn12.sink.table(parts),
          })
          assert.is_true(table.concat(parts) == data)
        end
      end
      local task = spawn(both, a, "10.0.0.2", "[fd00::2]")
      both(b, "10.0.0.1", "[fd00::1]")
      task:join()
      assert.same({ nil, "connection refused" }, { a.load "socket.http".request("http://10.0.0.2:9/") })
      assert.same({ nil, "host not found" }, { a.load "socket.http".request("http://nobody/") })
    end)
  end)

  it("binds other clients, too, with what belongs to them", function()
    local folder = os.tmpname()
    os.remove(folder)
    os.execute("mkdir " .. folder .. " " .. folder .. "/wanted")
    local function write(name, text)
      local file = assert(io.open(folder .. "/" .. name, "w"))
      file:write(text)
      file:close()
    end
    write("wanted.lua", 'leak = 1 return { socket = require "socket", part = require "wanted.part", name = ... }')
    write("wanted/part.lua", 'return { socket = require "socket", insert = require("table").insert }')
    write("wanted/broken.lua", "return = 1")
    write("wanted/failing.lua", "error('failed', 0)")
    write("wanted/loop.lua", 'return { require "wanted.loop" }')
    write("wanted/old.lua", 'local socket = require "socket" module("wanted.old", package.seeall) mine = socket ' ..
      'function again() return require "socket" end')
    local path = package.path
    package.path = folder .. "/?.lua;" .. path
    local a = pair()
    local ok, err = pcall(function()
      local wanted = a.load "wanted"
      assert.same({ a, a, "wanted" }, { wanted.socket, wanted.part.socket, wanted.name })
      assert.equal(table.insert, wanted.part.insert)
      assert.is_nil(rawget(_G, "leak"))
      assert.is_nil(package.loaded["wanted"])
      local _, broken = pcall(a.load, "wanted.broken")
      assert.matches("^error loading module 'wanted.broken' from file '", broken)
      assert.same({ false, "failed" }, { pcall(a.load, "wanted.failing") })
      assert.same({ true }, a.load "wanted.loop")
      if not rawget(_G, "module") then return end
      local old = a.load "wanted.old"
      assert.same({ a, a, "wanted.old", "wanted." }, { old.mine, old.again(), old._NAME, old._PACKAGE })
      assert.is_nil(package.loaded["wanted.old"])
      assert.is_nil(rawget(_G, "wanted"))
      assert.is_nil(rawget(_G, "mine"))
    end)
    package.path = path
    os.execute("rm -r " .. folder)
    assert.is_true(ok, err)
  end)

  it("says how to install what is missing", function()
    local path, cpath = package.path, package.cpath
    package.path, package.cpath = "./nowhere/?.lua", "./nowhere/?.so"
    local a = pair()
    local ok, err = pcall(a.load, "socket.http")
    local also_ok, other = pcall(a.load, "nonsense")
    package.path, package.cpath = path, cpath
    assert.is_false(ok)
    assert.matches("module 'socket.http' not found: it is part of LuaSocket", err, 1, true)
    assert.matches("apt-get install lua-socket", err, 1, true)
    assert.matches("luarocks install luasocket", err, 1, true)
    assert.matches("no file './nowhere/socket/http.lua'", err, 1, true)
    assert.is_false(also_ok)
    assert.matches("^module 'nonsense' not found:\n", other)
    assert.error_matches(function() a.load(1) end, "bad argument #1 to 'load'")
  end)

  it("sends mail", function()
    local a, b = pair()
    run(function()
      local listener = assert(b.bind("*", 25))
      local server = spawn(function()
        local s = listener:accept()
        local lines, data = {}, false
        s:send("220 hello\r\n")
        repeat
          local line = s:receive()
          lines[#lines + 1] = line
          if data and line == "." then data = false end
          if line == "DATA" then
            data = true
            s:send("354 go on\r\n")
          elseif not data then
            s:send((line == "QUIT" and "221" or "250") .. " fine\r\n")
          end
        until line == "QUIT"
        return lines
      end)
      local smtp = a.load "socket.smtp"
      assert(smtp.send { from = "<a@x>", rcpt = "<b@y>", server = "fd00::2", domain = "x",
        source = smtp.message { headers = { subject = "Hi" }, body = "text" } })
      local text = table.concat(server:join(), "\n")
      assert.matches("EHLO x\nMAIL FROM:<a@x>\nRCPT TO:<b@y>\nDATA\n", text, 1, true)
      assert.matches("\ntext\n.\nQUIT", text, 1, true)
    end)
  end)
end)
