-- How connections are opened and refused, as the RFCs say, played packet by packet.
local conformance = require "spec.conformance"
local script = require "netstack.script"

local inject, expect, quiet, call = script.inject, script.expect, script.quiet, script.call
local check, falls_short = conformance.checks(it, function(why) pending(why) end)
local between = conformance.between
local opened, connected, times = conformance.opened, conformance.connected, conformance.times
local nodelay, send, receive = conformance.nodelay, conformance.send, conformance.receive

local listen = call(function(t) t.listener = assert(t.stack:bind("*", 80)) end)
-- A connect, and how it ended.
local connect = call(function(t)
  t.socket = t.stack:tcp()
  t.ok, t.err = t.socket:connect(t.remote_host, 80)
end)
local function ended(err)
  return call(function(t) assert.same({ false, err }, { t.ok or false, t.err }) end)
end

describe("Handshake:", function()
  check("RFC 9293 3.5: SYN, SYN ACK, ACK; data may follow at once", function()
    return {
      listen,
      inject { flags = "S", options = { mss = 1460 } },
      expect { flags = "SA", seq = 0, ack = 1 },
      inject { flags = "PA", payload = "first" },
      call(function(t) t.socket = t.listener:accept() end),
      expect { after = 0.04, flags = "A", seq = 1, ack = 6 },
      receive "first",
    }
  end)

  check("RFC 9293 3.5: an active open acknowledges the SYN ACK", function()
    return {
      connected(),
      call(function(t) assert.equal("ESTABLISHED", t.socket:info().state) end),
      quiet(1),
    }
  end)

  check("RFC 9293 3.5 (MUST-10), figure 8: SYNs cross, and both open", function()
    return {
      connect,
      expect { flags = "S", seq = 0 },
      inject { flags = "S", options = { mss = 1000 } },
      expect { flags = "SA", seq = 0, ack = 1, options = { mss = between(1000, 1460) } },
      inject { flags = "SA", seq = 0, options = { mss = 1000 } },
      expect { flags = "A", seq = 1, ack = 1 },
      inject { flags = "PA", payload = "hello" },
      expect { after = 0.04, flags = "A", ack = 6 },
      receive "hello",
    }
  end)

  check("RFC 9293 3.7.1 (MUST-14): SYN and SYN ACK name the MSS that the mtu leaves", function(about)
    return {
      listen,
      inject { flags = "S" },
      expect { flags = "SA", options = { mss = 1300 - about.headers } },
      call(function(t) t:forget() end),
      connect,
      expect { flags = "S", options = { mss = 1300 - about.headers } },
      inject { flags = "RA" },
    }
  end, { config = { mtu = 1300, seed = 1 } })

  check("RFC 9293 3.7.1 (MUST-15): without an MSS option 536 bytes are taken for granted, 1220 in IPv6", function(about)
    local mss = about.name == "IPv4" and 536 or 1220
    return {
      opened {},
      nodelay,
      send(("x"):rep(mss + 100)),
      expect { length = mss },
      expect { length = 100 },
    }
  end)

  check("RFC 9293 3.7.1 (MUST-16): no segment is longer than the peer's MSS", function()
    return {
      opened { mss = 500 },
      nodelay,
      send(("x"):rep(1200)),
      expect { seq = 1, length = 500 },
      expect { seq = 501, length = 500 },
      expect { seq = 1001, length = 200 },
    }
  end)

  check("RFC 9293 3.1 (MUST-6): unknown options are skipped, by their length", function()
    return {
      listen,
      inject { flags = "S", options = { { type = 253, data = "\2\4\0\100" }, "nop", { type = 77, data = "" },
        "mss", mss = 700 } },
      expect { flags = "SA", ack = 1 },
      inject { flags = "A", options = { { type = 254, data = "odd" } } },
      call(function(t) t.socket = t.listener:accept() end),
      nodelay,
      send(("x"):rep(1000)),
      expect { length = 700 },
      expect { length = 300 },
    }
  end)

  check("RFC 9293 3.2 (MUST-64): options may begin at any byte", function()
    return {
      listen,
      inject { flags = "S", options = { "nop", "mss", "nop", "window_scale", mss = 600, window_scale = 3 } },
      expect { flags = "SA", options = { window_scale = between(0, 14) } },
      inject { flags = "A" },
      call(function(t) t.socket = t.listener:accept() end),
      nodelay,
      send(("x"):rep(700)),
      expect { length = 600 },
      expect { length = 100 },
    }
  end)

  check("RFC 9293 3.1 (MUST-7): options whose lengths do not add up do no harm", function()
    return {
      listen,
      times(4, function(i)
        local wrong = { "\2\0\0\0", "\2\1\0\0", "\1\1\1\2", "\3\9\0\0" }
        return inject { flags = "S", seq = 100 * i, options = { { bytes = wrong[i] } } }
      end),
      quiet(30),
      inject { flags = "S", seq = 0, options = { mss = 1460 } },
      expect { flags = "SA", ack = 1 },
    }
  end)

  check("RFC 9293 3.1: reserved bits are ignored", function()
    return {
      listen,
      inject { flags = "S", reserved = 7 },
      expect { flags = "SA", ack = 1, reserved = false },
    }
  end)

  check("RFC 9293 3.1 (MUST-2, MUST-3): what has a wrong checksum is for nobody, ours are right", function()
    return {
      listen,
      inject { flags = "S", checksum = 0x1234 },
      quiet(2),
      inject { flags = "S", seq = 0 },
      expect { flags = "SA", checksum_ok = true },
    }
  end)

  check("RFC 9293 3.9.2.3 (MUST-57, MUST-63): SYNs to or from groups are for nobody", function(about)
    local ipv4 = about.name == "IPv4"
    local function to(host) return { destination = host } end
    local function from(host) return { source = host } end
    local group = ipv4 and "224.0.0.1" or "ff02::1"
    return {
      listen,
      inject { flags = "S", [about.family] = to(group) },
      ipv4 and inject { flags = "S", ipv4 = to "255.255.255.255" } or {},
      inject { flags = "S", [about.family] = from(group) },
      quiet(2),
    }
  end)

  check("RFC 7323 2.2: a window scale is only told to who told one", function()
    return {
      listen,
      inject { flags = "S", options = { mss = 1460 } },
      expect { flags = "SA", options = { mss = between(1, 65535), window_scale = false } },
      inject { flags = "R", seq = 1 },
      call(function(t) t:forget(7000) end),
      inject { flags = "S", options = { mss = 1460, window_scale = 0 } },
      expect { flags = "SA", options = { window_scale = between(0, 14) } },
    }
  end)

  check("RFC 7323 2.2: the window of a SYN is not scaled, those after it are", function()
    return {
      listen,
      inject { flags = "S", options = { mss = 1000, window_scale = 2 }, window = 2000 },
      expect { flags = "SA" },
      call(function(t) assert.equal("SYN-RECEIVED", t.stack:sockets()[2].state) end),
      inject { flags = "A", window = 500 },
      call(function(t) t.socket = t.listener:accept() end),
      send(("x"):rep(5000)),
      expect { seq = 1, length = 1000 },
      expect { seq = 1001, length = 1000 },
      quiet(0.1),
      inject { flags = "A", window = 500 },
      expect { seq = 2001, length = 1000 },
      expect { seq = 3001, length = 1000 },
    }
  end)

  check("RFC 7323 2.3: a shift above 14 counts as 14", function()
    return {
      opened({ mss = 1000, window_scale = 15 }, 1),
      call(function(t) assert.equal(16384, t.socket:info().snd_wnd) end),
    }
  end)

  check("RFC 7323 2.2: without a scale in both SYNs windows are as they stand", function()
    return {
      call(function(t) t.socket = assert(t.stack:connect(t.remote_host, 80)) end),
      expect { flags = "S", options = { window_scale = between(0, 14) } },
      inject { flags = "SA", options = { mss = 1000 }, window = 65535 },
      expect { flags = "A", window = 65535 },
    }
  end)

  check("RFC 7323 2.2: a window scale that is in no SYN is ignored", function()
    return {
      opened(nil, 1000),
      inject { flags = "A", window = 1500, options = { window_scale = 7 } },
      call(function(t) assert.equal(1500, t.socket:info().snd_wnd) end),
    }
  end)

  check("RFC 2018 2: SACK is permitted to who permits it", function()
    return {
      listen,
      inject { flags = "S", options = { mss = 1460 } },
      expect { flags = "SA", options = { mss = between(1, 65535), sack_permitted = false } },
      inject { flags = "R", seq = 1 },
      call(function(t) t:forget(7000) end),
      inject { flags = "S", options = { mss = 1460, sack_permitted = true } },
      expect { flags = "SA", options = { sack_permitted = true } },
    }
  end)

  check("RFC 7323 3.2: timestamps are not answered where they are not offered", function()
    return {
      listen,
      inject { flags = "S", options = { mss = 1460 } },
      expect { flags = "SA", options = { timestamps = false } },
    }
  end)

  falls_short("RFC 7323 3.2: timestamps are answered where they are offered", "lwIP's timestamps are off: no PAWS",
    "timestamps", function()
      return {
        listen,
        inject { flags = "S", options = { mss = 1460, timestamps = { value = 7, echo = 0 } } },
        expect { flags = "SA", options = { timestamps = { echo = 7 } } },
      }
    end)

  check("RFC 3168 6.1.1: a SYN that offers ECN opens a connection without it", function()
    return {
      listen,
      inject { flags = "SEC", options = { mss = 1460 } },
      expect { flags = "SA", ack = 1 },
      inject { flags = "A" },
    }
  end)

  falls_short("RFC 3168 6.1.1: ECN is agreed on where it is offered", "there is no ECN", "tcp.flags: expected",
    function()
      return {
        listen,
        inject { flags = "SEC", options = { mss = 1460 } },
        expect { flags = "SAE", ack = 1 },
      }
    end)

  check("RFC 6298 2.1, 5.5: SYN is repeated after 1 s, then after twice as long each time", function()
    return {
      connect,
      expect { flags = "S", seq = 0 },
      times(5, function(i) return expect { after = 2 ^ (i - 1), flags = "S", seq = 0 } end),
      inject { flags = "RA" },
      ended "connection refused",
    }
  end)

  check("RFC 6298 2.1, 5.5: so is SYN ACK", function()
    return {
      listen,
      inject { flags = "S", options = { mss = 1460 } },
      expect { flags = "SA", seq = 0, ack = 1 },
      times(4, function(i) return expect { after = 2 ^ (i - 1), flags = "SA", seq = 0, ack = 1 } end),
    }
  end)

  check("RFC 6298 5.7: after a SYN that was repeated the timeout of data is 3 s at first", function()
    return {
      connect,
      expect { flags = "S" },
      expect { after = 1, flags = "S" },
      inject { after = 0.1, flags = "SA", options = { mss = 1000 } },
      expect { flags = "A", ack = 1 },
      send "hello",
      expect { flags = "PA", payload = "hello" },
      expect { after = 3, flags = "PA", payload = "hello" },
      expect { after = 6, flags = "PA", payload = "hello" },
    }
  end)

  falls_short("RFC 9293 3.8.3 (MUST-23): a SYN is repeated for three minutes",
    "connect gives up after 75 s", "Expected objects to be equal", function()
      return {
        connect,
        expect { flags = "S", within = 200 },
        quiet(0),
        call { function(t) assert.equal(nil, t.err) end, at = 179 },
      }
    end, { strict = false })

  check("RFC 9293 3.10.7.2: data in a SYN gets lost or waits, but is delivered once", function()
    return {
      listen,
      inject { flags = "S", payload = "abc", options = { mss = 1460 } },
      expect { flags = "SA", ack = function(n) return n == 1 or n == 4 end },
      inject { flags = "PA", seq = 1, payload = "abcdef" },
      call(function(t) t.socket = t.listener:accept() end),
      expect { within = 0.5, flags = "A", ack = 7 },
      receive "abcdef",
    }
  end)

  check("RFC 9293 3.10.7.4, first: a SYN that comes again is answered again", function()
    return {
      listen,
      inject { flags = "S", options = { mss = 1460 } },
      expect { flags = "SA", seq = 0, ack = 1 },
      inject { after = 0.5, flags = "S", seq = 0, options = { mss = 1460 } },
      expect { flags = "SA", seq = 0, ack = 1 },
      inject { flags = "A" },
      quiet(5),
    }
  end)
end)

describe("Refusal:", function()
  check("RFC 9293 3.10.7.1: a SYN for nobody gets RST ACK, which counts its data", function()
    return {
      inject { flags = "S", payload = "data", destination_port = 9 },
      expect { flags = "RA", seq = 0, ack = 5, window = 0 },
    }
  end)

  check("RFC 9293 3.10.7.1: an ACK for nobody gets RST with its number", function()
    return {
      inject { flags = "FA", seq = 77, ack = 12345, payload = "data" },
      expect { flags = "R", seq = 12345, window = 0 },
    }
  end)

  check("RFC 9293 3.10.7.1: a reset is never answered", function()
    return {
      times(4, function(i) return inject { flags = ({ "R", "RA", "RS", "RF" })[i], ack = 12345 } end),
      quiet(1),
    }
  end)

  check("RFC 9293 3.10.7.2: a listener ignores RST, resets ACK, and goes on", function()
    return {
      listen,
      inject { flags = "R" },
      quiet(0.1),
      inject { flags = "A", seq = 1, ack = 12345 },
      expect { flags = "R", seq = 12345 },
      inject { flags = "SA", seq = 0, ack = 99 },
      expect { flags = "R", seq = 99 },
      inject { flags = "F", seq = 0 },
      inject { flags = "", seq = 0, payload = "x" },
      quiet(0.1),
      inject { flags = "S", seq = 0 },
      expect { flags = "SA", ack = 1 },
    }
  end)

  check("RFC 9293 3.10.7.3, first: what acknowledges anything but our SYN is reset", function()
    return {
      connect,
      expect { flags = "S" },
      inject { flags = "SA", ack = 2 },
      expect { flags = "R", seq = 2 },
      inject { flags = "RA", ack = 1 },
      ended "connection refused",
    }
  end, { strict = false })

  check("RFC 9293 3.10.7.3, second: RST of our SYN counts only if it acknowledges it", function()
    return {
      connect,
      expect { flags = "S" },
      inject { flags = "R" },
      inject { flags = "RA", ack = 0 },
      inject { flags = "RA", ack = 2 },
      quiet(0.5),
      call(function(t) assert.is_nil(t.err) end),
      inject { flags = "RA", ack = 1 },
      ended "connection refused",
    }
  end)

  check("RFC 9293 3.10.7.4, fifth: in SYN-RECEIVED what acknowledges something else is reset", function()
    return {
      listen,
      inject { flags = "S", options = { mss = 1460 } },
      expect { flags = "SA" },
      inject { flags = "A", seq = 1, ack = 100 },
      expect { flags = "R", seq = 100 },
      inject { flags = "A", seq = 1, ack = 1 },
      quiet(3),
      call(function(t) assert(t.listener:accept()) end),
    }
  end)

  check("RFC 9293 3.10.7.4, second: RST in SYN-RECEIVED ends it, and the listener goes on", function()
    return {
      listen,
      inject { flags = "S" },
      expect { flags = "SA" },
      inject { flags = "R", seq = 1 },
      quiet(5),
      call(function(t) assert.equal(0, t.stack:stats().tcp.connections) end),
    }
  end)
end)
