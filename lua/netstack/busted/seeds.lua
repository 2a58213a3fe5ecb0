--- With which seeds a test runs: `NETSTACK_SEED` is one, `NETSTACK_SEEDS` so many from 1; else what it says itself.
-- @module netstack.busted.seeds

local check = require "netstack.check"
local core = require "netstack.core"

local error, format, getenv, ipairs, tonumber, type = error, string.format, os.getenv, ipairs, tonumber, type

local M = {}

--- A rule: a seed.
M.one = check.integer(0, 2 ^ 53)

local count = check.integer(1, 1000000)

--- A rule: how many seeds, or a list of them.
function M.several(value)
  if type(value) == "number" then return count(value) end
  if type(value) ~= "table" then return "a number of seeds or a list of them expected, got " .. type(value) end
  if value[1] == nil then return "the list is empty" end
  for i, seed in ipairs(value) do
    local why = M.one(seed)
    if why then return format("seed %d of the list: %s", i, why) end
  end
end

local function from_environment(name, rule)
  local text = getenv(name)
  if not text or text == "" then return nil end
  local value = text:match("^%d+$") and tonumber(text)
  local why = value and rule(value) or not value and format("integer expected, got '%s'", text)
  if why then error(format("%senvironment variable %s: %s", core.where(), name, why), 0) end
  return value
end

--- The seeds of a test, in the order in which to try them.
-- @tparam table options `seed`, `seeds`
-- @treturn {integer,...}
function M.of(options)
  local one = from_environment("NETSTACK_SEED", M.one)
  local many = from_environment("NETSTACK_SEEDS", count) or options.seeds
  if one or not many then return { one or options.seed or 1 } end
  if type(many) == "table" then return many end
  local list = {}
  for seed = 1, many do list[seed] = seed end
  return list
end

return M
