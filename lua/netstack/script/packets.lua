--- The packets of a script: what the user wrote in short becomes a packet table, and its TCP numbers, which count from
-- the first number of each side, become those on the wire and back.
-- @module netstack.script.packets

local packet = require "netstack.packet"
local struct = require "netstack.packet.struct"

local format, rep = string.format, string.rep
local ipairs, pairs, type = ipairs, pairs, type

local M = {}

local MODULUS = 4294967296

-- Fields of a TCP segment may stand in the packet itself.
local SEGMENT = { "source_port", "destination_port", "seq", "ack", "flags", "window", "urgent", "options", "checksum",
  "checksum_ok", "header_length", "reserved" }
local TRANSPORTS = { "tcp", "udp", "icmp", "icmpv6", "igmp" }
local LONGEST = 65535

--- A number counted from a base, -2^31 to 2^31 - 1.
local function relative(value, base)
  local offset = (value - base) % MODULUS
  return offset < MODULUS / 2 and offset or offset - MODULUS
end

-- A copy in which nothing that a script changes is shared; `change` may replace values or, with nil, leave them out.
local function copy(value, change)
  if change then value = change(value) end
  if type(value) ~= "table" then return value end
  local made = {}
  for key, one in pairs(value) do made[key] = copy(one, change) end
  return made
end

-- Why a value is no number of a sequence.
local function unfit(value)
  if type(value) ~= "number" then return "number expected, got " .. type(value) end
  if value % 1 ~= 0 then return "number has no integer representation" end
  if value < -MODULUS or value > MODULUS then return format("out of range: %.0f to %.0f", -MODULUS, MODULUS) end
end

-- Applies `change(value, base)` to the numbers of a segment that count from a base: those of its sender for seq, those
-- of the other side for the rest.
local function renumber(tcp, sender, receiver, change)
  if tcp.seq then tcp.seq = change(tcp.seq, sender, "tcp.seq") end
  if tcp.ack then tcp.ack = change(tcp.ack, receiver, "tcp.ack") end
  local blocks = type(tcp.options) == "table" and tcp.options.sack
  if type(blocks) ~= "table" then return end
  for _, block in ipairs(blocks) do
    if type(block) == "table" then
      for _, edge in ipairs { "left", "right" } do
        if block[edge] then block[edge] = change(block[edge], receiver, "tcp.options.sack." .. edge) end
      end
    end
  end
end

local function absolute(value, base) return (value + base) % MODULUS end

--- A packet table made of what a step says.
-- @tparam table fields
-- @treturn table|nil
-- @treturn string why it cannot be
function M.normalise(fields)
  local made, segment = copy(fields), nil
  for _, name in ipairs(SEGMENT) do
    if made[name] ~= nil then
      segment = segment or {}
      segment[name], made[name] = made[name], nil
    end
  end
  for _, name in ipairs(TRANSPORTS) do
    if made[name] ~= nil then
      if segment then return nil, "both " .. name .. " and fields of a TCP segment" end
      if type(made[name]) ~= "table" then return nil, name .. ": table expected, got " .. type(made[name]) end
    end
  end
  made.tcp = segment or made.tcp
  if made.length ~= nil then
    if made.payload ~= nil then return nil, "both payload and length" end
    local why = type(made.length) ~= "function" and struct.unfit(made.length, LONGEST)
    if why then return nil, "length: " .. why end
  end
  return made
end

-- The names of both ends as a packet in one direction has them.
local function ends(inbound)
  if inbound then return "remote", "local" end
  return "local", "remote"
end

--- Fills in from where to where, which a packet need not say.
-- @tparam table made by `normalise`
-- @tparam table place `family`, `local_host`, `remote_host`, and for "tcp" and "udp" a table with `local_port` and
-- `remote_port`
-- @tparam boolean inbound to the stack
function M.address(made, place, inbound)
  local from, to = ends(inbound)
  if not made.ipv4 and not made.ipv6 then made[place.family] = {} end
  local ip = made[place.family]
  if ip then
    if ip.source == nil then ip.source = place[from .. "_host"] end
    if ip.destination == nil then ip.destination = place[to .. "_host"] end
  end
  for _, name in ipairs { "tcp", "udp" } do
    local fields = made[name]
    if fields then
      if fields.source_port == nil then fields.source_port = place[name][from .. "_port"] end
      if fields.destination_port == nil then fields.destination_port = place[name][to .. "_port"] end
    end
  end
end

local function has_flag(tcp, name, letters)
  local flags = tcp.flags
  if type(flags) == "table" then return flags[name] == true end
  return type(flags) == "string" and flags:find(letters) ~= nil
end

--- How far a segment goes in its side's numbers.
function M.extent(tcp, payload)
  return #payload + (has_flag(tcp, "syn", "S") and 1 or 0) + (has_flag(tcp, "fin", "F") and 1 or 0)
end

--- The bytes of a packet to the stack.
-- @tparam table made by `normalise`, addressed
-- @tparam table connection `isn`, of the peer; `their_isn`, of the stack; `next` and `their_next`: what the peer sends
-- and acknowledges by default, counted from these
-- @treturn string|nil
-- @treturn string why it cannot be
function M.build(made, connection)
  local payload = made.payload or type(made.length) == "number" and rep("x", made.length) or nil
  local tcp = made.tcp
  made.payload, made.length = payload, nil
  if tcp then
    if tcp.seq == nil then tcp.seq = connection.next end
    if tcp.ack == nil and has_flag(tcp, "ack", "[A.]") then tcp.ack = connection.their_next end
    local wrong
    renumber(tcp, connection.isn, connection.their_isn, function(value, base, where)
      local why = unfit(value)
      wrong = wrong or why and where .. ": " .. why
      return why and value or absolute(value, base)
    end)
    if wrong then return nil, wrong end
  end
  return packet.build(made)
end

--- What a packet of the stack says, its numbers counted from the first of each side; `length` is that of its payload.
-- @tparam table parts as `packet.dissect` gives them
-- @tparam ?table connection
function M.read(parts, connection)
  local tcp = parts.tcp
  parts.length = #parts.payload
  if tcp and connection then
    if not tcp.flags.ack then tcp.ack = nil end
    renumber(tcp, connection.their_isn, connection.isn, relative)
  end
  return parts
end

--- Has an expectation count as `read` does, which knows -1, not 4294967295.
-- @tparam table made by `normalise`
function M.wrap(made)
  if not made.tcp then return end
  renumber(made.tcp, 0, 0, function(value, base)
    return type(value) == "number" and relative(value, base) or value
  end)
end

-- What an expectation leaves open, or only a function can tell.
local function definite(value)
  if type(value) == "function" or value == false then return nil end
  return value
end

--- Why there can be no such packet: its fields are unknown, or their values impossible.
-- @tparam table made by `normalise`
-- @tparam string family
-- @tparam boolean open whether it is an expectation
-- @treturn ?string
function M.complaint(made, family, open)
  local trial, host = copy(made, open and definite), family == "ipv4" and "0.0.0.0" or "::"
  local place = { family = family, local_host = host, remote_host = host }
  place.tcp = { local_port = 1, remote_port = 1 }
  place.udp = place.tcp
  for _, name in ipairs { "ipv4", "ipv6" } do
    if trial[name] ~= nil and type(trial[name]) ~= "table" then
      return name .. ": table expected, got " .. type(trial[name])
    end
  end
  M.address(trial, place, true)
  local _, why = M.build(trial, { isn = 0, their_isn = 0, next = 0, their_next = 0 })
  return why
end

M.copy, M.relative = copy, relative

return M
