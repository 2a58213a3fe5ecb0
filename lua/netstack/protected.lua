--- Protected calls that can be yielded through, and the question whether the caller can yield.
--
-- Lua 5.2 and later and LuaJIT yield through plain `pcall` and `xpcall`. PUC Lua 5.1 cannot yield through any C
-- function, so there a protected call runs its function in a coroutine of its own and hands its yields up. A task is
-- then a stack of coroutines; `outer` says which of them belong together.
-- @module netstack.protected

local core = require "netstack.core"

local coroutine, debug = coroutine, debug
local pcall, xpcall, select = pcall, xpcall, select
local unpack = table.unpack or unpack -- luacheck: ignore 143
local getinfo, traceback = debug.getinfo, debug.traceback
-- ngx_lua's table of these functions has fewer of them.
local running, isyieldable = coroutine.running, coroutine.isyieldable -- luacheck: ignore 143
if core.is_yieldable() ~= nil then isyieldable = isyieldable or core.is_yieldable end
-- Under ngx_lua the plain names are request-aware wrappers that would hand our tasks to nginx; it keeps the originals.
local create = rawget(coroutine, "_create") or coroutine.create
local resume = rawget(coroutine, "_resume") or coroutine.resume
local status = rawget(coroutine, "_status") or coroutine.status
local yield = rawget(coroutine, "_yield") or coroutine.yield

local M = {
  create = create,
  resume = resume,
  status = status,
  yield = yield,
  -- Closes the pending to-be-closed variables of a coroutine; nil before Lua 5.4.
  close = coroutine.close, -- luacheck: ignore 143
}

--- Whether this is PUC Lua 5.1, where no C function can be yielded through.
M.lua51 = _VERSION == "Lua 5.1" and rawget(_G, "jit") == nil

--- Whether the core can tell if a coroutine can yield (where Lua can).
M.core_knows = isyieldable ~= nil

-- On 5.1: the coroutine that made each coroutine of a protected call. Values are weak too: 5.1 has no ephemerons, and
-- an outer coroutine refers to the inner one from its stack.
local outer = setmetatable({}, { __mode = "kv" })

-- Whether no C function that blocks yields is between the caller and the bottom of the running coroutine. Needed only
-- where `coroutine.isyieldable` is missing.
local function clear()
  local level = 2
  local info = getinfo(level, "Sf")
  while info do
    if info.what == "C" then
      local func = info.func
      if M.lua51 or (func ~= pcall and func ~= xpcall) then return false end
    end
    level = level + 1
    info = getinfo(level, "Sf")
  end
  return true
end

--- Whether the caller runs in coroutine `thread` (not in another one above it) and can yield out of it.
-- @function can_yield
-- @tparam thread thread
-- @treturn boolean
if isyieldable then
  function M.can_yield(thread)
    return running() == thread and (isyieldable())
  end
elseif M.lua51 then
  function M.can_yield(thread)
    local at = running()
    while at ~= thread do
      at = outer[at]
      if not at then return false end
    end
    -- The coroutines below were looked at when the protected calls that made them began.
    return clear()
  end
else
  function M.can_yield(thread)
    return running() == thread and clear()
  end
end

--- The coroutine that is to be resumed when the caller has yielded and shall go on.
-- @treturn thread|nil nil: the caller cannot yield
function M.yielding_thread()
  local thread = running()
  while thread and outer[thread] do thread = outer[thread] end
  return thread and M.can_yield(thread) and thread or nil
end

if not M.lua51 then
  M.pcall, M.xpcall = pcall, xpcall
  return M
end

-- Hands the yields of `thread` up and what is resumed down until it ends; gives what the last resume gave.
local function finish(thread, ok, ...)
  if status(thread) == "suspended" then return finish(thread, resume(thread, yield(...))) end
  outer[thread] = nil
  return ok, ...
end

-- A coroutine for `fn`, which may be anything that can be called (5.1 makes coroutines only of Lua functions).
local function enter(fn, here)
  local thread = create(function(...) return fn(...) end)
  outer[thread] = here
  return thread
end

--- `pcall` that can be yielded through on every Lua.
-- @function pcall
-- @param fn function to call
-- @param ... its arguments
-- @treturn boolean ok
-- @return what fn returned, or the error
---@param fn function
---@return boolean ok
---@return any ...
function M.pcall(fn, ...)
  local here = running()
  -- In the main program nothing can yield anyway; under a C function a plain pcall keeps that visible to `clear`.
  if not here or not clear() then return pcall(fn, ...) end
  local thread = enter(fn, here)
  return finish(thread, resume(thread, ...))
end

-- The results of xpcall: on failure the handler's, which runs when `thread` has already stopped.
local function handled(thread, handler, ok, ...)
  if ok then return ok, ... end
  -- The stack of the failed coroutine is still there to be shown, the handler's own would not tell where it failed.
  if handler == traceback then return false, traceback(thread, (...)) end
  return false, select(2, pcall(handler, (...)))
end

--- `xpcall` that can be yielded through, and takes arguments, on every Lua. On 5.1, inside a coroutine, the handler
-- runs after the stack was unwound; `debug.traceback` as the handler still shows where it failed.
-- @function xpcall
-- @param fn function to call
-- @param handler gets the error; its result is returned
-- @param ... arguments of fn
-- @treturn boolean ok
-- @return what fn returned, or what the handler returned
---@param fn function
---@param handler function
---@return boolean ok
---@return any ...
function M.xpcall(fn, handler, ...)
  local here = running()
  if not here or not clear() then
    local n, arguments = select("#", ...), { ... }
    return xpcall(function() return fn(unpack(arguments, 1, n)) end, handler)
  end
  local thread = enter(fn, here)
  return handled(thread, handler, finish(thread, resume(thread, ...)))
end

return M
