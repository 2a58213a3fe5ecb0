--- How far a long run is, on a terminal: virtual time, events, packets.
-- @module netstack.lab.progress

local core = require "netstack.core"

local format = string.format

local M = {}

local CLEAR = "\r\27[K" -- to the line's beginning; the rest of the line goes

--- A function for `netstack.run`'s `progress`, and one that takes the line away again.
-- @tparam file file where it is written
-- @treturn function
-- @treturn function
function M.new(file)
  local polls, packets = core.work()
  local shown = false
  local function show(now)
    local p, n = core.work()
    shown = true
    file:write(format("%s%.3f s, %.0f events, %.0f packets", CLEAR, now, p - polls, n - packets))
    file:flush()
  end
  local function clear()
    if shown then file:write(CLEAR) end
  end
  return show, clear
end

--- Whether the standard error goes to a terminal.
-- @treturn boolean
function M.seen() return core.is_terminal(2) end

return M
