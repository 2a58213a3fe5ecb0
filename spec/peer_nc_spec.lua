-- nc over TUN, where it does more than move bytes (tun_spec.lua): half-closed connections, ports with nobody behind
-- them, ends that go away.
local netns = require "spec.netns"
local helper = require "spec.helper"
local netstack = require "netstack"

local run, spawn = netstack.run, netstack.spawn
local with = netns.specs(it, pending)

local MIB = 1024 * 1024
local FAMILIES = { { name = "IPv4", kernel = "10.1.0.1", stack = "10.1.0.2" },
  { name = "IPv6", kernel = "fd01::1", stack = "fd01::2" } }

for _, family in ipairs(FAMILIES) do
  describe("nc, " .. family.name .. ",", function()
    after_each(netns.finish)

    with({ "nc", "ss" }, "sends all it has and its FIN, then hears the answer, over cubic", function()
      local stack, namespace = netns.connected()
      local folder = netns.folder()
      netns.write_stream(folder .. "/up", 1, MIB)
      run(function()
        local listener = assert(stack:bind("*", 5000))
        local client = namespace:start(("nc -N %s 5000 <%s/up >%s/down"):format(family.stack, folder, folder))
        local socket = assert(listener:accept())
        assert.equal(MIB, helper.receive_stream(socket, 1)) -- to its end
        netstack.sleep(0.1)
        assert.equal("CLOSE-WAIT", socket:info().state)
        local kernels = namespace:exec("ss -Htin dport = :5000")
        assert.matches("^FIN%-WAIT%-2 ", kernels)
        assert.matches(" cubic ", kernels)
        helper.send_stream(socket, 2, MIB)
        socket:close()
        listener:close()
        assert.same({ 0, "" }, { client:wait() })
      end)
      netns.assert_stream(folder .. "/down", 2, MIB)
    end)

    with({ "nc", "ss" }, "hears all and our FIN, then answers, over cubic", function()
      local stack, namespace = netns.connected()
      local folder = netns.folder()
      netns.write_stream(folder .. "/up", 1, MIB)
      run(function()
        local listener = assert(stack:bind("*", 5000))
        -- It has nothing to say before it is told to go.
        local wait = "timeout 30 sh -c 'until [ -e go ]; do sleep 0.02; done'"
        local command = ("cd %s; (%s; cat up) | nc -N %s 5000 >down"):format(folder, wait, family.stack)
        local client = namespace:start("sh -c " .. netns.quote(command))
        local socket = assert(listener:accept())
        helper.send_stream(socket, 2, MIB)
        assert.equal(1, socket:shutdown("send"))
        assert.same({ nil, "closed", 0 }, { socket:send("x") })
        netstack.sleep(0.1)
        assert.equal("FIN-WAIT-2", socket:info().state)
        local kernels = namespace:exec("ss -Htin dport = :5000")
        assert.matches("^CLOSE%-WAIT ", kernels)
        assert.matches(" cubic ", kernels)
        netns.write(folder .. "/go", "")
        assert.equal(MIB, helper.receive_stream(socket, 1))
        socket:close()
        listener:close()
        assert.same({ 0, "" }, { client:wait() })
      end)
      netns.assert_stream(folder .. "/down", 2, MIB)
    end)

    with({ "nc", "bash" }, "finds which ports are open", function()
      local stack, namespace = netns.connected()
      run(function()
        local listener = assert(stack:bind("*", 5003))
        helper.serve(listener, function(socket) socket:close() end)
        local _, text = namespace:start(("nc -n -z -v %s 5001-5005"):format(family.stack)):wait()
        assert.equal(1, select(2, text:gsub("succeeded", "")), text)
        assert.equal(4, select(2, text:gsub("Connection refused", "")), text)
        assert.matches(" 5003 port %[tcp/%*%] succeeded", text)
        listener:close()
        -- UDP: the ICMP error tells, for which nc has no ear, but the shell has.
        local socket = assert(stack:udp())
        assert(socket:setsockname("*", 5003))
        for port = 5003, 5004 do
          local script = ("exec 3<>/dev/udp/%s/%d; echo x >&3; sleep 0.2; echo y >&3"):format(family.stack, port)
          local status, said = namespace:start("bash -c " .. netns.quote(script)):wait()
          assert.equal(port == 5003 and 0 or 1, status)
          assert.equal(port == 5004, said:find("Connection refused", 1, true) ~= nil, said)
        end
        socket:close()
        assert.same({ nil, "connection refused" }, { stack:connect(family.kernel, 5003) })
      end)
    end)

    with({ "nc", "ss" }, "that is killed, or that we abort, is a connection reset", function()
      local stack, namespace = netns.connected()
      run(function()
        local server = namespace:start(("nc -l %s 5001"):format(family.kernel))
        namespace:listens(5001)
        local socket = assert(stack:connect(family.kernel, 5001))
        server:signal("STOP") -- it reads no more, and takes what lies there to the grave
        local writer = spawn(function()
          local block = ("x"):rep(65536)
          local sent, err
          repeat sent, err = socket:send(block) until not sent
          return err
        end)
        netstack.sleep(0.1)
        server:signal("KILL")
        assert.equal("connection reset", writer:join(10))
        socket:close()

        local listener = assert(stack:bind("*", 5000))
        local client = namespace:start(("nc %s 5000"):format(family.stack))
        socket = assert(listener:accept())
        listener:close()
        assert.equal(1, socket:abort())
        client:wait()
        assert.equal("", namespace:exec("ss -Htan dport = :5000"))
      end)
    end)
  end)
end
