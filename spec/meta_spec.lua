-- What is told to readers and to the Lua language server is complete: every function that C registers has a comment
-- for LDoc and stands in the meta file, every public function in Lua has a description and annotations.

local lfs = require "lfs"

local core = require "netstack.core"
local netstack = require "netstack"

local unpack = table.unpack or unpack -- luacheck: ignore 143
local root = debug.getinfo(1, "S").source:match("^@(.*)spec/[^/]*$") or ""

local function read(path)
  local file = assert(io.open(root .. path))
  local text = file:read("*a")
  file:close()
  return text
end

local function c_files()
  local files = {}
  for name in lfs.dir(root .. "src") do
    if name:find("^lua_.*%.c$") then files[#files + 1] = root .. "src/" .. name end
  end
  table.sort(files)
  return files
end

-- What the core registers: "name", "class:name". The Lua layer may have added methods, some of them core functions.
local function registered()
  local names, functions = {}, {}
  for name, value in pairs(core) do
    if type(value) == "function" then names[name], functions[value] = true, true end
  end
  for class, methods in pairs(core.classes) do
    for name, value in pairs(methods) do
      if debug.getinfo(value, "S").what == "C" and not functions[value] then names[class .. ":" .. name] = true end
    end
  end
  return names
end

-- Those in `names` that are missing from `others`.
local function without(names, others)
  local missing = {}
  for name in pairs(names) do
    if not others[name] then missing[#missing + 1] = name end
  end
  table.sort(missing)
  return missing
end

local function assert_same_names(expected, found, where)
  assert.are.same({}, without(expected, found), "missing from " .. where)
  assert.are.same({}, without(found, expected), "not registered, but in " .. where)
end

describe("what C registers", function()
  it("is a good many functions of eleven classes", function()
    local classes, count = {}, 0
    for class in pairs(core.classes) do classes[#classes + 1] = class end
    table.sort(classes)
    assert.are.equal("channel device filter interface link raw stack switch tcp ticket udp", table.concat(classes, " "))
    for _ in pairs(registered()) do count = count + 1 end
    assert.is_true(count > 80)
  end)

  it("has comments for LDoc, each with a summary and every function once", function()
    local documented = {}
    for _, path in ipairs(c_files()) do
      for comment in read(path:sub(#root + 1)):gmatch("/%*%*%*%s(.-)%*/") do
        local name = comment:match("@function%s+(%S+)")
        if name then
          assert.is_nil(documented[name], name .. " twice")
          assert.is_not_nil(comment:match("^%s*%u"), name .. " has no summary")
          documented[name] = true
        end
      end
    end
    assert_same_names(registered(), documented, "the LDoc comments in src/lua_*.c")
  end)

  it("stands in the meta file", function()
    local described = {}
    for owner, separator, name in read("lua/netstack/meta/core.lua"):gmatch("\nfunction (%w+)([.:])([%w_]+)%(") do
      described[separator == "." and name or owner .. ":" .. name] = true
    end
    assert_same_names(registered(), described, "lua/netstack/meta/core.lua")
  end)

  it("has a meta file that says what the comments say", function()
    local make = assert(loadfile(root .. ".build/core-meta.lua"))
    assert.is_true(make(nil, unpack(c_files())) == read("lua/netstack/meta/core.lua"), "stale: run `make docs`")
  end)
end)

-- The lines of a source file, by its name as debug.getinfo tells it.
local sources = {}
local function lines_of(source)
  local lines = sources[source]
  if not lines then
    lines = {}
    for line in io.lines((source:gsub("^@", ""))) do lines[#lines + 1] = line end
    sources[source] = lines
  end
  return lines
end

-- Why the comment above a function will not do; nil when it will.
local function complaint(fn)
  local info = debug.getinfo(fn, "S")
  local lines = lines_of(info.source)
  local first = info.linedefined
  while first > 1 and lines[first - 1]:find("^%s*%-%-") do first = first - 1 end
  local comment = table.concat(lines, "\n", first, info.linedefined - 1)
  if not comment:find("^%s*%-%-%-? ?[`%u]") then return "has no description" end
  local signature = lines[info.linedefined]:match("%(([^()]*)%)%s*$") or lines[info.linedefined]:match("%(([^()]*)%)")
  for name in (signature or ""):gmatch("[%w_]+") do
    if name ~= "self" and not comment:find("%-%-%-@param " .. name .. "%??[ ]") then
      return "has no annotation of " .. name
    end
  end
  if not comment:find("%-%-%-@return ") then return "has no annotation of what it returns" end
end

-- Every function of a table of methods that is written in Lua.
local function check(complaints, owner, methods)
  for name, value in pairs(methods) do
    if type(value) == "function" and debug.getinfo(value, "S").what ~= "C" then
      local why = complaint(value)
      if why then complaints[#complaints + 1] = owner .. name .. " " .. why end
    end
  end
end

describe("what Lua offers", function()
  it("has descriptions and annotations", function()
    local complaints = {}
    check(complaints, "netstack.", netstack)
    for class, methods in pairs(core.classes) do check(complaints, class .. ":", methods) end
    local a, b = netstack.pair()
    for name, socket in pairs { tcp = a:tcp(), udp = a:udp(), raw = a:raw("ipv4", 253) } do
      check(complaints, name .. ":", getmetatable(socket).__index)
      socket:close()
    end
    netstack.run(function()
      check(complaints, "task:", getmetatable(netstack.spawn(function() end)).__index)
    end)
    a:close()
    b:close()
    table.sort(complaints)
    assert.are.same({}, complaints)
  end)
end)
