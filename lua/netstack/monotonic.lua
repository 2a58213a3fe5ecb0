--- The monotonic clock. On LuaJIT it is read through the FFI: compiled loops read it again and again, and a call of a
-- Lua C function ends what is compiled in one piece.
-- @module netstack.monotonic

local core = require "netstack.core"

if not rawget(_G, "jit") then return core.monotonic end

local declare = require "netstack.declare"
local ffi = require "ffi"

-- Names of our own: others may have declared the kernel's in another way.
declare("struct netstack_timespec", [[
struct netstack_timespec { long seconds, nanoseconds; };
int netstack_clock_gettime(int clock, struct netstack_timespec *time) __asm__("clock_gettime");
]])

local C, CLOCK_MONOTONIC = ffi.C, 1 -- Linux's
local time = ffi.new "struct netstack_timespec"

--- @treturn number seconds
return function()
  C.netstack_clock_gettime(CLOCK_MONOTONIC, time)
  return tonumber(time.seconds) + tonumber(time.nanoseconds) / 1e9
end
