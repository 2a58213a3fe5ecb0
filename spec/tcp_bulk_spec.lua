-- Much data, both ways at once, byte by byte.
local netstack = require "netstack"
local helper = require "spec.helper"

local MIB = 1024 * 1024

describe("TCP bulk", function()
  after_each(helper.nothing_left)

  local function exchange(family, total, mtu, capacity)
    local a, b = helper.pair({ seed = 1 }, { mtu = mtu, capacity = capacity })
    netstack.run(function()
      local client, server = helper.connection(a, b, family)
      helper.exchange(client, server, total)
    end, { timeout = 600 })
    local sent, got = a:stats().tcp, b:stats().tcp
    -- A pipe pushes back and loses nothing, so there is nothing to send twice.
    assert.equal(0, sent.retransmits)
    assert.equal(0, got.retransmits)
    assert.is_true(a:stats().out_bytes > total and b:stats().out_bytes > total)
  end

  for _, family in ipairs(helper.families) do
    it("moves 64 MiB each way at mtu 1500 and capacity 32, " .. family.name, function()
      exchange(family, 64 * MIB, 1500, 32)
    end)

    for _, mtu in ipairs { 576, 1280, 1500, 9000, 65535 } do
      for _, capacity in ipairs { 1, 2, 32, 0 } do
        local done = mtu == 1500 and capacity == 32
        if not done and (mtu >= 1280 or family.name == "IPv4") then
          it(("moves 4 MiB each way at mtu %d and capacity %d, %s"):format(mtu, capacity, family.name), function()
            exchange(family, 4 * MIB, mtu, capacity)
          end)
        end
      end
    end
  end

  it("moves data in chunks of any size, by any way to receive", function()
    local a, b = helper.pair { seed = 1, tcp_buffer_size = 5000 }
    netstack.run(function()
      for _, chunk in ipairs { 1, 7, 1459, 1460, 1461, 4999, 5001, 65536 } do
        local client, server = helper.connection(a, b, helper.IPV4)
        local total = 997 * math.min(chunk, 500)
        netstack.spawn(function()
          helper.send_stream(client, chunk, total, chunk)
          client:close()
        end)
        local expected = helper.stream(chunk)
        local left = total
        while left > 0 do
          local n = math.min(left, chunk)
          assert.is_true(server:receive(n) == expected(n))
          left = left - n
        end
        assert.same({ nil, "closed", "" }, { server:receive(1) })
        server:close()
      end
    end)
  end)

  it("moves data with the smallest and the largest buffers", function()
    for _, size in ipairs { 2048, 65535, 65536, 16 * MIB } do
      local a, b = helper.pair { seed = 1, tcp_buffer_size = size }
      netstack.run(function()
        local client, server = helper.connection(a, b, helper.IPV6)
        helper.exchange(client, server, size == 2048 and MIB or 20 * MIB)
      end)
    end
  end)
end)
