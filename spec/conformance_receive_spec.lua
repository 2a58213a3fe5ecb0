-- What becomes of data that comes: order, acknowledgements, windows, and segments that do not fit (RFC 9293 3.10.7.4,
-- RFC 5681, RFC 2018, RFC 5961), played packet by packet.
local conformance = require "spec.conformance"
local script = require "netstack.script"

local inject, expect, quiet, call = script.inject, script.expect, script.quiet, script.call
local check, falls_short = conformance.checks(it, function(why) pending(why) end)
local opened, receive, times, send = conformance.opened, conformance.receive, conformance.times, conformance.send
local between, nodelay = conformance.between, conformance.nodelay

-- The connection goes both ways still.
local function works(seq, their_seq)
  return {
    inject { flags = "PA", seq = seq, ack = their_seq, payload = "ping" },
    expect { within = 0.5, flags = "A", seq = their_seq, ack = seq + 4 },
    call(function(t)
      local got = t.socket:receive_some()
      assert.equal("ping", got:sub(-4))
    end),
    send "pong",
    expect { within = 0.1, flags = "PA", seq = their_seq, ack = seq + 4, payload = "pong" },
    inject { flags = "A", seq = seq + 4, ack = their_seq + 4 },
  }
end

describe("Data that comes:", function()
  check("RFC 9293 3.8.6.3 (MUST-40), RFC 5681 4.2: an ACK waits for less than 500 ms", function()
    return {
      opened(),
      inject { flags = "PA", payload = "hello" },
      expect { within = 0.499, flags = "A", seq = 1, ack = 6 },
      quiet(1),
    }
  end)

  check("RFC 9293 3.8.6.3 (SHLD-19), RFC 5681 4.2: every second full segment is acknowledged at once", function()
    return {
      opened(),
      times(3, function(i)
        return {
          inject { flags = "A", length = 1000 },
          inject { flags = "A", length = 1000 },
          expect { flags = "A", ack = 2000 * i + 1 },
        }
      end),
      quiet(1),
    }
  end)

  check("RFC 5681 4.2: what comes out of order is acknowledged at once, each segment for itself", function()
    return {
      opened {},
      times(3, function(i)
        return {
          inject { flags = "A", seq = 1 + 1000 * i, length = 1000 },
          expect { flags = "A", seq = 1, ack = 1, length = 0 },
        }
      end),
    }
  end)

  check("RFC 5681 4.2: what fills a gap is acknowledged at once", function()
    return {
      opened {},
      inject { flags = "PA", seq = 6, payload = "world" },
      expect { flags = "A", ack = 1 },
      inject { flags = "A", seq = 1, payload = "hello" },
      expect { flags = "A", ack = 11 },
      receive "helloworld",
    }
  end)

  check("RFC 5681 4.2: what fills a part of a gap is acknowledged at once", function()
    return {
      opened {},
      inject { flags = "A", seq = 2001, length = 1000 },
      expect { flags = "A", ack = 1 },
      inject { flags = "A", seq = 1, length = 1000 },
      expect { flags = "A", ack = 1001 },
    }
  end)

  check("RFC 9293 3.10.7.4, seventh: data is delivered in order and once, however it comes", function()
    local text = "abcdefghijklmnopqrstuvwxyz"
    local function part(from, to) return inject { flags = "PA", seq = from, payload = text:sub(from, to) } end
    return {
      opened(),
      part(20, 26), part(5, 9), part(8, 15), part(5, 9), part(1, 3), part(2, 6), part(14, 22), part(1, 26),
      expect { within = 1, flags = "A", ack = 27, strict = false },
      receive(text),
    }
  end, { strict = false })

  check("RFC 9293 3.10.7.4, first: what came already is acknowledged at once and taken no second time", function()
    return {
      opened(),
      inject { flags = "PA", payload = "hello" },
      expect { after = 0.04, flags = "A", ack = 6 },
      inject { flags = "PA", seq = 1, payload = "HELLO" },
      expect { flags = "A", seq = 1, ack = 6, length = 0 },
      receive "hello",
      works(6, 1),
    }
  end)

  check("RFC 9293 3.10.7.4, first: what lies outside the window is acknowledged and not taken", function()
    return {
      opened(),
      times(3, function(i)
        return {
          inject { flags = "PA", seq = ({ -100, 300000, 2 ^ 31 })[i], payload = "evil" },
          expect { flags = "A", seq = 1, ack = 1, length = 0 },
        }
      end),
      works(1, 1),
    }
  end)

  check("RFC 9293 3.10.7.4, seventh: of what overlaps only the new part is taken", function()
    return {
      opened(),
      inject { flags = "PA", payload = "abcdef" },
      inject { flags = "PA", seq = 4, payload = "DEFghi" },
      expect { within = 0.5, flags = "A", ack = 10 },
      receive "abcdefghi",
    }
  end, { strict = false })

  check("RFC 9293 3.10.7.4, fifth: a segment without ACK is dropped", function()
    return {
      opened(),
      inject { flags = "P", seq = 1, payload = "evil" },
      quiet(1),
      works(1, 1),
    }
  end)

  check("RFC 9293 3.4: sequence numbers wrap", function()
    return {
      opened(),
      inject { flags = "A", payload = ("a"):rep(90) },
      inject { flags = "PA", payload = ("b"):rep(90) },
      expect { flags = "A", ack = 181 },
      receive(("a"):rep(90) .. ("b"):rep(90)),
    }
  end, { isn = 4294967196 })

  check("RFC 9293 3.1 (MUST-3): data with a wrong checksum is dropped in silence", function()
    return {
      opened(),
      inject { flags = "PA", seq = 1, payload = "evil", checksum = 1 },
      quiet(1),
      works(1, 1),
    }
  end)

  check("RFC 9293 3.8.5, RFC 6093 4: urgent data comes in order, among the rest", function()
    return {
      opened(),
      inject { flags = "PAU", payload = "urgent!", urgent = 7 },
      expect { after = 0.04, flags = "A", ack = 8 },
      inject { flags = "PAU", payload = "x", urgent = 65535 },
      expect { after = 0.04, flags = "A", ack = 9 },
      receive "urgent!x",
    }
  end)

  falls_short("RFC 9293 3.8.5 (MUST-32): the user is told of urgent data", "lwIP does not look at the urgent pointer",
    "nobody is told", function()
      return {
        opened(),
        inject { flags = "PAU", payload = "urgent!", urgent = 7 },
        call(function(t)
          if t.socket:info().urgent ~= 7 then error("nobody is told") end
        end),
      }
    end, { strict = false })

  check("RFC 2018 4: the first block is the one that has what came last", function()
    local function block(left, right) return { left = left, right = right } end
    return {
      opened(),
      inject { flags = "A", seq = 1001, length = 1000 },
      expect { flags = "A", ack = 1, options = { sack = { block(1001, 2001) } } },
      inject { flags = "A", seq = 3001, length = 1000 },
      expect { flags = "A", ack = 1, options = { sack = { block(3001, 4001), block(1001, 2001) } } },
      inject { flags = "A", seq = 2001, length = 500 },
      expect { flags = "A", ack = 1, options = { sack = { block(1001, 2501), block(3001, 4001) } } },
      inject { flags = "A", seq = 1, length = 1000 },
      expect { flags = "A", ack = 2501, options = { sack = { block(3001, 4001) } } },
      inject { flags = "A", seq = 2501, length = 500 },
      expect { flags = "A", ack = 4001, options = false },
    }
  end)

  check("RFC 2018 3: at most four blocks fit, the latest", function()
    return {
      opened(),
      times(6, function(i)
        return {
          inject { flags = "A", seq = 1001 * i, length = 100 },
          expect { flags = "A", ack = 1, options = { sack = function(blocks)
            return #blocks <= 4 and #blocks >= math.min(i, 3) and blocks[1].left == 1001 * i and
              blocks[1].right == 1001 * i + 100
          end } },
        }
      end),
    }
  end)

  check("RFC 2018 2: there are no blocks for who did not permit them", function()
    return {
      opened { mss = 1000 },
      inject { flags = "A", seq = 1001, length = 1000 },
      expect { flags = "A", ack = 1, options = false },
    }
  end)

  falls_short("RFC 2883 4: a segment that came twice is told by a SACK block", "lwIP has no D-SACK", "options.sack",
    function()
      return {
        opened(),
        inject { flags = "A", length = 1000 },
        expect { after = 0.04, flags = "A", ack = 1001 },
        inject { flags = "A", seq = 1, length = 1000 },
        expect { flags = "A", ack = 1001, options = { sack = { { left = 1, right = 1001 } } } },
      }
    end)
end)

describe("The window:", function()
  local SMALL = { config = { seed = 1, tcp_buffer_size = 4000 } }

  check("RFC 9293 3.8.6 (SHLD-14): its right edge does not move to the left", function()
    return {
      opened(),
      inject { flags = "A", length = 1000 },
      inject { flags = "A", length = 1000 },
      expect { flags = "A", ack = 2001, window = 2000 },
      inject { flags = "A", length = 1000 },
      expect { within = 0.1, flags = "A", ack = 3001, window = 1000 },
      inject { flags = "A", length = 1000 },
      expect { within = 0.1, flags = "A", ack = 4001, window = 0 },
    }
  end, SMALL)

  check("RFC 9293 3.8.6.2.2 (MUST-39): it opens when it opens by much, not by a byte", function()
    return {
      opened(),
      times(4, function() return inject { flags = "A", length = 1000 } end),
      expect { flags = "A", ack = 2001 },
      expect { flags = "A", ack = 4001, window = 0 },
      call(function(t) assert.equal(1, #t.socket:receive(1)) end),
      quiet(1),
      call(function(t) assert.equal(99, #t.socket:receive(99)) end),
      quiet(1),
      call(function(t) assert.equal(3000, #t.socket:receive(3000)) end),
      expect { flags = "A", ack = 4001, window = between(1000, 3100) },
    }
  end, SMALL)

  check("RFC 9293 3.4 (MUST-66): at a closed window RST and ACK count, data does not", function()
    return {
      opened(),
      nodelay,
      send "unacknowledged",
      expect { flags = "PA", seq = 1, length = 14 },
      times(4, function() return inject { flags = "A", ack = 1, length = 1000 } end),
      expect { flags = "A", ack = 2001 },
      expect { flags = "A", ack = 4001, window = 0 },
      inject { flags = "A", ack = 15, payload = "x" }, -- a probe
      expect { flags = "A", seq = 15, ack = 4001, window = 0 },
      call(function(t) assert.equal(0, t.socket:info().unacked) end),
      inject { flags = "R", seq = 4001 },
      call(function(t)
        assert.equal(4000, #t.socket:receive(4000))
        assert.equal("connection reset", select(2, t.socket:receive(1)))
      end),
    }
  end, SMALL)
end)

describe("What does not fit a connection:", function()
  check("RFC 5961 3.2: RST resets with the very next number only", function()
    return {
      opened(),
      times(3, function(i)
        return {
          inject { flags = "R", seq = ({ 2, 100, 60000 })[i] },
          expect { flags = "A", seq = 1, ack = 1 }, -- a challenge
        }
      end),
      works(1, 1),
      inject { flags = "R", seq = 5 },
      call(function(t) assert.equal("connection reset", select(2, t.socket:receive(1))) end),
    }
  end)

  check("RFC 5961 3.2: RST outside the window is dropped in silence", function()
    return {
      opened(),
      times(3, function(i) return inject { flags = "R", seq = ({ 0, -5000, 300000 })[i] } end),
      quiet(1),
      works(1, 1),
    }
  end)

  check("RFC 5961 4.2: a SYN is challenged, whatever its number", function()
    return {
      opened(),
      times(8, function(i)
        local flags = i % 2 == 0 and "S" or "SA"
        return {
          inject { flags = flags, seq = ({ 0, 0, 1, 1, 8, 8, 1000000, 1000000 })[i], ack = 1 },
          expect { flags = "A", seq = 1, ack = 1, length = 0 },
        }
      end),
      works(1, 1),
    }
  end)

  check("RFC 5961 4.2: who has forgotten the connection learns it from the challenge, and may open anew", function()
    return {
      opened(),
      call(function(t) t.listener = t.stack:bind("*", 80) end),
      inject { flags = "S", seq = 5000000, options = { mss = 1000 } },
      expect { flags = "A", seq = 1, ack = 1 },
      inject { flags = "R", seq = 1 }, -- RFC 9293 3.5.1, what that answers
      call(function(t)
        assert.equal("connection reset", select(2, t.socket:receive(1)))
        t:forget(6000000)
      end),
      inject { flags = "S", options = { mss = 1000 } },
      expect { flags = "SA", ack = 1 },
    }
  end)

  check("RFC 5961 5.2: ACK counts in the range that can be meant, else it is challenged", function()
    return {
      opened(),
      times(4, function(i)
        return {
          inject { flags = "PA", seq = 1, ack = ({ 2, 100001, -70000, -2 ^ 30 })[i], payload = "evil" },
          expect { flags = "A", seq = 1, ack = 1, length = 0 },
        }
      end),
      works(1, 1),
    }
  end)

  check("RFC 9293 3.10.7.4, fifth: an old ACK with data brings its data", function()
    return {
      opened(),
      nodelay,
      send "abc",
      expect { flags = "PA", seq = 1, payload = "abc" },
      inject { flags = "A", ack = 4 },
      inject { flags = "PA", ack = 1, payload = "late" },
      expect { within = 0.5, flags = "A", seq = 4, ack = 5 },
      receive "late",
    }
  end)

  check("RFC 5961 7: challenges are limited, ten a second", function()
    return {
      opened(),
      times(10, function() return { inject { flags = "S", seq = 9 }, expect { flags = "A" } } end),
      inject { flags = "S", seq = 9 },
      inject { flags = "S", seq = 9 },
      quiet(1),
      inject { flags = "S", seq = 9 },
      expect { flags = "A", seq = 1, ack = 1 },
    }
  end)

  check("RFC 9293 3.9.2.2 (MUST-54, MUST-55), RFC 5927 4: an ICMP error ends no connection", function(about)
    local kinds = { { 1, 0 }, { 1, 3 }, { 1, 4 }, { 3, 0 }, { 4, 0 } }
    if about.name == "IPv4" then
      kinds = { { 3, 0 }, { 3, 1 }, { 3, 5 }, { 3, 2 }, { 3, 3 }, { 4, 0 }, { 11, 0 }, { 12, 0 } }
    end
    return {
      opened(),
      nodelay,
      send "hello",
      expect { flags = "PA", payload = "hello" },
      times(#kinds, function(i)
        return inject(function(t)
          return { [about.name == "IPv4" and "icmp" or "icmpv6"] = { type = kinds[i][1], code = kinds[i][2] },
            payload = t.last.data:sub(1, 68) }
        end)
      end),
      inject { flags = "A", ack = 6 },
      works(1, 6),
    }
  end)

  check("RFC 1191 6, RFC 8201 5.4: a path that takes less is heeded, and what was too long sent again", function(about)
    local ipv4 = about.name == "IPv4"
    local mtu = ipv4 and 900 or 1300
    return {
      opened { mss = 1400 },
      nodelay,
      send(("x"):rep(1400)),
      expect { flags = "PA", seq = 1, length = 1400, ipv4 = ipv4 and { dont_fragment = true } or nil },
      inject(function(t)
        if ipv4 then return { icmp = { type = 3, code = 4, mtu = mtu }, payload = t.last.data:sub(1, 28) } end
        return { icmpv6 = { type = 2, mtu = mtu }, payload = t.last.data:sub(1, 1200) }
      end),
      expect { seq = 1, length = mtu - about.headers },
    }
  end, { strict = false })

  check("RFC 8201 4, RFC 5927 7: who says that a path takes next to nothing is not believed", function(about)
    local ipv4 = about.name == "IPv4"
    return {
      opened(),
      nodelay,
      send(("x"):rep(1000)),
      expect { flags = "PA", seq = 1, length = 1000 },
      inject(function(t)
        if ipv4 then return { icmp = { type = 3, code = 4, mtu = 68 }, payload = t.last.data:sub(1, 28) } end
        return { icmpv6 = { type = 2, mtu = 68 }, payload = t.last.data:sub(1, 1000) }
      end),
      expect { within = 1, seq = 1, length = function(n) return n >= 512 end },
    }
  end, { strict = false })
end)
