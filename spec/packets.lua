-- Packets by hand, for specs that drive a pipe end themselves: to build, to take apart, to let nobody wait.
local core = require "netstack.core"

local char, floor = string.char, math.floor

local M = {}

function M.u16(value)
  return char(floor(value / 256) % 256, value % 256)
end
local u16 = M.u16

function M.get16(data, at)
  local a, b = data:byte(at, at + 1)
  return a * 256 + b
end
local get16 = M.get16

function M.checksum(data)
  local sum = 0
  for i = 1, #data - 1, 2 do sum = sum + get16(data, i) end
  if #data % 2 == 1 then sum = sum + data:byte(-1) * 256 end
  while sum > 0xffff do sum = sum % 0x10000 + floor(sum / 0x10000) end
  return 0xffff - sum
end
local checksum = M.checksum

-- The four or sixteen bytes of an address.
local function bytes(text)
  return assert(core.parse_address(text))
end
M.bytes = bytes

-- options: ttl, id, header_options (of a multiple of 4 bytes), fragment (the field of flags and offset), length and
-- checksum as they are to be sent
function M.ipv4(source, destination, protocol, payload, options)
  options = options or {}
  local behind = options.header_options or ""
  local header = char(0x45 + #behind / 4, 0) .. u16(options.length or 20 + #behind + #payload) ..
    u16(options.id or 0) ..
    u16(options.fragment or 0) .. char(options.ttl or 64, protocol)
  local addresses = bytes(source) .. bytes(destination)
  local sum = options.checksum or checksum(header .. "\0\0" .. addresses .. behind)
  return header .. u16(sum) .. addresses .. behind .. payload
end

function M.ipv6(source, destination, next_header, payload, options)
  options = options or {}
  return "\96\0\0\0" .. u16(options.length or #payload) .. char(next_header, options.ttl or 64) ..
    bytes(source) .. bytes(destination) .. payload
end

-- A packet of the addresses' family.
function M.ip(source, destination, protocol, payload, options)
  local build = source:find(":", 1, true) and M.ipv6 or M.ipv4
  return build(source, destination, protocol, payload, options)
end

-- The checksum of a transport protocol, with its pseudo header, at an offset of the message.
local function with_checksum(source, destination, protocol, message, at)
  local from, to = bytes(source), bytes(destination)
  local pseudo = from .. to .. (#from == 4 and char(0, protocol) .. u16(#message) or
    "\0\0" .. u16(#message) .. "\0\0\0" .. char(protocol))
  local sum = checksum(pseudo .. message)
  return message:sub(1, at) .. u16(sum == 0 and 0xffff or sum) .. message:sub(at + 3)
end

local ROUTER_ALERT4, ROUTER_ALERT6 = "\148\4\0\0", "\58\0\5\2\0\0\1\0" -- RFC 2113, RFC 2711 in its header

-- A message of IGMP, or of multicast listener discovery, as the addresses ask for, about a group ("" or bytes).
-- options: within (of a query, in the protocol's units), ttl, alert = false, rest (behind the message)
function M.group_message(source, destination, kind, group, options)
  options = options or {}
  local ttl, within, rest = options.ttl or 1, options.within or 0, options.rest or ""
  if source:find(":", 1, true) then
    local message = char(kind, 0) .. "\0\0" .. u16(within) .. "\0\0" .. bytes(group) .. rest
    message = with_checksum(source, destination, 58, message, 2)
    if options.alert == false then return M.ipv6(source, destination, 58, message, { ttl = ttl }) end
    return M.ipv6(source, destination, 0, ROUTER_ALERT6 .. message, { ttl = ttl })
  end
  local message = char(kind, within) .. "\0\0" .. bytes(group) .. rest
  return M.ipv4(source, destination, 2, message:sub(1, 2) .. u16(checksum(message)) .. message:sub(5),
    { ttl = ttl, id = options.id, fragment = options.fragment,
      header_options = options.alert ~= false and ROUTER_ALERT4 or nil })
end

function M.udp(source, source_port, destination, destination_port, data)
  local message = u16(source_port) .. u16(destination_port) .. u16(8 + #data) .. "\0\0" .. data
  return M.ip(source, destination, 17, with_checksum(source, destination, 17, message, 6))
end

-- An ICMP or ICMPv6 message, whichever the addresses ask for.
function M.icmp(source, destination, kind, code, rest)
  local message = char(kind, code) .. "\0\0" .. rest
  if source:find(":", 1, true) then
    return M.ipv6(source, destination, 58, with_checksum(source, destination, 58, message, 2))
  end
  return M.ipv4(source, destination, 1, char(kind, code) .. u16(checksum(message)) .. rest)
end

-- One fragment; offset in bytes.
function M.fragment6(source, destination, next_header, id, offset, more, data)
  return M.ipv6(source, destination, 44,
    char(next_header, 0) .. u16(offset + (more and 1 or 0)) .. u16(0) .. u16(id) .. data)
end

-- What a packet says.
function M.parse(packet)
  local version = floor(packet:byte(1) / 16)
  local p = { version = version }
  local at
  if version == 4 then
    at = packet:byte(1) % 16 * 4 + 1
    p.length, p.fragment, p.ttl, p.protocol = get16(packet, 3), get16(packet, 7), packet:byte(9), packet:byte(10)
    p.tos, p.checksum = packet:byte(2), get16(packet, 11)
    p.source, p.destination = packet:sub(13, 16), packet:sub(17, 20)
  else
    at = 41
    p.length, p.protocol, p.ttl = get16(packet, 5) + 40, packet:byte(7), packet:byte(8)
    p.source, p.destination = packet:sub(9, 24), packet:sub(25, 40)
  end
  p.payload = packet:sub(at)
  if p.protocol == 17 and #p.payload >= 8 then
    p.source_port, p.destination_port = get16(p.payload, 1), get16(p.payload, 3)
    p.udp_length, p.udp_checksum = get16(p.payload, 5), get16(p.payload, 7)
    p.data = p.payload:sub(9)
  elseif p.protocol == 6 then
    p.source_port, p.destination_port = get16(p.payload, 1), get16(p.payload, 3)
    p.flags = p.payload:byte(14)
    p.data = p.payload:sub(floor(p.payload:byte(13) / 16) * 4 + 1)
  end
  return p
end

-- A UDP packet on its way back to where it came from. The addresses' sum stays, and so does the checksum.
function M.swapped(packet)
  local p = M.parse(packet)
  local header = p.version == 4 and packet:sub(1, 12) or packet:sub(1, 8)
  return header .. p.destination .. p.source .. p.payload:sub(3, 4) .. p.payload:sub(1, 2) .. p.payload:sub(5)
end

-- Whether `fn` runs into an error, and which.
function M.failure(fn, ...)
  local ok, err = pcall(fn, ...)
  if ok then error("it did not raise", 2) end
  return err
end

-- Every packet that lies in a pipe end.
function M.drain(pipe_end)
  local packets = {}
  local packet = pipe_end:receive()
  while packet do
    packets[#packets + 1] = packet
    packet = pipe_end:receive()
  end
  return packets
end

-- Polls stacks until none of them has anything to do at `now`.
function M.settle(now, ...)
  local worked
  repeat
    worked = false
    for i = 1, select("#", ...) do
      if (select(i, ...)):poll(now) then worked = true end
    end
  until not worked
end

-- The drops that a trace tells while fn runs.
function M.drops(stack, fn)
  local causes = {}
  stack:trace(function(event)
    if event.type == "drop" then causes[#causes + 1] = event.cause end
  end)
  fn()
  stack:trace(nil)
  return causes
end

-- After a spec: the stacks have no sockets and lwIP holds no memory any more, then they are closed.
function M.leaves_nothing(...)
  for i = 1, select("#", ...) do
    local stack = select(i, ...)
    local stats = stack:stats()
    if stats and not stats.closed then
      local sockets = stack:sockets()
      if #sockets > 0 then error(("%s has %d sockets left"):format(tostring(stack), #sockets), 2) end
      if stats.memory.blocks > 0 then
        error(("%s has %d blocks left"):format(tostring(stack), stats.memory.blocks), 2)
      end
    end
    stack:close()
  end
end

return M
