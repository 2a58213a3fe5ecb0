-- A partition in the middle of an upload: TCP sends again, waits twice as long each time, and goes on some time after
-- the network is whole again. Then the server crashes, which tells nobody: the client learns of it from the RST that
-- the restarted server answers with. A timeline of virtual time, in which half a minute takes a blink.
--   lua5.4 examples/partition.lua
local lab, netstack = require "netstack.lab", require "netstack"
local net = lab.new()
local client, server = net:host("client", { tcp_buffer_size = 32768 }), net:host "server"
local router = net:router "router"
net:link(client, router, { delay = 0.01 })
net:link(router, server, { delay = 0.02, rate = 2e6 })

local function say(...) print(("%7.3f s  %s"):format(netstack.now(), string.format(...))) end
local received = 0 -- bytes
local function serve(listener)
  local conn, data, err = listener:accept(), "", nil
  while data do
    received = received + #data
    data, err = conn:receive_some()
  end
  say("server: its socket says '%s'", err)
end

local function watch(conn)
  local seen = 0
  while true do
    local info = conn:info()
    if info.retransmits > seen then say("client: %d segments sent again, rto %.2f s", info.retransmits, info.rto) end
    seen = info.retransmits
    netstack.sleep(0.01)
  end
end

net:run(function()
  netstack.spawn(serve, assert(server:bind("*", 80)))
  local conn = assert(client:connect("server", 80))
  netstack.daemon(watch, conn)
  local upload = netstack.spawn(function()
    local sent, err
    repeat sent, err = conn:send(("x"):rep(10000)) until not sent
    say("client: its socket says '%s'", err)
  end)
  netstack.sleep(2)
  say("-- a partition: the server has %.2f MB, rto %.2f s", received / 1e6, conn:info().rto)
  net:partition({ client }, { server })
  netstack.sleep(10)
  say("-- healed")
  net:heal()
  local before = received
  repeat netstack.sleep(0.01) until received > before
  say("server: more bytes arrive")
  netstack.sleep(2)
  say("-- the server crashes; it has %.2f MB, rto %.2f s", received / 1e6, conn:info().rto)
  net:crash(server)
  netstack.sleep(3)
  say("-- the server is restarted")
  net:restart(server)
  upload:join()
  say("client: connects again, where nobody listens now: '%s'", select(2, client:connect("server", 80)))
end)
net:close()
