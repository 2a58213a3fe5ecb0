-- A stack between its crash and its restart: what it refuses, what still works, and what the restart finds.
local netstack = require "netstack"
local crashes = require "spec.crashes"
local helper = require "spec.helper"
local packets = require "spec.packets"

local rep = string.rep
local run, sleep, now = netstack.run, netstack.sleep, netstack.now
local closed, pair, assert_empty = crashes.closed, crashes.pair, crashes.assert_empty

for _, medium in ipairs { "ip", "ethernet" } do
  describe("A crashed stack (" .. medium .. ")", function()
    after_each(helper.nothing_left)

    it("makes no sockets and runs no commands", function()
      run(function()
        local a, b, _, device = pair(medium, { hosts = { peer = "10.0.0.2" }, dns = { "10.0.0.2" } })
        local channel = a:channel()
        a:crash()
        local sent = device:stats().tx_packets
        closed(a:tcp())
        closed(a:udp())
        closed(a:raw("ipv4", 1))
        closed(a:connect("10.0.0.2", 80))
        closed(a:bind("*", 80))
        closed(a:ping("10.0.0.2"))
        closed(a:ping("peer"))
        closed(a:resolve("peer"))
        closed(a:resolve("elsewhere"))
        closed(channel:submit("tcp.connect", { host = "10.0.0.2", port = 80 }))
        closed(channel:post("udp.bind", { host = "*", port = 80 }))
        closed(channel:request("tcp.listen", { host = "*", port = 80 }))
        closed(channel:request("stack.set_addresses", { addresses = {} }))
        closed(channel:tcp())
        closed(channel:connect("10.0.0.2", 80))
        closed(a:channel():submit("raw.open", { family = "ipv4", protocol = 1 }))
        assert.equal(0, a:process_commands())
        assert_empty(a)
        a:restart()
        sleep(2)
        assert(channel:request("tcp.listen", { host = "*", port = 80 }))
        assert.is_nil(b:connect("10.0.0.1", 81))
        assert.is_true(a:ping("peer") < 1)
        if medium == "ip" then assert.is_true(device:stats().tx_packets - sent <= 3) end
        a:crash()
      end)
    end)

    it("drops what comes, counts it, and tells the trace", function()
      run(function()
        local a, b, interface, device = pair(medium)
        a:ping("10.0.0.2")
        local causes, others = {}, 0
        a:crash()
        a:trace(function(event)
          if event.type == "drop" and event.interface == "eth0" and #event.packet > 0 then
            causes[#causes + 1] = event.cause
          else
            others = others + 1
          end
        end)
        local sent, dropped = device:stats().tx_packets, interface:stats().rx_dropped
        local udp = b:udp()
        for _ = 1, 3 do udp:sendto("x", "10.0.0.1", 53) end
        b:ping("10.0.0.1", { timeout = 0.5 })
        assert.same({ "stack crashed", "stack crashed", "stack crashed", "stack crashed" }, causes)
        assert.equal(0, others)
        assert.equal(dropped + 4, interface:stats().rx_dropped)
        assert.equal(sent, device:stats().tx_packets)
        a:restart()
        a:trace(nil)
        udp:close()
      end)
    end)

    it("can be looked at and configured, and stays silent", function()
      run(function()
        local a, b, interface, device = pair(medium)
        local near, far = netstack.pipe { medium = medium }
        a:crash()
        local sent = device:stats().tx_packets
        assert(interface:set_addresses { "10.0.0.7/24", "fd00::7/64" })
        assert.same({ "10.0.0.7/24", "fd00::7/64" }, a:addresses())
        assert(a:add_route("10.9.0.0/16", "10.0.0.2"))
        assert(a:remove_route("10.9.0.0/16"))
        assert(a:add_route("10.8.0.0/16", "10.0.0.2"))
        assert(interface:set_gateway("10.0.0.2"))
        assert(interface:down())
        assert.is_false(interface:is_up())
        assert(interface:up())
        assert.is_true(interface:is_up())
        assert.is_table(interface:stats().guarded)
        local second = assert(a:attach(near, { addresses = { "10.1.0.1/24", "fd01::1/64" } }))
        assert.equal("a", a:name())
        assert.is_false((a:poll(now())))
        sleep(10)
        assert.equal(sent, device:stats().tx_packets)
        assert.same({}, packets.drain(far))
        assert.is_nil(a:poll_delay(now()))
        a:restart()
        sleep(2)
        assert.is_true(b:ping("10.0.0.7") < 1)
        assert.is_true(b:ping("fd00::7") < 1)
        assert.is_true(second:is_up())
        assert.equal(medium == "ethernet", #packets.drain(far) > 0) -- its addresses are announced there
        local found
        for _, route in ipairs(a:routes()) do found = found or route.prefix == "10.8.0.0/16" end
        assert.is_true(found)
        assert(second:detach())
        a:crash()
        assert(interface:detach())
        a:restart()
        assert.same({}, a:addresses())
      end)
    end)

    it("forgets what was not put together, and what is known of ways", function()
      run(function()
        local a, b = pair(medium)
        local raw = b:raw("ipv4", 17)
        local datagram = packets.udp("10.0.0.2", 9, "10.0.0.1", 9, rep("x", 2000))
        raw:send(packets.ipv4("10.0.0.2", "10.0.0.1", 17, datagram:sub(21, 1020), { id = 7, fragment = 0x2000 }))
        local client = assert(a:udp())
        client:setpeername("10.0.0.2", 9)
        client:send(rep("y", 1000))
        local wide = packets.ipv4("10.0.0.1", "10.0.0.2", 17,
          packets.udp("10.0.0.1", select(2, client:getsockname()), "10.0.0.2", 9, rep("y", 1000)):sub(21, 48))
        local icmp = b:raw("ipv4", 1)
        icmp:send(packets.icmp("10.0.0.2", "10.0.0.1", 3, 4, "\0\0" .. packets.u16(700) .. wide))
        sleep(0.1)
        assert.equal(1, a:stats().reassembly.datagrams)
        assert.equal(1, a:stats().path_mtus)
        a:crash()
        assert_empty(a)
        a:restart()
        sleep(100)
        assert.equal(0, a:stats().reassembly.timeouts)
        raw:close()
        icmp:close()
      end)
    end)

    it("draws other numbers than before", function()
      run(function()
        local a, b = pair(medium)
        local raw = b:raw("ipv4", 6)
        local function connect()
          local socket = a:tcp()
          socket:bind("*", 4000)
          socket:settimeout(0)
          socket:connect("10.0.0.2", 80)
          raw:settimeout(5)
          return helper.parse(assert(raw:receive())).seq
        end
        local first = connect()
        a:crash()
        a:restart()
        local second = connect()
        assert.is_not.equal(first, second)
        a:crash()
        raw:close()
      end)
    end)

    it("keeps its memberships no longer, and nobody hears that it left", function()
      run(function()
        local a, b, _, device = pair(medium)
        local member, sender = a:udp(), b:udp()
        member:setsockname("*", 53)
        assert(member:setoption("ip-add-membership", { multiaddr = "224.5.6.7" }))
        assert(member:setoption("ipv6-add-membership", { multiaddr = "ff02::1:5" }))
        sleep(20)
        sender:sendto("x", "224.5.6.7", 53)
        sleep(0.1)
        assert.equal("x", (member:receive()))
        local sent, leaves = device:stats().tx_packets, a:stats().groups.leaves
        a:crash()
        assert_empty(a)
        assert.equal(leaves, a:stats().groups.leaves)
        assert.equal(sent, device:stats().tx_packets)
        a:restart()
        sleep(2)
        local unwanted = a:stats().groups.unwanted
        sender:sendto("x", "224.5.6.7", 53)
        sleep(0.1)
        assert.equal(unwanted + 1, a:stats().groups.unwanted)
        sender:close()
      end)
    end)
  end)
end
