--- LuaSocket's exceptions: `newtry` and `protect`. A task can yield through both, on Lua 5.1 too.
-- @module netstack.luasocket.exceptions

local protected = require "netstack.protected"

local pcall = protected.pcall
local error, getmetatable, setmetatable, tostring = error, getmetatable, setmetatable, tostring

-- What `try` raises; `protect` knows it by its metatable and returns what is inside.
local exception = { __tostring = function(self) return tostring(self[1]) end }

local M = {}

--- Makes a function that returns all its arguments when the first is true; else it calls the finalizer and raises the
-- second for `protect` to return.
-- @tparam[opt] function finalizer
-- @treturn function
---@param finalizer? function
---@return fun(...): any ...
function M.newtry(finalizer)
  return function(ok, ...)
    if ok then return ok, ... end
    if finalizer then finalizer() end
    error(setmetatable({ (...) }, exception), 0)
  end
end

local function outcome(ok, ...)
  if ok then return ... end
  local err = (...)
  if getmetatable(err) == exception then return nil, err[1] end
  error(err, 0)
end

--- Makes a function that returns nil and the error where a `try` in `fn` raises; all other errors go on.
-- @tparam function fn
-- @treturn function
---@param fn function
---@return fun(...): any ...
function M.protect(fn)
  return function(...)
    return outcome(pcall(fn, ...))
  end
end

return M
