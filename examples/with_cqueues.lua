-- Stacks in cqueues, beside its own sockets and timers: lines from a port of this machine are answered by a stack.
--
--   eval "$(make -s env)"; lua5.4 examples/with_cqueues.lua      # then: nc 127.0.0.1 7007
--   lua5.4 examples/with_cqueues.lua 7007 3                      # ends after 3 connections
local cqueues = require "cqueues"
local netstack = require "netstack"
local sockets = require "cqueues.socket"

io.stdout:setvbuf "line" -- also into a pipe
local port, count = tonumber(arg[1]) or 7007, tonumber(arg[2]) or math.huge

local cq = cqueues.new()
assert(require "netstack.cqueues".attach(cq)) -- the only line that is about both
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
cq:wrap(function()
  local connection = service:accept()
  while connection do
    cq:wrap(answer, connection)
    connection = service:accept()
  end
end)

-- On the machine: each connection has one to the service.
local listener = sockets.listen("127.0.0.1", port)
assert(listener:listen())
print("listening on 127.0.0.1:" .. port)
local served = 0
cq:wrap(function()
  while served < count do
    local client = listener:accept()
    served = served + 1
    cq:wrap(function()
      local connection = assert(front:connect("10.0.0.2", 80))
      connection:settimeout(1)
      local line = client:read "*l"
      while line do
        connection:send(line .. "\n")
        client:write((connection:receive() or "no answer") .. "\n")
        line = client:read "*l"
      end
      connection:close()
      client:close()
      if served == count then service:close() end -- whose coroutine would wait for ever
    end)
  end
  listener:close()
end)

-- And a timer.
cq:wrap(function()
  for _ = 1, 3 do
    cqueues.sleep(0.1)
    print(served .. " connections")
  end
end)

assert(cq:loop()) -- ends when nothing but idle stacks is left
print "done"
