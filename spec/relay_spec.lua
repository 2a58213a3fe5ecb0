-- examples/relay.lua between two pairs of stacks, in virtual time. spec/iperf3_spec.lua has it between two kernels.

local helper = require "spec.helper"
local netstack = require "netstack"

local run, spawn, sleep, now = netstack.run, netstack.spawn, netstack.sleep, netstack.now
local relay = assert(loadfile("examples/relay.lua"))()

local PORT = 5201

describe("the relay", function()
  after_each(helper.nothing_left)

  -- In a run: body(client's stack, server's stack, the relay's two) while the relay is on.
  local function relayed(body, idle)
    local client, inner = helper.pair()
    local outer, server = helper.pair()
    run(function()
      local listener, socket = assert(inner:bind("*", PORT)), inner:udp()
      assert(socket:setsockname("*", PORT))
      local tcp = spawn(relay.tcp, listener, outer, "fd00::2", PORT)
      local udp = spawn(relay.udp, socket, outer, "fd00::2", PORT, idle)
      body(client, server, inner, outer)
      listener:close()
      socket:close()
      tcp:join()
      udp:join()
    end)
  end

  -- A connection through it: the client's end and the server's.
  local function connection(client, server)
    local listener = assert(server:bind("*", PORT))
    local near = assert(client:connect("10.0.0.2", PORT))
    local far = assert(listener:accept())
    listener:close()
    return near, far
  end

  it("copies both ways at once, and each way to its own end", function()
    relayed(function(client, server)
      local near, far = connection(client, server)
      helper.exchange(near, far, 3000000)
      near, far = connection(client, server)
      near:send("question")
      near:shutdown("send")
      assert.equal("question", far:receive("*a"))
      sleep(100)
      far:send("answer")
      far:close()
      assert.equal("answer", near:receive("*a"))
      near:close()
    end)
  end)

  it("takes no more from a sender than the receiver reads", function()
    relayed(function(client, server, inner, outer)
      local near, far = connection(client, server)
      near:settimeout(10)
      local _, err, sent = near:send(("x"):rep(8000000))
      assert.equal("timeout", err)
      -- A send buffer and a receive buffer of each connection, and what the relay has in its hands.
      assert.is_true(sent >= 4 * 262144 and sent <= 5 * 262144, sent)
      assert.equal(1, #inner:sockets() - 2)
      near:settimeout(nil)
      local writer = spawn(function()
        near:send(("x"):rep(8000000), sent + 1)
        near:close()
      end)
      assert.equal(8000000, #far:receive("*a"))
      far:close()
      writer:join()
      sleep(5)
      assert.equal(0, #outer:sockets())
    end)
  end)

  it("passes resets on", function()
    relayed(function(client, server)
      local near, far = connection(client, server)
      near:abort()
      assert.same({ nil, "connection reset", "" }, { far:receive(1) })
      far:close()
      near, far = connection(client, server)
      far:abort()
      assert.same({ nil, "connection reset", "" }, { near:receive(1) })
      near:close()
      -- Nobody listens.
      near = assert(client:connect("10.0.0.2", PORT))
      assert.same({ nil, "connection reset", "" }, { near:receive(1) })
      near:close()
    end)
  end)

  it("gives each client of UDP a socket of its own, which goes when it is idle", function()
    relayed(function(client, server, _, outer)
      local far = server:udp()
      assert(far:setsockname("*", PORT))
      local ports = {}
      local near = {}
      for i = 1, 2 do
        near[i] = client:udp()
        near[i]:setpeername("10.0.0.2", PORT)
        near[i]:send("hello " .. i)
        local data, host, port = far:receivefrom()
        assert.equal("hello " .. i, data)
        far:sendto("answer " .. i, host, port)
        ports[i] = port
      end
      assert.is_true(ports[1] ~= ports[2])
      for i = 1, 2 do assert.equal("answer " .. i, near[i]:receive()) end

      -- One side is enough to keep an association.
      for i = 1, 3 do
        sleep(15)
        near[1]:send("still there")
        local _, _, port = far:receivefrom()
        assert.equal(ports[1], port)
        assert.equal(i == 1 and 2 or 1, #outer:sockets())
      end
      for _ = 1, 3 do
        sleep(15)
        far:sendto("here too", "fd00::1", ports[1])
        assert.equal("here too", near[1]:receive())
      end
      sleep(41)
      assert.equal(0, #outer:sockets())
      far:close()

      -- Nobody there: that is no reason to end.
      near[2]:send("anyone?")
      sleep(1)
      assert.equal(1, #outer:sockets())
      for i = 1, 2 do near[i]:close() end
      assert.is_true(now() > 100)
    end, 20)
  end)
end)
