--- The steps of a script, checked and put in one list.
-- @module netstack.script.steps

local packets = require "netstack.script.packets"

local format, getinfo = string.format, debug.getinfo
local ipairs, pairs, tostring, type = ipairs, pairs, tostring, type

local M = {}

local function seconds(value)
  if type(value) ~= "number" then return "number expected, got " .. type(value) end
  if not (value >= 0 and value <= 1e8) then return "out of range: 0 to 1e8" end
end

local function boolean(value)
  if type(value) ~= "boolean" then return "boolean expected, got " .. type(value) end
end

local function text(value)
  if type(value) ~= "string" then return "string expected, got " .. type(value) end
end

-- What each kind of step has beside a packet, and what its operand is: the first value after the kind.
local KINDS = {
  inject = { fields = { at = seconds, after = seconds }, packet = true,
    operands = { ["string"] = true, ["function"] = true } },
  expect = { fields = { at = seconds, after = seconds, within = seconds, tolerance = seconds, strict = boolean },
    packet = true, operands = {} },
  quiet = { fields = {}, operands = { number = true } },
  call = { fields = { at = seconds, after = seconds }, operands = { ["function"] = true } },
}
local HEADERS = { "tcp", "udp", "icmp", "icmpv6", "igmp", "ipv4", "ipv6" }
local EXCLUSIVE = { "at", "after", "within" }

-- The least of the names that nobody knows, so that the error does not depend on the order of pairs.
local function unknown(fields, known)
  local found
  for key in pairs(fields) do
    local name = tostring(key)
    if key ~= 1 and key ~= 2 and not known[key] and (not found or name < found) then found = name end
  end
  return found
end

-- What is left of an expectation or injection when what belongs to the step is taken out.
local function packet_of(step, kind)
  local fields = {}
  for key, value in pairs(step) do
    if key ~= 1 and key ~= 2 and key ~= "where" and not kind.fields[key] then fields[key] = value end
  end
  return fields
end

local function check_packet(made, step, family)
  local why = packets.complaint(made, family, step.kind == "expect")
  if why or step.kind == "expect" then return why end
  for _, name in ipairs(HEADERS) do
    if made[name] then return nil end
  end
  return "no packet: flags, or the table of a header, expected"
end

--- The packet of an injection or expectation.
-- @tparam table fields as the user wrote them
-- @tparam table step its `kind`
-- @tparam string family
-- @treturn table|nil
-- @treturn string why there can be no such packet
function M.packet(fields, step, family)
  local made, why = packets.normalise(fields)
  why = why or check_packet(made, step, family)
  if why then return nil, why end
  if step.kind == "expect" then packets.wrap(made) end
  return made
end

-- A step as it is played: `kind`, `operand`, `packet`, the fields of its kind, `where`, `number`.
local function read(step, family)
  local kind = KINDS[step[1]]
  if not kind then return nil, "'inject', 'expect', 'quiet' or 'call' expected, got " .. tostring(step[1]) end
  local made, operand = { kind = step[1], operand = step[2], where = step.where }, step[2]
  if step.where ~= nil and text(step.where) then return nil, "where: " .. text(step.where) end
  for name, rule in pairs(kind.fields) do
    local value = step[name]
    local why = value ~= nil and rule(value)
    if why then return nil, name .. ": " .. why end
    made[name] = value
  end
  local given
  for _, name in ipairs(EXCLUSIVE) do
    if made[name] ~= nil then
      if given then return nil, format("both %s and %s", given, name) end
      given = name
    end
  end
  if operand ~= nil or not kind.packet then
    if not kind.operands[type(operand)] then
      return nil, kind.packet and "unexpected " .. type(operand) or
        format("%s expected, got %s", step[1] == "call" and "function" or "number", type(operand))
    end
    if type(operand) == "number" and seconds(operand) then return nil, seconds(operand) end
    local stray = unknown(packet_of(step, kind), {})
    if stray then return nil, "unknown field '" .. stray .. "'" end
    return made
  end
  local why
  made.packet, why = M.packet(packet_of(step, kind), made, family)
  if not made.packet then return nil, why end
  return made
end

--- Checks a script.
-- @tparam table list steps, and lists of them
-- @tparam string family
-- @treturn table|nil list of steps
-- @treturn string what is wrong with which
function M.read(list, family)
  local steps = {}
  local function add(part)
    for _, step in ipairs(part) do
      local number = #steps + 1
      local made, why = nil, "table expected, got " .. type(step)
      if type(step) == "table" then
        if type(step[1]) == "table" or next(step) == nil then
          local wrong = add(step)
          if wrong then return wrong end
          why = nil
        else
          made, why = read(step, family)
        end
      end
      if made then
        made.number = number
        steps[number] = made
      elseif why then
        local where = type(step) == "table" and type(step.where) == "string" and " at " .. step.where or ""
        return format("step %d%s: %s", number, where, why)
      end
    end
  end
  local why = add(list)
  if why then return nil, why end
  return steps
end

--- A function that makes steps of a kind, which know the line that made them.
function M.maker(kind)
  return function(argument)
    local step = { kind }
    if type(argument) == "table" then
      for key, value in pairs(argument) do
        if key == 1 then step[2] = value else step[key] = value end
      end
    else
      step[2] = argument
    end
    local caller = getinfo(2, "Sl")
    if step.where == nil and caller and caller.currentline > 0 then
      step.where = format("%s:%d", caller.short_src, caller.currentline)
    end
    return step
  end
end

return M
