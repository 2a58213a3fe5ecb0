--- Networks that stacks of nginx workers join: netstack-tund, a program beside nginx, owns a TUN interface and passes
-- packets on between the host's kernel and those who connect to its UNIX socket. src/tund/tund.h tells what is spoken.
--
-- A stack has one end of a pipe; at the other one a timer's light threads carry packets to and from the socket. What
-- the stack sends while there is no connection stays in the pipe, which pushes back when it is full: so the connections
-- of a stack survive a restart of the program.
-- @module netstack.resty.network

local check = require "netstack.check"
local common = require "netstack.resty.socket"
local core = require "netstack.core"
local devices = require "netstack.device"
local driver = require "netstack.driver"
local ffi = require "ffi"
local monotonic = require "netstack.monotonic"
local owners = require "netstack.resty.owner"
local semaphores = require "ngx.semaphore"
local worker = require "netstack.resty.driver"

local ngx = ngx -- luacheck: ignore 113
local new_tcp, spawn, kill, timer_at = ngx.socket.tcp, ngx.thread.spawn, ngx.thread.kill, ngx.timer.at
local byte, char, sub = string.byte, string.char, string.sub
local assert, ipairs, pcall, setmetatable, tonumber, tostring, type = assert, ipairs, pcall, setmetatable, tonumber,
  tostring, type

-- Seconds.
local RETRY = 1
local FOREVER = 1e6
-- From the worker's exit: the stacks are closed by then; sooner, when nothing is under way for so long.
local GRACE, QUIET, LOOK = 2.2, 0.3, 0.02
-- Milliseconds: to connect, to send, to read. The program never blocks: who cannot send to it for so long leaves.
local TIMEOUTS = { 1000, 2000, 2 ^ 31 - 1 }
-- Bytes that are read, and written, at a time at most (but for the last packet).
local BATCH = 65536
-- States in which no connection needs packets any more.
local OVER = { CLOSED = true, LISTEN = true, ["TIME-WAIT"] = true }
-- How long a packet may wait for room in the stack.
local PATIENCE = 1

local M = {}

---@class netstack.resty.network
local Network = {}
local metatable = {
  __index = Network,
  __name = "netstack.resty.network",
  __tostring = function(self) return ("network %s (%s)"):format(self.path, self.up and "up" or self.why) end,
}

-- ngx_lua logs each connection that fails: a probe tells whether it would, unseen by who listens, since its type is
-- another one.
ffi.cdef [[
int netstack_socket(int domain, int type, int protocol) __asm__("socket");
int netstack_connect(int fd, const void *address, unsigned size) __asm__("connect");
int netstack_close(int fd) __asm__("close");
]]
local AF_UNIX, SOCK_DGRAM = 1, 2
local HINDERS = {
  [2] = "no such file or directory", [13] = "permission denied", [20] = "not a directory", [111] = "connection refused",
}
local address_type = ffi.typeof "struct { uint16_t family; char path[108]; }"

local function hindrance(path)
  local address = address_type()
  address.family = AF_UNIX
  ffi.copy(address.path, path)
  local fd = ffi.C.netstack_socket(AF_UNIX, SOCK_DGRAM, 0)
  if fd < 0 then return "no descriptor is left" end
  local refused = ffi.C.netstack_connect(fd, address, ffi.sizeof(address)) ~= 0
  local why = refused and HINDERS[ffi.errno()]
  ffi.C.netstack_close(fd)
  return why
end

-- Says what has changed, once.
local function tell(self, level, why)
  if self.why == why then return end
  self.why = why
  ngx.log(level, "netstack: ", self.path, ": ", why)
end

local function ring(self) self.bell:post(1) end

-- There is no connection, or no more.
local function fail(self, why)
  if self.failed then return end
  self.up, self.failed = false, true
  tell(self, ngx.ERR, tostring(why) .. "; trying again each second")
end

-- Does what the answer says. Returns 1, or nil and why our stack cannot have it.
local function take_grant(self, words)
  local addresses, gateways, mtu = {}, {}, nil
  for name, value in words:gmatch("(%w+)=(%S+)") do
    if name == "address" then addresses[#addresses + 1] = value end
    if name == "gateway" then gateways[#gateways + 1] = value end
    if name == "mtu" then mtu = tonumber(value) end
  end
  if mtu ~= self.far:mtu() then
    return nil, ("its mtu is %s, the stack's %d: they have to be equal"):format(mtu, self.far:mtu())
  end
  local interface = self.attached
  local ok, err = interface:set_addresses(addresses)
  for _, gateway in ipairs(gateways) do
    if ok then ok, err = interface:set_gateway(gateway) end
  end
  if not ok then return nil, err end
  self.names = {}
  for i, address in ipairs(addresses) do self.names[i] = address:match("^[^/]*") end
  self.granted = addresses
  return 1
end

-- Asks for the addresses. Returns 1 once they are ours, or nil and what has come in between.
local function dial(self)
  local socket = new_tcp()
  socket:settimeouts(TIMEOUTS[1], TIMEOUTS[2], TIMEOUTS[3])
  local ok, err = socket:connect("unix:" .. self.path)
  if ok then
    self.socket = socket
    ok, err = socket:send { "netstack 1 ", table.concat(self.names or {}, " "), "\n" }
  end
  while ok do
    local line
    line, err = socket:receive()
    local word, rest = (line or ""):match("^(%l+) ?(.*)$")
    if word == "granted" then
      ok, err = take_grant(self, rest)
      if ok then return 1 end
    elseif word == "wait" and self.names and not self.named then
      self.names = nil -- another one has what was ours: any other will do
      socket:close()
      return dial(self)
    elseif word == "wait" then
      tell(self, ngx.WARN, "waits: " .. rest)
    else
      return nil, word and line or err or "it speaks another language"
    end
  end
  return nil, err
end

-- Gives the stack what comes, until nothing does.
local function read(self)
  local socket, far = self.socket, self.far
  local rest = ""
  while true do
    local data, err = socket:receiveany(BATCH)
    if not data then return err end
    if rest ~= "" then data = rest .. data end
    local at, size = 1, #data
    while at < size do
      local high, low = byte(data, at, at + 1)
      local last = at + 1 + high * 256 + low
      if last > size then break end
      if far:send(sub(data, at + 2, last), PATIENCE) then
        self.received = self.received + 1
      else
        self.dropped = self.dropped + 1
        if not core.is_open(self.stack) then self:close() end -- it has crashed
      end
      at = last + 1
    end
    rest = at > size and "" or sub(data, at)
  end
end

-- A light thread: from the request for addresses to the connection's end.
local function connect(self)
  local ok, up, err = pcall(dial, self)
  if ok and up then
    self.up = true
    self.connected = self.connected + 1
    tell(self, ngx.NOTICE, "joined as " .. table.concat(self.granted, ", "))
    self.ups:post(self.waiting + 1)
    ring(self) -- packets may have waited
    ok, err = pcall(read, self)
    if ok and err == "closed" then err = "the connection has ended" end
  elseif not ok then
    err = up
  end
  fail(self, err)
  ring(self)
end

local heads = {} -- by a packet's length

local function head_of(length)
  local head = heads[length]
  if not head then
    head = char((length - length % 256) / 256, length % 256)
    heads[length] = head
  end
  return head
end

-- Has the bell ring when the stack sends.
local function watch(self)
  if self.watcher.waits then return end
  local ticket = self.far:wait_ticket("read")
  if ticket and not driver.watch(self.watcher, ticket) then ring(self) end -- it has sent meanwhile
end

-- Sends what the stack has sent.
local function write(self)
  local socket, far, parts = self.socket, self.far, self.parts
  while self.up do
    local n, bytes = 0, 0
    local packet = far:try_receive()
    while packet do
      local length = #packet
      parts[n + 1], parts[n + 2] = head_of(length), packet
      n, bytes = n + 2, bytes + length
      packet = bytes < BATCH and far:try_receive()
    end
    if n == 0 then return watch(self) end
    for i = n + 1, #parts do parts[i] = nil end
    local ok, err = socket:send(parts)
    if not ok then return fail(self, err) end
    self.sent = self.sent + n / 2
  end
end

local function is_used(self)
  if driver.is_needed() then return true end
  for _, one in ipairs(self.stack:sockets() or {}) do
    if one.protocol == "tcp" and not OVER[one.state] then return true end
  end
  return false
end

-- While the worker exits: seconds until it is to be looked at again, or nil: it is time to leave.
local function linger(self)
  local now = monotonic()
  if is_used(self) then self.used = now end
  if now - self.leaving > GRACE or now - self.used > QUIET then return nil end
  return LOOK
end

local joined = setmetatable({}, { __mode = "k" }) -- lists of networks, by their stacks

-- The entry would keep the stack: the network does.
local function forget(self)
  local list = joined[self.stack] or {}
  for i = #list, 1, -1 do
    if list[i] == self then table.remove(list, i) end
  end
  if not list[1] then joined[self.stack] = nil end
end

local function finish(self)
  self.closing, self.up = true, false
  self.why = "closed"
  forget(self)
  driver.unwatch(self.watcher)
  owners.release(self)
  self.far:close()
  self.near:close()
  self.ups:post(self.waiting + 1)
end

-- A connection, while it lasts.
local function serve(self)
  self.failed, self.socket = false, false
  local hinders = hindrance(self.path)
  if hinders then return fail(self, hinders) end
  local thread = spawn(connect, self)
  local limit = FOREVER
  while not self.failed and limit do
    if self.up then write(self) end
    if self.closing then break end
    if self.leaving then limit = linger(self) end
    if limit and not self.failed then self.bell:wait(limit) end
  end
  if not limit then self.closing = true end
  self.up = false
  kill(thread)
  if self.socket then self.socket:close() end
end

-- A timer for each connection: what nginx allocates for one it frees when its timer ends.
local function run(premature, self)
  if (premature or worker.exiting()) and not self.leaving then self.leave:close() end
  local ok, err = pcall(serve, self)
  if not ok then ngx.log(ngx.ERR, "netstack: ", self.path, ": ", tostring(err)) end
  local again, rest = monotonic() + RETRY, RETRY
  while not self.closing and rest > 0 do
    if not self.leaving then self.bell:wait(rest)
    elseif linger(self) then self.bell:wait(LOOK)
    else self.closing = true end
    rest = again - monotonic()
  end
  if self.closing or not timer_at(0, run, self) then finish(self) end
end

local rules = {
  path = function(value)
    if type(value) ~= "string" then return "string expected, got " .. type(value) end
    if not value:find("^/[^%z]+$") or #value > 107 then return "an absolute path of at most 107 bytes expected" end
  end,
  addresses = function(value)
    if type(value) ~= "table" then return "table expected, got " .. type(value) end
    for _, text in ipairs(value) do
      if type(text) ~= "string" then return "a list of strings expected" end
      if not core.parse_address(text:match("^[^/%%]*")) then return "invalid address '" .. text .. "'" end
    end
    if #value == 0 or #value > 16 then return "1 to 16 addresses expected" end
  end,
  name = check.of_type("string"),
  mtu = check.integer(68, 65535),
}

-- Who closes the stack has left.
local Stack = core.classes.stack
local close_stack = Stack.close
function Stack:close()
  local result = close_stack(self)
  for _, network in ipairs(joined[self] or {}) do network:close() end
  return result
end

--- Joins a network, as `resty.join` says.
function M.join(stack, options)
  if type(options) ~= "table" then check.bad(2, "join", "table expected, got " .. type(options)) end
  check.options(options, rules, 2, "join")
  if not options.path then check.bad(2, "join", "option 'path': string expected, got nil") end
  local ok, err = worker.start(stack, true)
  if not ok then return nil, err end
  if worker.exiting() then return nil, "closed" end
  local near, far = devices.pipe { mtu = options.mtu, checksum = true }
  if not near then return nil, far end
  local interface
  interface, err = stack:attach(near, { name = options.name, addresses = options.addresses })
  if not interface then return nil, err end
  local self = setmetatable({
    path = options.path, stack = stack, near = near, far = far, attached = interface,
    named = options.addresses ~= nil, names = options.addresses, granted = {}, -- `names`: what is asked for
    bell = assert(semaphores.new(0)), ups = assert(semaphores.new(0)), waiting = 0,
    socket = false, up = false, failed = false, why = "not connected yet", parts = {}, watcher = false,
    closing = false, leaving = false, used = 0, leave = false, owner = false,
    sent = 0, received = 0, dropped = 0, connected = 0,
  }, metatable)
  self.watcher = driver.watcher(function() ring(self) end)
  self.leave = {
    close = function()
      self.leaving = monotonic()
      self.used = self.leaving
      ring(self)
    end,
  }
  ok, err = timer_at(0, run, self)
  if not ok then
    finish(self)
    return nil, err
  end
  worker.at_exit(self.leave)
  if ngx.get_phase() ~= "init_worker" then owners.adopt(self) end
  joined[stack] = joined[stack] or {}
  table.insert(joined[stack], self)
  return self
end

--- Whether the stack has its addresses, and packets go to and fro.
-- @treturn boolean
-- @treturn string|nil why not
---@return boolean, string?
function Network:is_up()
  common.check_self(self, metatable, "is_up")
  if self.closing then return false, "closed" end
  if self.up then return true end
  return false, self.why
end

--- Waits until that is so.
-- @tparam[opt=60000] number time milliseconds
-- @treturn integer|nil 1
-- @treturn string "timeout", "closed", "not supported" (one cannot wait here)
-- @treturn string|nil after a timeout, why it is not up
---@param time? number
---@return integer|nil, string?, string?
function Network:wait(time)
  common.check_self(self, metatable, "wait")
  local limit = monotonic() + common.seconds(time, 1, "wait")
  while self.closing or not self.up do
    if self.closing then return nil, "closed" end
    if not worker.can_wait() then return nil, "not supported" end
    local rest = limit - monotonic()
    if rest <= 0 then return nil, "timeout", self.why end
    self.waiting = self.waiting + 1
    self.ups:wait(rest)
    self.waiting = self.waiting - 1
  end
  return 1
end

--- The addresses that the stack was given, with their prefixes' lengths; none before it was up for the first time.
-- @treturn {string,...}
---@return string[]
function Network:addresses()
  common.check_self(self, metatable, "addresses")
  local list = {}
  for i, address in ipairs(self.granted) do list[i] = address end
  return list
end

--- The stack's interface.
-- @treturn interface
---@return netstack.interface
function Network:interface()
  common.check_self(self, metatable, "interface")
  return self.attached
end

--- Counters.
-- @treturn table `sent`, `received` and `dropped` packets (for which the stack had no room in time), `connected`: how
-- often
---@return { sent: integer, received: integer, dropped: integer, connected: integer }
function Network:stats()
  common.check_self(self, metatable, "stats")
  return { sent = self.sent, received = self.received, dropped = self.dropped, connected = self.connected }
end

--- Leaves: what the stack has sent goes out, then its interface and its addresses are gone.
-- @treturn integer 1; harmless twice
---@return integer
function Network:close()
  common.check_self(self, metatable, "close")
  self.closing = true
  ring(self)
  return 1
end

-- Its request has ended, and does not wait for the rest.
function Network:abandon()
  owners.release(self)
  self:close()
end

return M
