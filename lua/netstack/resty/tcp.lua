--- TCP sockets of stacks with the methods, results, error strings and rules of nginx's cosockets.
--
-- As there, a reader and a writer may use a socket at once; a read that fails for another reason than time closes its
-- direction, a send that fails for any reason the other one; both closed, so is the connection.
-- @module netstack.resty.tcp

local check = require "netstack.check"
local core = require "netstack.core"
local driver = require "netstack.driver"
local errors = require "netstack.resty.errors"
local pools = require "netstack.resty.pool"
local receive = require "netstack.resty.receive"
local common = require "netstack.resty.socket"
local owners = require "netstack.resty.owner"
local scheduler = require "netstack.scheduler"
local sockets = require "netstack.socket"
local tcp = require "netstack.tcp"
local worker = require "netstack.resty.driver"

local deadline, wait, waits = scheduler.deadline, common.wait, common.waits
local hold, let_go = driver.hold, driver.let_go
local try_send = require("netstack.direct").try_send
local setmetatable, tostring, type = setmetatable, tostring, type
local text = errors.text

-- As nginx has them when nothing is configured.
local POOL_SIZE, KEEPALIVE = 30, 60
-- A peer that takes nothing may keep what is unsent from a closed connection so long.
local LINGER = { on = true, timeout = 60 }

local M = {}

---@class netstack.resty.tcp
local Tcp = {}
local metatable = {
  __index = Tcp,
  __name = "netstack.resty.tcp",
  __tostring = function(self) return self.socket and tostring(self.socket) or "tcp (closed)" end,
}

-- What many sockets never set is the class's: there is one for each request, and eight fields take half of the room of
-- nine.
Tcp.attempt = false -- a socket that is being connected
Tcp.rest = "" -- received and not handed out yet
Tcp.name = false -- of the pool that is made when the connection is kept
Tcp.read_closed, Tcp.write_closed = false, false
Tcp.writing = false -- the coroutine that waits
Tcp.host, Tcp.port = false, false -- to bind to
Tcp.connect_timeout, Tcp.send_timeout, Tcp.read_timeout = common.seconds(), common.seconds(), common.seconds()

local function new(stack, socket)
  local self = {
    stack = sockets.weak(stack),
    socket = socket, -- false: there is none, or it is closed
    connecting = false, reading = false, -- the coroutine that waits
    lease = false, -- when a pool counts the connection
    item = false, -- when it was in a pool
    owner = false, place = 0,
  }
  setmetatable(self, metatable)
  return self
end

--- A new socket, not connected.
function M.new(stack) return new(stack, false) end

--- A socket over an accepted connection.
function M.wrap(stack, socket)
  local self = new(stack, socket)
  owners.adopt(self)
  return self
end

-- What keeps a method from being called now.
local function busy(self, read, write)
  if waits(self.connecting) then return "socket busy connecting" end
  if read and waits(self.reading) then return "socket busy reading" end
  if write and waits(self.writing) then return "socket busy writing" end
end

-- Only a socket that has some gets the field.
local function drop_rest(self)
  if self.rest ~= "" then self.rest = "" end
end

local function close(self)
  local socket, attempt, lease = self.socket, self.attempt, self.lease
  owners.release(self)
  if self.item then pools.forget(self.item) end
  self.socket, self.item, self.lease = false, false, false
  drop_rest(self)
  if self.read_closed then self.read_closed = false end
  if self.write_closed then self.write_closed = false end
  if socket then
    socket:setoption("linger", LINGER)
    socket:close()
  end
  if attempt then
    self.attempt = false
    attempt:abort()
  end
  if lease then lease.pool:give(lease) end
end

local function is_open(self)
  return self.socket and not (self.read_closed and self.write_closed)
end

local function close_reading(self)
  self.read_closed = true
  drop_rest(self)
  if self.write_closed then close(self) end
end

local function close_writing(self)
  self.write_closed = true
  if self.read_closed then close(self) end
end

--- Sets the address that connections come from.
-- @tparam string host
-- @tparam[opt] integer port
-- @treturn integer|nil 1
-- @treturn string "bad address"
---@param host string
---@param port? integer
---@return integer|nil, string?
function Tcp:bind(host, port)
  common.check_self(self, metatable, "bind")
  if type(host) ~= "string" then check.bad(1, "bind", "string expected, got " .. type(host)) end
  if not core.parse_address(host:match("^[^%%]*")) then return nil, "bad address" end
  local number, err = common.port(port or 0)
  if not number then return nil, err end
  self.host, self.port = host, number
  return 1
end

local function option_of(options, name, least)
  local value = options[name]
  if value == nil then return nil end
  if type(value) ~= "number" then check.bad(3, "connect", ('bad "%s" option type: %s'):format(name, type(value))) end
  if value < least or value % 1 ~= 0 then
    check.bad(3, "connect", ('bad "%s" option value: %.14g'):format(name, value))
  end
  return value
end

-- The name of a pool that was given none. Most connections are to where the last one was, and to make a string of a
-- number costs as much as all that a pool does.
local last_host, last_port, last_name
local function usual_name(host, port)
  if host ~= last_host or port ~= last_port then
    last_host, last_port, last_name = host, port, host .. ":" .. port
  end
  return last_name
end

-- The pool that a connection counts in, and its name: a connection that no pool is made for may still be kept in one.
local function choose_pool(stack, host, port, options)
  local size, backlog, name
  if type(options) == "table" then
    size, backlog = option_of(options, "pool_size", 1), option_of(options, "backlog", 0)
    name = options.pool
    if name ~= nil and type(name) ~= "string" and type(name) ~= "number" then
      check.bad(3, "connect", 'bad "pool" option type: ' .. type(name))
    end
  end
  name = name and tostring(name) or usual_name(host, port)
  if size or backlog then return name, pools.open(stack, name, size or POOL_SIZE, backlog) end
  return name, pools.find(stack, name)
end

-- A connection of its own.
local function dial(self, stack, host, port)
  local address, err = sockets.resolve(self, host, 1, "connect")
  if not address then return nil, text(err, host) end
  local socket, ok
  socket, err = tcp.new(stack)
  if not socket then return nil, text(err) end
  self.attempt, ok = socket, true
  if self.host then
    socket:setoption("reuseaddr", true)
    ok, err = socket:bind(self.host, self.port)
  end
  if ok then
    socket:settimeout(self.connect_timeout)
    ok, err = socket:connect(address, port)
  end
  if not ok then return nil, text(err) end
  self.socket, self.attempt = socket, false
  return 1
end

-- Its coroutine may be dropped where it waits: what is under way is the socket's, and the socket its request's, before.
local function connect(self, stack, host, port, pool)
  owners.adopt(self)
  if not pool then return dial(self, stack, host, port) end
  local item = pool:take()
  if not item then
    local lease, err = pool:apply()
    if not lease then return nil, err end
    self.lease = lease
    local ok
    ok, item = pool:wait(lease, self.connect_timeout)
    if not ok then return nil, item end
    if not item then return dial(self, stack, host, port) end
  end
  self.socket, self.lease, self.item = item.socket, item.lease, item
  return 1
end

--- Connects to a peer, or takes an idle connection to it out of the pool. A connection that the socket has is closed
-- before.
-- @tparam string host address, or a name that the stack knows
-- @tparam integer port
-- @tparam[opt] table options `pool` (its name, "host:port"), `pool_size` (30 if there is a `backlog`; without both
-- no pool is made here), `backlog` (how many may queue when the pool's connections are all in use)
-- @treturn integer|nil 1
-- @treturn string "timeout", "connection refused", "no route to host", "network is unreachable", "closed" (the stack),
-- "too many waiting connect operations", "<host> could not be resolved (3: Host not found)", "not supported" (a phase
-- that cannot wait, a UNIX socket)
---@param host string
---@param port integer
---@param options? { pool?: string, pool_size?: integer, backlog?: integer }
---@return integer|nil, string?
function Tcp:connect(host, port, options)
  common.check_self(self, metatable, "connect")
  if type(host) ~= "string" then check.bad(1, "connect", "string expected, got " .. type(host)) end
  if common.is_unix(host) then return nil, "not supported" end
  local number, err = common.port(port)
  if not number then return nil, err end
  local why = busy(self, true, true)
  if why then return nil, why end
  if self.socket or self.connecting then close(self) end
  local stack = self.stack.stack
  if not stack then return nil, "closed" end
  local started
  started, err = worker.start(stack)
  if not started then return nil, err end
  local thread = worker.can_wait()
  if not thread then return nil, "not supported" end
  local name, pool = choose_pool(stack, host, number, options)
  if not pool then self.name = name end
  self.connecting = thread
  local ok
  ok, err = connect(self, stack, host, number, pool)
  self.connecting = false
  if ok then return 1 end
  close(self)
  return nil, err
end

--- Sends data; returns when all of it lies in the send buffer. Any error closes the socket for sending.
-- @tparam string|number|boolean|nil|table data; of tables their elements, nested ones too
-- @treturn integer|nil bytes
-- @treturn string "timeout", "closed", "connection reset by peer"
---@param data string|number|boolean|nil|table
---@return integer|nil, string?
function Tcp:send(data)
  common.check_self(self, metatable, "send")
  local socket = self.socket
  if not socket or self.write_closed then return nil, "closed" end
  local why = busy(self, false, true)
  if why then return nil, why end
  data = common.text(data)
  if data == "" then return 0 end
  -- What is sent goes its way at once: most callers are about to wait for the answer.
  hold()
  local last, err, sent = try_send(socket.handle, data)
  let_go()
  if last then return last end
  if err == "wouldblock" then
    local thread = worker.can_wait()
    self.writing = thread or false
    local limit = deadline(self.send_timeout)
    repeat
      local ok
      ok, err = wait(socket, "write", limit, thread)
      if ok then
        local before = sent
        last, err, sent = try_send(socket.handle, data, sent + 1)
        if not last and sent > before then limit = deadline(self.send_timeout) end
      end
    until last or err ~= "wouldblock"
    self.writing = false
    if last then return last end
  end
  if self.socket == socket then close_writing(self) end
  return nil, text(err)
end

-- Why a read may not begin; nil when it may.
local function check_reading(self, name)
  common.check_self(self, metatable, name)
  if not self.socket or self.read_closed then return "closed" end
  return busy(self, true, false)
end

receive.add(metatable, check_reading, close_reading)

--- Sets all timeouts.
-- @tparam number time milliseconds; 0: the default, 60 s
---@param time number
function Tcp:settimeout(time)
  common.check_self(self, metatable, "settimeout")
  local seconds = common.seconds(time, 1, "settimeout")
  self.connect_timeout, self.send_timeout, self.read_timeout = seconds, seconds, seconds
end

--- Sets each timeout: how long `connect` may take, and `send` and reads without making progress.
-- @tparam number connect_time milliseconds; 0: the default, 60 s
-- @tparam number send_time
-- @tparam number read_time
---@param connect_time number
---@param send_time number
---@param read_time number
function Tcp:settimeouts(connect_time, send_time, read_time)
  common.check_self(self, metatable, "settimeouts")
  local connect_timeout = common.seconds(connect_time, 1, "settimeouts")
  local send_timeout = common.seconds(send_time, 2, "settimeouts")
  self.read_timeout = common.seconds(read_time, 3, "settimeouts")
  self.connect_timeout, self.send_timeout = connect_timeout, send_timeout
end

local SWITCHES = { keepalive = true, reuseaddr = true, ["tcp-nodelay"] = true }
local NUMBERS = { ["tcp-keepidle"] = true, ["tcp-keepintvl"] = true, ["tcp-keepcnt"] = true }

--- Sets an option of a connection.
-- @tparam string option `keepalive reuseaddr tcp-nodelay` (true or false, 1 or 0), `tcp-keepidle tcp-keepintvl`
-- (seconds), `tcp-keepcnt`
-- @param value
-- @treturn boolean|nil true
-- @treturn string "closed", "not supported" (`sndbuf`, `rcvbuf`: a stack has them), "unsupported option <option>"
---@param option string
---@param value boolean|number
---@return true|nil, string?
function Tcp:setoption(option, value)
  common.check_self(self, metatable, "setoption")
  if not is_open(self) then return nil, "closed" end
  if option == "sndbuf" or option == "rcvbuf" then return nil, "not supported" end
  if SWITCHES[option] then
    value = value ~= nil and value ~= false and value ~= 0
  elseif not NUMBERS[option] then
    return nil, "unsupported option " .. tostring(option)
  end
  local ok, err = self.socket:setoption(option, value)
  if not ok then return nil, text(err) end
  return true
end

--- Puts the connection into the pool for its peer, and closes the socket.
-- @tparam[opt=60000] number timeout milliseconds after which an idle connection is closed; 0: never
-- @tparam[opt=30] integer size of the pool, if `connect` has made none
-- @treturn integer|nil 1
-- @treturn string "closed", "unread data in buffer", "connection in dubious state" (the peer has said something: it is
-- closed), "key not found" (an accepted connection)
---@param timeout? number
---@param size? integer
---@return integer|nil, string?
function Tcp:setkeepalive(timeout, size)
  common.check_self(self, metatable, "setkeepalive")
  local time = KEEPALIVE
  if timeout ~= nil then
    time = timeout ~= 0 and common.seconds(timeout, 1, "setkeepalive") or nil
  end
  if size ~= nil and (type(size) ~= "number" or size < 1 or size % 1 ~= 0) then
    check.bad(2, "setkeepalive", 'bad "pool_size" option value: ' .. tostring(size))
  end
  if not self.socket or self.read_closed or self.write_closed then return nil, "closed" end
  local why = busy(self, true, true)
  if why then return nil, why end
  if self.rest ~= "" then return nil, "unread data in buffer" end
  if worker.exiting() then
    close(self)
    return 1
  end
  local stack = self.stack.stack
  if not stack then return nil, "closed" end
  if not self.lease and not self.name then return nil, "key not found" end
  local lease = self.lease or pools.open(stack, self.name, size or POOL_SIZE):lease()
  local item = self.item or pools.item(self.socket)
  if not item or not lease.pool:put(item, lease, time) then
    self.lease = lease
    close(self)
    return nil, "connection in dubious state"
  end
  self.socket, self.item, self.lease = false, false, false
  owners.release(self)
  return 1
end

--- How often the connection was taken out of a pool.
-- @treturn integer|nil
-- @treturn string "closed"
---@return integer|nil, string?
function Tcp:getreusedtimes()
  common.check_self(self, metatable, "getreusedtimes")
  if not is_open(self) then return nil, "closed" end
  return self.item and self.item.reused or 0
end

--- What is known of the connection, as `info` of the stacks' own sockets tells it: state, rtt, cwnd and so on. Other
-- than nginx's, which have no such method.
-- @treturn table|nil
-- @treturn string "closed"
---@return table|nil, string?
function Tcp:info()
  common.check_self(self, metatable, "info")
  if not is_open(self) then return nil, "closed" end
  return self.socket:info()
end

--- Closes the socket: what is unsent is sent in the background, then FIN.
-- @treturn integer|nil 1
-- @treturn string "closed": it was
---@return integer|nil, string?
function Tcp:close()
  common.check_self(self, metatable, "close")
  if not is_open(self) then return nil, "closed" end
  local why = busy(self, true, true)
  if why then return nil, why end
  close(self)
  return 1
end

-- Its request has ended.
Tcp.abandon = close

--- TLS is not to be had here.
-- @treturn nil
-- @treturn string "not supported"
---@return nil, string
function Tcp:sslhandshake()
  common.check_self(self, metatable, "sslhandshake")
  return nil, "not supported"
end

return M
