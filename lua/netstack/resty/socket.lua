--- What the cosocket-like objects have in common: timeouts, data in the forms that `send` takes, and who is busy.
-- @module netstack.resty.socket

local check = require "netstack.check"
local core = require "netstack.core"
local sockets = require "netstack.socket"
local worker = require "netstack.resty.driver"

local byte, concat, floor, status = string.byte, table.concat, math.floor, coroutine.status
local ticket_of, wait_for, await = sockets.ticket_of, sockets.wait_for, worker.await
local error, pairs, tostring, type = error, pairs, tostring, type

--- Seconds, of each kind of timeout, when none is set.
local DEFAULT = 60
local COLON = byte ":"

local M = {}

local known = setmetatable({}, { __mode = "k" }) -- stacks

--- Raises unless the argument is a stack.
function M.check_stack(stack, name)
  if stack and known[stack] then return end
  if not pcall(core.is_open, stack) then check.bad(1, name, "stack expected, got " .. type(stack)) end
  known[stack] = true
end

--- A timeout in seconds from milliseconds; 0 and nil are the default.
function M.seconds(milliseconds, position, name)
  if milliseconds ~= nil and type(milliseconds) ~= "number" then
    check.bad(position, name, "number expected, got " .. type(milliseconds))
  end
  if milliseconds and not (milliseconds >= 0 and milliseconds < 2 ^ 31) then
    check.bad(position, name, "bad timeout value")
  end
  return milliseconds and milliseconds > 0 and milliseconds / 1000 or DEFAULT
end

--- Whether a host stands for a UNIX socket. LuaJIT does not compile `match`.
function M.is_unix(host)
  return byte(host, 5) == COLON and host:match("^[Uu][Nn][Ii][Xx]:") ~= nil
end

--- A port, from what stands for one.
-- @treturn integer|nil
-- @treturn string error
function M.port(value)
  local port = tonumber(value)
  if not port then return nil, "missing the port number" end
  port = port >= 0 and floor(port) or -1
  if port > 65535 or port < 0 then return nil, "bad port number: " .. tostring(value) end
  return port
end

local add

local function add_table(parts, n, data)
  local last = 0
  for key in pairs(data) do
    if type(key) ~= "number" or key < 1 or key % 1 ~= 0 then
      check.bad(1, "send", "array table expected, got one with a key of type " .. type(key))
    end
    if key > last then last = key end
  end
  if last > 2 * #data + 1024 then check.bad(1, "send", "array table expected, got one with holes") end
  for i = 1, last do n = add(parts, n, data[i]) end
  return n
end

function add(parts, n, data)
  local kind = type(data)
  if kind == "table" then return add_table(parts, n, data) end
  if kind ~= "string" and kind ~= "number" and kind ~= "boolean" and kind ~= "nil" then
    check.bad(1, "send", "string, number, boolean, nil, or array table expected, got " .. kind)
  end
  parts[n + 1] = kind == "string" and data or tostring(data)
  return n + 1
end

--- The string that is to be sent for what `send` was given.
function M.text(data)
  if type(data) == "string" then return data end
  local parts = {}
  return concat(parts, "", 1, add(parts, 0, data))
end

--- Waits until a socket of a stack can be read or written; the caller then tries again.
-- @tparam table socket
-- @tparam string side "read" or "write"
-- @tparam ?number limit of the monotonic clock
-- @tparam ?thread thread the caller; nil: it cannot wait
-- @treturn integer|nil 1
-- @treturn string "timeout", "closed", "not supported"
function M.wait(socket, side, limit, thread)
  if not thread then return wait_for(socket, side, limit) end -- which has the stacks driven, and refuses
  local ticket, err = ticket_of(socket, side)
  if not ticket then return nil, err end
  return await(ticket, limit)
end

--- Whether the coroutine that was noted down as the one that waits still does: nginx may have dropped it.
function M.waits(thread)
  return thread and status(thread) ~= "dead"
end

--- Raises when a method was called without its object.
function M.check_self(self, class, name)
  if getmetatable(self) ~= class then
    error(("%scalling '%s' on bad self (socket expected, got %s)"):format(core.where(), name, type(self)), 0)
  end
end

return M
