-- Servers of the system's on free ports of 127.0.0.1, with their files in a folder of their own; `finish` ends them.
local assert = require "luassert"
local nginx = require "spec.nginx"
local socket_module_ok, socket = pcall(require, "socket")

local capture = nginx.capture

local M = {}

local folder
local pids = {}

local function start(port, command)
  folder = folder or capture("mktemp -d"):gsub("%s+$", "")
  local text = capture(("cd %s && { %s >>log 2>&1 & echo $!; }"):format(folder, command:gsub("PORT", port)))
  pids[#pids + 1] = assert(tonumber(text:match("%d+")), text)
  nginx.eventually(function()
    local probe = socket.connect("127.0.0.1", port)
    if probe then probe:close() end
    return probe
  end)
  return port
end

--- Why they cannot be had here; nil when they can.
function M.missing()
  if not socket_module_ok then return "LuaSocket is missing" end
  for _, name in ipairs { "redis-server", "memcached" } do
    if not select(2, capture("command -v " .. name)) then return name .. " is missing" end
  end
end

--- Redis; returns its port.
function M.redis()
  return start(nginx.free_port(), "redis-server --bind 127.0.0.1 --port PORT --save '' --appendonly no")
end

--- memcached; returns its port.
function M.memcached()
  return start(nginx.free_port(), "memcached -l 127.0.0.1 -p PORT -U 0 -m 16 -t 1 -u \"$(id -un)\"")
end

--- Ends all.
function M.finish()
  for i, pid in ipairs(pids) do
    capture("kill " .. pid)
    nginx.eventually(function() return nginx.ended(pid) end)
    pids[i] = nil
  end
  if folder then capture("rm -rf " .. folder) end
  folder = nil
end

return M
