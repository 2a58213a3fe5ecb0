-- LuaSocket's own test scripts, of the version whose Lua modules Debian has, each run unchanged in globals of its own:
-- its `require` gives what is bound to a stack, its files are those of a copy of LuaSocket's test folder, and what it
-- prints is kept.
local netns = require "spec.netns"
local netstack = require "netstack"

local load_text = rawget(_G, "loadstring") or load
local setfenv = rawget(_G, "setfenv")

local M = {}

local source, reason

--- The folder of LuaSocket's sources, which are fetched when they are first wanted.
-- @return path, or nil and why they cannot be had here
function M.source()
  if not source and not reason then
    local fetched, text = pcall(netns.command, ".build/fetch-luasocket")
    local last = text:match("([^\n]*)%s*$")
    if fetched then source = last else reason = "LuaSocket's sources cannot be had: " .. last end
  end
  return source, reason
end

--- Why the scripts cannot be run here; nil when they can.
function M.missing()
  local installed, url = pcall(require, "socket.url")
  if not installed then return "LuaSocket is not installed" end
  if not M.source() then return reason end
  if netns.read(debug.getinfo(url.parse, "S").source:sub(2)) ~= netns.read(source .. "/src/url.lua") then
    return "another LuaSocket than 3.1.0 is installed"
  end
end

-- What their scripts `require` and Debian does not have: examples of LuaSocket's.
local EXTRA = { ["socket.dict"] = "/etc/dict.lua", ["socket.tftp"] = "/etc/tftp.lua" }
local EXIT = {} -- raised by os.exit

local function copy_of(t)
  local copy = {}
  for key, value in pairs(t) do copy[key] = value end
  return copy
end

local function in_globals(text, name, globals)
  local chunk
  if setfenv then
    chunk = assert(load_text(text, name))
    return setfenv(chunk, globals)
  end
  return assert(load(text, name, "t", globals))
end

-- 5.1's `module`, which the examples are written with: the caller's globals are a new table from then on.
local function module_of(globals)
  return function(name)
    local made = {}
    globals[name] = made
    if setfenv then
      setfenv(2, made)
    else
      debug.setupvalue(debug.getinfo(2, "f").func, 1, made) -- _ENV, a main chunk's only one
    end
  end
end

local function writer(lines)
  return function(first, ...)
    for _, text in ipairs { type(first) == "string" and first or "", ... } do lines[#lines + 1] = tostring(text) end
  end
end

-- The globals of a script over a bound table; `lines` gets what it prints.
local function globals_for(socket, folder, lines)
  local globals = copy_of(_G)
  local function path_of(name) return name:sub(1, 1) == "/" and name or folder .. "/" .. name end
  globals._G = globals
  globals.math, globals.os, globals.io = copy_of(math), copy_of(os), copy_of(io)
  globals.math.mod = math.fmod -- 5.0's
  globals.unpack = globals.unpack or table.unpack
  globals.module = module_of(globals)
  globals.os.exit = function(status) error(status and status ~= 0 and status ~= true and "os.exit" or EXIT, 0) end
  globals.os.remove = function(name) return os.remove(path_of(name)) end
  globals.io.open = function(name, mode) return io.open(path_of(name), mode) end
  globals.io.write = writer(lines)
  globals.io.stderr, globals.io.stdout = { write = writer(lines) }, { write = writer(lines), flush = function() end }
  globals.print = function(...)
    for i = 1, select("#", ...) do lines[#lines + 1] = (i > 1 and "\t" or "") .. tostring((select(i, ...))) end
    lines[#lines + 1] = "\n"
  end
  globals.loadstring = function(text) return in_globals(text, "=command", globals) end
  globals.load = globals.loadstring
  globals.dofile = function(name) return in_globals(netns.read(path_of(name)), "@" .. name, globals)() end
  globals.require = function(name)
    if EXTRA[name] and not globals[name] then in_globals(netns.read(source .. EXTRA[name]), "@" .. name, globals)() end
    return globals[name] or socket.load(name)
  end
  return globals
end

--- A script, ready to be run in a task; it raises what the script raises.
-- @param name of the file
-- @param socket bound table that it is to use
-- @param own globals: what the script reads, `host` and `port` for example
-- @param edits text -> what is to be there instead
-- @return function() that runs it, list that gets what it prints
function M.script(name, socket, own, edits)
  local folder = netns.folder() .. "/test"
  if not netns.read(folder .. "/README") then netns.command("cp -r " .. netns.quote(source) .. "/test " .. folder) end
  local lines = {}
  local globals = globals_for(socket, folder, lines)
  for key, value in pairs(own or {}) do globals[key] = value end
  local text = netns.read(folder .. "/" .. name):gsub("^#[^\n]*", "")
  for old, new in pairs(edits or {}) do
    local from, to = text:find(old, 1, true)
    text = text:sub(1, from - 1) .. new .. text:sub(to + 1)
  end
  local chunk = in_globals(text, "@" .. name, globals)
  return function()
    local ok, err = netstack.pcall(chunk)
    if not ok and err ~= EXIT then
      error(("%s: %s\n%s"):format(name, tostring(err), table.concat(lines):sub(-500)), 0)
    end
  end, lines
end

return M
