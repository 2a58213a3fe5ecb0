-- How connections begin and end.
local netstack = require "netstack"
local helper = require "spec.helper"

local spawn, sleep, now = netstack.spawn, netstack.sleep, netstack.now

-- What a call returns, in a table that same() compares.
local function results(...)
  return { ... }
end

describe("TCP", function()
  after_each(helper.nothing_left)

  for _, family in ipairs(helper.families) do
    -- A spec with two stacks in a run.
    local function spec(name, fn, config)
      it(name .. ", " .. family.name, function()
        local a, b = helper.pair(config or { seed = 1 })
        netstack.run(function() fn(a, b, family) end, { timeout = 10000 })
      end)
    end

    describe("ends:", function()
      spec("half-close from either side, data flowing the other way", function(a, b)
        for first = 1, 2 do
          local ends = { helper.connection(a, b, family) }
          local one, other = ends[first], ends[3 - first]
          one:send("last words")
          assert.equal(1, one:shutdown("send"))
          assert.equal("last words", other:receive("*a"))
          assert.same({ nil, "closed", "" }, results(other:receive("*a")))
          assert.same({ nil, "closed", 0 }, results(one:send("more")))
          assert.equal("FIN-WAIT-2", one:info().state)
          assert.equal("CLOSE-WAIT", other:info().state)
          sleep(3600) -- half-closed is for as long as the user wants
          for i = 1, 100 do
            other:send("line " .. i .. "\n")
            assert.equal("line " .. i, one:receive())
          end
          other:shutdown("send")
          assert.same({ nil, "closed", "" }, results(one:receive()))
          one:close()
          other:close()
        end
      end)

      spec("shutdown of both directions, twice, and after close", function(a, b)
        local client, server = helper.connection(a, b, family)
        assert.equal(1, client:shutdown())
        assert.equal(1, client:shutdown("both"))
        assert.same({ nil, "closed", "" }, results(client:receive()))
        assert.same({ nil, "closed", 0 }, results(client:send("x")))
        assert.same({ nil, "closed", "" }, results(server:receive()))
        assert.equal(1, client:close())
        assert.equal(1, client:close())
        assert.same({ nil, "closed" }, results(client:shutdown("send")))
        assert.same({ nil, "closed" }, results(client:getpeername()))
        assert.same({ nil, "closed" }, results(client:getsockname()))
        assert.same({ nil, "closed" }, results(client:info()))
        assert.same({ nil, "closed" }, results(client:connect(family.b, 80)))
        assert.has_error(function() server:shutdown("sideways") end)
        server:close()
      end)

      spec("shutdown of receiving discards, and the peer is not held up", function(a, b)
        local client, server = helper.connection(a, b, family)
        client:send("unread")
        sleep(0)
        assert.equal(1, server:shutdown("receive"))
        assert.same({ nil, "closed", "" }, results(server:receive(1)))
        helper.send_stream(client, 1, 1024 * 1024)
        server:send("answer")
        assert.equal("answer", client:receive(6))
        client:close()
        sleep(0.1)
        server:close()
        sleep(0.1)
        assert.equal(1, a:stats().tcp.time_wait + b:stats().tcp.time_wait) -- nothing was left unread: FIN, not RST
      end)

      spec("abort resets: what had arrived is read, then it is told once", function(a, b)
        local client, server = helper.connection(a, b, family)
        client:send("before")
        sleep(0.1)
        assert.equal(1, client:abort())
        assert.same({ nil, "closed", "" }, results(client:receive()))
        assert.same({}, a:sockets())
        sleep(0.1)
        assert.equal("bef", server:receive(3))
        assert.equal("ore", server:receive_some())
        assert.same({ nil, "connection reset", "" }, results(server:receive(1)))
        assert.same({ nil, "closed", "" }, results(server:receive(1)))
        assert.same({ nil, "closed", 0 }, results(server:send("x")))
        server:close()
      end)

      spec("a reset is told to who sends, and to who waits", function(a, b)
        local client, server = helper.connection(a, b, family)
        client:abort()
        sleep(0.1)
        assert.same({ nil, "connection reset", 0 }, results(server:send("x")))
        assert.same({ nil, "closed", 0 }, results(server:send("x")))
        server:close()

        client, server = helper.connection(a, b, family)
        local reader = spawn(function() return server:receive("*a") end)
        sleep(0.1)
        client:send("part")
        sleep(0.1)
        client:abort()
        assert.same({ nil, "connection reset", "part" }, results(reader:join()))
        server:close()

        client, server = helper.connection(a, b, family)
        local writer = spawn(function() return server:send(("x"):rep(1000000)) end)
        sleep(0.1)
        client:abort()
        local _, err, sent = writer:join()
        assert.equal("connection reset", err)
        assert.is_true(sent > 262144 - 8 and sent < 1000000)
        server:close()
      end)

      spec("abort under who waits", function(a, b)
        local client, server = helper.connection(a, b, family)
        local reader = spawn(function() return client:receive(10) end)
        local writer = spawn(function() return client:send(("x"):rep(1000000)) end)
        sleep(0.1)
        client:abort()
        assert.same({ nil, "connection aborted", "" }, results(reader:join()))
        assert.equal("connection aborted", select(2, writer:join()))
        server:close()
      end)

      spec("close under who waits", function(a, b)
        local client, server = helper.connection(a, b, family)
        local reader = spawn(function() return client:receive(10) end)
        sleep(0.1)
        client:close()
        assert.same({ nil, "closed", "" }, results(reader:join()))
        server:close()
      end)

      spec("close sends what is unsent, in the background", function(a, b)
        local client, server = helper.connection(a, b, family)
        local data = ("0123456789"):rep(26000)
        client:send(data)
        local before = now()
        assert.equal(1, client:close())
        assert.equal(before, now())
        sleep(30)
        assert.is_true(server:receive("*a") == data)
        server:close()
      end)

      spec("close with unread data resets (RFC 2525 2.17)", function(a, b)
        for _, half_closed in ipairs { false, true } do
          local client, server = helper.connection(a, b, family)
          client:send("unread")
          sleep(0)
          if half_closed then server:shutdown("send") end
          sleep(0.1)
          assert.is_true(server:dirty())
          server:close()
          assert.same({}, b:sockets())
          sleep(0.1)
          if half_closed then
            -- The reset comes after FIN: the end of data was all right.
            assert.matches("connection reset", select(2, client:receive(1)))
          else
            assert.same({ nil, "connection reset", "" }, results(client:receive(1)))
          end
          client:close()
        end
      end)

      spec("data for who has closed is answered with RST", function(a, b)
        local client, server = helper.connection(a, b, family)
        server:close()
        sleep(0.1)
        client:send("too late")
        sleep(0.1)
        assert.same({ nil, "connection reset", 0 }, results(client:send("again")))
        client:close()
      end)

      spec("simultaneous close", function(a, b)
        local client, server = helper.connection(a, b, family)
        client:send("from client")
        server:send("from server")
        client:shutdown("send")
        server:shutdown("send")
        sleep(0.1)
        assert.equal("from client", server:receive("*a"))
        assert.equal("from server", client:receive("*a"))
        assert.equal("TIME-WAIT", client:info().state)
        assert.equal("TIME-WAIT", server:info().state)
        client:close()
        server:close()
        assert.equal(1, #a:sockets())
        assert.equal(1, #b:sockets())
        sleep(2.1)
        assert.same({}, a:sockets())
        assert.same({}, b:sockets())
      end)

      spec("the peer closed before accept: all of it is delivered", function(a, b)
        local listener = b:bind("*", 80)
        local client = a:connect(family.b, 80)
        client:send("all\nthere is")
        client:close()
        sleep(10)
        local server = listener:accept()
        assert.same({ family.a }, { (server:getpeername()) })
        assert.equal("all", server:receive())
        assert.equal("there is", server:receive("*a"))
        assert.same({ nil, "closed", "" }, results(server:receive()))
        server:send("thank you")
        server:close()
        listener:close()
      end)

      spec("the peer reset before accept: there is nothing to accept", function(a, b)
        local listener = b:bind("*", 80)
        local client = a:connect(family.b, 80)
        client:send("data")
        client:abort()
        sleep(0.1)
        listener:settimeout(1)
        assert.same({ nil, "timeout" }, results(listener:accept()))
        listener:close()
      end)

      spec("linger: RST at once, or after its time", function(a, b)
        local client, server = helper.connection(a, b, family)
        assert.equal(1, client:setoption("linger", { on = true, timeout = 0 }))
        assert.same({ on = true, timeout = 0 }, client:getoption("linger"))
        client:send("lost")
        client:close()
        assert.same({}, a:sockets())
        assert.equal("lost", server:receive(4)) -- had gone out already
        assert.same({ nil, "connection reset", "" }, results(server:receive(1)))
        server:close()

        for _, seconds in ipairs { 5, 1.5 } do
          client, server = helper.connection(a, b, family)
          client:setoption("linger", { on = true, timeout = seconds })
          client:send(("x"):rep(262144))
          spawn(function() client:send(("x"):rep(1000)) end)
          sleep(0.1)
          client:close() -- the reader reads nothing, so this cannot be sent
          local start = now()
          sleep(seconds - 0.01)
          assert.equal(1, #a:sockets())
          assert.equal("FIN-WAIT-1", a:sockets()[1].state)
          sleep(0.02)
          assert.same({}, a:sockets())
          local total = 0
          local part, err = server:receive_some()
          while part do
            total = total + #part
            part, err = server:receive_some()
          end
          assert.equal("connection reset", err)
          assert.is_true(total <= 263144)
          assert.is_true(now() - start < seconds + 1)
          server:close()
        end

        -- Time enough: no reset.
        client, server = helper.connection(a, b, family)
        client:setoption("linger", { on = true, timeout = 5 })
        client:send("safe")
        client:close()
        sleep(6)
        assert.equal("safe", server:receive("*a"))
        server:close()
      end)

      spec("a cancelled receive loses nothing", function(a, b)
        local client, server = helper.connection(a, b, family)
        for i = 1, 20 do
          local reader = spawn(function() return server:receive(1000) end)
          sleep(0.1)
          if i % 2 == 0 then client:send("x" .. i) end
          if i % 4 == 0 then sleep(0) end
          reader:cancel()
          assert.same({ nil, "cancelled" }, results(reader:join()))
          if i % 4 ~= 0 and i % 2 == 0 then assert.equal("x" .. i, server:receive(#("x" .. i))) end
        end
        client:close()
        server:close()
      end)

      spec("a cancelled wait for the first byte loses none", function(a, b)
        local client, server = helper.connection(a, b, family)
        for i = 1, 50 do
          local reader = spawn(function() return server:receive_some() end)
          sleep(0.01)
          client:send("byte")
          for _ = 1, i % 4 do sleep(0) end
          local cancelled = reader:cancel()
          local data = reader:join()
          assert.equal(cancelled, data == nil)
          assert.equal("byte", data or server:receive(4))
        end
        client:close()
        server:close()
      end)

      spec("a cancelled accept loses no connection", function(a, b)
        local listener = b:bind("*", 80)
        for i = 1, 20 do
          local acceptor = spawn(function() return listener:accept() end)
          sleep(0.1)
          local connector = spawn(function() return a:connect(family.b, 80) end)
          for _ = 1, i % 5 do sleep(0) end
          local cancelled = acceptor:cancel()
          local server = acceptor:join()
          assert.equal(cancelled, server == nil)
          server = server or listener:accept()
          local client = connector:join()
          assert.equal(select(2, client:getsockname()), select(2, server:getpeername()))
          client:close()
          server:close()
        end
        listener:close()
      end)

      spec("closing a listener resets what is queued and answers who waits", function(a, b)
        local listener = b:bind("*", 80)
        local one, two = a:connect(family.b, 80), a:connect(family.b, 80)
        one:send("hello")
        sleep(0.1)
        listener:close()
        assert.same({}, b:sockets())
        assert.same({ nil, "connection reset", "" }, results(one:receive(1)))
        assert.same({ nil, "connection reset", "" }, results(two:receive(1)))
        one:close()
        two:close()
        assert.same({ nil, "closed" }, results(listener:accept()))

        listener = b:bind("*", 80)
        local acceptor = spawn(function() return listener:accept() end)
        sleep(0.1)
        listener:close()
        assert.same({ nil, "closed" }, results(acceptor:join()))
        assert.same({ nil, "connection refused" }, results(a:connect(family.b, 80)))
      end)

      spec("a stack that closes answers everybody", function(a, b)
        local client, server = helper.connection(a, b, family)
        local other, third = helper.connection(a, b, family, 81)
        local listener = a:bind("*", 90)
        local idle = a:tcp()
        local tasks = {
          spawn(function() return select(2, client:receive(1)) end),
          spawn(function() return select(2, client:send(("x"):rep(1000000))) end),
          spawn(function() return select(2, other:receive_some()) end),
          spawn(function() return select(2, listener:accept()) end),
          spawn(function() return select(2, a:connect(family.nobody, 1)) end),
        }
        sleep(0.5)
        assert.equal(1, a:close())
        for i = 1, #tasks do assert.equal("closed", (tasks[i]:join()), "task " .. i) end
        for _, socket in ipairs { client, other, listener, idle } do
          assert.same({ nil, "closed" }, { socket:getsockname() })
          assert.equal(1, socket:close())
        end
        assert.same({ nil, "closed" }, results(a:connect(family.b, 80)))
        assert.same({ nil, "closed" }, results(a:bind("*", 80)))
        -- RST went to the peers.
        assert.equal("connection reset", select(2, third:receive(1)))
        repeat
          local part, err = server:receive_some()
        until not part and err == "connection reset"
        server:close()
        third:close()
      end)
    end)

    describe("connects:", function()
      spec("refused, from a stack that is there", function(a, b)
        assert.same({ nil, "connection refused" }, results(a:connect(family.b, 80)))
        local socket = a:tcp()
        assert.same({ nil, "connection refused" }, results(socket:connect(family.b, 80)))
        -- The socket may try again.
        local listener = b:bind("*", 80)
        assert.equal(1, socket:connect(family.b, 80))
        listener:close()
        socket:close()
      end)

      spec("no route", function()
        local stack = helper.watch(netstack.new())
        assert.same({ nil, "no route" }, results(stack:connect(family.b, 80)))
      end)

      spec("nobody answers: 75 s, or the socket's timeout", function(a)
        local start = now()
        assert.same({ nil, "timeout" }, results(a:connect(family.nobody, 80)))
        assert.is_true(math.abs(now() - start - 75) < 0.01)
        for _, mode in ipairs { "b", "t" } do
          local socket = a:tcp()
          socket:settimeout(3, mode)
          start = now()
          assert.same({ nil, "timeout" }, results(socket:connect(family.nobody, 80)))
          assert.is_true(math.abs(now() - start - 3) < 0.01)
          socket:close()
          assert.same({}, a:sockets())
        end
      end)

      spec("settimeout(0), then wait", function(a, b)
        local listener = b:bind("*", 80)
        local socket = a:tcp()
        socket:settimeout(0)
        local ok, err = socket:connect(family.b, 80)
        assert.is_true(ok == 1 or err == "timeout") -- the stacks get one turn, which may be enough
        if not ok then
          socket:settimeout(1)
          assert.equal(1, socket:connect(family.b, 80))
          socket:settimeout(0)
        end
        assert.same({ nil, "already connected" }, results(socket:connect(family.b, 80)))
        assert.same({ nil, "timeout", "" }, results(socket:receive(1)))
        listener:settimeout(0)
        local server = assert(listener:accept())
        assert.same({ nil, "timeout" }, results(listener:accept()))
        socket:close()
        server:close()
        listener:close()
      end)

      spec("in progress, already connected, not connected", function(a, b)
        local socket = a:tcp()
        assert.same({ nil, "not connected" }, results(socket:getpeername()))
        assert.same({ nil, "not connected", "" }, results(socket:receive(1)))
        assert.same({ nil, "not connected", 0 }, results(socket:send("x")))
        assert.same({ nil, "not connected" }, results(socket:shutdown("send")))
        assert.same({ nil, "not connected" }, results(socket:accept()))
        local task = spawn(function() return socket:connect(family.nobody, 80) end)
        sleep(1)
        assert.same({ nil, "in progress" }, results(socket:connect(family.nobody, 80)))
        assert.equal("SYN-SENT", socket:info().state)
        socket:close()
        assert.same({ nil, "closed" }, results(task:join()))

        local listener = b:bind("*", 80)
        socket = a:connect(family.b, 80)
        assert.same({ nil, "already connected" }, results(socket:connect(family.b, 80)))
        assert.same({ nil, "already connected" }, results(socket:bind("*", 99)))
        assert.same({ nil, "already connected" }, results(socket:listen()))
        assert.same({ nil, "already connected" }, results(listener:connect(family.a, 80)))
        socket:close()
        listener:close()
      end)

      spec("a connect that was cancelled may be waited for again", function(a, b)
        local listener = b:bind("*", 80)
        local socket = a:tcp()
        local task = spawn(function() return socket:connect(family.b, 80) end)
        spawn(function() task:cancel() end):join() -- before the stacks had a turn
        local ok, err = socket:connect(family.b, 80)
        assert.is_true(ok == 1 or err == "already connected", err)
        assert.is_string((socket:getpeername()))
        socket:close()
        listener:close()
      end)

      spec("from where it was, while the old one is in TIME_WAIT", function(a, b)
        local listener = b:bind("*", 80)
        for i = 1, 100 do
          local client = assert(a:connect(family.b, 80, family.a, 5555))
          local server = assert(listener:accept())
          assert.same({ family.a, 5555, family.inet }, results(client:getsockname()))
          -- Each side has TIME_WAIT in turn.
          local first, last = client, server
          if i % 2 == 0 then first, last = server, client end
          first:close()
          assert.same({ nil, "closed", "" }, results(last:receive(1)))
          last:close()
          sleep(0.01)
        end
        sleep(0.1)
        assert.equal(2, #a:sockets() + #b:sockets()) -- one TIME_WAIT, the listener
        listener:close()
      end)

      spec("from a place of one's choice", function(a, b)
        local listener = b:bind("*", 80)
        local client = a:connect(family.b, 80, "*", 4444)
        assert.same({ family.a, 4444, family.inet }, results(client:getsockname()))
        assert.same({ nil, "address already in use" }, results(a:connect(family.b, 80, "*", 4444)))
        assert.same({ nil, "address not available" }, results(a:connect(family.b, 80, family.b, 4445)))
        local other = family == helper.IPV4 and helper.IPV6 or helper.IPV4
        assert.same({ nil, "wrong ip version" }, results(a:connect(family.b, 80, other.a, 4446)))
        assert.same({ nil, "host not found" }, results(a:connect("nowhere.example", 80)))
        client:close()
        listener:close()
      end)
    end)
  end

  it("ignores resets that are not in place (RFC 5961)", function()
    netstack.run(function()
      local socket, peer = helper.by_hand(helper.IPV4)
      peer:send(helper.RST, nil, { seq = peer.seq + 100000000 })
      peer:send(helper.RST, nil, { seq = peer.seq - 1 })
      peer:send(helper.RST, nil, { seq = peer.seq + 1 }) -- in the window, but not the next: a challenge
      sleep(1)
      assert.equal("ESTABLISHED", socket:info().state)
      peer:send(helper.RST)
      assert.same({ nil, "connection reset", "" }, results(socket:receive(1)))
      socket:close()
    end)
  end)
end)
