--- Private copies of LuaSocket's Lua modules, and of clients written for it, in which `require "socket"` is a table
-- that is bound to a stack.
-- @module netstack.luasocket.loader

local private = require "netstack.private"

local assert, error, select, setmetatable, type = assert, error, select, setmetatable, type
local search = private.search
local setfenv = rawget(_G, "setfenv") -- 5.1 and LuaJIT

local M = {}

local function is_luasocket(name)
  return name == "mime" or name == "ltn12" or name:match("^socket%.") ~= nil or name:match("^mime%.") ~= nil
end

-- What is to be called for the module: Lua in an environment of its own, or C.
local function find(name, environment)
  local path, tried = search(name, package.path)
  if path then return private.chunk(name, path, environment), path end
  local library, also_tried = search(name, package.cpath)
  if library then
    -- A module that is loaded already has its library in memory; calling it again makes it a table of its own.
    return assert(package.loadlib(library, "luaopen_" .. name:gsub("^.*%-", ""):gsub("%.", "_"))), library
  end
  if type(package.preload[name]) == "function" then return package.preload[name], ":preload:" end
  if is_luasocket(name) then
    error("module '" .. name .. "' not found: it is part of LuaSocket, which is not installed for this Lua (" ..
      (rawget(_G, "jit") and "LuaJIT" or _VERSION) .. ")\n\tDebian, Ubuntu: apt-get install lua-socket" ..
      "\n\telsewhere: luarocks install luasocket\nlooked for:" .. tried .. also_tried, 0)
  end
  error("module '" .. name .. "' not found:" .. tried .. also_tried, 0)
end

-- The `module` of Luas that have it, for older clients: what it makes is private, too.
local function module_function(loaded, environment)
  return function(name, ...)
    local made = type(loaded[name]) == "table" and loaded[name] or {}
    made._M, made._NAME, made._PACKAGE = made, name, name:match("^(.-)[^.]*$")
    loaded[name] = made
    if not name:find(".", 1, true) then environment[name] = made end
    for i = 1, select("#", ...) do
      local option = select(i, ...)
      if option == package.seeall then setmetatable(made, { __index = environment }) else option(made) end
    end
    if setfenv then setfenv(2, made) else debug.setupvalue(debug.getinfo(2, "f").func, 1, made) end -- 5.2: _ENV
  end
end

--- Makes the `load` function of a bound table. What it loads stays, each module once per table; modules of LuaSocket
-- that they require are private, too, and so are those whose names begin like the one that was asked for ("copas.http"
-- of "copas"). Others are required as ever.
-- @tparam table module the bound table, which is "socket" and "socket.core"
-- @treturn function
function M.new(module)
  local loaded = { socket = module, ["socket.core"] = module }
  local mine = {} -- first parts of the names that were asked for
  local load

  local environment = setmetatable({}, { __index = _G })
  environment._G = environment
  environment.module = rawget(_G, "module") and module_function(loaded, environment)
  environment.require = function(name)
    if type(name) ~= "string" then
      error("bad argument #1 to 'require' (string expected, got " .. type(name) .. ")", 2)
    end
    if loaded[name] ~= nil or is_luasocket(name) or mine[name:match("^[^.]*")] then return load(name) end
    return require(name)
  end

  load = private.loader(loaded, function(name) return find(name, environment) end)

  --- Loads a module, as `require` does, bound to this table's stack.
  -- @tparam string name as "socket.http"
  -- @return the module; raises when it cannot be loaded
  return function(name)
    if type(name) ~= "string" then
      error("bad argument #1 to 'load' (string expected, got " .. type(name) .. ")", 2)
    end
    if not is_luasocket(name) then mine[name:match("^[^.]*")] = true end
    return load(name)
  end
end

return M
