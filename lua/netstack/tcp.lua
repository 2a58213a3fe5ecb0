--- TCP sockets: LuaSocket's methods over a handle of the core. A method asks the core; what cannot be answered at once
-- waits for the handle's ticket and asks again, so a wake-up that came for nothing does no harm.
-- @module netstack.tcp

local check = require "netstack.check"
local core = require "netstack.core"
local direct = require "netstack.direct"
local scheduler = require "netstack.scheduler"
local sockets = require "netstack.socket"

local handle_of, NOBODY = check.handle, check.NOBODY
local answer, wait_for, deadline_of = sockets.answer, sockets.wait_for, sockets.deadline_of
local concat, type, error, tonumber = table.concat, type, error, tonumber

---@class netstack.tcp: netstack.socket
local Tcp = {}
local handle_methods = core.classes.tcp
local try_send, try_receive, try_receive_line = direct.try_send, direct.try_receive, direct.try_receive_line
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
  local handle, err = answer(self, "read", "accept", false, try_accept, nil, nil, nil,
    try_accept(handle_of(self, "accept")))
  if not handle then return nil, err end
  return wrap(handle, self.stack)
end

-- Waits until the attempt that is under way has an outcome.
local function finish_connect(self)
  local handle, deadline = self.handle, deadline_of(self)
  self.connecting = scheduler.running() or true
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
  if ok then return 1 end
  return nil, err
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
  local waits = self.connecting -- a task that was cancelled waits no more, but could not say so
  if waits and (waits == true or not waits.over) then return nil, "in progress" end
  local address, why = sockets.resolve(self, host, 1, "connect")
  if not address then return nil, why end
  local ok, err = try_connect(handle, address, port)
  if ok then return 1 end
  if err ~= "wouldblock" then return nil, err end
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
  local deadline, ends = deadline_of(self)
  repeat
    local ok, why = wait_for(self, "write", deadline, "send")
    if not ok then return nil, why, sent end
    local before = sent
    last, err, sent = try_send(handle, data, sent + 1, j)
    if last then return last end
    if deadline and sent > before then deadline, ends = deadline_of(self, ends) end
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
  return answer(self, "read", "receive", false, try_receive, max, nil, nil,
    try_receive((self or NOBODY).handle, max))
end

-- Exactly `count` bytes. What comes at once is the string that is returned; only pieces make a table.
local function receive_count(self, count, prefix)
  local parts, n, deadline, ends
  if prefix then
    count = count - #prefix
    if count <= 0 then return prefix end
    parts, n = { prefix }, 1
  elseif count == 0 then
    return ""
  end
  local handle = self.handle
  while true do
    local data, err = try_receive(handle, count)
    if data then
      if #data == count then
        if not parts then return data end
        parts[n + 1] = data
        return concat(parts)
      end
      if not parts then parts, n = {}, 0 end
      n = n + 1
      parts[n] = data
      count = count - #data
      deadline = nil -- the next wait begins anew
    elseif err == "wouldblock" then
      if not deadline then deadline, ends = deadline_of(self, ends) end
      local ok, why = wait_for(self, "read", deadline, "receive")
      if not ok then return nil, why, parts and concat(parts) or "" end
    else
      return nil, err, parts and concat(parts) or ""
    end
  end
end

-- LuaSocket's lines: every carriage return is taken away as it comes, and the newline, unless they are asked for. What
-- was given as prefix has been through this.
local function join_line(parts, n, prefix, ended, whole)
  if whole then return concat(parts) end
  if ended then parts[n] = parts[n]:sub(1, -2) end
  for i = prefix and 2 or 1, n do parts[i] = parts[i]:gsub("\r", "") end
  return n == 1 and parts[1] or concat(parts)
end

local function receive_line(self, whole, prefix)
  local handle = self.handle
  local parts, n, deadline, ends = { prefix }, prefix and 1 or 0, nil, nil
  while true do
    local data, ended = try_receive_line(handle)
    if data then
      n = n + 1
      parts[n] = data
      if ended then return join_line(parts, n, prefix, true, whole) end
      deadline = nil
    elseif ended == "wouldblock" then
      if not deadline then deadline, ends = deadline_of(self, ends) end
      local ok, why = wait_for(self, "read", deadline, "receive")
      if not ok then return nil, why, join_line(parts, n, prefix, false, whole) end
    else
      return nil, ended, join_line(parts, n, prefix, false, whole)
    end
  end
end

local function receive_all(self, prefix)
  local handle = self.handle
  local parts, n, deadline, ends = { prefix }, prefix and 1 or 0, nil, nil
  while true do
    local data, err = try_receive(handle)
    if data then
      n = n + 1
      parts[n] = data
      deadline = nil
    elseif err == "wouldblock" then
      if not deadline then deadline, ends = deadline_of(self, ends) end
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
  local handle = handle_of(self, "abort")
  self.aborted = true -- for those who wait
  return handle_methods.abort(handle)
end

--- What is known of the connection: state, rtt, rttvar, rto, cwnd, ssthresh, snd_wnd, rcv_wnd, mss, retransmits,
-- unacked.
-- @treturn table|nil
---@return table|nil, string?
function Tcp:info()
  return handle_methods.info(handle_of(self, "info"))
end

--- The local address: "*" and "unspec" of a socket bound to both families.
---@return string|nil # host
---@return integer|string # port, or the error: "not connected" (it is not even bound), "closed"
---@return "inet"|"inet6"|"unspec"|nil # family
function Tcp:getsockname()
  return handle_methods.getsockname(handle_of(self, "getsockname"))
end

--- The peer's address.
---@return string|nil # host
---@return integer|string # port, or the error: "not connected", "closed"
---@return "inet"|"inet6"|nil # family
function Tcp:getpeername()
  return handle_methods.getpeername(handle_of(self, "getpeername"))
end

--- What was sent and received.
---@return integer|nil # bytes received
---@return integer|string # bytes sent, or the error
---@return number|nil # age in seconds of the stack's clock
function Tcp:getstats()
  return handle_methods.getstats(handle_of(self, "getstats"))
end

--- Whether something can be read or accepted without waiting.
---@return boolean|nil
---@return string? # "closed"
function Tcp:dirty()
  return handle_methods.dirty(handle_of(self, "dirty"))
end

--- Sets an option; an unknown one raises.
---@param option string `tcp-nodelay keepalive reuseaddr ipv6-v6only` (boolean), `tcp-keepidle tcp-keepintvl` (seconds),
-- `tcp-keepcnt ip-ttl ip-tos ipv6-unicast-hops` (integer), `linger` ({on=, timeout=})
---@param value boolean|number|{ on: boolean, timeout: number? }
---@return integer|nil # 1
---@return string? # "closed"
function Tcp:setoption(option, value)
  return handle_methods.setoption(handle_of(self, "setoption"), option, value)
end

--- The value of an option; an unknown one raises.
---@param option string as of `setoption`
---@return boolean|number|table|nil
---@return string? # "closed"
function Tcp:getoption(option)
  return handle_methods.getoption(handle_of(self, "getoption"), option)
end

return { new = new, wrap = wrap, metatable = metatable }
