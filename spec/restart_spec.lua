-- The restart of a stack after a crash on a link where others tell it things: what is forgotten of that, what it asks
-- for again, and what the link hears.
local core = require "netstack.core"
local netstack = require "netstack"
local frames = require "spec.frames"
local helper = require "spec.helper"
local packets = require "spec.packets"

local rep = string.rep
local run, sleep, now = netstack.run, netstack.sleep, netstack.now

describe("On an Ethernet, a restart", function()
  after_each(helper.nothing_left)

  it("begins as attaching does: with announcements, and without neighbours", function()
    run(function()
      local stack, far, _, announced = frames.by_hand { checksum = true }
      local function kinds(list)
        local names = {}
        for i, frame in ipairs(list) do names[i] = frames.kind(frame) end
        table.sort(names)
        return names
      end
      packets.drain(far)
      local udp = stack:udp()
      udp:sendto("x", "10.0.0.2", 9)
      sleep(0.001)
      assert.equal("arp request", frames.kind(frames.next(far)))
      frames.answer(far, frames.arp { operation = 1, host = "10.0.0.1", target = "10.0.0.2" })
      sleep(0.001)
      assert.equal("ipv4", frames.kind(frames.next(far)))
      assert.equal(1, stack:stats().neighbours.entries)
      stack:crash()
      assert.equal(0, stack:stats().neighbours.entries)
      assert(far:send(frames.arp { operation = 1, host = "10.0.0.2", target = "10.0.0.1" }))
      sleep(5)
      assert.same({}, packets.drain(far))
      stack:restart()
      sleep(0.001)
      assert.same(kinds(announced), kinds(packets.drain(far)))
      sleep(2)
      packets.drain(far)
      local again = stack:udp()
      again:sendto("x", "10.0.0.2", 9)
      sleep(0.001)
      assert.equal("arp request", frames.kind(frames.next(far)))
      stack:crash()
    end)
  end)

  it("claims addresses again that it had given up", function()
    run(function()
      local stack, far, interface = frames.by_hand { checksum = true, detecting = true }
      local own, addresses = interface:link_local(), interface:addresses()
      for _, address in ipairs { own:match("^[^%%]*"), "fd00::1" } do
        assert(far:send(frames.nd { type = 136, flags = 0x20, source = address, destination = frames.ALL_NODES,
          target = address, options = "\2\1" .. frames.OTHER, to = "\51\51\0\0\0\1" }))
      end
      sleep(0.01)
      assert.same({ nil, "not supported" }, { interface:link_local() })
      assert.same({ "10.0.0.1/24", "10.0.0.3/24" }, interface:addresses())
      stack:crash()
      assert.equal(2, #interface:addresses())
      packets.drain(far)
      stack:restart()
      sleep(2)
      assert.equal(own, (interface:link_local()))
      assert.same(addresses, interface:addresses())
      local probes = 0
      for _, frame in ipairs(packets.drain(far)) do
        if frames.kind(frame) == "solicitation" then probes = probes + 1 end
      end
      assert.is_true(probes >= 2)
    end)
  end)

  it("asks for another lease, of which nothing is left, and nobody was told", function()
    run(function()
      local stack = helper.watch(netstack.new { seed = 1 })
      local near, far = netstack.pipe { medium = "ethernet", capacity = 0, checksum = true }
      local interface = assert(stack:attach(near, { mac = "02:00:00:00:00:01", dhcp = true,
        addresses = { "10.9.0.1/24" } }))
      -- The DHCP message in the next frame that has one: its type and id.
      local function hear(timeout)
        local frame
        repeat
          frame = far:receive(timeout)
          local p = frame and frames.kind(frame) == "ipv4" and packets.parse(frame:sub(15))
          if p and p.destination_port == 67 then return p.data:byte(243), p.data:sub(5, 8) end
        until not frame
      end
      local function say(kind, xid)
        local message = "\2\1\6\0" .. xid .. rep("\0", 8) .. packets.bytes "10.0.0.50" .. rep("\0", 8) ..
          frames.OWN .. rep("\0", 202) .. "\99\130\83\99\53\1" .. kind .. "\54\4\10\0\0\2" ..
          "\1\4\255\255\255\0\3\4\10\0\0\2\6\4\10\0\0\2\51\4\0\0\14\16\255"
        far:send(frames.ip(packets.udp("10.0.0.2", 67, "255.255.255.255", 68, message), frames.ALL))
        sleep(0.001)
      end
      local function bind()
        local kind, xid = hear(1)
        assert.equal(1, kind)
        say("\2", xid)
        assert.equal(3, (hear(1)))
        say("\5", xid)
        assert.equal("BOUND", interface:lease().state)
        return xid
      end
      local first = bind()
      assert.same({ "10.0.0.50/24", "10.9.0.1/24" }, interface:addresses())
      assert.same({ "10.0.0.2" }, core.learned_dns(stack))
      assert.equal("10.0.0.2", stack:routes()[3].gateway)
      local udp = assert(stack:udp())
      udp:setsockname("10.0.0.50", 53)
      sleep(1)
      packets.drain(far)
      stack:crash()
      assert.same({ "10.9.0.1/24" }, interface:addresses())
      assert.equal(1, #stack:routes())
      assert.is_nil(core.learned_dns(stack))
      assert.equal("SELECTING", interface:lease().state)
      assert.is_nil(interface:lease().address)
      assert.is_nil(stack:poll_delay(now()))
      sleep(10000)
      assert.same({}, packets.drain(far))
      stack:restart()
      local time = now()
      assert.is_not.equal(first, bind())
      assert.is_true(now() - time < 0.1)
      stack:close()
    end)
  end)
end)

for _, medium in ipairs { "ip", "ethernet" } do
  describe("What routers have said (" .. medium .. ")", function()
    after_each(helper.nothing_left)

    it("is forgotten by a crash, and asked for again after the restart", function()
      run(function()
        local stack = helper.watch(netstack.new { seed = 1 })
        local near, far = netstack.pipe { medium = medium, capacity = 0, checksum = true, mtu = 1500 }
        local interface = assert(stack:attach(near, { slaac = true, addresses = { "fd0a::1/64" },
          mac = medium == "ethernet" and "02:00:00:00:00:01" or nil }))
        local own = interface:link_local()
        local function say()
          local frame = frames.router { options = frames.prefix "2001:db8::" .. frames.servers(600, "fd00::53") ..
            frames.link_mtu(1400) }
          assert(far:send(medium == "ethernet" and frame or frame:sub(15)))
          sleep(1.5)
        end
        local function solicits()
          local count = 0
          for _, data in ipairs(packets.drain(far)) do
            local packet = medium == "ethernet" and data:sub(15) or data
            if packet:byte(1) == 0x60 and packet:byte(7) == 58 and packet:byte(41) == 133 then count = count + 1 end
          end
          return count
        end
        sleep(1.5)
        assert.is_true(solicits() > 0)
        say()
        local learned = interface:addresses()
        assert.equal(2, #learned)
        assert.equal("BOUND", interface:slaac().state)
        assert.is_string(interface:slaac().gateway)
        assert.same({ "fd00::53" }, core.learned_dns(stack))
        packets.drain(far)
        local routes = #stack:routes()
        stack:crash()
        local slaac = interface:slaac()
        assert.same({ "fd0a::1/64" }, interface:addresses())
        assert.same({ "SOLICITING", {}, {}, {} }, { slaac.state, slaac.addresses, slaac.routers, slaac.dns })
        assert.same({}, { slaac.gateway, slaac.mtu })
        assert.is_true(#stack:routes() < routes)
        say() -- nobody listens
        sleep(10000)
        assert.same({}, interface:slaac().routers)
        assert.equal(0, solicits())
        assert.is_nil(stack:poll_delay(now()))
        stack:restart()
        sleep(1.5)
        assert.is_true(solicits() > 0)
        assert.equal(own, interface:link_local())
        say()
        assert.same(learned, interface:addresses())
        assert.equal(routes, #stack:routes())
        stack:close()
      end)
    end)
  end)
end
