-- What TCP sends and when: segments, timeouts, congestion control, probes (RFC 9293 3.8, RFC 6298, RFC 5681), played
-- packet by packet. Segments have 1000 bytes, and the handshake takes no time.
local conformance = require "spec.conformance"
local script = require "netstack.script"

local inject, expect, quiet, call = script.inject, script.expect, script.quiet, script.call
local check, falls_short = conformance.checks(it, function(why) pending(why) end)
local opened, info, times, send = conformance.opened, conformance.info, conformance.times, conformance.send
local nodelay = conformance.nodelay

local KILO = 1000

local function bytes(n) return ("x"):rep(n) end

-- Full segments, one after the other, the first of them beginning at `seq`.
local function segments(seq, n)
  return times(n, function(i) return expect { seq = seq + KILO * (i - 1), length = KILO } end)
end

-- A connection whose congestion window is as wide as `n` acknowledged segments make it: 4 and n; all is acknowledged.
local function grown(n)
  return {
    opened(nil, 65535),
    nodelay,
    send(bytes(n * KILO)),
    times(n, function(i)
      return { expect { seq = 1 + KILO * (i - 1), length = KILO, strict = false },
        inject { flags = "A", ack = 1 + KILO * i } }
    end),
    info("cwnd", (4 + n) * KILO),
  }
end

describe("What is sent:", function()
  check("RFC 9293 3.9.1.2 (MUST-61): the last segment of what is sent has PSH", function()
    return {
      opened(),
      nodelay,
      send(bytes(2500)),
      expect { seq = 1, length = 1000 },
      expect { seq = 1001, length = 1000 },
      expect { seq = 2001, length = 500, flags = "PA" },
    }
  end)

  check("RFC 9293 3.7.4 (SHLD-7): a small segment waits while data is unacknowledged (Nagle)", function()
    return {
      opened(),
      send "a",
      expect { flags = "PA", seq = 1, payload = "a" },
      send "b",
      send "c",
      quiet(0.1),
      inject { flags = "A", ack = 2 },
      expect { flags = "PA", seq = 2, payload = "bc" },
    }
  end)

  check("RFC 9293 3.7.4: a full segment waits for nothing", function()
    return {
      opened(),
      send "a",
      expect { seq = 1, length = 1 },
      send(bytes(999)),
      quiet(0.1),
      send "b",
      expect { seq = 2, length = 1000 },
    }
  end)

  check("RFC 9293 3.7.4 (MUST-17): without Nagle's algorithm nothing waits", function()
    return {
      opened(),
      nodelay,
      times(3, function(i) return { send "a", expect { flags = "PA", seq = i, length = 1 } } end),
    }
  end)

  check("RFC 9293 3.8.6: no more is sent than the window takes", function()
    return {
      opened(nil, 2500),
      send(bytes(6000)),
      segments(1, 2),
      quiet(0.15),
      inject { flags = "A", ack = 1001, window = 2500 },
      segments(2001, 1),
      quiet(0.15),
    }
  end)

  check("RFC 9293 3.8.6.2.1 (MUST-38): a window that opens by little draws no small segments", function()
    return {
      opened(nil, 2000),
      nodelay,
      send(bytes(6000)),
      segments(1, 2),
      times(4, function(i) return inject { flags = "A", ack = 2001, window = 100 * i } end),
      quiet(0.15),
      inject { flags = "A", ack = 2001, window = 2000 },
      segments(2001, 2),
    }
  end)

  check("RFC 9293 3.8.6 (MUST-34): a window that shrinks loses nothing", function()
    return {
      opened(nil, 4000),
      nodelay,
      send(bytes(4000)),
      segments(1, 4),
      inject { flags = "A", ack = 1001, window = 500 }, -- the edge was 4001, now it is 1501
      quiet(0.15),
      inject { flags = "A", ack = 2001, window = 4000 },
      inject { flags = "A", ack = 4001, window = 4000 },
      quiet(100),
      call(function(t) assert.equal("ESTABLISHED", t.socket:info().state) end),
    }
  end)

  falls_short("RFC 9293 3.10.7.4, fifth: a window that got smaller counts, even if nothing else is new",
    "lwIP heeds only a wider one then", "a packet came", function()
      return {
        opened(nil, 4000),
        nodelay,
        inject { flags = "A", window = 1000 },
        send(bytes(1500)),
        segments(1, 1),
        quiet(0.1),
      }
    end)

  check("RFC 9293 3.10.7.4, fifth: a window that an old segment tells is not heeded", function()
    return {
      opened(nil, 4000),
      nodelay,
      inject { flags = "A", payload = "new" },
      inject { flags = "A", seq = 1, window = 10 },
      expect { flags = "A", ack = 4 },
      info("snd_wnd", 65535),
    }
  end, { strict = false })

  check("RFC 9293 3.8.6.1 (MUST-36): a closed window is probed after a timeout, then less often", function()
    return {
      opened(nil, 2000),
      send(bytes(2000)),
      segments(1, 2),
      inject { flags = "A", ack = 2001, window = 0 },
      send "hello",
      times(6, function(i)
        return {
          expect { after = 0.2 * 2 ^ (i - 1), tolerance = 0.002, seq = 2001, payload = "h" },
          inject { flags = "A", ack = 2001, window = 0 },
        }
      end),
      inject { after = 0.1, flags = "A", ack = 2001, window = 2000 },
      expect { seq = 2001, payload = function(text) return #text > 0 end },
    }
  end)

  check("RFC 9293 3.8.6.1 (MUST-37): the probing goes on for as long as they are answered", function()
    return {
      opened(nil, 2000),
      send(bytes(2000)),
      segments(1, 2),
      inject { flags = "A", ack = 2001, window = 0 },
      send "hello",
      times(60, function()
        return {
          expect { within = 61, seq = 2001, payload = "h" },
          inject { flags = "A", ack = 2001, window = 0 },
        }
      end),
      call(function(t)
        assert.equal("ESTABLISHED", t.socket:info().state)
        assert.is_true(t.packets[#t.packets].time > 3000)
      end),
    }
  end)

  check("RFC 9293 3.8.4 (MUST-25): nobody asks for life where keepalive is off", function()
    return { opened(), quiet(100000) }
  end)

  check("RFC 9293 3.8.4 (MUST-26, MUST-28): keepalive asks after two hours, with a number that is old",
    function()
      return {
        opened(),
        call(function(t) t.socket:setoption("keepalive", true) end),
        expect { after = 7200, tolerance = 0.1, flags = "A", seq = 0, ack = 1, length = 0 },
        inject { flags = "A" },
        expect { after = 7200, tolerance = 0.1, flags = "A", seq = 0, ack = 1, length = 0 },
        inject { flags = "A" },
      }
    end)

  check("RFC 9293 3.8.4 (MUST-29): one answer that is missing ends nothing, all of them do", function()
    return {
      opened(),
      call(function(t)
        t.socket:setoption("keepalive", true)
        t.socket:setoption("tcp-keepidle", 10)
        t.socket:setoption("tcp-keepintvl", 2)
        t.socket:setoption("tcp-keepcnt", 3)
      end),
      expect { after = 10, tolerance = 0.01, flags = "A", seq = 0 },
      expect { after = 2, tolerance = 0.01, flags = "A", seq = 0 },
      inject { flags = "A" },
      expect { after = 10, tolerance = 0.01, flags = "A", seq = 0 },
      times(2, function() return expect { after = 2, tolerance = 0.01, flags = "A", seq = 0 } end),
      expect { after = 2, tolerance = 0.01, flags = "RA" },
    }
  end)
end)

describe("Timeouts:", function()
  check("RFC 6298 2.1, 5.5: with a round trip that took no time they begin at the least, and double", function()
    return {
      opened(),
      send "hello",
      expect { flags = "PA", payload = "hello" },
      times(8, function(i)
        return expect { after = 0.2 * 2 ^ (i - 1), tolerance = 0.002, flags = "PA", seq = 1, payload = "hello" }
      end),
    }
  end)

  check("RFC 6298 2.2: the first round trip R makes it R + 4 R/2", function()
    return {
      call(function(t) t.socket = assert(t.stack:connect(t.remote_host, 80)) end),
      expect { flags = "S" },
      inject { after = 0.3, flags = "SA", options = { mss = 1000 } },
      expect { flags = "A" },
      send "hello",
      expect { flags = "PA" },
      expect { after = 0.9, tolerance = 0.002, flags = "PA", seq = 1 },
      expect { after = 1.8, tolerance = 0.002, flags = "PA", seq = 1 },
    }
  end)

  check("RFC 6298 2.3: later ones move SRTT by an eighth, RTTVAR by a quarter", function()
    local srtt, rttvar = 0.3, 0.15
    return {
      call(function(t) t.socket = assert(t.stack:connect(t.remote_host, 80)) end),
      expect { flags = "S" },
      inject { after = 0.3, flags = "SA", options = { mss = 1000 } },
      expect { flags = "A" },
      times(5, function(i)
        rttvar = 0.75 * rttvar + 0.25 * math.abs(srtt - 0.1)
        srtt = 0.875 * srtt + 0.125 * 0.1
        local rto = srtt + 4 * rttvar
        return {
          send "x",
          expect { flags = "PA", seq = i },
          inject { after = 0.1, flags = "A", ack = i + 1 },
          call(function(t) assert.near(rto, t.socket:info().rto, 0.001) end),
        }
      end),
    }
  end)

  check("RFC 6298 3 (Karn): what was sent twice measures nothing", function()
    local before
    return {
      opened(),
      send "hello",
      expect { flags = "PA" },
      call(function(t) before = t.socket:info() end),
      expect { after = 0.2, tolerance = 0.002, flags = "PA" },
      inject { after = 0.1, flags = "A", ack = 6 },
      call(function(t)
        assert.equal(before.rtt, t.socket:info().rtt)
        assert.equal(before.rttvar, t.socket:info().rttvar)
      end),
    }
  end)

  check("RFC 6298 5.2: when all is acknowledged the timer is off", function()
    return {
      opened(),
      send "hello",
      expect { flags = "PA" },
      inject { after = 0.1, flags = "A", ack = 6 },
      quiet(1000),
    }
  end)

  check("RFC 6298 5.3: an acknowledgement of new data starts the timer anew", function()
    return {
      opened(),
      nodelay,
      send(bytes(2000)),
      segments(1, 2),
      inject { after = 0.15, flags = "A", ack = 1001 },
      expect { after = 0.2, tolerance = 0.08, seq = 1001, length = 1000 },
    }
  end)

  check("RFC 6298 5.4: what is sent again is the earliest that is not acknowledged, and no more", function()
    return {
      opened(),
      nodelay,
      send(bytes(3000)),
      segments(1, 3),
      expect { after = 0.2, tolerance = 0.002, seq = 1, length = 1000 },
      quiet(0.35),
    }
  end)

  falls_short("RFC 6298 2.4: no timeout is below 1 s", "200 ms, which is what current systems have", "time: expected",
    function()
      return {
        opened(),
        send "hello",
        expect { flags = "PA" },
        expect { after = 1, flags = "PA", payload = "hello" },
      }
    end)

  check("RFC 9293 3.8.3 (SHLD-11): data is repeated for at least 100 s, then who waits is told", function()
    return {
      opened(),
      send "hello",
      expect { flags = "PA" },
      call(function(t)
        t.result = { t.socket:receive(1) }
        t.ended = t.packets[#t.packets].time
      end),
      times(12, function() return expect { within = 61, payload = "hello" } end),
      quiet(59),
      call { function(t)
        assert.same({ nil, "timeout", "" }, t.result)
        assert.is_true(t.ended > 100)
      end, after = 5 },
    }
  end)
end)

describe("Congestion control:", function()
  check("RFC 5681 3.1, RFC 3390: four segments of 1000 bytes go at first", function()
    return { opened(), send(bytes(20000)), segments(1, 4), quiet(0.15) }
  end)

  check("RFC 3390 1: of 1400 bytes three go at first", function()
    return {
      opened { mss = 1400 },
      send(bytes(20000)),
      times(3, function(i) return expect { seq = 1 + 1400 * (i - 1), length = 1400 } end),
      quiet(0.15),
    }
  end)

  check("RFC 5681 3.1: in slow start each acknowledged segment lets two go", function()
    return {
      opened(),
      send(bytes(40000)),
      segments(1, 4),
      times(4, function(i)
        return { inject { flags = "A", ack = 1 + KILO * i }, segments(1 + KILO * (2 + 2 * i), 2) }
      end),
      info("cwnd", 8000),
    }
  end)

  check("RFC 5681 3.1, (3): an ACK opens the window by what it acknowledges at most", function()
    return {
      opened(),
      send(bytes(40000)),
      segments(1, 4),
      times(5, function(i) return inject { flags = "A", ack = 1 + 100 * i } end),
      call(function(t) assert.is_true(t.socket:info().cwnd <= 4500) end),
    }
  end, { strict = false })

  check("RFC 5681 3.1: after a timeout one segment goes, half of what was on its way is the threshold", function()
    return {
      grown(4), -- 8 segments
      send(bytes(8000)),
      segments(4001, 8),
      expect { after = 0.2, tolerance = 0.002, seq = 4001, length = 1000 },
      info("cwnd", 1000),
      info("ssthresh", 4000),
    }
  end)

  check("RFC 5681 3.1: above the threshold the window grows by one segment in a round trip", function()
    return {
      grown(4),
      send(bytes(40000)),
      segments(4001, 8),
      expect { after = 0.2, tolerance = 0.002, seq = 4001, length = 1000 }, -- threshold 4000
      inject { flags = "A", ack = 12001 }, -- all had come: slow start from here
      times(3, function(i) return inject { flags = "A", ack = 12001 + KILO * i } end),
      call(function(t) t.before = t.socket:info().cwnd end),
      -- A round trip's worth of acknowledgements
      times(4, function(i) return inject { flags = "A", ack = 15001 + KILO * i } end),
      call(function(t)
        assert.is_true(t.before >= 4000, t.before)
        assert.equal(1000, t.socket:info().cwnd - t.before)
      end),
    }
  end, { strict = false })

  check("RFC 5681 3.2: the third duplicate has the lost segment sent again, not the second", function()
    return {
      grown(4),
      send(bytes(8000)),
      segments(4001, 8),
      times(2, function() return inject { flags = "A", ack = 4001 } end),
      quiet(0.05),
      inject { flags = "A", ack = 4001 },
      expect { seq = 4001, length = 1000 },
      info("ssthresh", 4000),
      info("cwnd", 7000),
      quiet(0.05),
    }
  end)

  check("RFC 5681 3.2: each further duplicate opens the window by a segment, what is new closes it to the threshold",
    function()
      return {
        grown(4),
        send(bytes(16000)),
        segments(4001, 8),
        inject { flags = "A", ack = 4001 },
        segments(12001, 1), -- RFC 3042
        inject { flags = "A", ack = 4001 },
        segments(13001, 1),
        inject { flags = "A", ack = 4001 },
        segments(4001, 1), -- the window is 7000 now, and 10,000 bytes are on their way
        times(3, function() return inject { flags = "A", ack = 4001 } end),
        quiet(0.05),
        inject { flags = "A", ack = 4001 },
        segments(14001, 1),
        inject { flags = "A", ack = 14001 },
        segments(15001, 4), -- the threshold, and a segment for what was acknowledged
        call(function(t) assert.is_true(t.socket:info().cwnd <= 5000, t.socket:info().cwnd) end),
      }
    end)

  check("RFC 5681 2: what brings data, a new window or new acknowledgements is no duplicate", function()
    return {
      grown(4),
      send(bytes(8000)),
      segments(4001, 8),
      times(6, function(i) return inject { flags = "A", ack = 4001, payload = "data", seq = 4 * i - 3 } end),
      times(3, function(i) return inject { flags = "A", ack = 4001, window = 60000 + i } end),
      call(function(t) assert.equal(0, t.socket:info().retransmits) end),
    }
  end, { strict = false })

  check("RFC 6582 3.2, step 3: a partial acknowledgement has the next lost segment sent again at once", function()
    return {
      grown(4),
      send(bytes(8000)),
      segments(4001, 8), -- the first, the third and the seventh get lost
      times(3, function() return inject { flags = "A", ack = 4001 } end),
      segments(4001, 1),
      times(2, function() return inject { flags = "A", ack = 4001 } end),
      info("cwnd", 9000),
      inject { flags = "A", ack = 6001 },
      segments(6001, 1),
      info("cwnd", 8000), -- less what was acknowledged, and a segment
      inject { flags = "A", ack = 10001 },
      segments(10001, 1),
      info("cwnd", 5000),
      inject { flags = "A", ack = 12001 },
      info("retransmits", 3),
      call(function(t) assert.is_true(t.socket:info().cwnd <= 5000, t.socket:info().cwnd) end),
      quiet(10),
    }
  end)

  check("RFC 6582 3.2, step 4: a timeout ends fast recovery", function()
    return {
      grown(4),
      send(bytes(8000)),
      segments(4001, 8),
      times(3, function() return inject { flags = "A", ack = 4001 } end),
      segments(4001, 1),
      expect { within = 0.3, seq = 4001, length = 1000 },
      info("cwnd", 1000),
      inject { flags = "A", ack = 6001 }, -- all comes again from here, two for each acknowledgement
      segments(6001, 2),
      inject { flags = "A", ack = 7001 },
      segments(8001, 2),
      inject { flags = "A", ack = 12001 },
      quiet(10),
    }
  end)

  falls_short("RFC 6675 5: SACK blocks tell which segments to send again", "lwIP ignores those that come",
    "nothing came", function()
      return {
        grown(4),
        send(bytes(8000)),
        segments(4001, 8),
        times(3, function(i)
          return inject { flags = "A", ack = 4001, options = { sack = { { left = 6001, right = 7001 + KILO * i } } } }
        end),
        expect { seq = 4001, length = 1000 },
        inject { flags = "A", ack = 4001, options = { sack = { { left = 6001, right = 11001 } } } },
        inject { flags = "A", ack = 4001, options = { sack = { { left = 6001, right = 12001 } } } },
        expect { seq = 5001, length = 1000 },
      }
    end)

  check("RFC 3042 2: the first two duplicates let a new segment each go, the window stays", function()
    return {
      grown(4),
      send(bytes(12000)),
      segments(4001, 8),
      inject { flags = "A", ack = 4001 },
      segments(12001, 1),
      inject { flags = "A", ack = 4001 },
      segments(13001, 1),
      info("cwnd", 8000),
      quiet(0.05),
    }
  end)

  check("RFC 5681 4.1: after an idle time longer than the timeout the window is the initial one", function()
    return {
      grown(8), -- 12 segments
      quiet(0.1),
      send(bytes(12000)),
      segments(8001, 12),
      inject { flags = "A", ack = 20001 },
      quiet(10),
      send(bytes(12000)),
      segments(20001, 4),
      quiet(0.1),
    }
  end)
end)
