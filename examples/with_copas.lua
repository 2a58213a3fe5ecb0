-- Stacks in copas, beside LuaSocket's sockets: lines from a port of this machine are answered by a stack.
--
--   eval "$(make -s env)"; lua5.1 examples/with_copas.lua      # then: nc 127.0.0.1 7007
--   lua5.1 examples/with_copas.lua 7007 3                      # ends after 3 connections
local copas = require "copas"
local netstack = require "netstack"
local socket = require "socket"

io.stdout:setvbuf "line" -- also into a pipe
local port, count = tonumber(arg[1]) or 7007, tonumber(arg[2]) or math.huge

assert(require "netstack.copas".attach()) -- the only line that is about both
local front, back = netstack.pair()

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
copas.addthread(function()
  local connection = service:accept()
  while connection do
    local own = connection
    copas.addthread(function() answer(own) end)
    connection = service:accept()
  end
end)

-- On the machine: each connection has one to the service.
local served, ended = 0, 0
copas.addserver(assert(socket.bind("127.0.0.1", port)), function(client)
  served = served + 1
  local connection = assert(front:connect("10.0.0.2", 80))
  connection:settimeout(1)
  local line = copas.receive(client)
  while line do
    connection:send(line .. "\n")
    copas.send(client, (connection:receive() or "no answer") .. "\n")
    line = copas.receive(client)
  end
  connection:close()
  client:close()
  ended = ended + 1
end)
print("listening on 127.0.0.1:" .. port)

-- And a timer, which the oldest copas has none of.
copas.addthread(function()
  for _ = 1, 3 do
    netstack.sleep(0.1)
    print(served .. " connections")
  end
end)

while ended < count do copas.step() end -- copas.loop()
print "done"
