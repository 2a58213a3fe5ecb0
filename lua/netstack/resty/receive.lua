--- The methods by which TCP sockets receive.
-- @module netstack.resty.receive

local check = require "netstack.check"
local common = require "netstack.resty.socket"
local direct = require "netstack.direct"
local errors = require "netstack.resty.errors"
local scheduler = require "netstack.scheduler"
local worker = require "netstack.resty.driver"

local deadline, can_wait, wait = scheduler.deadline, worker.can_wait, common.wait
local try_receive, try_receive_line = direct.try_receive, direct.try_receive_line
local byte, find, gsub, sub = string.byte, string.find, string.gsub, string.sub
local concat, min = table.concat, math.min
local tonumber, tostring, type = tonumber, tostring, type
local text = errors.text

local RETURN = byte "\r"

local M = {}

---@class netstack.resty.tcp
local Tcp = {}
local metatable, may_read, no_more -- told by the class

-- LuaJIT compiles no function through a loop within it: what is done for each message meets one only when it has to be
-- gone through.

-- What comes next: what `try` takes, once there is something. Its other result is the error when there is no data.
local function take(self, try, max)
  local socket = self.socket
  local data, more = try(socket.handle, max)
  if data or more ~= "wouldblock" then return data, more end
  local thread = can_wait()
  self.reading = thread or false
  local limit = deadline(self.read_timeout)
  local ok, err = wait(socket, "read", limit, thread)
  if ok then data, more = try(socket.handle, max) else more = err end
  while not data and more == "wouldblock" do -- it was woken for nothing
    ok, err = wait(socket, "read", limit, thread)
    if ok then data, more = try(socket.handle, max) else more = err end
  end
  self.reading = false
  return data, more
end

local function take_rest(self)
  local rest = self.rest
  if rest ~= "" then self.rest = "" end
  return rest
end

-- The results of a read that failed.
local function fail(self, err, parts, n)
  local partial = concat(parts, "", 1, n)
  if err ~= "timeout" and err ~= "not supported" then no_more(self) end
  return nil, text(err), partial
end

local function receive_count(self, count)
  local rest = take_rest(self)
  if #rest >= count then
    self.rest = sub(rest, count + 1)
    return sub(rest, 1, count)
  end
  local parts, n = { rest }, 1
  count = count - #rest
  repeat
    local data, err = take(self, try_receive, count)
    if not data then return fail(self, err, parts, n) end
    n = n + 1
    parts[n] = data
    count = count - #data
  until count == 0
  return concat(parts, "", 1, n)
end

local function receive_all(self)
  local parts, n = { take_rest(self) }, 1
  while true do
    local data, err = take(self, try_receive)
    if not data then
      if err == "closed" then return concat(parts, "", 1, n) end
      return fail(self, err, parts, n)
    end
    n = n + 1
    parts[n] = data
  end
end

local function without_returns(line)
  if byte(line, -1) == RETURN then line = sub(line, 1, -2) end
  if find(line, "\r", 1, true) then return (gsub(line, "\r", "")) end -- is never compiled
  return line
end

-- The rest of a line of which some was received.
local function receive_rest_of_line(self, beginning)
  local parts, n = { without_returns(beginning) }, 1
  while true do
    local data, ended = take(self, try_receive_line)
    if not data then return fail(self, ended, parts, n) end
    n = n + 1
    parts[n] = without_returns(ended and sub(data, 1, -2) or data)
    if ended then return concat(parts, "", 1, n) end
  end
end

-- Lines end at a newline; carriage returns are nothing, wherever they are.
local function receive_line(self)
  local rest = self.rest
  if rest ~= "" then
    local at = find(rest, "\n", 1, true)
    self.rest = at and sub(rest, at + 1) or ""
    if at then return without_returns(sub(rest, 1, at - 1)) end
    return receive_rest_of_line(self, rest)
  end
  local data, ended = take(self, try_receive_line)
  if not data then return fail(self, ended, {}, 0) end
  if not ended then return receive_rest_of_line(self, data) end
  return without_returns(sub(data, 1, -2))
end

-- How many bytes at the end of a text may be the beginning of a pattern.
local function overlap(data, pattern)
  for length = min(#pattern - 1, #data), 1, -1 do
    if sub(data, -length) == sub(pattern, 1, length) then return length end
  end
  return 0
end

--- Receives by a pattern: "*l" a line (the default), "*a" all until the peer closes, a number so many bytes. An error
-- other than "timeout" closes the socket for reading.
-- @tparam[opt="*l"] string|number pattern
-- @treturn string|nil data
-- @treturn string "timeout", "closed", "connection reset by peer"
-- @treturn string what came before the error
---@param pattern? string|number
---@return string|nil, string?, string?
function Tcp:receive(pattern)
  local why = may_read(self, "receive")
  if why then return nil, why end
  if pattern == nil or pattern == "*l" then return receive_line(self) end
  if pattern == "*a" then return receive_all(self) end
  local count = tonumber(pattern)
  if not count or count ~= count or count < 0 or count >= 2 ^ 53 then
    local kind = type(pattern)
    check.bad(1, "receive", kind == "number" and "bad number argument" or
      kind == "string" and "bad pattern argument: " .. pattern or "bad argument")
  end
  count = count - count % 1
  if count == 0 then return "" end
  return receive_count(self, count)
end

--- Receives whatever is there, at least a byte.
-- @tparam integer max at most so many bytes
-- @treturn string|nil data
-- @treturn string "timeout", "closed", "connection reset by peer"
---@param max integer
---@return string|nil, string?
function Tcp:receiveany(max)
  local why = may_read(self, "receiveany")
  max = tonumber(max)
  if not max or max < 1 then check.bad(1, "receiveany", "bad max argument") end
  if why then return nil, why end
  max = max - max % 1
  if self.rest ~= "" then return receive_count(self, min(max, #self.rest)) end
  local data, err = take(self, try_receive, max)
  if data then return data end
  return fail(self, err, {}, 0)
end

--- A function that receives up to a pattern.
-- @tparam string pattern taken literally
-- @tparam[opt] table options `inclusive`: whether what it returns ends with the pattern
-- @treturn function|nil called with no argument it returns all before the pattern; called with a size it returns that
-- many bytes at most, and after the last ones nil, nil, nil. Errors as those of `receive`
-- @treturn string "pattern is empty"
---@param pattern string
---@param options? { inclusive?: boolean }
---@return (fun(size?: integer): string|nil, string?, string?)|nil, string?
function Tcp:receiveuntil(pattern, options)
  common.check_self(self, metatable, "receiveuntil")
  if type(pattern) == "number" then pattern = tostring(pattern) end
  if type(pattern) ~= "string" then check.bad(1, "receiveuntil", "string expected, got " .. type(pattern)) end
  local inclusive = false
  if options ~= nil then
    if type(options) ~= "table" then check.bad(2, "receiveuntil", "table expected, got " .. type(options)) end
    inclusive = options.inclusive
    if inclusive ~= nil and type(inclusive) ~= "boolean" then
      check.bad(2, "receiveuntil", 'bad "inclusive" option value type: ' .. type(inclusive))
    end
  end
  if pattern == "" then return nil, "pattern is empty" end
  local met = false -- whether the pattern was, in pieces, and has to be told

  return function(size)
    if size ~= nil and type(size) ~= "number" then
      check.bad(1, "receiveuntil", "number expected, got " .. type(size))
    end
    local why = may_read(self, "receiveuntil")
    if why then return nil, why end
    if met then
      met = false
      return nil, nil, nil
    end
    size = size and size >= 1 and size - size % 1 or math.huge
    local data, parts, n, length = take_rest(self), {}, 0, 0
    while true do
      local first, last = find(data, pattern, 1, true)
      local safe = first and first - 1 or #data - overlap(data, pattern)
      if length + safe >= size then
        n = n + 1
        parts[n] = sub(data, 1, size - length)
        self.rest = sub(data, size - length + 1)
        return concat(parts, "", 1, n)
      elseif first then
        met = size < math.huge
        n = n + 1
        parts[n] = sub(data, 1, inclusive and last or safe)
        self.rest = sub(data, last + 1)
        return concat(parts, "", 1, n)
      end
      n, length = n + 1, length + safe
      parts[n] = sub(data, 1, safe)
      local rest = sub(data, safe + 1)
      local more, err = take(self, try_receive)
      if not more then
        -- What began like the pattern is still to come after a timeout, and was none at the end.
        if err == "timeout" then
          self.rest = rest
        else
          n = n + 1
          parts[n] = rest
        end
        return fail(self, err, parts, n)
      end
      data = rest .. more
    end
  end
end

--- Gives a class these methods.
-- @tparam table class the metatable of sockets with `socket`, the one below, `rest`, what was received and not handed
-- out yet, `reading`, the coroutine that waits, and `read_timeout` in seconds
-- @tparam function check_reading called with a socket and a method's name: why a read may not begin; nil when it may
-- @tparam function close_reading called with a socket when no more can be read
function M.add(class, check_reading, close_reading)
  metatable, may_read, no_more = class, check_reading, close_reading
  local methods = class.__index
  methods.receive, methods.receiveany, methods.receiveuntil = Tcp.receive, Tcp.receiveany, Tcp.receiveuntil
end

return M
