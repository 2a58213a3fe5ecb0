-- Scripts themselves: what they play, how they count and wait, and what they say when something is not as written.
local ladder = require "netstack.ladder"
local match = require "netstack.script.match"
local netstack = require "netstack"
local packet = require "netstack.packet"
local packets = require "spec.packets"
local script = require "netstack.script"

local inject, expect, quiet, call = script.inject, script.expect, script.quiet, script.call
local failure = packets.failure

-- The line in which this is called.
local function here()
  return "spec/script_spec.lua:" .. debug.getinfo(2, "l").currentline .. ": "
end

local listen = call(function(t) t.listener = t.stack:bind("*", 80) end)
local accept = call(function(t) t.socket = t.listener:accept() end)
local function opened()
  return { listen, inject { flags = "S" }, expect { flags = "SA", ack = 1 }, inject { flags = "A" }, accept }
end
local function text_of(err)
  assert.is_string(err)
  return err
end

describe("a script", function()
  for _, family in ipairs { "ipv4", "ipv6" } do
    it("plays the peer, and gives all packets, " .. family, function()
      local list = script.run({
        opened(),
        inject { flags = "PA", payload = "ping" },
        expect { after = 0.04, flags = "A", seq = 1, ack = 5 },
        call(function(t) assert.equal("ping", t.socket:receive(4)); t.socket:send("pong") end),
        expect { flags = "PA", seq = 1, ack = 5, payload = "pong", [family] = {} },
        inject { after = 0.1, flags = "A" },
        quiet(1),
      }, { family = family })
      assert.equal(7, #list)
      local text = ladder.draw(list)
      assert.matches("0.000000  |%-%- Flags %[S%], seq 0, win 65535, length 0 %-+>|", text)
      assert.matches("0.040000  |<%-%-%-%-%- Flags %[P%.%], seq 1:5, ack 5, win %d+, length 4 %-+|", text)
      local parts = packet.dissect(list[7].data)
      assert.equal(family == "ipv4" and "10.0.0.2" or "fd00::2", parts[family].source)
      assert.same({ 4000, 80, true }, { parts.tcp.source_port, parts.tcp.destination_port, parts.tcp.checksum_ok })
    end)

    it("has UDP and ICMP in it, too, " .. family, function()
      local ipv4 = family == "ipv4"
      local echo, icmp = ipv4 and { 8, 0 } or { 128, 129 }, ipv4 and "icmp" or "icmpv6"
      script.run({
        inject { [icmp] = { type = echo[1], identifier = 7, sequence = 1 }, payload = "abc" },
        expect { [icmp] = { type = echo[2], identifier = 7, sequence = 1 }, payload = "abc" },
        call(function(t)
          t.socket = t.stack:udp()
          t.socket:setsockname("*", 80)
        end),
        inject { udp = {}, payload = "question" },
        call(function(t)
          local data, host, port = t.socket:receivefrom()
          assert.same({ "question", t.remote_host, 4000 }, { data, host, port })
          t.socket:sendto("answer", host, port)
        end),
        expect { udp = { length = 14 }, payload = "answer" },
        inject { udp = { destination_port = 9 }, length = 30 },
        expect { [icmp] = ipv4 and { type = 3, code = 3 } or { type = 1, code = 4 },
          payload = function(quoted) return packet.dissect(quoted).udp.destination_port == 9 end },
      }, { family = family })
    end)
  end

  it("learns the ports that the stack chose, unless options name them", function()
    local function steps(fn)
      return {
        call(function(t) t.socket = t.stack:connect(t.remote_host, 443) end),
        expect { flags = "S" },
        call(fn),
        inject { flags = "RA" },
      }
    end
    script.run(steps(function(t)
      assert.equal(443, t.remote_port)
      assert.is_true(t.local_port >= 1024)
    end), { remote_host = "192.0.2.9", local_host = "198.51.100.1" })
    assert.matches("tcp.destination_port: expected 80, got 443",
      failure(script.run, steps(function() end), { remote_port = 80 }))
  end)

  it("counts from the first number of each side, wherever that is, and across zero", function()
    for _, isn in ipairs { 0, 1, 4294967295, 4294967293, 2147483647 } do
      script.run({
        listen,
        inject { flags = "S", options = { mss = 1460, sack_permitted = true } },
        expect { flags = "SA", seq = 0, ack = 1 },
        inject { flags = "A", seq = 1, ack = 1 },
        inject { flags = "A", seq = 11, payload = "later" },
        expect { flags = "A", seq = 1, ack = 1, options = { sack = { { left = 11, right = 16 } } } },
        inject { flags = "A", seq = -4, ack = 1 },
        expect { flags = "A", seq = 1, ack = 1 - 4294967296 },
        inject { flags = "R", seq = 1 },
      }, { isn = isn })
    end
  end)

  it("counts for each connection by itself, and anew after forget", function()
    local list = script.run({
      listen,
      inject { flags = "S" },
      inject { flags = "S", source_port = 5000 },
      expect { flags = "SA", seq = 0, ack = 1 },
      expect { flags = "SA", seq = 0, ack = 1, destination_port = 5000 },
      inject { flags = "R", seq = 1 },
      call(function(t) t:forget(77) end),
      inject { flags = "S" },
      expect { flags = "SA", seq = 0, ack = 1 },
    }, { isn = 5 })
    assert.equal(77, packet.dissect(list[#list - 1].data).tcp.seq)
    assert.matches("bad argument #1 to 'forget' %(number has no integer representation%)",
      failure(script.run, { call(function(t) t:forget(0.5) end) }))
  end)

  it("fills in what is next", function()
    script.run {
      opened(),
      inject { flags = "A", length = 100 },
      inject { flags = "PA", length = 50 },
      expect { flags = "A", ack = 151 },
      call(function(t)
        t.socket:setoption("tcp-nodelay", true)
        t.socket:send("12345")
      end),
      expect { payload = "12345" },
      inject { flags = "FA" },
      call(function(t) assert.equal(0, t.socket:info().unacked) end),
      expect { within = 1, flags = "A", seq = 6, ack = 152 },
    }
  end)

  it("takes its steps from plain tables, lists in lists, functions and bytes", function()
    local function segment(t) return { flags = t.stack and "S" } end
    local list = script.run {
      { { "call", listen[2] }, {} },
      { { { "inject", segment } } },
      { "expect", flags = "SA" },
      { "inject", packet.build { ipv4 = { source = "10.0.0.2", destination = "10.0.0.1" },
        icmp = { type = 8, identifier = 1, sequence = 1 } } },
      { "expect", icmp = { type = 0 } },
      { "quiet", 0.5 },
    }
    assert.equal(4, #list)
  end)

  it("does the same again with the same seed, alone or within a run", function()
    local function play()
      local bytes = {}
      for i, entry in ipairs(script.run({
        call(function(t) t.stack:connect(t.remote_host, 80) end),
        expect { flags = "S" },
        expect { after = 1, flags = "S" },
        inject { flags = "RA" },
      }, { config = { seed = 3 } })) do bytes[i] = entry.time .. entry.data end
      return table.concat(bytes)
    end
    local one = play()
    assert.is_true(one == play())
    netstack.run(function() assert.is_true(one == play()) end)
  end)

  it("is over when a call is, however long that takes", function()
    netstack.run(function()
      script.run { call { function() netstack.sleep(5) end, at = 1 }, quiet(10) }
      assert.is_true(math.abs(netstack.now() - 11) < 0.001)
    end)
  end)
end)

describe("time in a script", function()
  local connect = call(function(t) t.stack:connect(t.remote_host, 80) end)
  local reset = inject { flags = "RA" }

  it("is told from the start or the step before", function()
    script.run { connect, expect { at = 0, flags = "S" }, expect { at = 1, flags = "S" },
      expect { after = 2, flags = "S" }, expect { within = 4.1, flags = "S" }, reset }
    script.run { connect, expect { flags = "S" }, expect { after = 0.7, tolerance = 0.31, flags = "S" }, reset }
    script.run({ connect, expect { flags = "S" }, expect { after = 0.7, flags = "S" }, reset }, { tolerance = 0.31 })
  end)

  it("has to hold", function()
    local function late(step) return { connect, expect { flags = "S" }, step, reset } end
    assert.matches("step 3, expect: nothing came until 0%.50", failure(script.run, late(expect { after = 0.5 })))
    assert.matches("step 3, expect: nothing came until 0%.90", failure(script.run, late(expect { within = 0.9 })))
    assert.matches("step 3, expect: time: expected 1%.4.* to 1%.5.*, got 1%.0000", failure(script.run,
      late(expect { after = 1.5 })))
    assert.matches("step 3, quiet: a packet came", failure(script.run, late(quiet(2))))
    assert.matches("step 4, inject: 0%.100000 s has passed, it is 0%.500", failure(script.run,
      { connect, expect { flags = "S" }, quiet(0.5), inject { at = 0.1, flags = "RA" } }))
  end)

  it("need not hold for what comes before, where strict is off", function()
    local steps = { connect, expect { at = 3, flags = "S", strict = false }, reset }
    script.run(steps)
    script.run({ connect, expect { at = 3, flags = "S" }, reset, quiet(0) }, { strict = false })
    assert.matches("nothing came until 2%.00", failure(script.run, { connect, expect { at = 2, strict = false } }))
  end)
end)

describe("what is not as a script says", function()
  it("is told with the step, the difference and the packets", function()
    local where = here()
    local err = text_of(failure(script.run, {
      listen, inject { flags = "S", options = { mss = 1460 } },
      expect { flags = "SA", ack = 2, window = 1, options = { mss = 9, timestamps = false, window_scale = 3 } },
    }))
    local line = tonumber(where:match("(%d+): $")) + 3
    local first, rest = err:match("^([^\n]*)\n(.*)$")
    assert.equal("spec/script_spec.lua:" .. line .. ": step 3, expect: tcp.ack: expected 2, got 1; tcp.options.mss: " ..
      "expected 9, got 1460; tcp.options.window_scale: expected 3, got none; tcp.window: expected 1, got 65535",
      first)
    assert.equal([[
  expected: { tcp = { ack = 2, flags = "SA", options = { mss = 9, timestamps = false, window_scale = 3 }, window = 1 } }
  got:      Flags [S.], seq 0, ack 1, win 65535, options [mss 1460], length 0, at 0.000000
          peer                                                                   stack
0.000000  |-- Flags [S], seq 0, win 65535, options [mss 1460], length 0 ------------>|
0.000000  |<----- Flags [S.], seq 0, ack 1, win 65535, options [mss 1460], length 0 -|]], rest)
  end)

  it("is told for flags, payloads, lists, functions and absent headers", function()
    local function difference(expected)
      return text_of(failure(script.run, { opened(), call(function(t) t.socket:send("hello") end), expect(expected) }))
        :match("step 7, expect: ([^\n]*)")
    end
    assert.equal('tcp.flags: expected "A", got "PA"', difference { flags = "A" })
    assert.equal('tcp.flags: expected { fin = true, psh = true }, got "PA"',
      difference { flags = { psh = true, fin = true } })
    assert.equal('payload: expected "world", got "hello"', difference { flags = "PA", payload = "world" })
    assert.equal("length: expected 4, got 5", difference { length = 4 })
    assert.equal("tcp.options.sack: expected { { left = 1, right = 2 } }, got none",
      difference { options = { sack = { { left = 1, right = 2 } } } })
    assert.equal("tcp.window: got 65535, which will not do", difference { window = function() return false end })
    assert.equal("tcp.seq: got 1, too small", difference { seq = function(n) return n > 1, "too small" end })
    assert.equal("udp.destination_port: expected 4000, got none; udp.length: expected 3, got none; " ..
      "udp.source_port: expected 80, got none",
      difference { udp = { length = 3, source_port = 80, destination_port = 4000 } })
    assert.equal("ipv4.ttl: expected 1, got 255", difference { ipv4 = { ttl = 1 } })
  end)

  it("is a wrong checksum, unless that is what was expected", function()
    local parts = packet.dissect(packet.build { ipv4 = { source = "10.0.0.1", destination = "10.0.0.2" },
      tcp = { source_port = 1, destination_port = 2, checksum = 7 } })
    assert.same({ "tcp.checksum: wrong" }, match.differences({}, parts))
    assert.same({}, match.differences({ tcp = { checksum_ok = false } }, parts))
    assert.same({ "tcp.checksum_ok: expected true, got false" },
      match.differences({ tcp = { checksum_ok = true } }, parts))
  end)

  it("is a packet that nothing expected, while the script goes on and at its end", function()
    assert.matches("^after the last step: a packet came that nothing expected\n  got: +Flags %[S%.%]",
      failure(script.run, { listen, inject { flags = "S" } }))
    assert.matches("step 3, expect: tcp.flags: expected \"R\", got \"SA\"",
      failure(script.run, { listen, inject { flags = "S" }, expect { flags = "R" } }))
    script.run({ listen, inject { flags = "S" } }, { strict = false })
  end)

  it("is shown with the last packets only", function()
    local many = {}
    for i = 1, 30 do many[i] = inject { flags = "R" } end
    local err = text_of(failure(script.run, { many, expect { within = 1 } }))
    assert.matches("\n%(18 before%)\n", err)
    local _, shown = err:gsub("\n0%.000", "")
    assert.equal(12, shown)
  end)

  it("is an error of a call: texts with the packets, other values as they are", function()
    local where = here()
    local err = text_of(failure(script.run, { call(function() error("oh no") end) }))
    assert.matches("^spec/script_spec.lua:%d+: step 1, call: .*oh no", err)
    assert.equal(tonumber(where:match("(%d+): $")) + 1, tonumber(err:match("^spec/script_spec.lua:(%d+)")))
    local value = {}
    assert.equal(value, failure(script.run, { call(function() error(value) end), quiet(5) }))
    assert.equal(value, failure(script.run, { call(function() netstack.sleep(3); error(value) end), quiet(5) }))
  end)

  it("is a call that still waits when the script is over", function()
    assert.matches("step 2, call: still waits when the script is over",
      failure(script.run, { listen, call(function(t) t.listener:accept() end) }))
    netstack.run(function()
      assert.matches("still waits", failure(script.run, { call(function() netstack.sleep(1e6) end) }))
    end)
    assert.is_true(netstack.now() ~= 1e6)
  end)

  it("is what a function makes when that is no packet", function()
    assert.matches("step 1, inject: the function returned no packet, but nil",
      failure(script.run, { inject(function() end) }))
    assert.matches("step 1, inject: tcp.window: out of range: 0 to 65535",
      failure(script.run, { inject(function() return { flags = "S", window = 1e6 } end) }))
  end)
end)

describe("a bad script", function()
  local function complaint(step, options)
    return text_of(failure(script.run, { quiet(0), step }, options)):match("bad argument (.*)$")
  end

  it("is refused before anything is played", function()
    local called = false
    local err = failure(script.run, { call(function() called = true end), { "expect", flags = "X" } })
    assert.matches("^[^\n]*lua:%d+: bad argument #1 to 'run' %(step 2: tcp.flags: unknown flag 'X'%)$", err)
    assert.is_false(called)
    local line = debug.getinfo(1, "l").currentline + 1
    err = failure(script.run, { inject { flgs = "S" } })
    assert.matches("step 1 at spec/script_spec.lua:" .. line .. ": packet: unknown field 'flgs'", err)
  end)

  it("is told what is wrong with it", function()
    for _, case in ipairs {
      { { "inject", flags = "S", window = 65536 }, "tcp.window: out of range: 0 to 65535" },
      { { "inject", flags = "S", seq = 0.5 }, "tcp.seq: number has no integer representation" },
      { { "inject", flags = "S", ack = 1e10 }, "tcp.ack: out of range: -4294967296 to 4294967296" },
      { { "inject", flags = "S", options = { ms = 1 } }, "tcp.options: unknown field 'ms'" },
      { { "inject", flags = "S", payload = "x", length = 1 }, "both payload and length" },
      { { "inject", flags = "S", length = 70000 }, "length: out of range: 0 to 65535" },
      { { "inject", flags = "S", udp = {} }, "both udp and fields of a TCP segment" },
      { { "inject", flags = "S", ipv6 = { source = "fd00::1" } }, "ipv6.destination: missing" },
      { { "inject", flags = "S", ipv4 = 4 }, "ipv4: table expected, got number" },
      { { "inject", flags = "S", within = 1 }, "packet: unknown field 'within'" },
      { { "inject", flags = "S", window = function() end }, "tcp.window: number expected, got function" },
      { { "inject", udp = 5 }, "udp: table expected, got number" },
      { { "inject" }, "no packet: flags, or the table of a header, expected" },
      { { "inject", 5 }, "unexpected number" },
      { { "inject", "bytes", flags = "S" }, "unknown field 'flags'" },
      { { "expect", "bytes" }, "unexpected string" },
      { { "expect", flags = "S", at = 1, after = 1 }, "both at and after" },
      { { "expect", flags = "S", after = 1, within = 1 }, "both after and within" },
      { { "expect", flags = "S", after = -1 }, "after: out of range: 0 to 1e8" },
      { { "expect", flags = "S", after = 0 / 0 }, "after: out of range: 0 to 1e8" },
      { { "expect", flags = "S", tolerance = "1" }, "tolerance: number expected, got string" },
      { { "expect", flags = "S", strict = 1 }, "strict: boolean expected, got number" },
      { { "expect", icmp = { typ = 8 } }, "icmp: unknown field 'typ'" },
      { { "quiet" }, "number expected, got nil" },
      { { "quiet", -1 }, "out of range: 0 to 1e8" },
      { { "quiet", 1, after = 1 }, "unknown field 'after'" },
      { { "call", "fn" }, "function expected, got string" },
      { { "call", print, within = 1 }, "unknown field 'within'" },
      { { "wait", 1 }, "'inject', 'expect', 'quiet' or 'call' expected, got wait" },
      { { flags = "S" }, "'inject', 'expect', 'quiet' or 'call' expected, got nil" },
      { { "quiet", 1, where = 5 }, "where: string expected, got number" },
    } do
      assert.equal("#1 to 'run' (step 2: " .. case[2] .. ")", complaint(case[1]))
    end
    assert.equal("#1 to 'run' (step 2: table expected, got string)", complaint "S")
    assert.equal("#2 to 'run' (unknown option 'famly')", complaint(quiet(1), { famly = "ipv4" }))
    assert.equal("#2 to 'run' (option 'isn': out of range: 0 to 4294967295)", complaint(quiet(1), { isn = -1 }))
    assert.equal("#2 to 'run' (option 'local_host': invalid address)", complaint(quiet(1), { local_host = "x" }))
    assert.matches("bad argument #1 to 'run' %(table expected, got nil%)", failure(script.run))
  end)
end)
