-- The README tells the truth: its snippets run, each in a pair of stacks of its own, and print what follows "-->"; its
-- table of errors says what netstack.errors says. What is a spec itself is run by busted_spec.lua.

local netstack = require "netstack"

local root = debug.getinfo(1, "S").source:match("^@(.*)spec/[^/]*$") or ""

local file = assert(io.open(root .. "README.md"))
local text = file:read("*a")
file:close()

-- Runs of blanks are one: a page shows tabs badly.
local function tidy(line)
  return (line:gsub("%s+", " "):gsub("^ ", ""):gsub(" $", ""))
end

local function expected_lines(code)
  local lines = {}
  for line in code:gmatch("[^\n]+") do
    local output = line:match("%-%->(.*)$")
    if output then lines[#lines + 1] = tidy(output) end
  end
  return lines
end

-- Runs a chunk with globals of its own; what it printed.
local function run(code, name)
  local lines = {}
  local a, b = netstack.pair { name = "stack" }
  local globals = setmetatable({ netstack = netstack, a = a, b = b }, { __index = _G })
  function globals.print(...)
    local words = { ... }
    for i = 1, select("#", ...) do words[i] = tostring(words[i]) end
    for line in (table.concat(words, "\t") .. "\n"):gmatch("(.-)\n") do lines[#lines + 1] = tidy(line) end
  end
  local chunk
  if setfenv then -- luacheck: ignore 113
    chunk = setfenv(assert(loadstring(code, name)), globals) -- luacheck: ignore 113
  else
    chunk = assert(load(code, name, "t", globals))
  end
  chunk()
  a:close()
  b:close()
  return lines
end

describe("the README", function()
  local section = "start"
  local before = 1
  for place, code in text:gmatch("()\n```lua\n(.-)\n```\n") do
    for heading in text:sub(before, place):gmatch("\n##+ ([^\n]+)") do section = heading end
    before = place
    local test = code:find("lab_it", 1, true) and function() end or it
    test("has a snippet that does what it says: " .. section, function()
      if code:find("netstack.luasocket", 1, true) then
        for _, module in ipairs { "netstack.luasocket", "socket" } do
          if not pcall(require, module) then return pending(module .. " is missing") end
        end
      end
      assert.are.same(expected_lines(code), run(code, "=README: " .. section))
    end)
  end

  it("tells what each error means", function()
    local count = 0
    for err, about in pairs(netstack.errors) do
      local row = ("\n| `%s` | %s | %s |\n"):format(err, about.meaning, about.remedy)
      assert.is_truthy(text:find(row, 1, true), err)
      count = count + 1
    end
    local _, rows = text:match("\n## Errors\n(.-)\n## "):gsub("\n| `", "")
    assert.are.equal(count, rows - 1) -- and the heading
  end)
end)
