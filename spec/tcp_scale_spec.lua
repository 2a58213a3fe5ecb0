-- Many connections, one after the other and at once; then nothing is left of them.
local netstack = require "netstack"
local helper = require "spec.helper"

describe("TCP at scale", function()
  after_each(helper.nothing_left)

  for _, family in ipairs(helper.families) do
    it("connects and closes 10,000 times in a row, " .. family.name, function()
      local a, b = helper.pair { seed = 1 }
      netstack.run(function()
        local listener = b:bind("*", 80)
        helper.serve(listener, function(server)
          assert(server:receive(4) == "ping")
          server:send("pong")
          server:close()
        end)
        local most = 0
        for i = 1, 10000 do
          local client = assert(a:connect(family.b, 80))
          client:send("ping")
          assert(client:receive(4) == "pong")
          client:close()
          if i % 1000 == 0 then
            netstack.sleep(0.5)
            local waiting = b:stats().tcp.time_wait + a:stats().tcp.time_wait
            if waiting > most then most = waiting end
          end
        end
        -- They stay for 2 s, so not all at once, and are bounded.
        assert.is_true(most >= 1000 and most <= 4096, most)
        assert.equal(10000, a:stats().tcp.opened)
        assert.equal(10000, b:stats().tcp.accepted)
        assert.equal(0, a:stats().tcp.retransmits + b:stats().tcp.retransmits)
        listener:close()
      end)
    end)

    for _, backlog in ipairs { 32, 5000 } do
      it(("holds 5,000 connections at once, backlog %d, %s"):format(backlog, family.name), function()
        local a, b = helper.pair { seed = 1, tcp_buffer_size = 4096 }
        netstack.run(function()
          local listener = b:bind("*", 80, backlog)
          local ready, clients = 0, {}
          helper.serve(listener, function(server)
            server:send("echo " .. server:receive() .. "\n")
            assert.same({ nil, "closed", "" }, { server:receive() })
            server:close()
          end)
          -- So many at a time: a hundred more than may wait, or all of them.
          local tasks = backlog == 32 and 132 or 5000
          for task = 1, tasks do
            netstack.spawn(function()
              for i = task, 5000, tasks do
                local client = assert(a:connect(family.b, 80))
                client:send(i .. "\n")
                assert(client:receive() == "echo " .. i)
                clients[i] = client
                ready = ready + 1
              end
            end)
          end
          while ready < 5000 do netstack.sleep(1) end
          assert.equal(5001, #b:sockets())
          assert.equal(5000, a:stats().tcp.connections)
          if backlog == 32 then
            assert.is_true(b:stats().tcp.syn_dropped > 0)
          else
            assert.equal(0, b:stats().tcp.syn_dropped)
            assert.is_true(netstack.now() <= 1)
          end
          for _, client in ipairs(clients) do client:close() end
          listener:close()
        end)
      end)
    end
  end

  it("bounds TIME_WAIT", function()
    local a, b = helper.pair { seed = 1 }
    netstack.run(function()
      local listener = b:bind("*", 80)
      for _ = 1, 4200 do
        local client = a:connect("10.0.0.2", 80)
        local server = listener:accept()
        client:close()
        netstack.sleep(0)
        server:close()
      end
      netstack.sleep(0.01)
      assert.equal(4096, a:stats().tcp.time_wait)
      listener:close()
    end)
  end)

  it("finds no port when all are taken, and does when one is free again", function()
    local a, b = helper.pair { seed = 1, tcp_buffer_size = 2048 }
    netstack.run(function()
      -- A port is free as long as the whole 4-tuple is: one bound socket each takes it for good.
      local sockets = {}
      for port = 1024, 65535 do
        sockets[#sockets + 1] = a:tcp()
        assert(sockets[#sockets]:bind("*", port))
      end
      assert.same({ nil, "address not available" }, { a:bind("*", 0) })
      assert.same({ nil, "address not available" }, { a:connect("10.0.0.2", 80) })
      sockets[77]:close()
      local listener = b:bind("*", 80)
      local client = assert(a:connect("10.0.0.2", 80))
      assert.equal(1024 + 76, (select(2, client:getsockname())))
      client:close()
      listener:close()
      for _, socket in ipairs(sockets) do socket:close() end
    end)
  end)
end)
