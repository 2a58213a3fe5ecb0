-- Stacks in cqueues, beside its own sockets and timers: lines from a port of this machine are answered by a stack.
--
--   eval "$(make -s env)"; lua5.4 examples/with_cqueues.lua      # then: nc 127.0.0.1 7007
--   lua5.4 examples/with_cqueues.lua 7007 3                      # ends after 3 connections
local cqueues = require "cqueues"
local netstack = require "netstack"
local sockets = require "cqueues.socket"

local port, count = tonumber(arg[1]) or 7007, tonumber(arg[2]) or math.huge

local cq = cqueues.new()
assert(require "netstack.cqueues".attach(cq)) -- the only line that is about both
local front, back = netstack.pair()

-- On a stack: says what it hears in capitals.
local service = assert(back:bind("*", 80))
cq:wrap(function()
  for connection in function() return service:accept() end do
    cq:wrap(function()
      for line in function() return connection:receive() end do connection:send(line:upper() .. "\n") end
      connection:close()
    end)
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
      for line in client:lines() do
        connection:send(line .. "\n")
        client:write((connection:receive() or "no answer") .. "\n")
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
