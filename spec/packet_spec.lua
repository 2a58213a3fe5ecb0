-- Packets taken apart and built. The other side of each claim is spec/packets.lua and spec/frames.lua, which know
-- nothing of the modules under test, or bytes written down here.
local frames = require "spec.frames"
local helper = require "spec.helper"
local lab_traffic = require "spec.lab_traffic"
local packet = require "netstack.packet"
local packets = require "spec.packets"
local traffic = require "spec.traffic"

local A, B = "10.0.0.1", "10.0.0.2"
local A6, B6 = "fd00::1", "fd00::2"

local function built(parts, options)
  local data, err = packet.build(parts, options)
  assert.is_nil(err)
  return data
end

local function ip4(more)
  local fields = { source = A, destination = B }
  for key, value in pairs(more or {}) do fields[key] = value end
  return fields
end

local function hex(data)
  return (data:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

describe("a packet that is built", function()
  it("has the bytes it should have: UDP, ICMP, ICMPv6", function()
    assert.equal(hex(packets.udp(A, 1000, B, 9, "odd")),
      hex(built { ipv4 = ip4(), udp = { source_port = 1000, destination_port = 9 }, payload = "odd" }))
    assert.equal(hex(packets.udp(A6, 1000, B6, 9, "odd")),
      hex(built { ipv6 = { source = A6, destination = B6 }, udp = { source_port = 1000, destination_port = 9 },
        payload = "odd" }))
    assert.equal(hex(packets.icmp(A, B, 8, 0, "\1\2\3\4data")),
      hex(built { ipv4 = ip4(), icmp = { type = 8, identifier = 0x102, sequence = 0x304 }, payload = "data" }))
    assert.equal(hex(packets.icmp(A6, B6, 128, 0, "\1\2\3\4data")),
      hex(built { ipv6 = { source = A6, destination = B6 },
        icmpv6 = { type = 128, identifier = 0x102, sequence = 0x304 }, payload = "data" }))
  end)

  it("has the bytes it should have: TCP", function()
    local data = built { ipv4 = ip4 { id = 7, dont_fragment = true, ttl = 9, tos = 16 }, payload = "abc",
      tcp = { source_port = 258, destination_port = 772, seq = 0xfffffffe, ack = 3, flags = "SPA", window = 5,
        urgent = 6, options = { mss = 1460, window_scale = 7 } } }
    assert.equal("45100033000740000906" .. hex(data:sub(11, 12)) .. "0a0000010a000002" ..
      "01020304fffffffe00000003701a0005" .. hex(data:sub(37, 38)) .. "0006" .. "020405b4" .. "03030700" .. "616263",
      hex(data))
    local parsed = packets.parse(data)
    assert.equal(0, packets.checksum(data:sub(1, 20)))
    assert.equal(0, packets.checksum(parsed.source .. parsed.destination .. "\0\6\0\31" .. parsed.payload))
  end)

  it("has the bytes it should have: ARP and neighbour discovery", function()
    assert.equal(hex(frames.arp { operation = 2, host = B, target = A, target_station = frames.OWN }),
      hex(built { ethernet = { destination = "02:00:00:00:00:01", source = "02:00:00:00:00:02" },
        arp = { operation = 2, sender_mac = "02:00:00:00:00:02", sender_address = B,
          target_mac = "02:00:00:00:00:01", target_address = A } }))
    assert.equal(hex(frames.nd { type = 136, source = B6, destination = packets.bytes(A6), target = B6, flags = 0x60,
      options = "\2\1\2\0\0\0\0\2" }),
      hex(built { ethernet = { destination = "02:00:00:00:00:01", source = "02:00:00:00:00:02" },
        ipv6 = { source = B6, destination = A6 }, icmpv6 = { type = 136, target = B6, solicited = true, override = true,
          options = { { type = "target_link_layer_address", address = "02:00:00:00:00:02" } } } }))
  end)

  it("has the extension headers, and the checksum of where it goes in the end", function()
    local data = built { ipv6 = { source = A6, destination = "fd00::9", extensions = {
      { type = "hop_by_hop", options = { { type = 5, data = "\0\0" } } },
      { type = "routing", routing_type = 2, segments_left = 1, data = "\0\0\0\0" .. packets.bytes(B6) },
      { type = "destination" },
      { type = "fragment", id = 5 } } }, udp = { source_port = 1, destination_port = 2 }, payload = "x" }
    local direct = packets.udp(A6, 1, B6, 2, "x")
    assert.equal("002b0005020000" .. "01" .. "00", hex(data:sub(7, 7) .. data:sub(41, 48)))
    assert.equal("3c020201" .. "00000000" .. hex(packets.bytes(B6)), hex(data:sub(49, 72)))
    assert.equal("2c00010400000000" .. "1100000000000005", hex(data:sub(73, 88)))
    assert.equal(hex(direct:sub(41)), hex(data:sub(89)))
  end)

  it("keeps what is given, right or wrong", function()
    local data = built {
      ipv4 = ip4 { total_length = 9, header_length = 24, checksum = 1, protocol = 99, reserved = true },
      udp = { source_port = 1, destination_port = 2, length = 3, checksum = 4 }, trailer = "pad" }
    assert.equal("4600000900008000406300010a0000010a000002" .. "0001000200030004" .. "706164", hex(data))
    -- Unless it is to be filled in.
    local parts = assert(packet.dissect(packets.udp(A, 1, B, 2, "data")))
    parts.payload, parts.ipv4.ttl = "more data", 3
    assert.equal(hex(packets.ip(A, B, 17, packets.udp(A, 1, B, 2, "more data"):sub(21), { ttl = 3 })),
      hex(built(parts, { fill = true })))
    assert.is_false(assert(packet.dissect(built(parts))).udp.checksum_ok)
  end)

  it("takes flags as letters, and nothing that is none", function()
    local function flags(value)
      local data, err = packet.build { ipv4 = ip4(), tcp = { source_port = 1, destination_port = 2, flags = value } }
      return data and data:byte(34) or err
    end
    assert.same({ 18, 18, 255, 0, 18 }, { flags "SA", flags "S.", flags "FSRPAUEC", flags "",
      flags { syn = true, ack = true, fin = false } })
    assert.equal("tcp.flags: unknown flag 'X'", flags "SX")
    assert.equal("tcp.flags: unknown field 'sin'", flags { sin = true })
  end)

  it("is refused with the field's name when it cannot be", function()
    local tcp = { source_port = 1, destination_port = 2 }
    local function with(fields)
      for key, value in pairs(tcp) do if fields[key] == nil then fields[key] = value end end
      return { ipv4 = ip4(), tcp = fields }
    end
    for err, parts in pairs {
      ["ipv4.destination: missing"] = { ipv4 = { source = A } },
      ["ipv4.source: IPv4 address expected, got fd00::1"] = { ipv4 = ip4 { source = A6 } },
      ["ipv4: unknown field 'src'"] = { ipv4 = ip4 { src = A } },
      ["ipv4.ttl: out of range: 0 to 255"] = { ipv4 = ip4 { ttl = 256 } },
      ["ipv4.fragment_offset: multiple of 8 expected"] = { ipv4 = ip4 { fragment_offset = 4 } },
      ["ipv4: 65535 bytes at most, with its header"] = { ipv4 = ip4(), payload = ("x"):rep(65516) },
      ["tcp.source_port: missing"] = { ipv4 = ip4(), tcp = {} },
      ["tcp.window: number has no integer representation"] = with { window = 1.5 },
      ["tcp.window: number expected, got string"] = with { window = "1" },
      ["tcp.seq: out of range: 0 to 4294967295"] = with { seq = -1 },
      ["tcp.options: 40 bytes at most"] = with { options = { { type = 9, data = ("x"):rep(39) } } },
      ["tcp.options: unknown option 'maximum'"] = with { options = { "maximum" } },
      ["tcp.options.mss: out of range: 0 to 65535"] = with { options = { mss = 65536 } },
      ["packet: both tcp and udp"] = { ipv4 = ip4(), tcp = tcp, udp = { source_port = 1, destination_port = 1 } },
      ["packet: unknown field 'data'"] = { ipv4 = ip4(), data = "" },
      ["icmpv6: not over ipv4"] = { ipv4 = ip4(), icmpv6 = { type = 128 } },
      ["checksum: without ipv4 or ipv6 it has to be given"] = { tcp = tcp },
      ["ethernet.source: missing"] = { ethernet = { destination = "02:00:00:00:00:01" }, ipv4 = ip4() },
      ["arp.sender_mac: station address expected, got 2"] = { arp = { sender_mac = "2", sender_address = A,
        target_address = B } },
      ["ipv6.extensions[1].type: hop_by_hop, routing, fragment or destination expected"] = {
        ipv6 = { source = A6, destination = B6, extensions = { {} } } },
    } do
      local data, why = packet.build(parts)
      assert.is_nil(data)
      assert.equal(err, why)
    end
    assert.matches("bad argument #1 to 'build' %(table expected, got nil%)", packets.failure(packet.build))
    assert.matches("bad argument #2 to 'dissect' %(option 'link'", packets.failure(packet.dissect, "", { link = "x" }))
  end)
end)

describe("a packet that is taken apart", function()
  it("has the fields that were put into it", function()
    local tcp = { source_port = 1, destination_port = 80, seq = 5, ack = 6, flags = { syn = true, ack = true },
      window = 7, urgent = 0, header_length = 60, checksum_ok = true, options = { "mss", "nop", "window_scale",
        "sack_permitted", "timestamps", { type = 254, data = "abc" }, "sack", "nop", "nop", "eol",
        mss = 1460, window_scale = 7, sack_permitted = true,
        timestamps = { value = 1, echo = 4294967295 }, sack = { { left = 1, right = 2 } } } }
    local data = built { ipv4 = ip4 { options = { { type = 148, data = "\0\0" }, "nop" } }, tcp = tcp,
      payload = "data" }
    local parts = assert(packet.dissect(data))
    tcp.checksum = parts.tcp.checksum
    assert.same({ payload = "data", tcp = tcp, ipv4 = ip4 { ttl = 64, protocol = 6, tos = 0, id = 0,
      fragment_offset = 0,
      dont_fragment = false, more_fragments = false, header_length = 28, total_length = #data, checksum_ok = true,
      checksum = parts.ipv4.checksum, options = { { type = 148, data = "\0\0" }, "nop", "eol" } } }, parts)
  end)

  it("tells wrong checksums, each its own", function()
    local cases = {
      udp = packets.udp(A, 1, B, 2, "data"), icmp = packets.icmp(A, B, 8, 0, "\0\0\0\0data"),
      icmpv6 = packets.icmp(A6, B6, 128, 0, "\0\0\0\0data"),
      tcp = built { ipv6 = { source = A6, destination = B6 }, tcp = { source_port = 1, destination_port = 2 },
        payload = "data" },
      igmp = built { ipv4 = ip4(), igmp = { type = 0x16, group = "224.1.2.3" }, payload = "data" },
    }
    for name, data in pairs(cases) do
      local parts = assert(packet.dissect(data))
      assert.is_true(parts[name].checksum_ok, name)
      assert.is_not_false(not parts.ipv4 or parts.ipv4.checksum_ok)
      assert.is_nil(parts.malformed)
      parts = assert(packet.dissect(data:sub(1, -2) .. "A"))
      assert.is_false(parts[name].checksum_ok, name)
      assert.is_nil(assert(packet.dissect(data:sub(1, -2)))[name].checksum_ok) -- it was cut
      assert.is_true(assert(packet.dissect(data:sub(1, -2))).truncated)
    end
    local data = cases.udp
    assert.is_false(packet.dissect(data:sub(1, 8) .. "\63" .. data:sub(10)).ipv4.checksum_ok)
    assert.is_nil(packet.dissect(data:sub(1, 26) .. "\0\0" .. data:sub(29)).udp.checksum_ok) -- there is none
  end)

  it("keeps what it does not understand", function()
    assert.same({ payload = "anything", ethernet = { destination = "01:02:03:04:05:06", source = "07:08:09:0a:0b:0c",
      type = 0x88cc } }, packet.dissect("\1\2\3\4\5\6\7\8\9\10\11\12\136\204anything", { link = "ethernet" }))
    local parts = packet.dissect(packets.ip(A, B, 132, "sctp"))
    assert.equal("sctp", parts.payload)
    assert.equal(132, parts.ipv4.protocol)
    parts = packet.dissect(packets.ip(A, B, 6, "abc"))
    assert.equal("abc", parts.payload)
    assert.equal("tcp: truncated", parts.malformed)
    parts = packet.dissect(packets.udp(A, 1, B, 2, "x") .. "padding")
    assert.equal("x", parts.payload)
    assert.equal("padding", parts.trailer)
    assert.same({ nil, "neither IPv4 nor IPv6" }, { packet.dissect("") })
    assert.same({ nil, "ipv4: truncated" }, { packet.dissect("\69") })
    assert.same({ nil, "ethernet: truncated" }, { packet.dissect("\69", { link = "ethernet" }) })
  end)

  it("has the messages of routers and of multicast", function()
    local link_local = "fe80::1"
    local sent = {
      { type = 134, code = 0, hop_limit = 64, managed = true, other = false, home_agent = false, preference = 3,
        proxy = false, router_lifetime = 1800, reachable_time = 1000, retransmit_timer = 2000, options = {
          { type = "prefix_information", prefix = "fd07::", prefix_length = 64, on_link = true, autonomous = true,
            router = false, valid_lifetime = 4294967295, preferred_lifetime = 60 },
          { type = "mtu", mtu = 1400 },
          { type = "recursive_dns_server", lifetime = 90, addresses = { "fd07::53", "fd07::54" } },
          { type = 31, data = "\0\0\0\0\0\60" } } },
      { type = 133, code = 0, options = { { type = "source_link_layer_address", address = "02:00:00:00:00:09" } } },
      { type = 137, code = 0, target = "fe80::9", destination = "fd08::1", options = {} },
      { type = 130, code = 0, max_response = 1000, group = "ff02::db8", suppress = true, robustness = 2,
        query_interval = 125, source_count = 1, sources = { "fd07::1" } },
      { type = 131, code = 0, max_response = 0, group = "ff02::db8" },
      { type = 143, code = 0, record_count = 2, records = {
        { type = 4, auxiliary_length = 0, source_count = 0, group = "ff02::1:3", sources = {} },
        { type = 1, auxiliary_length = 1, source_count = 2, group = "ff02::9", sources = { "fd07::1", "fd07::2" },
          auxiliary = "more" } } },
    }
    local hops = { 255, 255, 255, 1, 1, 1 }
    for i, fields in ipairs(sent) do
      local parts = assert(packet.dissect(built { ipv6 = { source = link_local, destination = "ff02::1" },
        icmpv6 = fields }))
      fields.checksum, fields.checksum_ok = parts.icmpv6.checksum, true
      assert.same(fields, parts.icmpv6)
      assert.equal("", parts.payload)
      assert.equal(hops[i], parts.ipv6.hop_limit)
    end
    for _, fields in ipairs {
      { type = 0x11, max_response = 100, group = "0.0.0.0" },
      { type = 0x11, max_response = 100, group = "224.1.2.3", suppress = false, robustness = 2, query_interval = 125,
        source_count = 2, sources = { A, B } },
      { type = 0x17, max_response = 0, group = "224.1.2.3" },
      { type = 0x22, record_count = 1, records = {
        { type = 3, auxiliary_length = 0, source_count = 1, group = "224.1.2.3", sources = { A } } } },
    } do
      local parts = assert(packet.dissect(built { ipv4 = ip4(), igmp = fields }))
      fields.checksum, fields.checksum_ok = parts.igmp.checksum, true
      assert.same(fields, parts.igmp)
      assert.equal(1, parts.ipv4.ttl)
    end
  end)

  it("comes back as it was: all that stacks send, also filled in anew", function()
    local list, kinds, wrong = traffic.everything(), {}, {}
    for _, item in ipairs(list) do
      local parts = assert(packet.dissect(item.data, { link = item.link }))
      local line = packet.summary(item.data, { link = item.link })
      if parts.malformed or parts.truncated or line:find("bad", 1, true) or packet.build(parts) ~= item.data then
        wrong[#wrong + 1] = line
      end
      local none = parts.udp and parts.udp.checksum == 0 -- none is none, until it is filled in
      if not none and packet.build(parts, { fill = true }) ~= item.data then wrong[#wrong + 1] = "filled " .. line end
      for name in pairs(parts) do kinds[name] = true end
    end
    assert.same({}, wrong)
    for _, name in ipairs { "ethernet", "arp", "ipv4", "ipv6", "tcp", "udp", "icmp", "icmpv6" } do
      assert.is_true(kinds[name], name)
    end
    assert.is_true(#list > 300)
  end)

  it("comes back as it was: all that the hosts and routers of a lab send", function()
    local path, wrong, seen = os.tmpname(), {}, {}
    local events = lab_traffic.record(path)
    os.remove(path)
    for _, event in ipairs(events) do
      local parts = assert(packet.dissect(event.packet, { link = event.link }))
      if parts.malformed or parts.truncated or packet.build(parts) ~= event.packet then
        wrong[#wrong + 1] = packet.summary(event.packet, { link = event.link })
      end
      for name in pairs(parts) do seen[name] = true end
    end
    assert.same({}, wrong)
    for _, name in ipairs { "ethernet", "arp", "ipv4", "ipv6", "tcp", "udp", "icmp", "icmpv6", "igmp" } do
      assert.is_true(seen[name], name)
    end
  end)
end)

-- Something that looks like a packet at first.
local function heads()
  local list = { { "", "ip" }, { "", "ethernet" }, { ("\2"):rep(12) .. "\8\6\0\1\8\0\6\4", "ethernet" },
    { ("\2"):rep(12) .. "\134\221", "ethernet" } }
  local function add(text) list[#list + 1] = { text, "ip" } end
  for _, protocol in ipairs { 1, 2, 6, 17 } do
    add("\69\0\0\90\0\0\0\0\64" .. string.char(protocol) .. "\0\0\1\2\3\4\5\6\7\8")
    add("\74\0\0\90\0\0\0\0\64" .. string.char(protocol))
  end
  local addresses = ("\253\0"):rep(16)
  for _, header in ipairs { 0, 6, 17, 43, 44, 58, 60 } do
    add("\96\0\0\0\0\80" .. string.char(header, 64) .. addresses)
  end
  for kind = 128, 144 do add("\96\0\0\0\0\80\58\64" .. addresses .. string.char(kind)) end
  for _, kind in ipairs { 0x11, 0x22 } do add("\69\0\0\90\0\0\0\0\64\2\0\0\1\2\3\4\5\6\7\8" .. string.char(kind)) end
  return list
end

describe("whatever the bytes are,", function()
  local random, list = helper.random(7), heads()
  local function bytes(n)
    local parts = {}
    for i = 1, n do parts[i] = string.char(random(3) > 0 and random(256) or random(2)) end
    return table.concat(parts)
  end

  it("taking them apart raises nothing and loses nothing", function()
    local understood = 0
    for _ = 1, 20000 do
      local head = list[random(#list) + 1]
      local data = head[1] .. bytes(random(100))
      if random(3) == 0 then data = data:sub(1, random(#data + 1)) end
      local parts = packet.dissect(data, { link = head[2] })
      packet.summary(data, { link = head[2] })
      if parts then
        understood = understood + 1
        local back, err = packet.build(parts)
        if back ~= data then error(("%s, %s: %s"):format(head[2], hex(data), err or hex(back))) end
      end
    end
    assert.is_true(understood > 10000)
  end)

  it("every packet that stacks send can be cut anywhere", function()
    for i, item in ipairs(traffic.everything()) do
      if i % 3 == 0 then
        for length = 0, math.min(#item.data, 120) do
          local data = item.data:sub(1, length)
          local parts = packet.dissect(data, { link = item.link })
          assert.is_true(parts == nil or packet.build(parts) == data)
        end
      end
    end
  end)

  it("building raises nothing, whatever stands in a table", function()
    local strange = { -1, 1.5, 0 / 0, 1 / 0, 2 ^ 53, "x", "", true, {}, { {} }, { { type = 300 } }, { a = 1 }, print }
    for i, item in ipairs(traffic.everything()) do
      if i % 5 == 0 then
        local parts = assert(packet.dissect(item.data, { link = item.link }))
        local tables = { parts }
        for _, layer in pairs(parts) do if type(layer) == "table" then tables[#tables + 1] = layer end end
        for _, fields in ipairs(tables) do
          local keys = {}
          for key in pairs(fields) do keys[#keys + 1] = key end
          for _, key in ipairs(keys) do
            local before = fields[key]
            fields[key] = strange[random(#strange) + 1]
            local data, err = packet.build(parts)
            assert.equal(data and "nil" or "string", type(err))
            fields[key] = before
          end
        end
      end
    end
  end)
end)

describe("a packet in one line", function()
  it("reads as tcpdump would write it", function()
    local port = { source_port = 1000, destination_port = 80 }
    local function tcp(fields)
      for key, value in pairs(port) do fields[key] = value end
      return packet.summary(built { ipv4 = ip4(), tcp = fields, payload = fields.seq == 9 and "data" or nil })
    end
    assert.equal("IP 10.0.0.1.1000 > 10.0.0.2.80: Flags [S], seq 1, win 65535, options [mss 1460,nop,wscale 7], " ..
      "length 0",
      tcp { seq = 1, flags = "S", options = { "mss", "nop", "window_scale", mss = 1460, window_scale = 7 } })
    assert.equal("IP 10.0.0.1.1000 > 10.0.0.2.80: Flags [P.], seq 9:13, ack 5, win 7, length 4",
      tcp { seq = 9, ack = 5, flags = "PA", window = 7 })
    local udp = packets.udp(A6, 1, B6, 9, "data")
    assert.equal("IP6 fd00::1.1 > fd00::2.9: UDP, length 4", packet.summary(udp))
    assert.equal("IP6 fd00::1.1 > fd00::2.9: UDP, length 4 [bad udp checksum]", packet.summary(udp:sub(1, -2) .. "A"))
    assert.equal("IP 10.0.0.1 > 10.0.0.2: ICMP echo request, id 1, seq 2, length 12",
      packet.summary(packets.icmp(A, B, 8, 0, "\0\1\0\2data")))
    assert.equal("IP 10.0.0.2 > 10.0.0.1: ICMP 10.0.0.2 udp port 9 unreachable, length 36",
      packet.summary(packets.icmp(B, A, 3, 3, "\0\0\0\0" .. packets.udp(A, 1, B, 9, "long data"):sub(1, 28))))
    assert.equal("ARP, Request who-has 10.0.0.1 tell 10.0.0.2, length 28",
      packet.summary(frames.arp { operation = 1, host = B, target = A }, { link = "ethernet" }))
    assert.equal("IP6 fd00::2 > fd00::1: ICMP6, neighbor solicitation, who has fd00::1",
      packet.summary(frames.nd { source = B6, target = A6 }, { link = "ethernet" }))
    assert.equal("neither IPv4 nor IPv6, length 3", packet.summary("\1\2\3"))
  end)
end)
