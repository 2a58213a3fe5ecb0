-- How connections end, as the RFCs say (RFC 9293 3.6, 3.10.4, 3.10.7.4), played packet by packet.
local conformance = require "spec.conformance"
local script = require "netstack.script"

local inject, expect, quiet, call = script.inject, script.expect, script.quiet, script.call
local check, falls_short = conformance.checks(it, function(why) pending(why) end)
local opened, connected, times = conformance.opened, conformance.connected, conformance.times
local nodelay, send, receive = conformance.nodelay, conformance.send, conformance.receive

local close = call(function(t) t.socket:close() end)
local shutdown = call(function(t) assert(t.socket:shutdown("send")) end)

-- The state of the one connection, "CLOSED" when there is none.
local function state(expected)
  return call(function(t)
    local sockets = t.stack:sockets()
    assert.equal(expected, sockets[1] and sockets[1].state or "CLOSED")
  end)
end

-- The stack has closed first and waits (TIME-WAIT); its FIN was number `fin`, the peer's 1.
local function time_wait()
  return {
    opened(),
    close,
    expect { flags = "FA", seq = 1, ack = 1 },
    inject { flags = "A", ack = 2 },
    inject { flags = "FA", seq = 1, ack = 2 },
    expect { flags = "A", seq = 2, ack = 2 },
    state "TIME-WAIT",
  }
end

describe("Closing:", function()
  check("RFC 9293 3.6, case 1: the stack closes, the peer acknowledges, the peer closes", function()
    return {
      opened(),
      shutdown,
      expect { flags = "FA", seq = 1, ack = 1 },
      state "FIN-WAIT-1",
      inject { flags = "A", ack = 2 },
      state "FIN-WAIT-2",
      inject { flags = "FA", seq = 1, ack = 2 },
      expect { flags = "A", seq = 2, ack = 2 },
      state "TIME-WAIT",
      quiet(10),
      state "CLOSED",
    }
  end)

  check("RFC 9293 3.6, case 1: the peer closes with its acknowledgement", function()
    return {
      opened(),
      close,
      expect { flags = "FA", seq = 1, ack = 1 },
      inject { flags = "FA", seq = 1, ack = 2 },
      expect { flags = "A", seq = 2, ack = 2 },
      state "TIME-WAIT",
    }
  end)

  check("RFC 9293 3.6, case 2: the peer closes, then the stack", function()
    return {
      opened(),
      inject { flags = "FA" },
      expect { within = 0.5, flags = "A", seq = 1, ack = 2 },
      state "CLOSE-WAIT",
      call(function(t) assert.equal("closed", select(2, t.socket:receive(1))) end),
      close,
      expect { flags = "FA", seq = 1, ack = 2 },
      state "LAST-ACK",
      inject { flags = "A", ack = 2 },
      state "CLOSED",
      quiet(10),
    }
  end)

  check("RFC 9293 3.6, case 3: both close at once", function()
    return {
      opened(),
      close,
      expect { flags = "FA", seq = 1, ack = 1 },
      inject { flags = "FA", seq = 1, ack = 1 },
      expect { within = 0.1, flags = "A", seq = 2, ack = 2 },
      state "CLOSING",
      inject { flags = "A", seq = 2, ack = 2 },
      state "TIME-WAIT",
      quiet(10),
      state "CLOSED",
    }
  end)

  check("RFC 9293 3.6: who has closed receives on", function()
    return {
      opened(),
      shutdown,
      expect { flags = "FA", seq = 1 },
      inject { flags = "A", ack = 2 },
      times(3, function(i)
        return {
          inject { after = 1000, flags = "PA", payload = "more" },
          expect { within = 0.5, flags = "A", seq = 2, ack = 4 * i + 1 },
        }
      end),
      receive "moremoremore",
      inject { flags = "FA" },
      expect { within = 0.5, flags = "A", seq = 2, ack = 14 },
    }
  end)

  check("RFC 9293 3.6: who was closed to sends on", function()
    return {
      opened(),
      nodelay,
      inject { flags = "FA" },
      expect { within = 0.5, flags = "A", ack = 2 },
      times(3, function(i)
        return {
          send "more",
          expect { flags = "PA", seq = 4 * i - 3, ack = 2, payload = "more" },
          inject { after = 0.1, flags = "A", ack = 4 * i + 1 },
        }
      end),
      close,
      expect { flags = "FA", seq = 13, ack = 2 },
      inject { flags = "A", ack = 14 },
      state "CLOSED",
    }
  end)

  check("RFC 9293 3.10.4: close sends what is unsent first, FIN with the last of it", function()
    return {
      opened(nil, 2000),
      send(("x"):rep(3000)),
      expect { seq = 1, length = 1000 },
      expect { seq = 1001, length = 1000 },
      close,
      quiet(0.1),
      inject { flags = "A", ack = 2001, window = 2000 },
      expect { seq = 2001, length = 1000, flags = { fin = true } },
      inject { flags = "A", ack = 3002 },
      state "FIN-WAIT-2",
    }
  end)

  check("RFC 6298 5.4, 5.5: FIN is sent again until it is acknowledged, after twice the time each", function()
    return {
      opened(),
      close,
      expect { flags = "FA", seq = 1 },
      times(6, function(i) return expect { after = 0.2 * 2 ^ (i - 1), tolerance = 0.002, flags = "FA", seq = 1 } end),
      inject { flags = "A", ack = 2 },
      quiet(10),
    }
  end)

  check("RFC 9293 3.10.7.4, eighth: data and FIN in one segment, data first", function()
    return {
      opened(),
      inject { flags = "FPA", payload = "last words" },
      expect { within = 0.5, flags = "A", seq = 1, ack = 12 },
      call(function(t)
        assert.equal("last words", t.socket:receive("*a"))
        assert.equal("closed", select(2, t.socket:receive(1)))
      end),
    }
  end)

  check("RFC 9293 3.10.7.4, eighth: FIN counts when what is before it has come", function()
    return {
      opened {},
      inject { flags = "FA", seq = 6, payload = "world" },
      expect { flags = "A", ack = 1 },
      state "ESTABLISHED",
      inject { flags = "A", seq = 1, payload = "hello" },
      expect { flags = "A", ack = 12 },
      state "CLOSE-WAIT",
      call(function(t) assert.equal("helloworld", t.socket:receive("*a")) end),
    }
  end)

  check("RFC 9293 3.10.7.4, first: FIN that comes again is acknowledged again", function()
    return {
      opened(),
      inject { flags = "FA", seq = 1 },
      expect { within = 0.5, flags = "A", seq = 1, ack = 2 },
      inject { flags = "FA", seq = 1 },
      expect { within = 0.5, flags = "A", seq = 1, ack = 2 },
      state "CLOSE-WAIT",
    }
  end)

  check("RFC 9293 3.10.7.4, fifth: FIN may come with the ACK that opens", function()
    return {
      call(function(t) t.listener = t.stack:bind("*", 80) end),
      inject { flags = "S", options = { mss = 1000 } },
      expect { flags = "SA", seq = 0, ack = 1 },
      inject { flags = "FPA", payload = "quick" },
      expect { within = 0.5, flags = "A", seq = 1, ack = 7 },
      call(function(t) assert.equal("quick", t.listener:accept():receive("*a")) end),
    }
  end)

  check("RFC 9293 3.6.1 (SHLD-3), RFC 2525 2.17: close with data that nobody has read resets", function()
    return {
      opened(),
      inject { flags = "PA", payload = "unread" },
      expect { within = 0.5, flags = "A", ack = 7 },
      close,
      expect { flags = "RA", seq = 1, ack = 7 },
      state "CLOSED",
    }
  end)

  check("RFC 9293 3.6.1 (SHLD-3): data that comes after close resets", function()
    return {
      opened(),
      close,
      expect { flags = "FA", seq = 1 },
      inject { flags = "PA", ack = 2, payload = "too late" },
      expect { flags = { rst = true }, seq = 2 },
      state "CLOSED",
    }
  end)

  check("RFC 9293 3.10.5: abort sends RST with the next number, and what waited is gone", function()
    return {
      opened(nil, 2000),
      send(("x"):rep(3000)),
      expect { seq = 1, length = 1000 },
      expect { seq = 1001, length = 1000 },
      call(function(t) t.socket:abort() end),
      expect { flags = { rst = true }, seq = 2001 },
      quiet(10),
    }
  end)

  check("RFC 9293 3.10.5, 3.10.4: abort and close before anybody answered say nothing", function()
    return {
      call(function(t)
        t.socket = t.stack:tcp()
        t.socket:connect(t.remote_host, 80)
      end),
      expect { flags = "S" },
      call(function(t) t.socket:close() end),
      quiet(100),
      call(function(t) t:forget() end),
      inject { flags = "SA", source_port = 80, destination_port = 5000, ack = 1 },
      expect { flags = "R", source_port = 5000, destination_port = 80, seq = 1 },
    }
  end)

  check("RFC 9293 3.10.7.4, second: RST ends a connection in any state", function()
    local list = {}
    local ways = {
      { opened(), shutdown, expect { flags = "FA" } },
      { opened(), shutdown, expect { flags = "FA" }, inject { flags = "A", ack = 2 } },
      { opened(), inject { flags = "FA", seq = 1 }, expect { within = 0.5, flags = "A", ack = 2 } },
    }
    for i, way in ipairs(ways) do
      list[i] = {
        way,
        inject { flags = "R" },
        state "CLOSED",
        call(function(t)
          t.socket:close()
          t:forget(1000000 * (i + 1))
        end),
      }
    end
    return list
  end)
end)

describe("TIME-WAIT:", function()
  check("RFC 9293 3.10.7.4, eighth: FIN that comes again is acknowledged, and the time starts anew", function()
    return {
      time_wait(),
      inject { after = 1.5, flags = "FA", seq = 1, ack = 2 },
      expect { flags = "A", seq = 2, ack = 2 },
      call { function() end, after = 1.5 },
      state "TIME-WAIT",
      quiet(1),
      state "CLOSED",
    }
  end)

  falls_short("RFC 9293 3.6.1 (MUST-13): it lasts for two maximum segment lifetimes, four minutes",
    "2 s: stacks come and go, and their wires are short", "Expected objects to be equal", function()
      return { time_wait(), quiet(230), state "TIME-WAIT" }
    end)

  check("RFC 9293 3.6.1 (MAY-2), RFC 6191: a SYN with a higher number opens a new connection", function()
    return {
      time_wait(),
      call(function(t)
        t.listener = t.stack:bind("*", 80)
        t:forget(1000500)
      end),
      inject { flags = "S", options = { mss = 1000 } },
      expect { flags = "SA", seq = 0, ack = 1 },
      inject { flags = "A" },
      call(function(t) assert(t.listener:accept()) end),
    }
  end)

  check("RFC 9293 3.6.1 (MAY-2): the new connection's numbers are beyond those of the old one", function()
    return {
      time_wait(),
      call(function(t)
        t.before = t.last.data
        t.listener = t.stack:bind("*", 80)
      end),
      inject { flags = "S", seq = 500, options = { mss = 1000 } },
      expect { flags = "SA" },
      call(function(t)
        local packet = require "netstack.packet"
        local old, new = packet.dissect(t.before).tcp.seq, packet.dissect(t.last.data).tcp.seq
        local ahead = (new - old) % 4294967296
        assert.is_true(ahead < 2147483648, ahead)
      end),
    }
  end)

  check("RFC 9293 3.10.7.4, fourth, RFC 5961 4: any other SYN is challenged", function()
    return {
      time_wait(),
      inject { flags = "S", seq = -1000 },
      expect { flags = "A", seq = 2, ack = 2 },
      state "TIME-WAIT",
    }
  end)

  check("RFC 1337 3: RST does not end it", function()
    return {
      time_wait(),
      inject { flags = "R", seq = 2 },
      quiet(0.1),
      state "TIME-WAIT",
    }
  end)

  check("RFC 9293 3.6.1: it keeps nobody from connecting from the same port", function()
    return {
      connected(),
      close,
      expect { flags = "FA", seq = 1 },
      inject { flags = "FA", ack = 2 },
      expect { flags = "A", seq = 2, ack = 2 },
      call(function(t)
        local host, port = t.local_host, t.local_port
        t:forget(3000000)
        t.again = t.stack:connect(t.remote_host, 80, host, port)
      end),
      expect { flags = "S", seq = 0 },
      inject { flags = "SA" },
      expect { flags = "A", seq = 1, ack = 1 },
    }
  end)
end)
