--- Clients written for nginx's cosockets, on stacks: functions in place of nginx's that mind what the caller is bound
-- to, and private copies of modules.
--
-- Clients keep `ngx.socket.tcp` when they are loaded, and a replacement that came and went with a call would be seen by
-- every request that runs while that call waits. So there is one replacement, for good, that looks at its caller.
-- @module netstack.resty.clients

local binding = require "netstack.resty.binding"
local private = require "netstack.private"
local sockets = require "netstack.socket"
local tcp = require "netstack.resty.tcp"
local udp = require "netstack.resty.udp"

local ngx = ngx -- luacheck: ignore 113
local current = binding.current
local error, require, setmetatable, type = error, require, setmetatable, type

local M = {}

-- ngx.socket.connect over another ngx.socket.tcp.
local function connector(new)
  return function(...)
    local socket, err = new()
    if not socket then return nil, err end
    local ok
    ok, err = socket:connect(...)
    if not ok then return nil, err end
    return socket
  end
end

-- A function that calls one of ours when its caller is bound, else nginx's.
local function choose(ours, theirs)
  return function(...)
    local stack = current()
    if stack then return ours(stack) end
    return theirs(...)
  end
end

-- A function that starts another one, which is to be bound like its caller.
local function inherit(start)
  return function(fn, ...)
    local stack = type(fn) == "function" and current()
    return start(stack and binding.bind(stack, fn) or fn, ...)
  end
end

local installed = false

--- Puts the functions in nginx's place.
function M.install()
  if installed then return 1 end
  local phase = ngx.get_phase()
  if phase ~= "init" and phase ~= "init_worker" then
    error("netstack.resty: install() belongs in init_by_lua*, before clients are loaded; this is phase " .. phase, 2)
  end
  local socket, thread = ngx.socket, ngx.thread
  socket.tcp = choose(tcp.new, socket.tcp)
  socket.udp = choose(udp.new, socket.udp)
  if socket.stream then socket.stream = socket.tcp end
  if socket.connect then socket.connect = connector(socket.tcp) end
  thread.spawn = inherit(thread.spawn)
  coroutine.create = inherit(coroutine.create) -- luacheck: ignore 122
  coroutine.wrap = inherit(coroutine.wrap) -- luacheck: ignore 122
  installed = true
  return 1
end

--- Calls a function that is bound to a stack.
function M.with(stack, fn, ...)
  if not installed then
    error("netstack.resty: with() needs install() to be called in init_by_lua*, before clients are loaded", 2)
  end
  return binding.bind(stack, fn)(...)
end

-- Whether a module is Lua that mentions `ngx.socket`, or gets to one that does by what it requires: what has nothing to
-- bind is shared, for C types can be declared once only. nginx's modules and ours are what clients are bound to.
local function uses_sockets(name, seen)
  if seen[name] or name:match("^resty%.core") or name:match("^ngx%.") or name:match("^netstack") then return false end
  seen[name] = true
  local path = private.search(name, package.path)
  local file = path and io.open(path, "rb")
  if not file then return false end
  local text = file:read("*a")
  file:close()
  if text:find("[.\"']socket%f[^%w_]") then return true end
  for other in text:gmatch("require%s*[(,]?%s*[\"']([^\"']+)[\"']") do
    if uses_sockets(other, seen) then return true end
  end
  return false
end

-- An `ngx` whose sockets are a stack's, which it does not hold.
local function private_ngx(stack)
  local reference = sockets.weak(stack)
  local function new_tcp() return tcp.new(reference) end
  local socket = { tcp = new_tcp, stream = new_tcp, connect = connector(new_tcp),
    udp = function() return udp.new(reference) end }
  return setmetatable({ socket = setmetatable(socket, { __index = ngx.socket }) }, { __index = ngx, __newindex = ngx })
end

local function new_loader(stack)
  local environment = setmetatable({ ngx = private_ngx(stack) }, { __index = _G })
  local loaded, known = { ngx = environment.ngx }, {}
  environment._G = environment

  local load = private.loader(loaded, function(name)
    local path, tried = private.search(name, package.path)
    if not path then error("module '" .. name .. "' not found:" .. tried, 0) end
    return private.chunk(name, path, environment), path
  end)

  function environment.require(name)
    if type(name) ~= "string" then return require(name) end
    if loaded[name] ~= nil then return loaded[name] end
    if known[name] == nil then known[name] = uses_sockets(name, {}) end
    return (known[name] and load or require)(name)
  end
  return load
end

local loaders = setmetatable({}, { __mode = "k" }) -- by stack

--- The private copy of a module that a stack has.
function M.load(stack, name)
  if not loaders[stack] then loaders[stack] = new_loader(stack) end
  return loaders[stack](name)
end

return M
