--- TCP sockets: LuaSocket's methods over a handle of the core. A method asks the core; what cannot be answered at once
-- waits for the handle's ticket and asks again, so a wake-up that came for nothing does no harm.
-- @module netstack.tcp

local check = require "netstack.check"
local core = require "netstack.core"
local scheduler = require "netstack.scheduler"
local sockets = require "netstack.socket"

local handle_of, NOBODY = check.handle, check.NOBODY
local wait_for, deadline_of = sockets.wait_for, sockets.deadline_of
local concat, type, error, tonumber = table.concat, type, error, tonumber

---@class netstack.tcp
local Tcp = {}
local handle_methods = core.classes.tcp
local try_send, try_receive, try_receive_line = handle_methods.try_send, handle_methods.try_receive,
  handle_methods.try_receive_line
local try_accept, try_connect, try_connected = handle_methods.try_accept, handle_methods.try_connect,
  handle_methods.try_connected

local metatable = sockets.class("tcp", Tcp)

-- The socket over a handle.
local function wrap(handle, stack)
  return sockets.new(metatable, handle, stack)
end

--- A new socket, neither bound nor connected.
-- @tparam stack stack
-- @treturn tcp|nil
-- @treturn string "closed", "no memory"
local function new(stack)
  local handle, err = core.tcp(stack)
  if not handle then return nil, err end
  return wrap(handle, stack)
end

--- Binds to a local address. "*" is every address of both families, "0.0.0.0" and "::" every one of theirs.
-- @tparam string host
-- @tparam integer port 0: one chosen at random (RFC 6056)
-- @treturn integer|nil 1
-- @treturn string "address already in use", "address not available", "invalid address"
---@param host string
---@param port integer
---@return integer|nil, string?
function Tcp:bind(host, port)
  return handle_methods.bind(handle_of(self, "bind"), host, port)
end

--- Turns the socket into a listener; repeated, it changes the backlog.
-- @tparam[opt=32] integer backlog connections that may wait to be accepted, half-open ones included; SYNs beyond it are
-- dropped
-- @treturn integer|nil 1
-- @treturn string error
---@param backlog? integer
---@return integer|nil, string?
function Tcp:listen(backlog)
  return handle_methods.listen(handle_of(self, "listen"), backlog)
end

--- Waits for a connection.
-- @treturn tcp|nil the connection, with no timeout
-- @treturn string "timeout", "closed"
---@return netstack.tcp|nil, string?
function Tcp:accept()
  local handle = handle_of(self, "accept")
  local child, err = try_accept(handle)
  if not child then
    local deadline = deadline_of(self)
    while err == "wouldblock" do
      local ok, why = wait_for(self, "read", deadline, "accept")
      if not ok then return nil, why end
      child, err = try_accept(handle)
    end
    if not child then return nil, err end
  end
  return wrap(child, self.stack)
end

-- Waits until the attempt that is under way has an outcome.
local function finish_connect(self)
  local handle, deadline = self.handle, deadline_of(self)
  self.connecting = true
  local ok, err = try_connected(handle)
  while not ok and err == "wouldblock" do
    local woken, why = wait_for(self, "write", deadline, "connect")
    if not woken then
      self.connecting = false
      return nil, why
    end
    ok, err = try_connected(handle)
  end
  self.connecting = false
  return ok, err
end

--- Connects to a peer. Without a timeout an attempt that nobody answers ends after 75 seconds; after a timeout of the
-- socket's the attempt goes on, and connect may be called again to wait for it.
-- @tparam string host address, or a name of `hosts`
-- @tparam integer port
-- @treturn integer|nil 1
-- @treturn string "connection refused", "timeout", "no route", "host unreachable", "host not found", "in progress",
-- "already connected", "wrong ip version", "address not available"
---@param host string
---@param port integer
---@return integer|nil, string?
function Tcp:connect(host, port)
  local handle = handle_of(self, "connect")
  if self.connecting then return nil, "in progress" end
  local address, why = sockets.resolve(self, host, 1, "connect")
  if not address then return nil, why end
  local ok, err = try_connect(handle, address, port)
  if ok or err ~= "wouldblock" then return ok, err end
  return finish_connect(self)
end

--- Sends data; returns when all of it lies in the send buffer.
-- @tparam string data
-- @tparam[opt=1] integer i first byte
-- @tparam[opt=-1] integer j last byte
-- @treturn integer|nil index of the last byte sent
-- @treturn string "closed", "timeout", "connection reset", "not connected"
-- @treturn integer index of the last byte that was sent
---@param data string
---@param i? integer
---@param j? integer
---@return integer|nil, string?, integer?
function Tcp:send(data, i, j)
  local handle = (self or NOBODY).handle
  local last, err, sent = try_send(handle, data, i, j)
  if last then return last end
  if err ~= "wouldblock" then return nil, err, sent end
  local deadline = deadline_of(self)
  repeat
    local ok, why = wait_for(self, "write", deadline, "send")
    if not ok then return nil, why, sent end
    last, err, sent = try_send(handle, data, sent + 1, j)
    if last then return last end
  until err ~= "wouldblock"
  return nil, err, sent
end

--- Receives whatever is there, at least a byte.
-- @tparam[opt] integer max at most so many bytes
-- @treturn string|nil data
-- @treturn string "closed", "timeout", "connection reset"
---@param max? integer
---@return string|nil, string?
function Tcp:receive_some(max)
  if max ~= nil and (type(max) ~= "number" or max < 1) then
    error("bad argument #1 to 'receive_some' (a number of bytes, 1 or more, expected)", 2)
  end
  local handle = (self or NOBODY).handle
  local data, err = try_receive(handle, max)
  if data or err ~= "wouldblock" then return data, err end
  local deadline = deadline_of(self)
  repeat
    local ok, why = wait_for(self, "read", deadline, "receive")
    if not ok then return nil, why end
    data, err = try_receive(handle, max)
  until data or err ~= "wouldblock"
  return data, err
end

-- Exactly `count` bytes.
local function receive_count(self, count, prefix)
  if prefix then
    count = count - #prefix
    if count <= 0 then return prefix end
  elseif count == 0 then
    return ""
  end
  local handle = self.handle
  local data, err = try_receive(handle, count)
  if data and #data == count and not prefix then return data end
  local parts, n, deadline = { prefix or "" }, 1, nil
  while true do
    if data then
      n = n + 1
      parts[n] = data
      count = count - #data
      if count == 0 then return concat(parts) end
    elseif err == "wouldblock" then
      deadline = deadline or deadline_of(self)
      local ok, why = wait_for(self, "read", deadline, "receive")
      if not ok then return nil, why, concat(parts) end
    else
      return nil, err, concat(parts)
    end
    data, err = try_receive(handle, count)
  end
end

-- LuaSocket's lines: the newline and every carriage return are taken away, unless they are asked for.
local function as_line(text, whole)
  if whole then return text end
  text = text:gsub("\r", "")
  return (text:gsub("\n$", ""))
end

local function receive_line(self, whole, prefix)
  local handle = self.handle
  local parts, n, deadline = { prefix }, prefix and 1 or 0, nil
  while true do
    local data, ended = try_receive_line(handle)
    if data then
      n = n + 1
      parts[n] = data
      if ended then
        parts[n] = as_line(data, whole)
        if n == 1 then return parts[1] end
        if not whole then
          for i = (prefix and 2 or 1), n - 1 do parts[i] = parts[i]:gsub("\r", "") end
        end
        return concat(parts)
      end
    elseif ended == "wouldblock" then
      deadline = deadline or deadline_of(self)
      local ok, why = wait_for(self, "read", deadline, "receive")
      if not ok then return nil, why, concat(parts) end
    else
      return nil, ended, concat(parts)
    end
  end
end

local function receive_all(self, prefix)
  local handle = self.handle
  local parts, n, deadline = { prefix }, prefix and 1 or 0, nil
  while true do
    local data, err = try_receive(handle)
    if data then
      n = n + 1
      parts[n] = data
    elseif err == "wouldblock" then
      deadline = deadline or deadline_of(self)
      local ok, why = wait_for(self, "read", deadline, "receive")
      if not ok then return nil, why, concat(parts) end
    elseif err == "closed" and n > 0 then
      return concat(parts)
    else
      return nil, err, concat(parts)
    end
  end
end

--- Receives by a pattern: "*l" a line without its end (the default), "*L" with it, "*a" all until the peer closes, a
-- number so many bytes.
-- @tparam[opt="*l"] string|number pattern
-- @tparam[opt] string prefix put in front; a number counts it
-- @treturn string|nil data
-- @treturn string "closed", "timeout", "connection reset", "not connected"
-- @treturn string what came before the error: give it as prefix to go on
---@param pattern? string|number
---@param prefix? string
---@return string|nil, string?, string?
function Tcp:receive(pattern, prefix)
  self = self or NOBODY
  if prefix ~= nil and type(prefix) ~= "string" then
    if type(prefix) ~= "number" then
      error("bad argument #2 to 'receive' (string expected, got " .. type(prefix) .. ")", 2)
    end
    prefix = tostring(prefix)
  end
  if type(pattern) == "number" then
    if pattern < 0 or pattern % 1 ~= 0 then error("bad argument #1 to 'receive' (invalid number of bytes)", 2) end
    return receive_count(self, pattern, prefix)
  end
  if pattern == nil or pattern == "*l" or pattern == "l" then return receive_line(self, false, prefix) end
  if pattern == "*a" or pattern == "a" then return receive_all(self, prefix) end
  if pattern == "*L" or pattern == "L" then return receive_line(self, true, prefix) end
  local count = tonumber(pattern)
  if not count then error("bad argument #1 to 'receive' (invalid receive pattern)", 2) end
  return Tcp.receive(self, count, prefix)
end

--- Ends a direction: "send" sends FIN after what is unsent, "receive" discards what arrives, "both".
-- @tparam[opt="both"] string how
-- @treturn integer|nil 1
-- @treturn string error
---@param how? "send"|"receive"|"both"
---@return integer|nil, string?
function Tcp:shutdown(how)
  return handle_methods.shutdown(handle_of(self, "shutdown"), how)
end

--- Sends what is unsent, then FIN, in the background; RST when received data was not read. Never blocks.
-- @treturn integer 1
---@return integer
function Tcp:close()
  return handle_methods.close(handle_of(self, "close"))
end

--- Sends RST and forgets the connection.
-- @treturn integer 1
---@return integer
function Tcp:abort()
  return handle_methods.abort(handle_of(self, "abort"))
end

--- What is known of the connection: state, rtt, rttvar, rto, cwnd, ssthresh, snd_wnd, rcv_wnd, mss, retransmits,
-- unacked.
-- @treturn table|nil
---@return table|nil, string?
function Tcp:info()
  return handle_methods.info(handle_of(self, "info"))
end

sockets.delegate(Tcp, handle_methods, "getsockname", "getpeername", "getstats", "dirty", "setoption", "getoption")

return { new = new, wrap = wrap, metatable = metatable, now = scheduler.now }
