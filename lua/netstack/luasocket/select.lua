--- LuaSocket's `select` over sockets of any stacks.
--
-- Each socket has a ticket that is answered when it can be read or written; the wait is for a ticket of all of them
-- (`core.first_of`). So it is one wait like any other, in a task, outside of run or in another scheduler.
-- @module netstack.luasocket.select

local core = require "netstack.core"
local objects = require "netstack.luasocket.object"
local scheduler = require "netstack.scheduler"

local socket_of, numbered = objects.socket_of, objects.numbered
local error, tonumber, type = error, tonumber, type

local M = {}

--- How many sockets a list may have.
M.LIMIT = 65536

-- Adds an entry for each object of a list that stands for an open socket; others are never ready, as in LuaSocket.
local function collect(entries, list, side, position)
  if list == nil then return end
  if type(list) ~= "table" then
    error("bad argument #" .. position .. " to 'select' (table expected, got " .. type(list) .. ")", 3)
  elseif #list > M.LIMIT then
    error("bad argument #" .. position .. " to 'select' (more than " .. M.LIMIT .. " sockets)", 3)
  end
  for i = 1, #list do
    local object = list[i]
    local socket = socket_of(object)
    if socket then
      if object.closed then socket = nil end
    else
      local getfd = object.getfd -- a sink or a source, or what wraps an object
      socket = getfd and numbered(getfd(object))
    end
    local ticket = socket and core.wait_ticket(socket.handle, side)
    if ticket then entries[#entries + 1] = { object = object, side = side, ticket = ticket } end
  end
end

-- Looks which are ready, and arms the others. Returns how many are ready, and the tickets of the others.
local function look(entries)
  local ready, waiting = 0, {}
  for i = 1, #entries do
    local entry = entries[i]
    entry.ready = entry.ticket:arm()
    if entry.ready then ready = ready + 1 else waiting[#waiting + 1] = entry.ticket end
  end
  return ready, waiting
end

local function cancel(tickets)
  for i = 1, #tickets do tickets[i]:cancel() end
end

local function result(entries, ready)
  local sets = { read = {}, write = {} }
  for i = 1, #entries do
    local entry = entries[i]
    local set, object = sets[entry.side], entry.object
    if entry.ready and not set[object] then
      set[#set + 1] = object
      set[object] = #set
    end
  end
  return sets.read, sets.write, ready == 0 and "timeout" or nil
end

--- Waits until one of several sockets can be read or written. A listener can be read when there is something to accept;
-- a socket that connects can be written when it is connected or has failed to.
-- @tparam ?table recvt objects to read from
-- @tparam ?table sendt objects to write to
-- @tparam[opt] number timeout in seconds; nil or negative: for ever
-- @treturn table those that can be read, in the order of `recvt`; each object is also a key
-- @treturn table those that can be written
-- @treturn string|nil "timeout" when there are none
---@param recvt table|nil
---@param sendt table|nil
---@param timeout? number
---@return table, table, string?
function M.select(recvt, sendt, timeout)
  if timeout ~= nil then
    local seconds = tonumber(timeout)
    if not seconds then error("bad argument #3 to 'select' (number expected, got " .. type(timeout) .. ")", 2) end
    timeout = seconds >= 0 and seconds or nil
  end
  local entries = {}
  collect(entries, recvt, "read", 1)
  collect(entries, sendt, "write", 2)

  local ready, waiting = look(entries)
  if ready > 0 then
    -- What is under way arrives first, as it would on a real network; and a program that polls sockets which are always
    -- ready must not keep others from ever having a turn.
    cancel(waiting)
    local never = core.first_of {}
    if never then scheduler.wait(never, scheduler.deadline(0), "select") end
    ready, waiting = look(entries)
  end
  local deadline, ok = scheduler.deadline(timeout), ready == 0
  while ok do
    local group = core.first_of(waiting)
    ok = group and scheduler.wait(group, deadline, "select")
    if group then group:cancel() end
    cancel(waiting)
    ready, waiting = look(entries)
    ok = ok and ready == 0
  end
  cancel(waiting)
  return result(entries, ready)
end

return M
