-- What SYNs may say, and what ours do: the peer is driven by hand.
local netstack = require "netstack"
local helper = require "spec.helper"

-- The kinds of a list of TCP options, in order.
local function kinds(options)
  local list, at = {}, 1
  while at <= #options do
    local kind = options:byte(at)
    list[#list + 1] = kind
    if kind == 0 then break end
    at = at + (kind == 1 and 1 or options:byte(at + 1))
  end
  return list
end

describe("TCP options", function()
  after_each(helper.nothing_left)

  for _, family in ipairs(helper.families) do
    -- A listener on port 80 of a stack, and a peer by hand.
    local function spec(name, fn)
      it(name .. ", " .. family.name, function()
        netstack.run(function()
          local stack, far = helper.piped()
          local listener = stack:bind("*", 80)
          local peer = helper.peer(far, family)
          peer.their_port = 80
          fn(peer, stack, listener)
          listener:close()
          stack:close()
        end)
      end)
    end

    spec("of ours name the MSS, the window scale and SACK, and no timestamps", function(peer)
      peer:send(helper.SYN, nil, { options = "\2\4\5\180\3\3\7\1\4\2\1\1\8\10\0\0\0\1\0\0\0\0\1\1" })
      local answer = peer:expect("SYN ACK", 1)
      local seen = {}
      for _, kind in ipairs(kinds(answer.options)) do seen[kind] = true end
      assert.is_true(seen[2] and seen[3] and seen[4])
      assert.is_nil(seen[8]) -- also when the peer offers them
      local mss = 1500 - (family.name == "IPv4" and 40 or 60)
      assert.equal(mss, answer.options:byte(3) * 256 + answer.options:byte(4))
    end)

    spec("with an MSS below 64 are refused #guarded", function(peer, stack)
      for _, mss in ipairs { 0, 1, 11, 63 } do
        peer:send(helper.SYN, nil, { seq = 5000, options = "\2\4\0" .. string.char(mss) })
        assert.is_nil(peer:take(5))
      end
      assert.equal(4, stack:stats().tcp.mss_refused)
      peer:send(helper.SYN, nil, { options = "\2\4\0\64" })
      peer:expect("SYN ACK", 1)
    end)

    spec("of a SYN ACK with an MSS below 64 are refused, too #guarded", function(peer, stack)
      local task = netstack.spawn(function() return stack:connect(family.b, 80) end)
      peer:expect("SYN", 1)
      peer:send(helper.SYN + helper.ACK, nil, { seq = 5000, options = "\2\4\0\20" })
      assert.is_nil(peer:take(0.5))
      assert.equal(1, stack:stats().tcp.mss_refused)
      peer:send(helper.SYN + helper.ACK, nil, { options = "\2\4\5\180" })
      peer:expect("ACK", 1)
      assert(task:join()):abort()
    end)

    spec("name an MSS in the first SYN only: later ones change nothing #guarded", function(peer, stack, listener)
      peer.window = 300
      peer:send(helper.SYN, nil, { options = "\2\4\5\180" })
      peer:expect("SYN ACK", 1)
      peer:send(helper.SYN, nil, { seq = peer.seq - 1, ack = 0, options = "\2\4\1\0" }) -- our answer was lost
      peer:expect("SYN ACK", 1)
      peer:send(helper.ACK)
      local conn = assert(listener:accept())
      assert.equal(1460 - (family.name == "IPv4" and 0 or 20), conn:info().mss)
      assert.equal(2000, conn:send(("x"):rep(2000)))
      peer:expect("ACK", 1)
      peer:send(helper.ACK, nil, { options = "\1\2\4\0\64\1\1\1" })
      assert.equal(2000, conn:send(("y"):rep(2000))) -- what is queued is longer than 64 bytes
      assert.equal(1460 - (family.name == "IPv4" and 0 or 20), conn:info().mss)
      conn:abort()
      assert.equal("LISTEN", stack:sockets()[1].state)
    end)

    spec("that do not add up are dropped with their segment #guarded", function(peer, stack)
      for _, options in ipairs {
        "\2\0\0\0", -- a length of 0 would never end
        "\2\1\0\0", -- shorter than kind and length
        "\1\1\1\2", -- a kind at the very end
        "\3\9\0\0", -- longer than what is left
      } do
        peer:send(helper.SYN, nil, { seq = 5000, options = options })
        assert.is_nil(peer:take(5))
      end
      -- Unknown ones are skipped, and so is what follows the end.
      peer:send(helper.SYN, nil, { options = "\254\4\1\2\1\1\0\9" })
      peer:expect("SYN ACK", 1)
      assert.equal(0, stack:stats().tcp.mss_refused)
    end)
  end
end)
