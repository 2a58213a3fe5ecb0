--- Tables of numbers in files (RFC 4180, but for its line ends): the same values are the same bytes on every Lua and in
-- every locale.
-- @module netstack.csv

local output = require "netstack.output"

local concat, find, format, gsub = table.concat, string.find, string.format, string.gsub
local setmetatable, tostring, type = setmetatable, tostring, type

---@class netstack.csv
local Table = {}
Table.__index = Table

local M = {}

--- A number as text, in at most 14 digits, integers exactly: a float with an integral value is as an integer.
-- @tparam number value
-- @treturn string
local function number(value)
  if value ~= value then return "nan" end
  if value == 0 then return "0" end -- nor -0
  local text = format("%.14g", value)
  if value % 1 == 0 and value > -2 ^ 53 and value < 2 ^ 53 then text = format("%.0f", value) end
  return (gsub(text, "[^-+%dainfe]+", ".")) -- whatever the locale's decimal point is
end

M.number = number

local function cell(value)
  if value == nil then return "" end
  if type(value) == "number" then return number(value) end
  local text = tostring(value)
  if find(text, '[",\r\n]') then return '"' .. gsub(text, '"', '""') .. '"' end
  return text
end

--- Begins a table: writes its header.
-- @tparam string|file target
-- @tparam {string,...} columns their names
-- @tparam string name of the function whose first argument the target is
-- @treturn csv|nil
-- @treturn string what the system says
function M.new(target, columns, name)
  local file, err = output.new(target, name)
  if not file then return nil, err end
  local self = setmetatable({ output = file, columns = #columns, failure = nil }, Table)
  self:row(columns)
  if self.failure then return nil, self.failure end
  return self
end

--- Writes a line.
-- @tparam table values by column; nil is an empty cell
-- @treturn integer|nil 1
-- @treturn string what the system says; "closed" after that
function Table:row(values)
  local cells = {}
  for i = 1, self.columns do cells[i] = cell(values[i]) end
  cells[self.columns] = cells[self.columns] .. "\n"
  local ok, err = self.output:write(concat(cells, ","))
  if ok then return 1 end
  self.failure = self.failure or err
  return nil, err
end

--- Ends the table.
-- @treturn integer|nil 1, also the second time
-- @treturn string the first failure, also one that `row` has told
function Table:close()
  local ok, err = self.output:close()
  local failure = self.failure or err
  self.failure = nil
  if ok and not failure then return 1 end
  return nil, failure
end

return M
