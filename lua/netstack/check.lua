--- Checks of what users give: options by a table of rules, and the errors that name what is wrong.
-- @module netstack.check

local core = require "netstack.core"

local error, format, pairs, tostring, type = error, string.format, pairs, tostring, type

local M = {}

-- Errors of arguments name the line of whoever called the library, however deep in it they are found.
local folder = debug.getinfo(1, "S").source:match("^(.*[/\\])[^/\\]*$")
if folder then core.library(folder) end

--- Raises "bad argument #n to 'name' (why)" at the line that called the library.
-- @tparam integer n not counting self
-- @tparam string name
-- @tparam string why
function M.bad(n, name, why)
  error(format("%sbad argument #%d to '%s' (%s)", core.where(), n, name, why), 0)
end

--- The handle of the socket that a method was called on; raises when it is none.
-- @param self
-- @tparam string name the method's
-- @treturn userdata
function M.handle(self, name)
  local handle = type(self) == "table" and self.handle
  if not handle then
    error(format("%scalling '%s' on bad self (socket expected, got %s)", core.where(), name, type(self)), 0)
  end
  return handle
end

--- What has no handle: `(self or NOBODY).handle` is how hot methods tell a call without a socket, at no cost.
M.NOBODY = {}

--- A rule: an integer in a range.
function M.integer(least, most)
  return function(value)
    if type(value) ~= "number" then return "number expected, got " .. type(value) end
    if value % 1 ~= 0 then return "number has no integer representation" end
    if value < least or value > most then return format("out of range: %.0f to %.0f", least, most) end
  end
end

--- A rule: a value of one type.
function M.of_type(expected)
  return function(value)
    if type(value) ~= expected then return expected .. " expected, got " .. type(value) end
  end
end

--- A rule: one of some strings.
function M.one_of(...)
  local choices = { ... }
  return function(value)
    for _, choice in ipairs(choices) do
      if value == choice then return end
    end
    return "'" .. table.concat(choices, "' or '") .. "' expected, got " .. tostring(value)
  end
end

--- Checks a table of options; nil is an empty one.
-- @tparam table|nil options
-- @tparam table rules name -> function(value) that returns why the value will not do
-- @tparam integer n the argument's position
-- @tparam string name the function's
-- @treturn table options
function M.options(options, rules, n, name)
  if options == nil then return {} end
  if type(options) ~= "table" then M.bad(n, name, "table expected, got " .. type(options)) end
  local wrong, why -- the first by name: an error does not depend on the order of pairs
  for key, value in pairs(options) do
    local text = tostring(key)
    local rule = rules[key]
    local complaint
    if not rule then complaint = "unknown option '" .. text .. "'" else complaint = rule(value) end
    if complaint and (not wrong or text < wrong) then
      wrong = text
      why = rule and "option '" .. text .. "': " .. complaint or complaint
    end
  end
  if why then M.bad(n, name, why) end
  return options
end

return M
