-- Whatever a method is given, it answers: with a Lua error that names the user's line and the argument, or with nil and
-- an error of the list. It never crashes. And whatever packet comes in, the stack goes on.
local netstack = require "netstack"
local core = require "netstack.core"
local packets = require "spec.packets"
local switch = require "netstack.switch"

local unpack = table.unpack or unpack -- luacheck: ignore 143
local random -- a generator that is the same everywhere
do
  local state = 42
  function random(n)
    state = (state * 16807) % 2147483647
    return state % n + 1
  end
end

-- A world of open objects, the methods of each class, and closed objects.
local function new_world()
  local near, far = netstack.pipe()
  local stack = netstack.new { loopback = true }
  local interface = stack:attach(near, { addresses = { "10.0.0.1/24", "fd00::1/64" } })
  local channel = stack:channel()
  local world = {
    stack = stack, device = far, interface = interface, channel = channel,
    ticket = channel:submit("udp.bind", { host = "*", port = 7 }),
    tcp = stack:tcp(), udp = stack:udp(), raw = stack:raw("ipv4", 99),
    lua_device = netstack.device { transmit = function() end }, switch = switch.new(),
  }
  world.tcp_handle, world.udp_handle, world.raw_handle = world.tcp.handle, world.udp.handle, world.raw.handle
  for _, object in pairs(world) do
    if type(object) == "table" then object:settimeout(0) end
  end
  return world
end

local function methods_of(object)
  local names = {}
  local index
  if type(object) == "table" then
    index = getmetatable(object).__index
  else
    for _, class in pairs(core.classes) do
      -- The one whose close or result belongs to the object: metatables are not shown.
      if class.close and class.close == object.close or class.result and class.result == object.result or
        class.detach and class.detach == object.detach then
        index = class
      end
    end
  end
  for name, method in pairs(index) do
    if type(method) == "function" then names[#names + 1] = name end
  end
  table.sort(names)
  return names, index
end

-- What would close the object, crash it, detach it or wait for ever is asked last, or not at all; and while an
-- interface asks for routers where there are none, whoever waits for something else waits for ever.
local ending = { close = true, crash = true, abort = true, detach = true, cancel = true, start_slaac = true }

local HERE = "^spec/bad_input_spec.lua:%d+: "

-- Calls, and checks how it answers.
local function probe(what, fn, ...)
  local results = { pcall(fn, ...) }
  if not results[1] then
    local err = results[2]
    if type(err) ~= "string" then error(what .. " raised a " .. type(err)) end
    if err:match("^deadlock:") then return end
    -- The methods that are called most do not ask what they were called on, but for nothing at all.
    if what:match("^tcp%.[%a_]+ on strange") and err:find("attempt to index", 1, true) then return end
    if not (err:match(HERE .. "bad argument #%d+ to '[%w_]+' %(.+%)$") or
      err:match(HERE .. "calling '[%w_]+' on bad self %(.+%)$")) then
      error(what .. " raised: " .. err)
    end
    if err:find("try_", 1, true) then error(what .. " names no public method: " .. err) end
  elseif results[2] == nil and results[3] ~= nil then
    if not netstack.errors[results[3]] then error(what .. " returned nil, " .. tostring(results[3])) end
  end
end

local strange = {
  function() end, true, false, {}, 0, -1, 1.5, 70000, 0 / 0, 1 / 0, -1 / 0, 2 ^ 53, "", "x", "10.0.0.300", "fd00::",
  "*", ("y"):rep(100), io.stdout, coroutine.create(function() end),
}

local world = new_world()
local kinds = {}
for kind in pairs(world) do kinds[#kinds + 1] = kind end
table.sort(kinds)

describe("Every method answers", function()
  for _, kind in ipairs(kinds) do
    local names, methods = methods_of(world[kind])

    it("of " .. kind .. ", called on nothing or on what it is not", function()
      for _, name in ipairs(names) do
        probe(kind .. "." .. name .. "()", function() methods[name]() end)
        for i, self in ipairs { false, true, 1, "x", {}, print, io.stdout, coroutine.create(function() end) } do
          probe(kind .. "." .. name .. " on strange " .. i, function() methods[name](self) end)
          probe(kind .. "." .. name .. " on strange " .. i, function() methods[name](self, "10.0.0.1", 80) end)
        end
        for _, other in ipairs(kinds) do
          local foreign = world[other]
          if other:match("^%a+") ~= kind:match("^%a+") and not (kind:match("device") and other:match("device")) then
            probe(kind .. "." .. name .. " on " .. other, function() methods[name](foreign) end)
            probe(kind .. "." .. name .. " on " .. other, function() methods[name](foreign, "10.0.0.1", 80) end)
          end
        end
      end
    end)

    it("of " .. kind .. ", with any arguments", function()
      local object = world[kind]
      for _, name in ipairs(names) do
        if not ending[name] and name ~= "settimeout" then
          local what = kind .. ":" .. name
          probe(what .. "()", function() methods[name](object) end)
          for i = 1, #strange do
            probe(what .. " one strange " .. i, function() methods[name](object, strange[i]) end)
            probe(what .. " two strange " .. i, function() methods[name](object, "10.0.0.2", strange[i]) end)
            probe(what .. " data, strange " .. i, function() methods[name](object, "x", "10.0.0.2", strange[i]) end)
          end
          for _ = 1, 30 do
            local args = {}
            for i = 1, random(5) do args[i] = strange[random(#strange)] end
            probe(what .. " at random", function() methods[name](object, unpack(args, 1, 5)) end)
          end
        end
      end
      if object.on_wake then
        object:on_wake(nil)
        object:trace(nil)
      end
    end)

    it("of " .. kind .. ", closed", function()
      local fresh = new_world()
      local object = fresh[kind]
      if object.close then
        assert.equal(1, object:close())
        assert.equal(1, object:close())
      else
        fresh.stack:close()
      end
      assert.is_string(tostring(object))
      for _, name in ipairs(names) do
        if name ~= "settimeout" and name ~= "gettimeout" then
          local what = "closed " .. kind .. ":" .. name
          probe(what .. "()", function() methods[name](object) end)
          probe(what .. "(x)", function() methods[name](object, "10.0.0.2", 80) end)
          probe(what .. "(x)", function() methods[name](object, "x", "10.0.0.2", 80) end)
        end
      end
      fresh.stack:close()
    end)
  end

  it("of the module, with any arguments", function()
    for _, name in ipairs { "new", "pair", "piped", "pipe", "device", "tun", "waiting", "sleep", "run", "spawn",
      "daemon" } do
      for i = 1, #strange do
        local value = strange[i]
        local harmless = type(value) == "function" or (name == "sleep" and type(value) == "number" and value > 0)
        if not harmless then
          local ok, result, err = pcall(function()
            local first, second = netstack[name](value)
            return first, second
          end)
          if not ok then
            if not tostring(result):match(HERE) then error(name .. " strange " .. i .. ": " .. tostring(result)) end
          elseif result == nil and err then
            assert.is_table(netstack.errors[err])
          end
          netstack.waiting(nil)
        end
      end
    end
  end)

  it("of the core itself, without a crash", function()
    local names = {}
    for name, fn in pairs(core) do
      if type(fn) == "function" and name ~= "wait_io" and name ~= "library" then names[#names + 1] = name end
    end
    table.sort(names)
    for _, name in ipairs(names) do
      local fn = core[name]
      pcall(fn)
      for i = 1, #strange do
        pcall(fn, strange[i])
        pcall(fn, strange[i], strange[i], strange[i], strange[i])
        pcall(fn, world.stack, strange[i], strange[i], strange[i])
        pcall(fn, world.udp_handle, strange[i], strange[i])
        pcall(fn, world.ticket, strange[i], strange[i])
      end
      assert.equal(1, world.stack:restart()) -- after `crash`
    end
    while core.ready() do end -- luacheck: ignore 542
    assert.is_number(world.stack:ping("127.0.0.1"))
  end)
end)

describe("Ports", function()
  it("are whole numbers from 0 to 65535", function()
    local stack = netstack.piped()
    local calls = {
      { "tcp", "bind", "10.0.0.1" }, { "tcp", "connect", "10.0.0.2" }, { "udp", "setsockname", "10.0.0.1" },
      { "udp", "setpeername", "10.0.0.2" }, { "udp", "sendto", "data", "10.0.0.2" },
    }
    for _, call in ipairs(calls) do
      local socket = stack[call[1]](stack)
      local function wrong(port)
        return packets.failure(function()
          local method = socket[call[2]]
          if call[4] then method(socket, call[3], call[4], port) else method(socket, call[3], port) end
        end)
      end
      local prefix = HERE .. "bad argument #" .. (call[4] and 3 or 2) .. " to '" .. call[2] .. "' %("
      for _, port in ipairs { 70000, -1, 65536, 1e300, 1 / 0, -1 / 0 } do
        assert.matches(prefix .. "out of range: [01] to 65535%)", wrong(port))
      end
      assert.matches(prefix .. "number has no integer representation%)", wrong(1.5))
      assert.matches(prefix .. "number has no integer representation%)", wrong(0 / 0))
      assert.matches(prefix .. "number expected, got string%)", wrong("x"))
      assert.matches(prefix .. "number expected, got table%)", wrong({}))
      socket:close()
    end
    for _, name in ipairs { "connect", "bind" } do
      assert.matches(HERE .. "bad argument #2 to '" .. name .. "' %(out of range",
        packets.failure(function() stack[name](stack, "10.0.0.1", 70000) end))
      assert.matches(HERE .. "bad argument #1 to '" .. name .. "' %(string expected",
        packets.failure(function() stack[name](stack, nil, 80) end))
    end
    collectgarbage()
    collectgarbage()
    assert.equal(0, #stack:sockets())
    stack:close()
  end)
end)

describe("Packets", function()
  -- A stack that hears everything, and its far end.
  local function target(options)
    local near, far = netstack.pipe(options)
    local stack = netstack.new()
    assert(stack:attach(near, { addresses = { "10.0.0.1/24", "fd00::1/64" } }))
    local listener, udp = stack:bind("*", 80), stack:udp()
    udp:setsockname("*", 7)
    local sockets = { listener, udp, stack:raw("ipv4", 1), stack:raw("ipv6", 58), stack:raw("ipv6", 0) }
    return stack, far, sockets
  end

  -- It still answers, and then leaves nothing.
  local function survives(stack, far, sockets)
    packets.drain(far)
    far:send(packets.icmp("10.0.0.2", "10.0.0.1", 8, 0, "\0\0\0\1alive"))
    far:send(packets.icmp("fd00::2", "fd00::1", 128, 0, "\0\0\0\1alive"))
    local now = stack:stats().time
    if stack:stats().closed then error("the stack died: " .. stack:stats().cause) end
    stack:poll(now)
    assert.equal(0, packets.parse(far:receive()).payload:byte(1))
    assert.equal(129, packets.parse(far:receive()).payload:byte(1))
    for _, socket in ipairs(sockets) do socket:close() end
    for i = 1, 200 do -- half-open connections and fragments age away
      stack:poll(now + i)
      packets.drain(far)
    end
    packets.leaves_nothing(stack)
  end

  it("of one byte, every one", function()
    local stack, far, sockets = target()
    for byte = 0, 255 do far:send(string.char(byte)) end
    stack:poll(0)
    assert.equal(0, #packets.drain(far))
    survives(stack, far, sockets)
  end)

  it("shorter than their headers, at every length", function()
    local stack, far, sockets = target()
    for _, whole in ipairs {
      packets.udp("10.0.0.2", 9, "10.0.0.1", 7, "data"), packets.udp("fd00::2", 9, "fd00::1", 7, "data"),
      packets.icmp("10.0.0.2", "10.0.0.1", 8, 0, "\0\0\0\1x"), packets.icmp("fd00::2", "fd00::1", 128, 0, "\0\0\0\1x"),
      packets.ip("10.0.0.2", "10.0.0.1", 6, ("\0"):rep(24)), packets.ip("fd00::2", "fd00::1", 6, ("\0"):rep(24)),
    } do
      for length = 1, #whole - 1 do
        far:send(whole:sub(1, length))
        stack:poll(0)
        packets.drain(far)
      end
    end
    survives(stack, far, sockets)
  end)

  it("with every first byte and header length", function()
    local stack, far, sockets = target()
    local rest = packets.udp("10.0.0.2", 9, "10.0.0.1", 7, ("x"):rep(60)):sub(2)
    for byte = 0, 255 do
      far:send(string.char(byte) .. rest)
      far:send(string.char(byte) .. rest:sub(1, 18))
    end
    stack:poll(0)
    survives(stack, far, sockets)
  end)

  it("longer than the mtu are refused by devices of both kinds, and by stacks behind smaller ones", function()
    local stack, far, sockets = target { mtu = 1400 }
    assert.same({ nil, "message too long" }, { far:send(packets.ip("10.0.0.2", "10.0.0.1", 99, ("x"):rep(1381))) })
    local device = netstack.device { mtu = 1400, transmit = function() end }
    local other = netstack.new()
    other:attach(device, { addresses = { "10.0.0.1/24" } })
    assert.same({ nil, "message too long" },
      { device:input(packets.ip("10.0.0.2", "10.0.0.1", 99, ("x"):rep(1381))) })
    other:close()
    survives(stack, far, sockets)
  end)

  it("of garbage, by the thousand", function()
    local stack, far, sockets = target()
    local function junk(length)
      local bytes = {}
      for i = 1, length do bytes[i] = string.char(random(256) - 1) end
      return table.concat(bytes)
    end
    for i = 1, 4000 do
      local kind = random(6)
      local packet
      if kind == 1 then
        packet = junk(random(80))
      elseif kind == 2 then -- a good header, to us
        packet = packets.ipv4("10.0.0.2", "10.0.0.1", ({ 1, 6, 17, 99, 2 })[random(5)], junk(random(60)))
      elseif kind == 3 then
        packet = packets.ipv6("fd00::2", "fd00::1", ({ 58, 6, 17, 99, 59, 0, 43, 44, 60 })[random(9)], junk(random(60)))
      elseif kind == 4 then -- fragments
        packet = packets.ipv4("10.0.0.2", "10.0.0.1", 17, junk(8 * random(6)),
          { id = random(4), fragment = random(65536) - 1 })
      elseif kind == 5 then -- TCP to the listener
        local segment = "\18\52\0\80" .. junk(8) .. string.char(16 * (random(12) + 3), random(64) - 1) .. junk(6)
        packet = packets.ip("10.0.0.2", "10.0.0.1", 6, segment .. junk(random(40) - 1))
      else -- a good packet with a byte that is not
        packet = packets.udp("fd00::2", 9, "fd00::1", 7, "some data")
        local at = random(#packet)
        packet = packet:sub(1, at - 1) .. junk(1) .. packet:sub(at + 1)
      end
      far:send(packet)
      if i % 50 == 0 then
        stack:poll(i / 1000)
        packets.drain(far)
        if stack:stats().closed then error("after " .. i .. ": " .. stack:stats().cause) end
        for _, socket in ipairs(sockets) do
          socket:settimeout(0)
          if socket.accept then
            local connection = socket:accept()
            if connection then connection:abort() end
          else
            repeat until not socket:receive()
          end
        end
      end
    end
    survives(stack, far, sockets)
  end)

  it("of the channel may be as empty as UDP's, nothing else", function()
    local stack = netstack.piped()
    local channel = stack:channel()
    assert.matches("data of 'tcp.send': empty", packets.failure(function()
      local ticket = channel:submit("tcp.listen", { host = "*", port = 1 })
      stack:poll(0)
      channel:submit("tcp.send", { handle = ticket:result().handle, data = "" })
    end))
    stack:close()
  end)
end)
