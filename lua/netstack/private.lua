--- Private copies of modules: Lua code that runs in an environment of its own, each module once. `package.loaded` is
-- neither read nor written for what is copied.
-- @module netstack.private

local error, loadfile, pcall = error, loadfile, pcall
local concat = table.concat
local setfenv = rawget(_G, "setfenv") -- 5.1 and LuaJIT

local M = {}

--- `package.searchpath`, which 5.1 does not have.
-- @tparam string name of a module
-- @tparam string path as `package.path`
-- @treturn string|nil the file's path
-- @treturn string what was tried
function M.search(name, path)
  local tried = {}
  local file = name:gsub("%.", package.config:sub(1, 1))
  for template in path:gmatch("[^;]+") do
    local candidate = template:gsub("%?", (file:gsub("%%", "%%%%")))
    local handle = io.open(candidate, "r")
    if handle then
      handle:close()
      return candidate
    end
    tried[#tried + 1] = "\n\tno file '" .. candidate .. "'"
  end
  return nil, concat(tried)
end

--- What is to be called for a module of Lua.
-- @tparam string name
-- @tparam string path
-- @tparam table environment its globals
-- @treturn function; raises when the file has an error
function M.chunk(name, path, environment)
  local chunk, err
  if setfenv then
    chunk, err = loadfile(path)
    if chunk then setfenv(chunk, environment) end
  else
    chunk, err = loadfile(path, "bt", environment)
  end
  if not chunk then error("error loading module '" .. name .. "' from file '" .. path .. "':\n\t" .. err, 0) end
  return chunk
end

--- Makes a function that loads private copies.
-- @tparam table loaded modules by name: those that are there already
-- @tparam function find called with a name: the module's chunk and where it is from; raises when there is none
-- @treturn function called with a name: the module
function M.loader(loaded, find)
  return function(name)
    if loaded[name] ~= nil then return loaded[name] end
    local chunk, origin = find(name)
    loaded[name] = true -- for modules that require each other
    local ok, value = pcall(chunk, name, origin)
    if not ok then
      loaded[name] = nil
      error(value, 0)
    end
    if value ~= nil then loaded[name] = value end
    return loaded[name]
  end
end

return M
