--- How far a long run is, on a terminal: virtual time, events, packets.
-- @module netstack.lab.progress

local core = require "netstack.core"

local format, min = string.format, math.min

local M = {}

local LONGEST = 60 -- seconds of real time between two lines

--- A function for `netstack.run`'s `progress`: a line after a second, after two more, four more and so on, at last each
-- minute. They are whole lines, since what the program prints may come between.
-- @tparam file file where they are written
-- @treturn function
function M.new(file)
  local events, packets = core.work()
  local calls, due, pause = 0, 1, 1
  return function(now)
    calls = calls + 1
    if calls < due then return end
    pause = min(2 * pause, LONGEST)
    due = calls + pause
    local events_now, packets_now = core.work()
    file:write(format("%.3f s, %.0f events, %.0f packets\n", now, events_now - events, packets_now - packets))
    file:flush()
  end
end

--- Whether the standard error goes to a terminal.
-- @treturn boolean
function M.seen() return core.is_terminal(2) end

return M
