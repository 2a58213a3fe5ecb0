-- The rows of the bench on netstack: two stacks over a pipe, tasks, LuaSocket-style sockets, as its users write it.
-- usage: lua bench/netstack.lua ROW [seconds]       prints lines of "name value unit"

local measure = dofile(arg[0]:gsub("[^/]*$", "") .. "measure.lua")
local netstack = require "netstack"

local HOST, PORT = "10.0.0.2", 7
local STACKS = 2000 -- made per round of the row "stacks"

-- Calls body(client_stack, server_stack) inside a run over a new pair of stacks. All servers are daemons: when the
-- body has measured, the run ends.
local function with_pair(mtu, body)
  local a, b = assert(netstack.pair({}, {mtu = mtu}))
  netstack.run(function() body(a, b) end)
  a:close()
  b:close()
end

-- A new connection to the listener: the client's end and the server's.
local function connect(a, listener)
  local client = assert(a:connect(HOST, PORT))
  local server = assert(listener:accept())
  client:setoption("tcp-nodelay", true)
  server:setoption("tcp-nodelay", true)
  return client, server
end

local function bulk(mtu)
  return function(seconds, row)
    with_pair(mtu, function(a, b)
      local client, server = connect(a, assert(b:bind(HOST, PORT)))
      netstack.daemon(function()
        while client:send(measure.BLOCK) do end
      end)
      measure.report(row, measure.rate(seconds, 16, function()
        return #assert(server:receive_some()) * 1e-6
      end), "MB/s")
    end)
  end
end

-- A message of `size` bytes there and back, over `count` connections in turn; each has a server task of its own.
local function echo(size, count, unit)
  return function(seconds, row)
    with_pair(1500, function(a, b)
      local listener = assert(b:bind(HOST, PORT))
      local clients, turn, message = {}, 0, ("x"):rep(size)
      for i = 1, count do
        local client, server = connect(a, listener)
        clients[i] = client
        netstack.daemon(function()
          repeat
            local data = server:receive(size)
          until not (data and server:send(data))
        end)
      end
      measure.report(row, measure.rate(seconds, 500, function()
        turn = turn % count + 1
        local client = clients[turn]
        assert(client:send(message))
        assert(client:receive(size))
        return 1
      end), unit)
    end)
  end
end

-- The server closes at once, the client when it reads that: so at most one connection is under way.
local function connects(seconds, row)
  with_pair(1500, function(a, b)
    local listener = assert(b:bind(HOST, PORT))
    netstack.daemon(function()
      while true do assert(listener:accept()):close() end
    end)
    measure.report(row, measure.rate(seconds, 100, function()
      local client = assert(a:connect(HOST, PORT))
      local data, err = client:receive(1)
      assert(not data and err == "closed", err)
      client:close()
      return 1
    end), "connects/s")
  end)
end

local function udp(seconds, row)
  with_pair(1500, function(a, b)
    local out, inward = a:udp(), b:udp()
    assert(inward:setsockname(HOST, PORT))
    assert(out:setpeername(HOST, PORT))
    inward:settimeout(1) -- of virtual time: a lost datagram ends the run instead of hanging it
    measure.report(row, measure.rate(seconds, 10, function()
      for _ = 1, measure.BURST do assert(out:send(measure.DATAGRAM)) end
      for _ = 1, measure.BURST do assert(inward:receive()) end
      return measure.BURST
    end), "packets/s")
  end)
end

local PAGE_SIZE = 4096 -- of every platform that LuaJIT and the CI know

local function resident_bytes()
  local file = assert(io.open("/proc/self/statm"))
  local _, pages = file:read("*n", "*n")
  file:close()
  return pages * PAGE_SIZE
end

-- Only making is timed, as in bench/driver.c; the bytes are those of the first round.
local function stacks(seconds, row)
  local making, made, bytes = 0, 0
  collectgarbage()
  local before = resident_bytes()
  repeat
    local all = {}
    local start = measure.now()
    for i = 1, STACKS, 2 do all[i], all[i + 1] = netstack.pair() end
    making = making + measure.now() - start
    made = made + #all
    bytes = bytes or (resident_bytes() - before) / #all
    for i = 1, #all do all[i]:close() end
    all = nil -- luacheck: ignore 311 (what it held must go before the next round is timed)
    collectgarbage()
  until making >= seconds
  measure.report(row, made / making, "stacks/s")
  measure.report("stack_bytes", bytes, "bytes")
end

measure.main {
  tcp_1500 = bulk(1500),
  tcp_65535 = bulk(65535),
  udp_1400 = udp,
  round_trip_1 = echo(1, 1, "round-trips/s"),
  round_trip_64 = echo(64, 1, "round-trips/s"),
  connect = connects,
  echo_1 = echo(1, 1, "echoes/s"),
  echo_100 = echo(1, 100, "echoes/s"),
  echo_1000 = echo(1, 1000, "echoes/s"),
  echo_10000 = echo(1, 10000, "echoes/s"),
  stacks = stacks,
}
