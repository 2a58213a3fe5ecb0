--- Files that are written. The first failure ends the writing and is told once.
-- @module netstack.output

local check = require "netstack.check"

local jit = jit
local open, pcall, setmetatable, tostring, type = io.open, pcall, setmetatable, tostring, type

---@class netstack.output
local Output = {}
Output.__index = Output

local M = {}

--- Opens a file, or takes an open one.
-- @tparam string|file target
-- @tparam string mode
-- @tparam string method that it must have
-- @tparam string name of the function whose first argument it is
-- @treturn file|nil
-- @treturn string|nil what the system says
-- @treturn boolean whether it was opened here
function M.opened(target, mode, method, name)
  if type(target) == "string" then
    local file, err = open(target, mode)
    return file, err, true
  end
  -- Files are userdata; tables with these methods will do.
  local ok, found = pcall(function() return target[method] end)
  if ok and found then return target, nil, false end
  check.bad(1, name, "path or file expected, got " .. type(target))
end

--- Writes to a file from its beginning.
-- @tparam string|file target a path, or an open file, which `close` leaves open
-- @tparam string name of the function whose first argument it is
-- @treturn output|nil
-- @treturn string what the system says
function M.new(target, name)
  local file, err, own = M.opened(target, "wb", "write", name)
  if not file then return nil, err end
  return setmetatable({ file = file, own = own }, Output)
end

-- The first failure is the end.
local function told(self, ok, err)
  if ok then return 1 end
  local file = self.file
  self.file = nil
  if self.own then file:close() end
  return nil, tostring(err)
end

--- Writes.
-- @tparam string data
-- @treturn integer|nil 1
-- @treturn string what the system says, once; "closed" after that
function Output:write(data)
  local file = self.file
  if not file then return nil, "closed" end
  return told(self, file:write(data))
end

--- Hands all of it to the system.
-- @treturn integer|nil 1
-- @treturn string what the system says, once; "closed" after that
function Output:flush()
  local file = self.file
  if not file then return nil, "closed" end
  return told(self, file:flush())
end

--- Hands all of it to the system, and closes the file if it was opened here.
-- @treturn integer|nil 1, also the second time
-- @treturn string what the system says, if it had not yet said so: the disk may be full
function Output:close()
  local file = self.file
  self.file = nil
  if not file then return 1 end
  local ok, err = true, nil
  if self.own then
    -- LuaJIT and 5.1 tell of what a file could not be written only when it is flushed.
    ok, err = file:flush()
    local closed, why = file:close()
    if ok and not closed then ok, err = closed, why end
  elseif file.flush then
    ok, err = file:flush()
  end
  if ok then return 1 end
  return nil, tostring(err)
end

-- LuaJIT's compiled code repeats a call that failed, which then succeeds: the C library has let go of the bytes.
if jit then
  jit.off(Output.write)
  jit.off(Output.flush)
  jit.off(Output.close)
end

return M
