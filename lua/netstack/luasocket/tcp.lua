--- LuaSocket's TCP objects over those of netstack.
-- @module netstack.luasocket.tcp

local core = require "netstack.core"
local errors = require "netstack.luasocket.errors"
local objects = require "netstack.luasocket.object"
local tcp = require "netstack.tcp"

local translate = errors.translate
local handle_methods = core.classes.tcp
local try_connect, try_connected = handle_methods.try_connect, handle_methods.try_connected
local error, setmetatable, tonumber, tostring, type = error, setmetatable, tonumber, tostring, type

-- Options of LuaSocket's for which a stack has nothing. Buffers are of the size that the stack was made with.
local ABSENT = {
  ["bindtodevice"] = true,
  ["recv-buffer-size"] = true,
  ["reuseport"] = true,
  ["send-buffer-size"] = true,
  ["tcp-defer-accept"] = true,
  ["tcp-fastopen"] = true,
  ["tcp-fastopen-connect"] = true,
}

local PATTERNS = { ["*l"] = true, ["l"] = true, ["*L"] = true, ["L"] = true, ["*a"] = true, ["a"] = true }

local Tcp = {}
local master = objects.class("tcp{master}", Tcp)
local client = objects.class("tcp{client}", Tcp)
local server = objects.class("tcp{server}", Tcp)

local M = {}

--- A new object, "tcp{master}".
-- @tparam stack stack
-- @tparam[opt] string family "inet" or "inet6"
-- @treturn table|nil
-- @treturn string error
function M.new(stack, family)
  local socket, err = tcp.new(stack)
  if not socket then return translate(nil, err) end
  return objects.new(master, socket, stack, family, family == nil)
end

function Tcp:bind(host, port)
  port = objects.port(port, "bind")
  local addresses, err = objects.addresses(self, host, "bind")
  if not addresses then return nil, err end
  if self.closed then return nil, "closed" end
  local socket = self.socket
  return objects.try_each(addresses, function(address) return socket:bind(address, port) end)
end

function Tcp:listen(backlog)
  if self.closed then return nil, "closed" end
  local ok, err = self.socket:listen(backlog)
  if not ok then return translate(nil, err) end
  setmetatable(self, server)
  return 1
end

function Tcp:accept()
  if self.closed then return nil, "closed" end
  local socket, err = self.socket:accept()
  if not socket then return translate(nil, err) end
  return objects.new(client, socket, self.stack, self.family, false)
end

-- With a timeout of 0 a new attempt is only begun: as on Linux, nobody is refused at once, next door neither.
local function attempt(self, address, port)
  local socket = self.socket
  local block, total = socket:gettimeout()
  if self.pending or socket.connecting or (block ~= 0 and total ~= 0) then return socket:connect(address, port) end
  local ok, err = try_connect(socket.handle, address, port)
  return ok, err == "wouldblock" and "timeout" or err
end

-- After an attempt that timed out, connect may be called again to learn what became of it.
function Tcp:connect(host, port)
  port = objects.port(port, "connect")
  local addresses, err = objects.addresses(self, host, "connect")
  if not addresses then return nil, err end
  if self.closed then return nil, "closed" end
  setmetatable(self, client) -- as in LuaSocket, whatever comes of it: a later call may find it connected
  local ok, why = objects.try_each(addresses, function(address) return attempt(self, address, port) end)
  -- As Linux has it: whoever asks first how a connection in the background went is told that it is there.
  if why == "already connected" and self.pending then ok, why = 1, nil end
  self.pending = why == "timeout"
  return ok, why
end

Tcp.setsockname, Tcp.setpeername = Tcp.bind, Tcp.connect

function Tcp:send(data, i, j)
  if self.closed then return nil, "closed", 0 end
  return translate(self.socket:send(data, i, j))
end

function Tcp:receive(pattern, prefix)
  if type(pattern) == "string" and not PATTERNS[pattern] and not tonumber(pattern) then
    error("bad argument #1 to 'receive' (invalid receive pattern)", 2)
  end
  if self.closed then return nil, "closed", "" end
  return translate(self.socket:receive(pattern, prefix))
end

function Tcp:shutdown(how)
  if how == nil then how = "both" end
  if how ~= "both" and how ~= "send" and how ~= "receive" then
    error("bad argument #1 to 'shutdown' (invalid option '" .. tostring(how) .. "')", 2)
  end
  if self.closed then return 1 end
  local ok, err = self.socket:shutdown(how)
  if ok or err == "closed" then return 1 end
  return translate(nil, err)
end

function Tcp:dirty()
  return not self.closed and self.socket:dirty() == true
end

function Tcp:getstats()
  if self.last then return self.last[1], self.last[2], self.last[3] end
  local received, sent, age = self.socket:getstats()
  if not received then return translate(nil, sent) end
  local offset = self.offset
  if offset then return received + offset[1], sent + offset[2], age + offset[3] end
  return received, sent, age
end

--- From now on `getstats` counts on from these numbers.
function Tcp:setstats(received, sent, age)
  local now = { self.socket:getstats() }
  if not now[1] then return translate(nil, now[2]) end
  self.offset = {}
  for i, value in ipairs { received or 0, sent or 0, age or 0 } do
    if type(value) ~= "number" then
      error("bad argument #" .. i .. " to 'setstats' (number expected, got " .. type(value) .. ")", 2)
    end
    self.offset[i] = value - now[i]
  end
  return 1
end

objects.common(Tcp, ABSENT)

local close, getoption = Tcp.close, Tcp.getoption

--- Closes; `getstats` goes on telling what it told last.
function Tcp:close()
  if not self.last then self.last = { self:getstats() } end
  return close(self)
end

--- The value of an option; "error" is why an attempt in the background failed, told once, here or by connect.
function Tcp:getoption(name)
  if name ~= "error" or not self.pending or self.closed then return getoption(self, name) end
  local ok, err = try_connected(self.socket.handle)
  if ok or err == "wouldblock" then return nil end
  self.pending = false
  return errors.text[err] or err
end

return M
