local netstack = require "netstack"
local packets = require "spec.packets"

local run, now, sleep, spawn = netstack.run, netstack.now, netstack.sleep, netstack.spawn

-- Runs fn(stack, far) with the far end of the stack's pipe in its hand.
local function piped(fn, config)
  local stack, far = netstack.piped(config)
  run(function() fn(stack, far) end, { timeout = 1000 })
  packets.leaves_nothing(stack)
end

for _, family in ipairs {
  { name = "IPv4", near = "10.0.0.1", far = "10.0.0.2", unreachable = 3, reply = 0 },
  { name = "IPv6", near = "fd00::1", far = "fd00::2", unreachable = 1, reply = 129 },
} do
  describe("ping over " .. family.name, function()
    it("tells the round-trip time", function()
      local a, b = netstack.pair()
      run(function()
        assert.equal(0, a:ping(family.far)) -- a pipe takes no virtual time
        assert.equal(0, b:ping(family.near, { size = 0, ttl = 1, timeout = 0.1 }))
        assert.is_number(a:ping(family.near)) -- itself
      end)
      packets.leaves_nothing(a, b)
    end)

    it("measures what the way takes", function()
      piped(function(stack, far)
        spawn(function()
          local request = packets.parse(far:receive(10))
          assert.equal(56 + 8, #request.payload)
          assert.equal(64, request.ttl)
          sleep(0.25)
          assert(far:send(packets.icmp(family.far, family.near, family.reply, 0, request.payload:sub(5))))
        end)
        local rtt = stack:ping(family.far)
        assert.is_true(math.abs(rtt - 0.25) < 1e-9)
      end)
    end)

    it("times out, exactly", function()
      piped(function(stack)
        assert.same({ nil, "timeout" }, { stack:ping(family.far) })
        assert.equal(1, now())
        assert.same({ nil, "timeout" }, { stack:ping(family.far, { timeout = 2.5 }) })
        assert.equal(3.5, now())
        assert.same({ nil, "timeout" }, { stack:ping(family.far, { timeout = 0 }) })
        assert.equal(3.5, now())
      end)
    end)

    it("takes no other's answer for its own", function()
      piped(function(stack, far)
        spawn(function()
          local request = packets.parse(far:receive(10))
          assert(far:send(packets.icmp(family.far, family.near, family.reply, 0, "\0\0\0\0" .. request.payload:sub(9))))
        end)
        assert.same({ nil, "timeout" }, { stack:ping(family.far) })
        assert.equal(1, now())
      end)
    end)

    it("learns that the host is unreachable", function()
      piped(function(stack, far)
        local router = family.name == "IPv4" and "10.0.0.9" or "fd00::9"
        spawn(function()
          local request = far:receive(10)
          sleep(0.5)
          assert(far:send(packets.icmp(router, family.near, family.unreachable, family.name == "IPv4" and 1 or 3,
            "\0\0\0\0" .. request)))
        end)
        assert.same({ nil, "host unreachable" }, { stack:ping(family.far) })
        assert.equal(0.5, now())
      end)
    end)

    it("has no route without an interface of the family", function()
      local stack = netstack.new()
      run(function()
        assert.same({ nil, "no route" }, { stack:ping(family.far) })
      end)
      stack:close()
    end)
  end)
end

describe("ping", function()
  it("takes names of hosts", function()
    piped(function(stack)
      assert.equal(0, stack:ping("me"))
      assert.same({ nil, "host not found" }, { stack:ping("elsewhere") })
      assert.same({ nil, "invalid address" }, { stack:ping("10.0.0.256") })
      assert.same({ nil, "invalid address" }, { stack:ping("*") })
    end, { hosts = { me = "10.0.0.1" } })
  end)

  it("checks its arguments", function()
    piped(function(stack)
      local function wrong(...)
        local host, options = ...
        return packets.failure(function() stack:ping(host, options) end)
      end
      assert.matches("^spec/ping_spec.lua:%d+: bad argument #1 to 'ping' %(string expected, got nil%)", wrong())
      assert.matches("^spec/ping_spec.lua:%d+: bad argument #2 to 'ping' %(unknown option 'count'%)",
        wrong("10.0.0.2", { count = 1 }))
      assert.matches("bad argument #2 to 'ping' %(option 'ttl': out of range: 1 to 255%)",
        wrong("10.0.0.2", { ttl = 256 }))
      assert.matches("bad argument #2 to 'ping' %(option 'timeout': ", wrong("10.0.0.2", { timeout = -1 }))
      assert.matches("bad argument #2 to 'ping' %(option 'size': ", wrong("10.0.0.2", { size = 1.5 }))
    end)
  end)

  it("answers closed on a closed stack", function()
    local stack = netstack.piped()
    stack:close()
    assert.same({ nil, "closed" }, { stack:ping("10.0.0.2") })
  end)

  it("works outside run", function()
    local a, b = netstack.pair()
    assert.equal(0, a:ping("10.0.0.2"))
    a:close()
    b:close()
  end)
end)
