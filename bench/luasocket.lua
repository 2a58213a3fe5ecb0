-- The rows of the bench on LuaSocket over the kernel's loopback. The server is another process, this script again
-- as `luasocket.lua serve ROW`: it tells its port on the first line and ends when its client has gone.
-- usage: lua bench/luasocket.lua ROW [seconds]       prints lines of "name value unit"

local measure = dofile(arg[0]:gsub("[^/]*$", "") .. "measure.lua")
local socket = require "socket"

local HOST = "127.0.0.1"

local function accept(listener)
  local server = assert(listener:accept())
  server:setoption("tcp-nodelay", true)
  return server
end

local function serve_bulk(listener)
  local server = accept(listener)
  while server:send(measure.BLOCK) do end
end

-- The client goes through its connections in turn, so the server can do so too, without a select.
local function serve_echo(size, count)
  return function(listener)
    local servers, turn = {}, 0
    local data
    for i = 1, count do servers[i] = accept(listener) end
    repeat
      turn = turn % count + 1
      data = servers[turn]:receive(size)
    until not (data and servers[turn]:send(data))
  end
end

local function serve_connects(listener)
  while true do
    local server = listener:accept()
    if not server then return end -- a second without a client
    server:close()
  end
end

-- Starts a row's server: returns its port and the function that waits for its end.
local function start(row)
  local first = -1
  while arg[first - 1] do first = first - 1 end -- the interpreter stands before its options
  local server = assert(io.popen(("'%s' '%s' serve %s"):format(arg[first], arg[0], row)))
  local port = assert(tonumber(server:read("*l")), "the server did not start")
  return port, function() server:close() end
end

local function connect(port)
  local client = assert(socket.connect(HOST, port))
  client:setoption("tcp-nodelay", true)
  return client
end

local function bulk(seconds, row)
  local port, wait = start(row)
  local client = connect(port)
  measure.report(row, measure.rate(seconds, 16, function()
    return #assert(client:receive(65536)) * 1e-6
  end), "MB/s")
  client:close()
  wait()
end

local function echo(size, count, unit)
  return function(seconds, row)
    local port, wait = start(row)
    local clients, turn, message = {}, 0, ("x"):rep(size)
    for i = 1, count do clients[i] = connect(port) end
    measure.report(row, measure.rate(seconds, 500, function()
      turn = turn % count + 1
      local client = clients[turn]
      assert(client:send(message))
      assert(client:receive(size))
      return 1
    end), unit)
    for i = 1, count do clients[i]:close() end
    wait()
  end
end

-- The server closes at once, the client when it reads that.
local function connects(seconds, row)
  local port, wait = start(row)
  measure.report(row, measure.rate(seconds, 100, function()
    local client = assert(socket.connect(HOST, port))
    local data, err = client:receive(1)
    assert(not data and err == "closed", err)
    client:close()
    return 1
  end), "connects/s")
  wait()
end

-- Both ends in this process, as in bench/netstack.lua.
local function udp(seconds, row)
  local out, inward = assert(socket.udp4()), assert(socket.udp4())
  assert(inward:setsockname(HOST, 0))
  assert(out:setpeername(HOST, select(2, inward:getsockname())))
  inward:settimeout(1)
  measure.report(row, measure.rate(seconds, 10, function()
    for _ = 1, measure.BURST do assert(out:send(measure.DATAGRAM)) end
    for _ = 1, measure.BURST do assert(inward:receive()) end
    return measure.BURST
  end), "packets/s")
end

local servers = {
  tcp_65535 = serve_bulk,
  round_trip_1 = serve_echo(1, 1),
  round_trip_64 = serve_echo(64, 1),
  connect = serve_connects,
  echo_1 = serve_echo(1, 1),
  echo_100 = serve_echo(1, 100),
  echo_1000 = serve_echo(1, 1000),
}

if arg[1] == "serve" then
  local listener = assert(socket.bind(HOST, 0, 1024))
  listener:settimeout(1) -- also ends a server whose client never came
  print((select(2, listener:getsockname())))
  io.stdout:flush()
  return servers[arg[2]](listener)
end

-- Loopback's mtu is 65536, so its bulk is compared to mtu 65535; LuaSocket's select takes no 10,000 sockets.
measure.main {
  tcp_65535 = bulk,
  udp_1400 = udp,
  round_trip_1 = echo(1, 1, "round-trips/s"),
  round_trip_64 = echo(64, 1, "round-trips/s"),
  connect = connects,
  echo_1 = echo(1, 1, "echoes/s"),
  echo_100 = echo(1, 100, "echoes/s"),
  echo_1000 = echo(1, 1000, "echoes/s"),
}
