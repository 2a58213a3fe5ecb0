--- Packets between two hosts as text: two columns, one line a packet, as drawn in RFCs.
-- @module netstack.ladder

local check = require "netstack.check"
local packet = require "netstack.packet"
local summary = require "netstack.packet.summary"

local concat, format, rep = table.concat, string.format, string.rep
local ipairs, max, tostring, type = ipairs, math.max, tostring, type

local M = {}

local rules = { left = check.of_type("string"), right = check.of_type("string"), link = check.one_of("ip", "ethernet") }

-- What the sequence numbers of a connection are counted from: the first of each side. `sides` keeps it, by connection
-- and sender.
local function base_of(sides, parts)
  local ip, tcp = parts.ipv4 or parts.ipv6, parts.tcp
  if not tcp or not ip then return nil end
  local from = format("%s %d", ip.source, tcp.source_port)
  local to = format("%s %d", ip.destination, tcp.destination_port)
  local mine, theirs = from .. " " .. to, to .. " " .. from
  if not sides[mine] or tcp.flags.syn then sides[mine] = tcp.seq end
  -- What comes first may be an answer: then what it acknowledges is where the other side begins.
  if not sides[theirs] and tcp.flags.ack then sides[theirs] = tcp.ack end
  return { seq = sides[mine], ack = sides[theirs] or 0 }
end

local function described(data, link, sides)
  local parts, err = packet.dissect(data, { link = link })
  if not parts then return format("%s, length %d", err, #data) end
  return summary.content(parts, { base = base_of(sides, parts), brief = true,
    quoted = parts.icmp and packet.dissect(parts.payload) })
end

local RIGHTWARD = { ["a->b"] = true, ["b->a"] = false, [1] = true, [2] = false }
local FLAGS = { "corrupted", "reordered", "duplicated" }

local PACKET = { { "time", "number" }, { "from", "string" }, { "to", "string" }, { "data", "string" },
  { "dropped", "string", optional = true }, { "arrival", "number", optional = true } }
local EVENT = { { "time", "number" }, { "packet", "string" }, { "cause", "string", optional = true },
  { "arrival", "number", optional = true }, { "copy_cause", "string", optional = true },
  { "copy_arrival", "number", optional = true } }

local function complaint(item)
  if type(item) ~= "table" then return "table expected, got " .. type(item) end
  local direction = item.direction
  if direction ~= nil and RIGHTWARD[direction] == nil then
    return "'direction': 'a->b' or 'b->a' expected, got " .. tostring(direction)
  end
  for _, field in ipairs(direction == nil and PACKET or EVENT) do
    local name, expected = field[1], field[2]
    local value = item[name]
    if type(value) ~= expected and not (value == nil and field.optional) then
      return format("'%s': %s expected, got %s", name, expected, type(value))
    end
  end
end

-- From where to where, what, and why it did not arrive.
local function plain(item, left, right)
  if item.direction == nil then return item.from, item.to, item.data, item.dropped end
  if not RIGHTWARD[item.direction] then left, right = right, left end
  return left, right, item.packet, item.cause
end

-- What became of a packet.
local function fate(item, dropped)
  local parts = {}
  local function add(...) parts[#parts + 1] = format(...) end
  if dropped then add("dropped: %s", dropped) end
  if item.arrival then add("arrives %.6f", item.arrival) end
  for _, flag in ipairs(FLAGS) do
    if item[flag] then add("%s", flag) end
  end
  if item.copy_cause then add("copy dropped: %s", item.copy_cause) end
  if item.copy_arrival then add("copy arrives %.6f", item.copy_arrival) end
  return parts[1] and "  " .. concat(parts, ", ") or ""
end

--- Draws packets, in the order of the list.
--
-- Sequence numbers are relative to the first of each side of a connection. An arrow that ends in `x` is a packet that
-- was lost on its way; the cause follows, and what else is known of its way. Packets of other hosts are left out, and
-- the last line says how many.
-- @tparam table list of events, as `link:trace` tells them, or of packets `{ time =, from =, to =, data =, dropped =,
-- arrival = }`: seconds, names of hosts, bytes, why it was dropped (a text) or nil, seconds or nil
-- @tparam[opt] table options `left`, `right`: the hosts (those of the first packet; "a" and "b" of a link); `link`:
-- "ip" (the default) or "ethernet", what the packets begin with, where they have no `link` of their own
-- @treturn string lines, each with its end
---@param list table[]
---@param options? { left?: string, right?: string, link?: "ip"|"ethernet" }
---@return string
function M.draw(list, options)
  if type(list) ~= "table" then check.bad(1, "draw", "table expected, got " .. type(list)) end
  options = check.options(options, rules, 2, "draw")
  for i, item in ipairs(list) do
    local why = complaint(item)
    if why then check.bad(1, "draw", format("packet %d: %s", i, why)) end
  end
  local first = list[1]
  local of_link = first and first.direction ~= nil
  local left = options.left or of_link and "a" or first and first.from
  if not left then return "" end
  local right = options.right or of_link and "b" or first and (first.from == left and first.to or first.from) or ""
  local sides, rows, others = {}, {}, 0
  local width, clock = 20, 4
  for _, item in ipairs(list) do
    local from, to, data, dropped = plain(item, left, right)
    local rightward = from == left and to == right
    if rightward or from == right and to == left then
      local row = { rightward = rightward, time = format("%.6f", item.time), dropped = dropped,
        fate = fate(item, dropped), text = described(data, item.link or options.link, sides) }
      rows[#rows + 1] = row
      width, clock = max(width, #row.text), max(clock, #row.time)
    else
      others = others + 1
    end
  end
  local lines = { format("%s  %s%s%s", rep(" ", clock), left, rep(" ", max(1, width + 11 - #left - #right)), right) }
  for _, row in ipairs(rows) do
    local line = " " .. row.text .. " " .. rep("-", width - #row.text)
    if row.rightward then line = "--" .. line .. (row.dropped and "---x  " or "---->")
    else line = (row.dropped and "  x---" or "<-----") .. line .. "-" end
    lines[#lines + 1] = format("%s  |%s|%s", rep(" ", clock - #row.time) .. row.time, line, row.fate)
  end
  if others > 0 then lines[#lines + 1] = format("(%d of other hosts not shown)", others) end
  return concat(lines, "\n") .. "\n"
end

return M
