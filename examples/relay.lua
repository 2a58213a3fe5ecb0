-- A relay: what comes to a port of one stack goes on, from another stack, to a port of a host there; and back. TCP with
-- half-closes and back-pressure, UDP with associations that end when they are idle.
--
--   local relay = require "relay"
--   netstack.daemon(relay.tcp, inner:bind("*", 5201), outer, "10.2.0.1", 5201)
--   netstack.daemon(relay.udp, socket, outer, "10.2.0.1", 5201) -- a UDP socket of inner, bound to a port
--
-- As a program, between TUN devices of two network namespaces. Each is made before, `left` with 10.1.0.1 and fd01::1,
-- `right` with 10.2.0.1 and fd02::1; the relay is 10.1.0.2 and so on:
--
--   ip netns add left && ip -n left tuntap add relay mode tun && ip -n left addr add 10.1.0.1/24 dev relay &&
--   ip -n left addr add fd01::1/64 dev relay nodad && ip -n left link set relay up
--   lua5.4 examples/relay.lua left right 10.2.0.1 5201
local netstack = require "netstack"

local CHUNK = 65536 -- bytes; for much longer strings Lua gets its memory from the system, and pays for each page anew
local IDLE = 60 -- seconds after which a UDP association ends
local ASSOCIATIONS = 1024 -- datagrams of further clients are dropped

local M = {}

-- Copies one direction. While the receiver takes no more, `send` waits, nothing is read, the sender's window closes.
local function copy(from, to)
  local data, err, sent
  repeat
    data, err = from:receive_some(CHUNK)
    sent = data and to:send(data)
  until not sent
  if not data and err == "closed" then return to:shutdown("send") end
  from:abort() -- one of them was reset, and the other learns of it
  to:abort()
end

local function serve(client, stack, host, port)
  local server = stack:connect(host, port)
  if not server then return client:abort() end
  client:setoption("tcp-nodelay", true) -- the ends have decided already what is worth a segment
  server:setoption("tcp-nodelay", true)
  local back = netstack.spawn(copy, server, client)
  copy(client, server)
  back:join()
  client:close()
  server:close()
end

--- Connects each connection that a listener accepts to a host of `stack`, until the listener is closed.
function M.tcp(listener, stack, host, port)
  local client = listener:accept()
  while client do
    netstack.spawn(serve, client, stack, host, port)
    client = listener:accept()
  end
end

--- Forwards what a socket receives to a host of `stack`, from a socket of its own for each client, and what comes back,
--- until the first socket is closed. An association ends when nothing has come from either side for `idle` seconds.
function M.udp(socket, stack, host, port, idle)
  local associations, count = {}, 0
  idle = idle or IDLE

  local function answer(key, association, client_host, client_port)
    local data, err, over
    repeat
      data, err = association.socket:receive()
      if data then socket:sendto(data, client_host, client_port) end
      over = err == "timeout" and netstack.now() - association.used >= idle
    until over or not data and err ~= "timeout" and err ~= "port unreachable"
    association.socket:close()
    associations[key], count = nil, count - 1
  end

  local function associate(key, client_host, client_port)
    local own = count < ASSOCIATIONS and stack:udp()
    if not own then return end
    if not own:setpeername(host, port) then return own:close() and nil end
    own:settimeout(idle)
    count = count + 1
    associations[key] = { socket = own, used = 0 }
    netstack.daemon(answer, key, associations[key], client_host, client_port)
    return associations[key]
  end

  local data, client_host, client_port = socket:receivefrom()
  while data do
    local key = client_host .. " " .. client_port
    local association = associations[key] or associate(key, client_host, client_port)
    if association then
      association.used = netstack.now()
      association.socket:send(data)
    end
    data, client_host, client_port = socket:receivefrom()
  end
  for _, association in pairs(associations) do association.socket:close() end
end

local function stack_in(namespace, n)
  local device = assert(netstack.tun { netns = namespace, name = "relay" })
  local stack = netstack.new { name = namespace }
  assert(stack:attach(device, { addresses = { ("10.%d.0.2/24"):format(n), ("fd0%d::2/64"):format(n) } }))
  return stack
end

local function main(left, right, host, port)
  local inner, outer = stack_in(left, 1), stack_in(right, 2)
  netstack.run(function()
    local socket = inner:udp()
    assert(socket:setsockname("*", tonumber(port)))
    netstack.spawn(M.udp, socket, outer, host, tonumber(port))
    M.tcp(assert(inner:bind("*", tonumber(port), 128)), outer, host, tonumber(port))
  end)
end

if arg and arg[0] and arg[0]:find "relay%.lua$" then
  if not tonumber(arg[4]) then error("usage: relay.lua NETNS NETNS HOST PORT", 0) end
  main(arg[1], arg[2], arg[3], arg[4])
end
return M
