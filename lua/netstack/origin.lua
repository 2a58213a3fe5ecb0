--- Where sockets were made: known of those made while somebody asked for it, and told in reports.
-- @module netstack.origin

local core = require "netstack.core"
local report = require "netstack.report"
local scheduler = require "netstack.scheduler"
local sockets = require "netstack.socket"

local find, format = string.find, string.format
local getinfo, ipairs, tostring, type = debug.getinfo, ipairs, tostring, type

local M = {}

local folder = getinfo(1, "S").source:match("^(.*[/\\])[^/\\]*$") or ""

local known = {} -- what was made, in that order; closed ones leave it now and then
local room -- how many there may be before closed ones are looked for

-- The line of whoever called the library. A tail call hides it; then the line at which the task was spawned does.
local function here()
  local level = 3
  local info = getinfo(level, "Sl")
  while info do
    if info.currentline > 0 and find(info.source, folder, 1, true) ~= 1 then
      return info.short_src .. ":" .. info.currentline
    end
    level = level + 1
    info = getinfo(level, "Sl")
  end
  local task = scheduler.running()
  return task and format("%s:%d", task.file, task.line) or "?"
end

local function is_open(socket) return not find(tostring(socket), "(closed)", 1, true) end

local function drop_closed()
  local open = {}
  for _, entry in ipairs(known) do
    if is_open(entry.socket) then open[#open + 1] = entry end
  end
  known, room = open, 2 * #open + 64
end

-- They are held until they are closed: one that nobody can reach any more was left open all the same.
local function note(socket)
  if #known >= room then drop_closed() end
  known[#known + 1] = { socket = socket, where = here() }
end

local function end_of(socket, method)
  local ask = socket[method]
  if not ask then return nil end
  local host, port = ask(socket)
  if not host or type(port) ~= "number" then return nil end
  return format(find(host, ":", 1, true) and "[%s]:%d" or "%s:%d", host, port)
end

local function described(entry)
  local socket = entry.socket
  local stack = socket.stack and socket.stack.stack
  local near, far = end_of(socket, "getsockname"), end_of(socket, "getpeername")
  local ends = near and far and " " .. near .. " to " .. far or near and " " .. near or ""
  local name = stack and core.is_open(stack) and format(" of '%s'", stack:name()) or ""
  return format("%s%s%s, made at %s", tostring(socket), ends, name, entry.where)
end

-- The socket that waits with a ticket.
local function about(ticket)
  for _, entry in ipairs(known) do
    local socket = entry.socket
    if socket.read == ticket or socket.write == ticket then return described(entry) end
  end
end

--- From now on, sockets are known, and reports tell which one a task waits for.
function M.begin()
  known, room = {}, 64
  sockets.made, report.about = note, about
end

--- Ends that; all is forgotten.
function M.finish()
  known = {}
  sockets.made, report.about = false, false
end

--- The sockets that are open.
-- @treturn {string,...} a line for each, in the order in which they were made
function M.open()
  drop_closed()
  local lines = {}
  for i, entry in ipairs(known) do lines[i] = described(entry) end
  return lines
end

return M
