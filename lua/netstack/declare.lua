--- Declarations for LuaJIT's FFI: a Lua state keeps them for good, while our modules may be loaded again.
-- @module netstack.declare

local ffi = require "ffi"

local cdef, typeof = ffi.cdef, ffi.typeof

--- Declares C types and functions, unless that was done.
-- @tparam string name of a type that is declared
-- @tparam string text
return function(name, text)
  if not pcall(typeof, name) then cdef(text) end
end
