--- Assertions about networks, for luassert: `assert.received`, `.tcp_state`, `.eventually`, `.no_packets`. Times are
-- those of the run, and each has its opposite (`assert.not_received`).
-- @module netstack.busted.matchers

local assert = require "luassert"
local say = require "say"

local core = require "netstack.core"
local raw = require "netstack.raw"
local scheduler = require "netstack.scheduler"
local tape = require "netstack.busted.tape"
local tasks = require "netstack.task"
local tcp = require "netstack.tcp"
local udp = require "netstack.udp"
local watch = require "netstack.watch"

local set_rule = core.classes.link.set_rule
local byte, format, max, min = string.byte, string.format, math.max, math.min
local error, getmetatable, ipairs, rawget, tostring, type = error, getmetatable, ipairs, rawget, tostring, type

local M = {}

-- ---- what is wrong with an argument, and what is shown ----

local classes = { [tcp.metatable] = "tcp", [udp.metatable] = "udp", [raw.metatable] = "raw" }

local function kind_of(value) return type(value) == "table" and classes[getmetatable(value)] or nil end

-- The socket that is meant: of an object of LuaSocket's shape, the one inside.
local function socket_of(value)
  local inside = type(value) == "table" and not kind_of(value) and rawget(value, "socket")
  return inside or value
end

local function got(value) return value == nil and "nil" or type(value) end

-- Rules of arguments: why a value will not do.
local rules = {
  socket = function(value)
    return not kind_of(socket_of(value)) and "socket expected, got " .. got(value) or nil
  end,
  tcp = function(value)
    local kind = kind_of(socket_of(value))
    return kind ~= "tcp" and "TCP socket expected, got " .. (kind or got(value)) or nil
  end,
  data = function(value)
    return type(value) ~= "string" and "string expected, got " .. got(value) or nil
  end,
  fn = function(value)
    return type(value) ~= "function" and "function expected, got " .. got(value) or nil
  end,
  time = function(value) return value ~= nil and tasks.check_time(value) or nil end,
  step = function(value)
    if value == nil then return end
    return tasks.check_time(value) or value == 0 and "more than 0 expected" or nil
  end,
}

local WIDTH = 72 -- bytes of data that are shown

-- Data in quotes, with what cannot be printed escaped; of long ones the part around byte `at`.
local function shown(data, at)
  local first = #data > WIDTH and max(1, min((at or 1) - WIDTH / 2, #data - WIDTH + 1)) or 1
  local last = min(#data, first + WIDTH - 1)
  local text = data:sub(first, last):gsub("[%c\"\\\127-\255]", function(character)
    local name = ({ ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ['"'] = '\\"', ["\\"] = "\\\\" })[character]
    return name or format("\\x%02x", byte(character))
  end)
  return format("%s\"%s\"%s (%d bytes)", first > 1 and "..." or "", text, last < #data and "..." or "", #data)
end

local function first_difference(one, other)
  for i = 1, max(#one, #other) do
    if byte(one, i) ~= byte(other, i) then return i end
  end
end

local function named(socket)
  local stack = socket.stack and socket.stack.stack
  return tostring(socket) .. (stack and core.is_open(stack) and " of '" .. stack:name() .. "'" or "")
end

-- Makes an assertion of `try(arguments, level)`, which gives whether it holds, and lists: what its message tells, and
-- what it returns.
-- Each of `wanted` is a rule for the argument in that place.
local function define(name, wanted, waits, try, positive, negative)
  say:set("assertion." .. name .. ".positive", positive)
  say:set("assertion." .. name .. ".negative", negative)
  -- luassert tells the level of the caller, as seen from its own function above this one.
  assert:register("assertion", name, function(_, arguments, level)
    level = (level or 1) + 1
    for i, rule in ipairs(wanted) do
      local why = rules[rule](arguments[i])
      if why then error(format("bad argument #%d to '%s' (%s)", i, name, why), level) end
    end
    if waits and not scheduler.running() then
      error(format("assert.%s waits, which takes a task: it is for lab_it and netstack.run", name), level)
    end
    local holds, told, results = try(arguments, level + 1)
    for i = 1, #told do arguments[i] = told[i] end
    arguments.n, arguments.nofmt = #told, { true, true, true, true }
    return holds, results
  end, "assertion." .. name .. ".positive", "assertion." .. name .. ".negative")
end

-- ---- the assertions ----

local PATIENCE = 60 -- seconds that are waited without a timeout

-- Reads from a stream until there is as much as expected, or it is clear that it will be something else.
local function read_stream(socket, data, deadline)
  local parts, count = {}, 0
  while count < #data do
    socket:settimeout(max(0, deadline - scheduler.now()))
    local part, err = socket:receive_some(#data - count)
    if not part then return table.concat(parts), err end
    parts[#parts + 1] = part
    if part ~= data:sub(count + 1, count + #part) then break end
    count = count + #part
  end
  return table.concat(parts)
end

define("received", { "socket", "data", "time" }, true, function(arguments)
  local socket, data, timeout = socket_of(arguments[1]), arguments[2], arguments[3] or PATIENCE
  local block, total = socket:gettimeout()
  socket:settimeout(timeout)
  socket:settimeout(nil, "t")
  local found, err
  if kind_of(socket) == "tcp" then
    found, err = read_stream(socket, data, scheduler.now() + timeout)
  else
    found, err = socket:receive()
    if found then err = nil end
  end
  socket:settimeout(block)
  socket:settimeout(total, "t")
  if found == data then return true, { named(socket), shown(data) } end
  local at = found and first_difference(data, found)
  local answer = found and (found ~= "" or not err) and shown(found, at) or "nothing"
  if err then answer = format("%s, then '%s'", answer, err) end
  if found and at and at <= min(#found, #data) then answer = format("%s, other from byte %d on", answer, at) end
  return false, { named(socket), shown(data, at), answer }
end, "Expected %s to receive\n  %s\nand it received\n  %s", "Expected %s not to receive\n  %s\nand it did")

local STATES = { "CLOSED", "LISTEN", "SYN-SENT", "SYN-RECEIVED", "ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2",
  "CLOSE-WAIT", "CLOSING", "LAST-ACK", "TIME-WAIT" }

local known = {}
for _, state in ipairs(STATES) do known[state] = state end

function rules.state(value)
  if type(value) ~= "string" then return "string expected, got " .. got(value) end
  if not known[value:upper():gsub("_", "-")] then
    return format("a state of TCP (%s) expected, got '%s'", table.concat(STATES, ", "), value)
  end
end

define("tcp_state", { "tcp", "state" }, false, function(arguments)
  local socket, expected = socket_of(arguments[1]), arguments[2]:upper():gsub("_", "-")
  local info = socket:info()
  local state = info and info.state or "CLOSED"
  return state == expected, { named(socket), expected, state }
end, "Expected %s to be in state %s, and it is in %s", "Expected %s not to be in state %s")

define("eventually", { "fn", "time", "step" }, true, function(arguments, level)
  local fn, timeout, interval = arguments[1], arguments[2] or PATIENCE, arguments[3] or 0.1
  local deadline = scheduler.now() + timeout
  local text = format("%.6g", timeout)
  while true do
    local ok, value = scheduler.pcall(fn)
    if ok and value then return true, { text, tostring(value) }, { value } end
    local metatable = not ok and type(value) == "table" and getmetatable(value)
    if metatable and metatable.__type == "pending" then error(value, level) end
    local left = deadline - scheduler.now()
    if left <= 0 then
      return false, { text, (ok and "it returned " or "it raised:\n") .. tostring(value) }
    end
    scheduler.sleep(min(interval, left))
  end
end, "Expected the function to return something true within %s s, and at last %s",
  "Expected the function to return nothing true within %s s, and it returned %s")

local Lab = nil -- its metatable, known once there is one

function rules.links(value)
  if type(value) == "userdata" and getmetatable(value) == "netstack" and value.set_rule == set_rule then return end
  Lab = Lab or getmetatable(require("netstack.lab").new())
  if type(value) ~= "table" or getmetatable(value) ~= Lab then return "link or lab expected, got " .. got(value) end
end

function rules.direction(value)
  if value ~= nil and value ~= "a->b" and value ~= "b->a" then
    return "'a->b' or 'b->a' expected, got " .. tostring(value)
  end
end

-- What was watched: "the lab", "client - server", "client -> server".
local function path(where, direction)
  if type(where) == "table" then return "the lab" end
  local a, b = watch.names(where)
  if direction == "b->a" then a, b = b, a end
  return format(direction and "%s -> %s" or "%s - %s", a, b)
end

define("no_packets", { "links", "time", "direction" }, true, function(arguments, level)
  local where, seconds = arguments[1], arguments[2] or 1
  local seen = tape.new(20, arguments[3])
  local ok, err
  if type(where) == "table" then ok, err = where:watch(seen) else ok, err = seen:add(where) end
  if not ok then error(format("assert.no_packets: %s", err), level) end
  scheduler.sleep(seconds)
  if type(where) == "table" then where:unwatch(seen) else seen:close() end
  return seen.count == 0, { path(where, arguments[3]), format("%.6g", seconds), seen:title(), seen:text() }
end, "Expected no packets on %s within %s s, and there were (%s):\n%s",
  "Expected packets on %s within %s s, and there were none")

return M
