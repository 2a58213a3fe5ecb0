--- Which stack a coroutine of nginx is bound to.
--
-- A binding lasts as long as a call: it is the frame of a function made for it, on the coroutine's own call stack. So
-- it ends with that call, however that ends: it returns, raises, or nginx drops the coroutine where it waits (a client
-- goes away, `ngx.exit`, `ngx.thread.kill`), runs none of its code any more, and has it serve another request.
-- @module netstack.resty.binding

local getinfo, running, setmetatable = debug.getinfo, coroutine.running, setmetatable

local weak_keys = { __mode = "k" }
local stacks = setmetatable({}, weak_keys) -- function whose frame binds -> stack
-- Coroutines in which one was called: of others the call stack need not be looked at.
local entered = setmetatable({}, weak_keys)
local NONE = {} -- stands for the absence of a coroutine, as in log_by_lua

local M = {}

local function pass(...) return ... end

--- A function that does what another one does, bound to a stack.
function M.bind(stack, fn)
  local function bound(...)
    entered[running() or NONE] = true
    return pass(fn(...)) -- no tail call: that would end the frame
  end
  stacks[bound] = stack
  return bound
end

--- The stack that the running coroutine is bound to.
-- @treturn stack|nil
function M.current()
  local thread = running() or NONE
  if not entered[thread] then return nil end
  local level = 2
  local frame = getinfo(level, "f")
  while frame do
    local stack = stacks[frame.func]
    if stack then return stack end
    level = level + 1
    frame = getinfo(level, "f")
  end
  entered[thread] = nil
end

return M
