-- Passes TCP connections on, from a port of this machine to a host that a stack on a TUN interface reaches, in cqueues:
-- both ways, with half-closes and resets, and no more in memory than one side has taken and the other has not.
package.path = (arg[0]:match "^.*/" or "./") .. "?.lua;" .. package.path

local cqueues = require "cqueues"
local netstack = require "netstack.cqueues"
local program = require "stack_on_tun"
local sockets = require "cqueues.socket"

local USAGE = "tcp_proxy.lua [options] LISTEN_PORT HOST PORT"

-- Each ends its own half of the other side when it is told the end; false: something broke.
local function from_host(host, connection)
  while true do
    local data, err = host:read(-65536) -- what is there, at most so much
    if not data then return err == nil and connection:shutdown "send" == 1 end
    if not connection:send(data) then return false end -- waits while the stack's send buffer is full
  end
end

local function to_host(host, connection)
  while true do
    local data, err = connection:receive_some(65536)
    if not data then return err == "closed" and host:shutdown "w" end
    if not host:write(data) then return false end -- waits while the kernel's is
  end
end

local function serve(cq, host, stack, name, port)
  host:setmode("bn", "bn")
  host:onerror(function(_, _, err) return err end)
  local connection, why = stack:connect(name, port)
  if not connection then
    io.stderr:write(("%s:%d: %s\n"):format(name, port, why))
    return host:close()
  end
  local halves = 2
  local function half(pass)
    local ok = pass(host, connection)
    halves = halves - 1
    if not ok then connection:abort() end -- RST; the other half then finds out
    if not ok or halves == 0 then host:shutdown "rw" end
    if halves > 0 then return end
    connection:close()
    host:close()
  end
  cq:wrap(half, from_host)
  half(to_host)
end

program.run(function()
  local options, words = program.options(USAGE, {}, 3)
  local stack, cq = program.stack(options), cqueues.new()
  assert(netstack.attach(cq))
  local listener = sockets.listen { host = "127.0.0.1", port = tonumber(words[1]) or program.wrong "no port" }
  assert(listener:listen())
  print(("127.0.0.1:%s is %s:%s now"):format(words[1], words[2], words[3]))
  cq:wrap(function()
    while true do cq:wrap(serve, cq, assert(listener:accept()), stack, words[2], tonumber(words[3])) end
  end)
  for err in cq:errors() do io.stderr:write(tostring(err), "\n") end
  return 0
end)
