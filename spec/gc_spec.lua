-- Objects are collected in any order, at any moment, by a collector in any mood.
local netstack = require "netstack"
local packets = require "spec.packets"

local run, spawn, sleep = netstack.run, netstack.spawn, netstack.sleep
local lua54 = _VERSION == "Lua 5.4"
local interpreter = arg and arg[-1] or "lua"
do -- busted may be given options of the interpreter's
  local i = 0
  while arg and arg[i - 1] do i = i - 1 end
  interpreter = arg and arg[i] or interpreter
end

local function collect()
  collectgarbage()
  collectgarbage()
end

-- Weakly, to see what is alive.
local function watch(object)
  return setmetatable({ object }, { __mode = "v" })
end

-- All orders of 1..n.
local function permutations(n)
  local list = {}
  local function extend(order, used)
    if #order == n then
      list[#list + 1] = { (table.unpack or unpack)(order) } -- luacheck: ignore 143
      return
    end
    for i = 1, n do
      if not used[i] then
        order[#order + 1], used[i] = i, true
        extend(order, used)
        order[#order], used[i] = nil, nil
      end
    end
  end
  extend({}, {})
  return list
end

-- Everything that two stacks on a pipe can hold, with something under way everywhere.
local function world()
  local near, far = netstack.pipe()
  local a, b = netstack.new { loopback = true }, netstack.new()
  local interface = assert(a:attach(near, { addresses = { "10.0.0.1/24", "fd00::1/64" } }))
  assert(b:attach(far, { addresses = { "10.0.0.2/24", "fd00::2/64" } }))
  local listener = b:bind("*", 80)
  local client = a:connect("10.0.0.2", 80)
  local server = listener:accept()
  client:send("unread")
  server:send(("x"):rep(100000))
  local udp, raw = a:udp(), b:raw("ipv4", 17)
  udp:setsockname("*", 7)
  udp:sendto("x", "10.0.0.2", 9)
  local channel = a:channel()
  local handle
  do
    local bound = channel:submit("udp.bind", { host = "*", port = 8 })
    a:poll(0)
    handle = bound:result().handle
  end
  local waiting = channel:submit("udp.recv", { handle = handle })
  a:poll(0)
  local queued = channel:submit("tcp.connect", { host = "10.0.0.2", port = 80 })
  a:trace(function() end)
  a:on_wake(function() end)
  return { a, b, near, far, interface, listener, client, server, udp, raw, channel, handle, waiting, queued }
end

describe("Collection #collector", function()
  it("of a whole world, object by object, in many orders", function()
    local n = #world()
    for seed = 1, 20 do
      local objects = world()
      local order = {}
      for i = 1, n do order[i] = i end
      local state = seed
      for i = n, 2, -1 do -- a shuffle that is the same everywhere
        state = (state * 16807) % 2147483647
        local j = state % i + 1
        order[i], order[j] = order[j], order[i]
      end
      for _, i in ipairs(order) do
        objects[i] = nil
        collect()
      end
    end
  end)

  it("of the important ones in every order, with traffic in between", function()
    for _, order in ipairs(permutations(5)) do
      local a, b = netstack.pair()
      local listener = b:bind("*", 80)
      local client = a:connect("10.0.0.2", 80)
      local objects = { a, b, listener, client, a:channel() }
      a, b, listener, client = nil, nil, nil, nil -- luacheck: ignore 311
      for _, i in ipairs(order) do
        objects[i] = nil
        collectgarbage()
        if objects[4] then objects[4]:send("x") end
        if objects[1] then objects[1]:poll(0) end
        if objects[2] then objects[2]:poll(0) end
      end
    end
    collect()
  end)

  it("closed objects collect, too, in both orders", function()
    for _ = 1, 10 do
      local objects = world()
      for i = 1, #objects do
        if objects[i].close then objects[i]:close() end
        collectgarbage()
      end
      objects = world()
      for i = #objects, 1, -1 do
        if objects[i].close then objects[i]:close() end
        collectgarbage()
      end
    end
  end)
end)

describe("Lifetimes #collector", function()
  it("a peer over a pipe lives as long as either stack is reachable", function()
    local a, b = netstack.pair()
    local server = b:udp()
    server:setsockname("*", 53)
    local seen = watch(b)
    b = nil -- luacheck: ignore 311
    collect()
    assert.is_userdata(seen[1])
    local client = a:udp()
    client:sendto("x", "10.0.0.2", 53)
    assert.equal("x", server:receive())
    local seen_a = watch(a)
    a = nil -- luacheck: ignore 311
    collect()
    assert.is_nil(seen[1])
    assert.is_nil(seen_a[1])
    assert.same({ nil, "closed" }, { server:receive() })
    assert.same({ nil, "closed" }, { client:sendto("x", "10.0.0.2", 53) })
  end)

  it("a pipe end keeps the other and the stack on it", function()
    local stack, far = netstack.piped()
    local seen = watch(stack)
    stack = nil -- luacheck: ignore 311
    collect()
    assert.is_userdata(seen[1])
    far:send(packets.icmp("10.0.0.2", "10.0.0.1", 8, 0, "\0\0\0\0"))
    seen[1]:poll(0)
    assert.is_string(far:receive())
    far = nil -- luacheck: ignore 311
    collect()
    assert.is_nil(seen[1])
  end)

  it("a stack keeps its device, also one in Lua", function()
    local sent = 0
    local stack = netstack.new()
    assert(stack:attach(netstack.device { transmit = function() sent = sent + 1 end },
      { addresses = { "10.0.0.1/24" } }))
    collect()
    local socket = stack:udp()
    socket:sendto("x", "10.0.0.2", 9)
    stack:poll(0)
    assert.equal(1, sent)
    local device = netstack.device { transmit = function() end }
    local other = netstack.new()
    assert(other:attach(device))
    local seen = watch(other)
    other = nil -- luacheck: ignore 311
    collect()
    assert.is_userdata(seen[1]) -- the device keeps the stack
    device = nil -- luacheck: ignore 311
    collect()
    assert.is_nil(seen[1])
    socket:close()
  end)

  it("a detached device keeps no stack, nor does one of a closed stack", function()
    local near, far = netstack.pipe()
    local stack = netstack.new()
    local seen = watch(stack)
    stack:attach(near):detach()
    stack = nil -- luacheck: ignore 311
    collect()
    assert.is_nil(seen[1])
    stack = netstack.new()
    stack:attach(near)
    seen = watch(stack)
    stack:close()
    stack = nil -- luacheck: ignore 311
    collect()
    assert.is_nil(seen[1])
    assert.equal(1, far:send("x"))
    assert.equal("x", near:receive())
  end)

  it("sockets, channels, tickets and interfaces keep no stack alive", function()
    local make = {
      function(stack) return stack:udp() end,
      function(stack) return stack:tcp() end,
      function(stack) return stack:bind("*", 80) end,
      function(stack) return stack:raw("ipv4", 99) end,
      function(stack) return stack:channel() end,
      function(stack) return stack:channel():submit("udp.bind", { host = "*", port = 7 }) end,
      function(stack) return stack:attach((netstack.pipe())) end,
    }
    for i, fn in ipairs(make) do
      local stack = netstack.new { loopback = true }
      local object = fn(stack)
      local seen = watch(stack)
      stack = nil -- luacheck: ignore 311
      collect()
      assert.is_nil(seen[1], i)
      assert.is_string(tostring(object))
    end
  end)

  it("a stack dropped under waiting tasks answers them closed", function()
    local stack = netstack.piped()
    run(function()
      local socket = stack:udp()
      socket:setsockname("*", 7)
      local task = spawn(function() return socket:receive() end)
      sleep(1)
      stack = nil
      collect()
      assert.same({ nil, "closed" }, { task:join() })
    end)
  end)

  it("on_wake and trace functions that refer to their stack make no cycle that stays", function()
    local stack = netstack.new()
    stack:on_wake(function() return stack end)
    stack:trace(function() return stack end)
    local seen = watch(stack)
    stack = nil
    collect()
    collect()
    -- 5.1 and LuaJIT see through environments of userdata as 5.4 does through user values
    assert.is_nil(seen[1])
  end)

  if lua54 then
    it("<close> closes", function()
      local stack, socket, far, channel = assert(load [[
        local netstack = ...
        local a, b, c, d
        do
          local stack <close>, far = netstack.piped()
          local far <close> = far
          local udp <close> = stack:udp()
          local tcp <close> = stack:tcp()
          local raw <close> = stack:raw("ipv4", 99)
          local channel <close> = stack:channel()
          local ticket <close> = channel:submit("udp.bind", { host = "*", port = 7 })
          a, b, c, d = stack, udp, far, channel
        end
        return a, b, c, d
      ]])(netstack)
      assert.matches("%(closed%)$", tostring(stack))
      assert.same({ nil, "closed" }, { socket:receive() })
      assert.same({ nil, "closed" }, { far:receive() })
      assert.same({ nil, "closed" }, { channel:submit("udp.bind", { host = "*", port = 7 }) })
      collect()
    end)

    it("<close> within a callback of the very stack", function()
      local stack = netstack.piped()
      _G.netstack_close = assert(load [[
        local stack = ...
        local closing <close> = stack
      ]])
      stack:on_wake(function() _G.netstack_close(stack) end)
      stack:channel():post("udp.bind", { host = "*", port = 7 })
      assert.same({ nil, "closed" }, { stack:poll(0) })
      stack = netstack.piped()
      stack:trace(function() _G.netstack_close(stack) end)
      for i = 1, 3 do stack:channel():post("udp.bind", { host = "*", port = i }) end
      stack:poll(0)
      assert.same({ nil, "closed" }, { stack:poll(0) })
      _G.netstack_close = nil
    end)
  end
end)

-- Traffic of every kind, checked.
local function traffic()
  local a, b = netstack.pair { tcp_buffer_size = 8192 }
  run(function()
    local listener = b:bind("*", 80)
    local server_udp, client_udp = b:udp(), a:udp()
    server_udp:setsockname("*", 53)
    spawn(function()
      for _ = 1, 3 do
        local connection = listener:accept()
        spawn(function()
          local data = connection:receive("*a")
          connection:send(data:upper())
          connection:close()
        end)
      end
    end)
    for i = 1, 3 do
      spawn(function()
        local client = assert(a:connect(i == 1 and "10.0.0.2" or "fd00::2", 80))
        client:send(("line " .. i .. "\n"):rep(3000))
        client:shutdown("send")
        assert.equal(("LINE " .. i), client:receive())
        assert.equal(7 * 2999, #client:receive("*a"))
        client:close()
      end)
    end
    for i = 1, 30 do
      assert(client_udp:sendto(("datagram " .. i):rep(300), "10.0.0.2", 53))
      assert.equal(("datagram " .. i):rep(300), (server_udp:receivefrom()))
      assert.is_table(a:sockets())
      assert.is_table(b:stats())
      assert.is_table(a:routes())
    end
    local channel = a:channel()
    for i = 1, 10 do
      local handle = channel:request("udp.bind", { host = "*", port = 1000 + i }).handle
      channel:post("udp.close", { handle = handle })
    end
    for _ = 1, 10 do assert.is_number(a:ping("fd00::2")) end
    listener:close()
    server_udp:close()
    client_udp:close()
    sleep(1000)
  end)
  packets.leaves_nothing(a, b)
end

describe("The collector at its most hostile #collector", function()
  local function under(set)
    local restore = set()
    local ok, err = pcall(traffic)
    restore()
    collectgarbage()
    if not ok then error(err, 0) end
  end

  it("pauses never and works much", function()
    under(function()
      local pause, multiplier = collectgarbage("setpause", 0), collectgarbage("setstepmul", 10000)
      return function()
        collectgarbage("setpause", pause)
        collectgarbage("setstepmul", multiplier)
      end
    end)
  end)

  if lua54 then
    it("is incremental in tiny steps, or generational", function()
      under(function()
        collectgarbage("incremental", 10, 1000, 1)
        return function() collectgarbage("incremental", 200, 100, 13) end
      end)
      under(function()
        collectgarbage("generational", 1, 1)
        return function() collectgarbage("incremental", 200, 100, 13) end
      end)
    end)
  end

  it("runs every few instructions", function()
    under(function()
      if rawget(_G, "jit") then jit.off() end -- compiled code calls no hooks
      debug.sethook(function() collectgarbage("step", 50) end, "", 100) -- which coroutines inherit
      return function()
        debug.sethook()
        if rawget(_G, "jit") then jit.on() end
      end
    end)
  end)

  it("runs fully within the calls that allocate while they walk a stack's lists", function()
    local stack = netstack.new { loopback = true }
    for round = 1, 20 do
      for i = 1, 50 do
        local socket = stack:udp() -- garbage at once
        socket:setsockname("*", 1000 + i)
      end
      local pause, multiplier = collectgarbage("setpause", 0), collectgarbage("setstepmul", 100000000)
      collectgarbage("restart") -- the next allocation pays for a whole cycle
      local list = stack:sockets()
      collectgarbage("setpause", pause)
      collectgarbage("setstepmul", multiplier)
      assert.is_true(#list <= 50 * round)
      collect()
    end
    assert.equal(0, #stack:sockets())
    packets.leaves_nothing(stack)
  end)

  it("collects a stack within a call of its own socket", function()
    -- No reference to the stack is left when its datagram is made a string: the stack may go in the middle of that.
    -- In a function of its own, whose registers are gone when it has returned.
    local function sockets_of_a_lost_stack()
      local stack = netstack.new { loopback = true }
      local socket, listener = stack:udp(), stack:bind("127.0.0.1", 80)
      local client = stack:connect("127.0.0.1", 80)
      local server = listener:accept()
      socket:setsockname("127.0.0.1", 7)
      socket:sendto(("x"):rep(5000), "127.0.0.1", 7)
      client:send(("y"):rep(5000))
      stack:poll(0)
      socket:settimeout(0)
      server:settimeout(0)
      return watch(stack), socket, server
    end
    for round = 1, 20 do
      collect()
      local seen, socket, server = sockets_of_a_lost_stack()
      local pause, multiplier = collectgarbage("setpause", 0), collectgarbage("setstepmul", 100000000)
      collectgarbage("restart") -- the next allocation pays for a whole cycle
      local data, other
      if round % 2 == 0 then
        data = socket:receive()
      else
        other = server:receive(5000)
      end
      collectgarbage("setpause", pause)
      collectgarbage("setstepmul", multiplier)
      if data then assert.is_true(data == ("x"):rep(5000)) end
      if other then assert.is_true(other == ("y"):rep(5000)) end
      collect()
      assert.is_nil(seen[1])
    end
  end)

  it("runs finalisers that end a stack, or crash it, within the calls that tell of it", function()
    local function when_collected(fn)
      if newproxy then getmetatable(newproxy(true)).__gc = fn else setmetatable({}, { __gc = fn }) end
    end
    for _, how in ipairs { "close", "crash" } do
      for _, call in ipairs { "info", "routes", "sockets", "stats" } do
        for _ = 1, 5 do
          local stack = netstack.new { loopback = true }
          local listener = stack:bind("127.0.0.1", 80)
          local client = stack:connect("127.0.0.1", 80)
          collect()
          collectgarbage("stop")
          when_collected(function() stack[how](stack) end)
          local pause, multiplier = collectgarbage("setpause", 0), collectgarbage("setstepmul", 100000000)
          collectgarbage("restart") -- the next allocation pays for a whole cycle
          local told
          if call == "info" then told = client:info() else told = stack[call](stack) end
          assert.is_true(told == nil or type(told) == "table")
          collectgarbage("setpause", pause)
          collectgarbage("setstepmul", multiplier)
          collect() -- what is left of the cycle: how much of it an allocation pays for depends on the heap
          listener:close()
          stack:crash()
          packets.leaves_nothing(stack)
        end
      end
    end
  end)
end)

describe("os.exit", function()
  local program = [[
    local netstack = require "netstack"
    local a, b = netstack.pair { loopback = true }
    local device = netstack.device { transmit = function() end }
    local third = netstack.new()
    third:attach(device, { addresses = { "10.0.0.1/24" } })
    local function everything()
      local listener = b:bind("*", 80)
      local client = a:connect("10.0.0.2", 80)
      local server = listener:accept()
      server:send(("x"):rep(100000))
      local udp, raw = a:udp(), a:raw("ipv4", 99)
      udp:setsockname("*", 7)
      udp:sendto("x", "10.0.0.2", 9)
      local channel = a:channel()
      local ticket = channel:submit("udp.bind", { host = "*", port = 8 })
      return listener, client, server, udp, raw, channel, ticket
    end
    local what = { everything() }
    %s
  ]]
  local ends = {
    ["os.exit()"] = "os.exit()",
    ["os.exit(0)"] = "os.exit(0)",
    ["os.exit(true, true)"] = "os.exit(true, true)",
    ["the program's end"] = "",
    ["os.exit(true, true) within run"] = [[
      netstack.run(function()
        netstack.spawn(function() what[4]:receive() end)
        netstack.sleep(1)
        os.exit(true, true)
      end)]],
    ["os.exit(true, true) within a transmit function"] = [[
      local d = netstack.device { transmit = function() os.exit(true, true) end }
      local s = netstack.new()
      s:attach(d, { addresses = { "10.0.0.1/24" } })
      local u = s:udp()
      u:sendto("x", "10.0.0.2", 9)
      s:poll(0)]],
  }
  for name, code in pairs(ends) do
    it("with everything open: " .. name, function()
      if code:find("true, true", 1, true) and _VERSION == "Lua 5.1" and not rawget(_G, "jit") then
        code = code:gsub("true, true", "0") -- it knows a number only
      end
      local path = os.tmpname()
      local file = assert(io.open(path, "w"))
      file:write((program:gsub("%%s", function() return code end)))
      file:close()
      local pipe = assert(io.popen("'" .. interpreter .. "' '" .. path .. "' 2>&1; echo \" status $?\""))
      local output = pipe:read("*a")
      pipe:close()
      os.remove(path)
      assert.equal(" status 0\n", output)
    end)
  end
end)
