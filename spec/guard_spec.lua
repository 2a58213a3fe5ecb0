-- Packets that lwIP must never see. Each comes in through a pipe end; the stack counts it by its cause, says nothing,
-- and answers the next ping. What is tagged #guarded fails with `make test GUARD=off`.
local netstack = require "netstack"
local packets = require "spec.packets"

local char, rep = string.char, string.rep
local u16 = packets.u16
local PEER4, OWN4, PEER6, OWN6 = "10.0.0.2", "10.0.0.1", "fd00::2", "fd00::1"

-- An IPv6 packet with these extension headers, each {its number, its bytes from the length on}.
local function chain(headers, upper, payload)
  local data = ""
  for i, header in ipairs(headers) do
    local next = headers[i + 1] and headers[i + 1][1] or upper
    data = data .. char(next) .. header[2]
  end
  return packets.ip(PEER6, OWN6, headers[1][1], data .. payload)
end

local echo = packets.icmp(PEER6, OWN6, 128, 0, "\0\0\0\0"):sub(41)

local function fragment4(offset, more, data)
  return packets.ip(PEER4, OWN4, 17, data, { id = 7, fragment = offset / 8 + (more and 0x2000 or 0) })
end

local no_sense = "header chain that does not add up"
local rows = {
  { "an IPv4 packet longer than what came", "longer than what came",
    function() return packets.ip(PEER4, OWN4, 17, "12345678", { length = 200 }) end },
  { "an IPv4 packet shorter than its header", "shorter than its header",
    function() return packets.ip(PEER4, OWN4, 17, "12345678", { length = 19 }) end },
  { "an IPv6 packet longer than what came", "longer than what came",
    function() return packets.ip(PEER6, OWN6, 17, "12345678", { length = 200 }) end },
  { "IPv4 options that do not add up", "ip options that do not add up", function()
    local packet = packets.ip(PEER4, OWN4, 17, "\7\9\0\0" .. rep("\0", 8), { checksum = 0 })
    return "\70" .. packet:sub(2)
  end },
  { "a packet from our own address", "impossible source",
    function() return packets.udp(OWN4, 7, OWN4, 7, "x") end },
  { "a packet from our own address (IPv6)", "impossible source",
    function() return packets.udp(OWN6, 7, OWN6, 7, "x") end },
  { "a packet from a group", "impossible source", function() return packets.udp("224.0.0.1", 7, OWN4, 7, "x") end },
  { "a packet from a group (IPv6)", "impossible source",
    function() return packets.udp("ff02::1", 7, OWN6, 7, "x") end },
  { "a packet from the loopback", "impossible source",
    function() return packets.udp("127.0.0.1", 7, OWN4, 7, "x") end },
  { "IPv4 fragments beyond 65,535 bytes", "impossible fragment",
    function() return fragment4(65528, false, rep("x", 16)) end },
  { "an empty IPv4 fragment", "impossible fragment", function() return fragment4(800, true, "") end },
  { "an IPv4 fragment that is no multiple of 8 and not the last", "impossible fragment",
    function() return fragment4(800, true, "123456789") end },
  { "IPv6 fragments beyond 65,535 bytes", "impossible fragment",
    function() return packets.fragment6(PEER6, OWN6, 17, 1, 65496, false, rep("x", 16)) end },
  { "a fragment header at the packet's end", no_sense,
    function() return packets.ip(PEER6, OWN6, 44, "\17\0\0\0") end },
  { "hop-by-hop options beyond the packet", no_sense,
    function() return packets.ip(PEER6, OWN6, 0, "\58\255\1\4\0\0\0\0") end },
  { "a hop-by-hop option beyond its header", no_sense,
    function() return chain({ { 0, "\0\5\200\0\0\0\0" } }, 58, echo) end },
  { "hop-by-hop options that do not come first", no_sense,
    function() return chain({ { 60, "\0\1\4\0\0\0\0" }, { 0, "\0\1\4\0\0\0\0" } }, 58, echo) end },
  { "destination options beyond the packet", no_sense,
    function() return packets.ip(PEER6, OWN6, 60, "\58\3\1\4\0\0\0\0") end },
  { "a routing header beyond the packet", no_sense,
    function() return packets.ip(PEER6, OWN6, 43, "\58\9\0\1\0\0\0\0") end },
  { "a chain of a hundred headers", no_sense, function()
    local headers = {}
    for i = 1, 100 do headers[i] = { 60, "\0\1\4\0\0\0\0" } end
    return chain(headers, 58, echo)
  end },
  { "a TCP header longer than the segment", "transport header that does not add up",
    function() return packets.ip(PEER4, OWN4, 6, "\0\7\0\7" .. rep("\0", 8) .. "\240\2\0\0\0\0\0\0") end },
  { "a UDP length beyond the packet", "transport header that does not add up",
    function() return packets.ip(PEER4, OWN4, 17, "\0\7\0\7\0\200\0\0") end },
  { "a short ICMPv6 message", "transport header that does not add up",
    function() return packets.ip(PEER6, OWN6, 58, "\128\0\0\0") end },
  { "a packet too big with an mtu of 48", "packet too big with an mtu below 1280",
    function() return packets.icmp(PEER6, OWN6, 2, 0, "\0\0\0\48" .. rep("\0", 48)) end },
  { "a forged neighbour advertisement", "neighbour discovery where there are no neighbours", function()
    local own = "\253" .. rep("\0", 14) .. "\1"
    return packets.icmp(PEER6, "ff02::1", 136, 0, "\32\0\0\0" .. own .. "\2\1\0\0\0\0\0\1")
  end },
}

-- A stack, its interface and the other end of its pipe.
local function attached(options)
  local stack = netstack.new()
  local near, far = netstack.pipe(options)
  local interface = assert(stack:attach(near, { addresses = { OWN4 .. "/24", OWN6 .. "/64" } }))
  return stack, interface, far
end

local function answers(stack, far, now)
  assert(far:send(packets.icmp(PEER4, OWN4, 8, 0, "\0\1\0\1")))
  assert(far:send(packets.icmp(PEER6, OWN6, 128, 0, "\0\1\0\1")))
  stack:poll(now)
  return #packets.drain(far) == 2
end

describe("The guard", function()
  for _, row in ipairs(rows) do
    it("drops " .. row[1] .. " #guarded", function()
      local stack, interface, far = attached { mtu = 65535 }
      assert(far:send(row[3]()))
      stack:poll(0)
      assert.same({ [row[2]] = 1 }, interface:stats().guarded)
      assert.equal(1, interface:stats().rx_dropped)
      assert.same({}, packets.drain(far))
      assert.is_true(answers(stack, far, 1))
      assert.equal(2, #stack:addresses())
      packets.leaves_nothing(stack)
    end)
  end

  it("drops UDP over IPv6 without a checksum, where checksums count #guarded", function()
    for _, checksum in ipairs { true, false } do
      local stack, interface, far = attached { checksum = checksum }
      local socket = stack:udp()
      socket:setsockname("*", 7)
      assert(far:send(packets.ip(PEER6, OWN6, 17, "\0\9\0\7" .. u16(9) .. "\0\0x")))
      stack:poll(0)
      socket:settimeout(0)
      if checksum then
        assert.same({ ["udp over IPv6 without a checksum"] = 1 }, interface:stats().guarded)
      else
        assert.equal("x", (socket:receive()))
      end
      socket:close()
      packets.leaves_nothing(stack)
    end
  end)

  it("lets through what is unusual but sound", function()
    local stack, interface, far = attached { mtu = 65535 }
    for _, packet in ipairs {
      chain({ { 0, "\0\1\4\0\0\0\0" }, { 60, "\0\5\2\0\0\1\0" } }, 58, echo), -- options
      chain({ { 44, "\0\0\0\0\0\0\9" } }, 58, echo), -- an atomic fragment (RFC 6946)
      packets.icmp(PEER4, OWN4, 8, 0, "\0\0\0\0") .. rep("\0", 20), -- padding behind the packet
    } do
      assert(far:send(packet))
      stack:poll(0)
      assert.equal(1, #packets.drain(far))
    end
    assert.same({}, interface:stats().guarded)
    packets.leaves_nothing(stack)
  end)
end)
