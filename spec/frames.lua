-- Frames by hand, for specs that drive the end of an Ethernet themselves.
local netstack = require "netstack"
local helper = require "spec.helper"
local packets = require "spec.packets"

local char, rep = string.char, string.rep
local u16, bytes = packets.u16, packets.bytes

local M = {}

--- The stack's station, its peer's, somebody else's, everybody's.
M.OWN, M.PEER, M.OTHER, M.ALL = "\2\0\0\0\0\1", "\2\0\0\0\0\2", "\2\0\0\0\0\3", rep("\255", 6)
local OWN, PEER = M.OWN, M.PEER

function M.frame(to, from, kind, data)
  return to .. from .. u16(kind) .. data
end
local frame = M.frame

--- An IP packet in a frame.
function M.ip(packet, to, from)
  return frame(to or OWN, from or PEER, packet:byte(1) >= 96 and 0x86dd or 0x0800, packet)
end

--- options: operation (1 request, 2 reply), sender's station and host, target's station and host, the frame's ends
function M.arp(o)
  local from = o.station or PEER
  return frame(o.to or OWN, o.from or from, 0x0806, "\0\1\8\0\6\4" .. u16(o.operation) .. from .. bytes(o.host) ..
    (o.target_station or rep("\0", 6)) .. bytes(o.target))
end

function M.solicited_node(host)
  return "\255\2" .. rep("\0", 9) .. "\1\255" .. bytes(host):sub(14, 16)
end

M.ALL_NODES = "\255\2" .. rep("\0", 13) .. "\1"

--- A message of neighbour discovery; o: source, destination (bytes), target, flags, options, hops, code, type
function M.nd(o)
  local message = char(o.type or 135, o.code or 0) .. "\0\0" .. char(o.flags or 0) .. "\0\0\0" .. bytes(o.target) ..
    (o.options or "")
  local source, destination = o.source and bytes(o.source) or rep("\0", 16), o.destination or bytes(o.target)
  local sum = packets.checksum(source .. destination .. "\0\0" .. u16(#message) .. "\0\0\0\58" .. message)
  local header = "\96\0\0\0" .. u16(#message) .. char(58, o.hops or 255) .. source .. destination
  return frame(o.to or OWN, o.from or PEER, 0x86dd, header .. message:sub(1, 2) .. u16(sum) .. message:sub(5))
end

local function u32(value)
  return u16(math.floor(value / 65536)) .. u16(value % 65536)
end

--- An option that advertises a prefix (RFC 4861 4.6.2); o: bits, flags (0x80 on the link, 0x40 for addresses), valid,
-- preferred (seconds)
function M.prefix(prefix, o)
  o = o or {}
  local valid = o.valid or 86400
  return char(3, 4, o.bits or 64, o.flags or 0xc0) .. u32(valid) .. u32(o.preferred or math.min(valid, 14400)) ..
    "\0\0\0\0" .. bytes(prefix)
end

--- An option that names DNS servers (RFC 8106), for so many seconds.
function M.servers(lifetime, ...)
  local all = { ... }
  for i, server in ipairs(all) do all[i] = bytes(server) end
  return char(25, 1 + 2 * #all) .. "\0\0" .. u32(lifetime) .. table.concat(all)
end

--- An option that tells the link's mtu.
function M.link_mtu(mtu)
  return "\5\1\0\0" .. u32(mtu)
end

--- A router's advertisement to all; o: source, lifetime, flags, options (a string, or a list of them), hops, code,
-- length (bytes of the message), destination, from
function M.router(o)
  local options = type(o.options) == "table" and table.concat(o.options) or o.options or ""
  local from = o.from or PEER
  local message = char(134, o.code or 0) .. "\0\0" .. char(64, o.flags or 0) .. u16(o.lifetime or 1800) ..
    "\0\0\0\0\0\0\0\0" .. options
  if o.length then message = message:sub(1, o.length) end
  local source, destination = bytes(o.source or "fe80::2"), o.destination or M.ALL_NODES
  local sum = packets.checksum(source .. destination .. "\0\0" .. u16(#message) .. "\0\0\0\58" .. message)
  local header = "\96\0\0\0" .. u16(#message) .. char(58, o.hops or 255) .. source .. destination
  return frame(o.destination and OWN or "\51\51\0\0\0\1", from, 0x86dd,
    header .. message:sub(1, 2) .. u16(o.sum or sum) .. message:sub(5))
end

--- What a frame is.
function M.kind(data)
  local type = packets.get16(data, 13)
  if type == 0x0806 then return data:byte(22) == 1 and "arp request" or "arp reply" end
  local packet = data:sub(15)
  if type == 0x86dd and packet:byte(7) == 58 then
    local names = { [128] = "ping", [129] = "pong", [133] = "router solicitation", [135] = "solicitation",
      [136] = "advertisement" }
    return names[packet:byte(41)] or "icmp6"
  end
  if type == 0x86dd and packet:byte(7) == 0 and packet:byte(41) == 58 then
    return ({ [130] = "query", [131] = "report", [132] = "done" })[packet:byte(49)] or "icmp6"
  end
  return type == 0x0800 and "ipv4" or "ipv6"
end

--- What the UDP datagram in a frame carries.
function M.data(frame_)
  return packets.parse(frame_:sub(15)).data
end

--- A stack 10.0.0.1, 10.0.0.3, fd00::1 at station 1 of an Ethernet whose other end we drive; in a run.
-- options: name, checksum, gateway, capacity, addresses; detecting: do not wait until the addresses are surely its own
function M.by_hand(options)
  options = options or {}
  local stack = helper.watch(netstack.new { seed = 1, name = options.name })
  local near, far = netstack.pipe { medium = "ethernet", mtu = 1500, capacity = options.capacity or 0,
    checksum = options.checksum }
  local interface = assert(stack:attach(near, { mac = "02:00:00:00:00:01", gateway = options.gateway,
    addresses = options.addresses or { "10.0.0.1/24", "10.0.0.3/24", "fd00::1/64" } }))
  local announced = packets.drain(far)
  if not options.detecting then netstack.sleep(2) end
  return stack, far, interface, announced
end

--- The next frame; nil: there is none now.
function M.next(far)
  return far:receive(0.001)
end

--- The peer of either family tells who it is when asked.
function M.answer(far, question, station)
  if M.kind(question) == "arp request" then
    assert(far:send(M.arp { operation = 2, station = station, host = "10.0.0.2", target = "10.0.0.1",
      target_station = OWN }))
  else
    assert(far:send(M.nd { type = 136, flags = 0x60, source = "fd00::2", destination = bytes "fd00::1",
      target = "fd00::2", from = station, options = "\2\1" .. (station or PEER) }))
  end
end

return M
