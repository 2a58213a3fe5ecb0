--- LuaSocket's `socket` module over a stack: `require "netstack.luasocket"(stack)` has every key of it, and programs
-- written for LuaSocket run on it, in tasks and outside of `netstack.run`.
--
-- Where it is not LuaSocket to the letter: "*" binds both families (`tcp4` and `tcp6` only theirs); a name that is not
-- known is always "host not found"; what LuaSocket refuses by raising an error since the object is of another class (a
-- `receive` on "tcp{master}") returns nil and an error; `select` takes 65,536 sockets, not 1024; `getfd` gives a number
-- that only `select` and `setfd` know.
-- @module netstack.luasocket

local core = require "netstack.core"
local dns = require "netstack.luasocket.dns"
local exceptions = require "netstack.luasocket.exceptions"
local loader = require "netstack.luasocket.loader"
local ltn12 = require "netstack.luasocket.ltn12"
local objects = require "netstack.luasocket.object"
local scheduler = require "netstack.scheduler"
local select_sockets = require "netstack.luasocket.select"
local tcp = require "netstack.luasocket.tcp"
local udp = require "netstack.luasocket.udp"
local version = require "netstack.version"

local error, pcall, select, tonumber, tostring, type = error, pcall, select, tonumber, tostring, type

-- 2001-09-09: when a run with a seed begins. It is to do the same each time, and how a deadline is rounded depends on
-- how large the time is.
local FIXED_EPOCH = 1e9

local epoch, epoch_run = nil, nil -- wall clock time at which the time of a run began; `false` is outside run

--- The time in seconds since 1970. In a run it goes with the run's clock, so it agrees with `sleep` and with timeouts,
-- in virtual time too.
-- @treturn number
---@return number
local function gettime()
  local run = scheduler.run_id() or false
  if run ~= epoch_run then -- clocks of runs that are not virtual tell the real time
    epoch_run = run
    epoch = run and not run.source and scheduler.seed() and FIXED_EPOCH or core.wall_clock() - scheduler.now()
  end
  return epoch + scheduler.now()
end

--- Waits for so many seconds; others go on meanwhile.
-- @tparam number seconds
---@param seconds number
local function sleep(seconds)
  local time = tonumber(seconds)
  if not time then error("bad argument #1 to 'sleep' (number expected, got " .. type(seconds) .. ")", 2) end
  scheduler.sleep(time > 0 and time or 0)
end

-- All but the first `count` of the values.
local function skip(count, ...)
  local n = tonumber(count)
  if not n then error("bad argument #1 to 'skip' (number expected, got " .. type(count) .. ")", 2) end
  if n >= 1 then return select(n + 1, ...) end
  return ...
end

local FAMILIES = { inet = "inet", inet6 = "inet6" }

--- Makes LuaSocket's module over a stack, which the module keeps. Each call makes one of its own.
-- @tparam stack stack
-- @treturn table `tcp tcp4 tcp6 udp udp4 udp6 connect connect4 connect6 bind select gettime sleep newtry protect try
-- skip sink source sinkt sourcet choose dns …`, and `load`
---@param stack netstack.stack
---@return table
local function new(stack)
  local ok = pcall(core.is_open, stack)
  if not ok then error("bad argument #1 to 'luasocket' (stack expected, got " .. type(stack) .. ")", 2) end

  local M = {
    _VERSION = "LuaSocket 3.0.0 (netstack " .. version .. ")",
    _DEBUG = false,
    _SETSIZE = select_sockets.LIMIT, -- how many sockets `select` takes
    _SOCKETINVALID = objects.INVALID,
    _DATAGRAMSIZE = 65507, -- the longest datagram
    BLOCKSIZE = 2048, -- what sources read at a time
    choose = ltn12.choose,
    dns = dns.new(stack),
    gettime = gettime,
    newtry = exceptions.newtry,
    protect = exceptions.protect,
    select = select_sockets.select,
    skip = skip,
    sleep = sleep,
    try = exceptions.newtry(),
    __unload = function() end, -- there is nothing of the system's to give back
    tcp = function() return tcp.new(stack) end,
    tcp4 = function() return tcp.new(stack, "inet") end,
    tcp6 = function() return tcp.new(stack, "inet6") end,
    udp = function() return udp.new(stack) end,
    udp4 = function() return udp.new(stack, "inet") end,
    udp6 = function() return udp.new(stack, "inet6") end,
  }

  --- Connects.
  -- @tparam string host
  -- @tparam integer port
  -- @tparam[opt] string local_host
  -- @tparam[opt] integer local_port
  -- @tparam[opt="unspec"] string family "inet", "inet6"
  -- @treturn table|nil "tcp{client}"
  -- @treturn string error
  function M.connect(host, port, local_host, local_port, family)
    if family ~= nil and family ~= "unspec" and not FAMILIES[family] then
      error("bad argument #5 to 'connect' (invalid option '" .. tostring(family) .. "')", 2)
    end
    port = objects.port(port, "connect")
    if local_port ~= nil then local_port = objects.port(local_port, "connect") end
    local object, err = tcp.new(stack, FAMILIES[family])
    if not object then return nil, err end
    local done = 1
    if local_host ~= nil or local_port ~= nil then done, err = object:bind(local_host or "*", local_port or 0) end
    if done then done, err = object:connect(host, port) end
    if done then return object end
    object:close()
    return nil, err
  end

  function M.connect4(host, port, local_host, local_port)
    return M.connect(host, port, local_host, local_port, "inet")
  end

  function M.connect6(host, port, local_host, local_port)
    return M.connect(host, port, local_host, local_port, "inet6")
  end

  --- Listens.
  -- @tparam string host
  -- @tparam integer port
  -- @tparam[opt=32] integer backlog
  -- @treturn table|nil "tcp{server}"
  -- @treturn string error
  function M.bind(host, port, backlog)
    port = objects.port(port, "bind")
    local object, err = tcp.new(stack)
    if not object then return nil, err end
    object:setoption("reuseaddr", true)
    local done
    done, err = object:bind(host, port)
    if done then done, err = object:listen(backlog) end
    if done then return object end
    object:close()
    return nil, err
  end

  ltn12.add(M)
  M.load = loader.new(M)
  return M
end

return new
