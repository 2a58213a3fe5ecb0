-- Stacks in libuv, beside its own sockets and timers: lines from a port of this machine are answered by a stack.
--
--   eval "$(make -s env)"; lua5.4 examples/with_luv.lua      # then: nc 127.0.0.1 7007
--   lua5.4 examples/with_luv.lua 7007 3                      # ends after 3 connections
local netstack = require "netstack"
local uv = require "luv"

io.stdout:setvbuf "line" -- also into a pipe
local port, count = tonumber(arg[1]) or 7007, tonumber(arg[2]) or math.huge

assert(require "netstack.luv".attach()) -- the only line that is about both
local front, back = netstack.pair()

local function go(fn, ...)
  assert(coroutine.resume(coroutine.create(fn), ...))
end

-- On a stack: says what it hears in capitals. (Calls that wait, in the head of a `for`, are beyond Lua 5.1.)
local function answer(connection)
  local line = connection:receive()
  while line do
    connection:send(line:upper() .. "\n")
    line = connection:receive()
  end
  connection:close()
end

local service = assert(back:bind("*", 80))
go(function()
  local connection = service:accept()
  while connection do
    go(answer, connection)
    connection = service:accept()
  end
end)

-- On the machine: each connection has one to the service. Callbacks cannot wait; the coroutines they start can.
local listener, served = uv.new_tcp(), 0
assert(listener:bind("127.0.0.1", port))
assert(listener:listen(16, function(err)
  assert(not err, err)
  local client, connection = uv.new_tcp(), nil
  listener:accept(client)
  served = served + 1
  if served == count then listener:close() end
  go(function()
    connection = assert(front:connect("10.0.0.2", 80))
    client:read_start(function(_, data)
      if data then return connection:send(data) end -- never waits here: what nc sends is little
      connection:shutdown "send"
    end)
    local line = connection:receive()
    while line do
      client:write(line .. "\n")
      line = connection:receive()
    end
    connection:close()
    client:close()
    if served == count then service:close() end -- whose coroutine would wait for ever
  end)
end))
print("listening on 127.0.0.1:" .. port)

-- And a timer.
local timer, ticks = uv.new_timer(), 0
timer:start(100, 100, function()
  ticks = ticks + 1
  print(served .. " connections")
  if ticks == 3 then timer:close() end
end)

uv.run() -- ends when nothing but idle stacks is left
print "done"
