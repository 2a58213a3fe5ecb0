-- The ladder of packets between two hosts.
local ladder = require "netstack.ladder"
local link = require "netstack.link"
local netstack = require "netstack"
local packet = require "netstack.packet"
local packets = require "spec.packets"

local A, B = "10.0.0.1", "10.0.0.2"

-- A segment from a to b, or back.
local function tcp(time, back, fields, payload, dropped)
  fields.source_port, fields.destination_port = back and 80 or 4000, back and 4000 or 80
  return { time = time, from = back and "b" or "a", to = back and "a" or "b", dropped = dropped,
    data = assert(packet.build { ipv4 = { source = back and B or A, destination = back and A or B }, tcp = fields,
      payload = payload }) }
end

local BEGUN = {
  tcp(0, false, { seq = 4294967295, flags = "S", options = { mss = 1460, sack_permitted = true } }),
  tcp(0.02, true, { seq = 7000, ack = 0, flags = "SA", options = { mss = 1460 } }),
  tcp(0.04, false, { seq = 0, ack = 7001, flags = "A" }),
  tcp(0.04, false, { seq = 0, ack = 7001, flags = "PA", window = 100 }, "0123456789", "loss"),
  tcp(0.06, true, { seq = 7001, ack = 0, flags = "A", options = { sack = { { left = 10, right = 20 } } } }, nil,
    "queue full"),
}

describe("a ladder", function()
  it("has a line for each packet, relative numbers, and what was dropped and why", function()
    assert.equal([[
          a                                                                          b
0.000000  |-- Flags [S], seq 0, win 65535, options [mss 1460], length 0 ------------>|
0.020000  |<----- Flags [S.], seq 0, ack 1, win 65535, options [mss 1460], length 0 -|
0.040000  |-- Flags [.], ack 1, win 65535, length 0 -------------------------------->|
0.040000  |-- Flags [P.], seq 1:11, ack 1, win 100, length 10 ---------------------x  |  dropped: loss
0.060000  |  x--- Flags [.], ack 1, win 65535, options [sack 1 {11:21}], length 0 ---|  dropped: queue full
]], ladder.draw(BEGUN))
  end)

  it("takes an answer that comes first for the middle of a connection", function()
    local text = ladder.draw({ BEGUN[5], BEGUN[4] }, { left = "a", right = "b" })
    assert.matches("Flags %[%.%], ack 0,", text)
    assert.matches("Flags %[P%.%], seq 0:10, ack 0,", text)
  end)

  it("counts anew when the same ports begin again", function()
    local again = tcp(9, false, { seq = 555, flags = "S" })
    assert.matches("9.000000  |%-%- Flags %[S%], seq 0,", ladder.draw { BEGUN[1], again })
  end)

  it("leaves out other hosts, and shows what is no TCP", function()
    local udp, unknown = packets.udp(A, 1, B, 9, "data"), "\1\2\3"
    local list = { { time = 1, from = "a", to = "b", data = udp }, { time = 2, from = "c", to = "b", data = udp },
      { time = 123.5, from = "b", to = "a", data = unknown } }
    assert.equal([[
            a                                        b
  1.000000  |-- UDP, length 4 ---------------------->|
123.500000  |<----- neither IPv4 nor IPv6, length 3 -|
(1 of other hosts not shown)
]], ladder.draw(list))
    assert.equal("", ladder.draw {})
  end)

  it("takes what a link tells, with what became of each packet", function()
    local data = BEGUN[4].data
    local events = {
      { time = 0.5, direction = 2, packet = BEGUN[2].data, arrival = 0.54, corrupted = true, reordered = true },
      { time = 1, direction = "a->b", packet = data, cause = "queue", duplicated = true, copy_arrival = 1.04 },
      { time = 2, direction = 1, packet = data, arrival = 2.04, duplicated = true, copy_cause = "loss" },
    }
    assert.equal([[
          a                                                                          b
0.500000  |<----- Flags [S.], seq 0, ack 0, win 65535, options [mss 1460], length 0 -|  ]] ..
      [[arrives 0.540000, corrupted, reordered
1.000000  |-- Flags [P.], seq 0:10, ack 1, win 100, length 10 ---------------------x  |  ]] ..
      [[dropped: queue, duplicated, copy arrives 1.040000
2.000000  |-- Flags [P.], seq 0:10, ack 1, win 100, length 10 ---------------------->|  ]] ..
      [[arrives 2.040000, duplicated, copy dropped: loss
]], ladder.draw(events))
    assert.matches("^ +client +server\n0.500000  |<%-", ladder.draw(events, { left = "client", right = "server" }))

    events = {}
    netstack.run(function()
      local wire, a, b = link.new { delay = 0.5, since = 0 }
      wire:trace(function(event) events[#events + 1] = event end)
      a:send(data)
      wire:down()
      b:send(BEGUN[2].data)
      netstack.sleep(1)
    end)
    local start = events[1].time
    for _, event in ipairs(events) do
      event.time, event.arrival = event.time - start, event.arrival and event.arrival - start
    end
    local text = ladder.draw(events)
    assert.matches("\n0.000000  |%-%- Flags %[P.%], seq 0:10,[^\n]+>|  arrives 0.500000\n", text)
    assert.matches("\n0.000000  |  x%-%-%- Flags %[S.%], seq 0, ack 0,[^\n]+|  dropped: down\n$", text)
  end)

  it("refuses what are no packets", function()
    assert.matches("bad argument #1 to 'draw' %(packet 1: 'time': number expected, got nil%)",
      packets.failure(ladder.draw, { {} }))
    assert.matches("bad argument #1 to 'draw' %(packet 1: 'dropped': string expected, got boolean%)",
      packets.failure(ladder.draw, { { time = 1, from = "a", to = "b", data = "", dropped = true } }))
    for why, event in pairs {
      ["'direction': 'a%->b' or 'b%->a' expected, got 3"] = { time = 1, direction = 3, packet = "" },
      ["'packet': string expected, got nil"] = { time = 1, direction = 1, data = "" },
      ["'arrival': number expected, got string"] = { time = 1, direction = 1, packet = "", arrival = "soon" },
    } do
      assert.matches("bad argument #1 to 'draw' %(packet 1: " .. why .. "%)", packets.failure(ladder.draw, { event }))
    end
    assert.matches("bad argument #2 to 'draw' %(unknown option 'wide'%)",
      packets.failure(ladder.draw, {}, { wide = 1 }))
  end)
end)
