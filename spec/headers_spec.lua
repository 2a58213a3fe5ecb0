-- IPv6 extension headers and IPv4 options: what a host does with them (RFC 8200 §4, RFC 1122 3.2.1.8).
local netstack = require "netstack"
local packets = require "spec.packets"

local char = string.char
local PEER, OWN = "fd00::2", "fd00::1"

-- Headers {number, bytes from the length on} before an echo request, or whatever comes last.
local function chain(headers, last, payload)
  local data = ""
  for i, header in ipairs(headers) do
    data = data .. char(headers[i + 1] and headers[i + 1][1] or last) .. header[2]
  end
  return packets.ipv6(PEER, OWN, headers[1][1], data .. payload)
end

local echo = packets.icmp(PEER, OWN, 128, 0, "\0\1\0\1"):sub(41)

-- What the stack says to a packet: nil, "echo", or the ICMPv6 error's type, code and pointer.
local function said(packet)
  local stack, far = netstack.piped()
  assert(far:send(packet))
  stack:poll(0)
  local answers = packets.drain(far)
  packets.leaves_nothing(stack)
  assert.is_true(#answers <= 1)
  if not answers[1] then return nil end
  local p = packets.parse(answers[1])
  assert.equal(58, p.protocol)
  local kind, code = p.payload:byte(1, 2)
  if kind == 129 then return "echo" end
  assert.equal(packet:sub(1, 1232), p.payload:sub(9)) -- as much of it as fits (RFC 4443 §2.4(c)), from its first byte
  return ("%d/%d at %d"):format(kind, code, packets.get16(p.payload, 7))
end

-- Options padded to 8 bytes with their header: {number, bytes}.
local function options(number, bytes)
  local total = math.ceil((2 + #bytes) / 8) * 8
  local rest = total - 2 - #bytes
  local padding = rest == 0 and "" or rest == 1 and "\0" or "\1" .. char(rest - 2) .. ("\0"):rep(rest - 2)
  return { number, char(total / 8 - 1) .. bytes .. padding }
end

describe("IPv6 headers", function()
  it("in any sound order lead to the message (RFC 8200 §4.1)", function()
    local hop, destination = options(0, "\1\0"), options(60, "\1\0")
    local routing, atomic = { 43, "\0\0\0\0\0\0\0" }, { 44, "\0\0\0\0\0\0\9" }
    for _, headers in ipairs {
      { hop }, { destination }, { routing }, { atomic }, { hop, destination, routing, atomic, destination },
      { atomic, destination }, { destination, destination, destination },
      { options(60, ("\1\0"):rep(100)) }, -- long
    } do
      assert.equal("echo", said(chain(headers, 58, echo)))
    end
  end)

  it("with an option that nobody knows are treated as its first two bits say (RFC 8200 §4.2)", function()
    for _, number in ipairs { 0, 60 } do
      local function with(kind) return said(chain({ options(number, char(kind) .. "\0") }, 58, echo)) end
      assert.equal("echo", with(0x1e)) -- 00: skip
      assert.is_nil(with(0x5e)) -- 01: discard
      assert.equal("4/2 at 42", with(0x9e)) -- 10: discard and say so, where it is
      assert.equal("4/2 at 42", with(0xde)) -- 11: the same, if it was not for a group
    end
  end)

  it("are not told of in answer to an error, or to a group but for an option (RFC 4443 §2.4(e))", function()
    local error = packets.icmp(PEER, OWN, 1, 0, "\0\0\0\0" .. ("x"):rep(48)):sub(41)
    local unknown, route = options(60, "\158\0"), { 43, "\2\0\1" .. ("\0"):rep(20) }
    assert.equal("4/2 at 42", said(chain({ unknown }, 58, echo)))
    assert.is_nil(said(chain({ unknown }, 58, error)))
    assert.is_nil(said(chain({ unknown, { 44, "\0\0\0\0\0\0\9" } }, 58, error)))
    local function to_group(packet) return packet:sub(1, 24) .. packets.bytes("ff02::1") .. packet:sub(41) end
    assert.equal("4/2 at 42", said(to_group(chain({ unknown }, 58, echo))))
    assert.is_nil(said(to_group(chain({ options(60, "\222\0") }, 58, echo))))
    assert.equal("4/0 at 42", said(chain({ route }, 58, echo)))
    assert.is_nil(said(to_group(chain({ route }, 58, echo))))
  end)

  it("that nobody knows are told of (RFC 8200 §4)", function()
    assert.equal("4/1 at 6", said(packets.ipv6(PEER, OWN, 200, "12345678")))
    assert.equal("4/1 at 40", said(chain({ options(60, "\1\0") }, 200, "12345678")))
  end)

  it("that end in nothing have nothing to say (RFC 8200 §4.7)", function()
    assert.is_nil(said(packets.ipv6(PEER, OWN, 59, "")))
    assert.is_nil(said(chain({ options(60, "\1\0") }, 59, "whatever")))
  end)

  it("of a route that goes on from here are refused (RFC 5095 §3)", function()
    assert.equal("4/0 at 42", said(chain({ { 43, "\2\0\1" .. ("\0"):rep(20) } }, 58, echo)))
    assert.equal("echo", said(chain({ { 43, "\2\0\0" .. ("\0"):rep(20) } }, 58, echo))) -- none left: ignored
  end)
end)

describe("IPv4 options", function()
  local ping = packets.icmp("10.0.0.2", "10.0.0.1", 8, 0, "\0\1\0\1")

  -- How many answers a ping with these options gets; each has them too, and the checksums hold.
  local function with(list)
    list = list .. ("\0"):rep(-#list % 4)
    local stack = netstack.new()
    local near, far = netstack.pipe { checksum = true }
    stack:attach(near, { addresses = { "10.0.0.1/24" } })
    local header = char(0x45 + #list / 4) .. ping:sub(2, 2) .. packets.u16(#ping + #list) .. ping:sub(5, 10)
    local sum = packets.checksum(header .. "\0\0" .. ping:sub(13, 20) .. list)
    assert(far:send(header .. packets.u16(sum) .. ping:sub(13, 20) .. list .. ping:sub(21)))
    stack:poll(0)
    local answers = packets.drain(far)
    for _, answer in ipairs(answers) do
      assert.equal(0, packets.checksum(answer:sub(1, 20 + #list)))
      assert.equal(0, packets.checksum(answer:sub(21 + #list)))
    end
    packets.leaves_nothing(stack)
    return #answers
  end

  it("are skipped", function()
    assert.equal(1, with "\1\1\1\0")
    assert.equal(1, with("\7\11\4" .. ("\0"):rep(8))) -- record route
    assert.equal(1, with "\148\4\0\0") -- router alert
    assert.equal(1, with(("\1"):rep(40)))
  end)
end)
