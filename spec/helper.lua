-- What the specs of whole stacks share: stacks that are checked for leaks, streams of data, bad links between stacks,
-- and TCP by hand.
local assert = require "luassert"
local netstack = require "netstack"

local byte, char, concat, floor = string.byte, string.char, table.concat, math.floor

local M = {}

--- Both families, and the addresses that `netstack.pair` and `netstack.piped` give.
M.families = {
  { name = "IPv4", a = "10.0.0.1", b = "10.0.0.2", nobody = "10.0.0.9", any = "0.0.0.0", inet = "inet", header = 20,
    outside = "10.9.9.9", loopback = "127.0.0.1" },
  { name = "IPv6", a = "fd00::1", b = "fd00::2", nobody = "fd00::9", any = "::", inet = "inet6", header = 40,
    outside = "fd99::1", loopback = "::1" },
}
M.IPV4, M.IPV6 = M.families[1], M.families[2]

-- ---------------------------------------------------------------------------------------------------- leaks

local open = {} -- stacks of the spec that is on

--- Has a stack checked by `nothing_left`.
function M.watch(...)
  for i = 1, select("#", ...) do open[#open + 1] = (select(i, ...)) end
  return ...
end

--- `netstack.pair`, watched.
function M.pair(config, pipe)
  return M.watch(assert(netstack.pair(config, pipe)))
end

--- `netstack.piped`, watched.
function M.piped(config)
  local stack, far = assert(netstack.piped(config))
  M.watch(stack)
  return stack, far
end

--- For after_each: no watched stack that is still open holds a socket or a block of memory, once TIME_WAIT is over.
function M.nothing_left()
  local stacks = open
  open = {}
  netstack.run(function() netstack.sleep(2.5) end)
  for _, stack in ipairs(stacks) do
    local stats = stack:stats()
    if stats and not stats.closed then
      local sockets = stack:sockets()
      assert.equal(0, #sockets, stack:name() .. " has a socket left: " .. tostring(sockets[1] and sockets[1].state))
      assert.equal(0, stats.sockets)
      assert.equal(0, stats.tcp.connections)
      assert.equal(0, stats.tcp.time_wait)
      assert.equal(0, stats.queued_commands)
      assert.equal(0, stats.memory.blocks, stack:name() .. " has memory left")
      assert.equal(0, stats.memory.bytes)
    end
    stack:close()
  end
end

--- A connection between two stacks: the client's end, the server's end. In a run.
function M.connection(a, b, family, port)
  local listener = assert(b:bind(family.b, port or 80))
  local client = assert(a:connect(family.b, port or 80))
  local server = assert(listener:accept())
  listener:close()
  return client, server
end

--- Accepts until the listener closes, in a daemon. `handle` is called with each connection, in a task of its own.
function M.serve(listener, handle)
  netstack.daemon(function()
    local server = listener:accept()
    while server do
      netstack.spawn(handle, server)
      server = listener:accept()
    end
  end)
end

-- ---------------------------------------------------------------------------------------------------- data

--- A seeded generator: `random(n)` is an integer from 0 to n - 1, `random()` a number from 0 to 1. The same everywhere.
function M.random(seed)
  local state = seed % 2147483646 + 1
  return function(n)
    state = state * 16807 % 2147483647 -- Park and Miller: the product is below 2^53
    local share = (state - 1) / 2147483646
    return n and floor(share * n) or share
  end
end

local PERIOD = 65521 -- a prime: it falls in with no size of segments, buffers or chunks

--- An endless stream of known bytes, another one for each seed.
-- `next(n)` gives the next n bytes, n at most 65536.
function M.stream(seed)
  local random, bytes = M.random(seed), {}
  for i = 1, PERIOD do bytes[i] = char(random(256)) end
  local text = concat(bytes):rep(3)
  local position = 0
  return function(n)
    local part = text:sub(position + 1, position + n)
    position = (position + n) % PERIOD
    return part
  end
end

--- Sends the first `total` bytes of a stream.
function M.send_stream(socket, seed, total, chunk)
  local next_bytes = M.stream(seed)
  local left = total
  chunk = chunk or 65536
  while left > 0 do
    local part = next_bytes(chunk < left and chunk or left)
    local sent, err, at = socket:send(part)
    if sent ~= #part then error(("sent %s, %s, %s"):format(tostring(sent), tostring(err), tostring(at)), 2) end
    left = left - #part
  end
end

--- Receives a stream up to its end and compares it; returns how many bytes there were.
function M.receive_stream(socket, seed, chunk)
  local next_bytes = M.stream(seed)
  local total = 0
  while true do
    local part, err = socket:receive_some(chunk or 65536)
    if not part then
      if err ~= "closed" then error(("after %d bytes: %s"):format(total, err), 2) end
      return total
    end
    if part ~= next_bytes(#part) then error(("other bytes between %d and %d"):format(total, total + #part), 2) end
    total = total + #part
  end
end

--- Moves `total` bytes each way at once over a connection, half-closes both ways, and closes. In a run.
function M.exchange(client, server, total, chunk)
  local function talk(socket, mine, theirs)
    local writer = netstack.spawn(function()
      M.send_stream(socket, mine, total, chunk)
      assert(socket:shutdown("send"))
    end)
    assert.equal(total, M.receive_stream(socket, theirs, chunk))
    writer:join()
    socket:close()
  end
  local one = netstack.spawn(talk, client, 1, 2)
  local other = netstack.spawn(talk, server, 2, 1)
  one:join()
  other:join()
end

-- ---------------------------------------------------------------------------------------------------- links

--- Two stacks whose devices are Lua functions, with a link between them that does what `rule` says.
-- @param rule probabilities `drop`, `duplicate`, `delay` (by up to `late` seconds, 0.02), `swap` (with the packet after
-- it); `seed`; `tap(from, packet)` sees each packet before that
function M.bad_link(rule, config)
  local random, late = M.random(rule.seed or 1), rule.late or 0.02
  local stacks, devices, held = {}, {}, {}
  local counts = { drop = 0, duplicate = 0, delay = 0, swap = 0, packets = 0 }
  local function happens(what)
    if not rule[what] or random() >= rule[what] then return false end
    counts[what] = counts[what] + 1
    return true
  end
  for i = 1, 2 do
    local function deliver(packet)
      devices[3 - i]:input(packet)
    end
    devices[i] = netstack.device {
      mtu = config and config.mtu or 1500,
      transmit = function(packet)
        counts.packets = counts.packets + 1
        if rule.tap then rule.tap(i, packet) end
        if happens("drop") then return end
        if happens("duplicate") then deliver(packet) end
        if happens("delay") then
          local time = random() * late
          netstack.daemon(function()
            netstack.sleep(time)
            deliver(packet)
          end)
          return
        end
        if not held[i] and happens("swap") then
          held[i] = packet
          return
        end
        local before = held[i]
        held[i] = nil
        deliver(packet)
        if before then deliver(before) end
      end,
    }
    local own = {}
    for key, value in pairs(config or {}) do own[key] = value end
    own.seed = (config and config.seed or 1) + i
    stacks[i] = assert(netstack.new(own))
    assert(stacks[i]:attach(devices[i], { addresses = { "10.0.0." .. i .. "/24", "fd00::" .. i .. "/64" } }))
  end
  M.watch(stacks[1], stacks[2])
  return stacks[1], stacks[2], counts
end

-- ---------------------------------------------------------------------------------------------------- TCP by hand

M.FIN, M.SYN, M.RST, M.PSH, M.ACK = 1, 2, 4, 8, 16

local function u16(value)
  return char(floor(value / 256) % 256, value % 256)
end

local function u32(value)
  value = value % 4294967296
  return u16(floor(value / 65536)) .. u16(value % 65536)
end

local function at16(text, position)
  local high, low = byte(text, position, position + 1)
  return high * 256 + low
end

local function at32(text, position)
  return at16(text, position) * 65536 + at16(text, position + 2)
end

--- Whether a flag is set.
function M.has(segment, flag)
  return floor(segment.flags / flag) % 2 == 1
end

--- The fields of a packet with a TCP segment.
function M.parse(packet)
  local ipv6 = floor(byte(packet, 1) / 16) == 6
  local start = ipv6 and 40 or byte(packet, 1) % 16 * 4
  assert.equal(6, byte(packet, ipv6 and 7 or 10)) -- TCP
  local header = floor(byte(packet, start + 13) / 16) * 4
  local segment = {
    packet = packet,
    ipv6 = ipv6,
    ttl = byte(packet, ipv6 and 8 or 9),
    tos = ipv6 and byte(packet, 1) % 16 * 16 + floor(byte(packet, 2) / 16) or byte(packet, 2),
    from_port = at16(packet, start + 1), to_port = at16(packet, start + 3),
    seq = at32(packet, start + 5), ack = at32(packet, start + 9),
    flags = byte(packet, start + 14), window = at16(packet, start + 15),
    options = packet:sub(start + 21, start + header), data = packet:sub(start + header + 1),
  }
  local names = {}
  for _, name in ipairs { "SYN", "FIN", "RST", "PSH", "ACK" } do
    if M.has(segment, M[name]) then names[#names + 1] = name end
  end
  segment.kind = concat(names, " ")
  return segment
end

--- A packet from the far end (…2) to the stack of `netstack.piped` (…1), checksums zero.
function M.build(family, segment)
  local options = segment.options or ""
  local tcp = u16(segment.from_port) .. u16(segment.to_port) .. u32(segment.seq) .. u32(segment.ack or 0) ..
    char((5 + #options / 4) * 16, segment.flags) .. u16(segment.window or 65535) .. "\0\0\0\0" .. options ..
    (segment.data or "")
  if family.name == "IPv4" then
    return "\69\0" .. u16(20 + #tcp) .. "\0\0\0\0\64\6\0\0\10\0\0\2\10\0\0\1" .. tcp
  end
  local prefix = "\253" .. ("\0"):rep(14)
  return "\96\0\0\0" .. u16(#tcp) .. "\6\64" .. prefix .. "\2" .. prefix .. "\1" .. tcp
end

local Peer = {}
Peer.__index = Peer

--- A TCP peer driven by hand on the far end of `netstack.piped`. It acknowledges only when told to.
function M.peer(far, family, port)
  return setmetatable({ far = far, family = family, port = port or 80, seq = 1000, ack = 0, window = 65535 }, Peer)
end

--- The next segment, with the time at which it came; nil when none came in time.
function Peer:take(timeout)
  local packet = self.far:receive(timeout)
  if not packet then return nil end
  local segment = M.parse(packet)
  segment.time = netstack.now()
  self.their_port = segment.from_port
  return segment
end

--- Takes a segment and counts what it carries as received.
function Peer:expect(kind, timeout)
  local segment = self:take(timeout)
  assert.is_table(segment, "no segment came, expected " .. kind)
  assert.equal(kind, segment.kind)
  self.ack = (segment.seq + #segment.data + (M.has(segment, M.SYN) and 1 or 0) + (M.has(segment, M.FIN) and 1 or 0)) %
    4294967296
  return segment
end

--- Sends a segment at the peer's place in the stream.
function Peer:send(flags, data, fields)
  local segment = { from_port = self.port, to_port = self.their_port, seq = self.seq, ack = self.ack, flags = flags,
    window = self.window, data = data }
  for key, value in pairs(fields or {}) do segment[key] = value end
  assert.equal(1, (self.far:send(M.build(self.family, segment))))
  if segment.seq == self.seq then
    self.seq = (self.seq + #(data or "") + (M.has(segment, M.SYN) and 1 or 0) + (M.has(segment, M.FIN) and 1 or 0)) %
      4294967296
  end
end

--- Answers the stack's connect.
function Peer:accept(timeout)
  self:expect("SYN", timeout)
  self:send(M.SYN + M.ACK, nil, { options = "\2\4\5\180" })
  local ack = self:expect("ACK", 1)
  assert.equal(self.seq, ack.ack)
end

--- Connects to the stack's listener at `port`.
function Peer:connect(port)
  self.their_port = port
  self:send(M.SYN, nil, { options = "\2\4\5\180" })
  self:expect("SYN ACK", 1)
  self:send(M.ACK)
end

--- A socket of the stack, connected to a peer by hand. In a run.
function M.by_hand(family, config)
  local stack, far = M.piped(config)
  local peer = M.peer(far, family)
  local task = netstack.spawn(function() return stack:connect(family.b, 80) end)
  peer:accept(1)
  return assert(task:join()), peer, stack
end

return M
