--- The text of `deadlock:` and `timeout:` reports: who waits, where it was spawned, for what.
-- @module netstack.report

local concat, format = table.concat, string.format
local pcall, tostring, type = pcall, tostring, type

local M = {}

--- What else is known of a ticket that is waited for, a text or nil: a function, or false.
M.about = false

--- What a sleeping task waits for; it is told by its time, not by a text of its own.
M.SLEEP = {}

-- What a task or a wait outside of tasks waits for.
local function purpose(waiter)
  local what = waiter.waits
  if what == nil then return "is ready to run" end
  if what == M.SLEEP then
    if (waiter.position or 0) == 0 then return "sleeps for ever" end
    return format("sleeps until %.6g s", waiter.key)
  end
  if type(what) == "function" then
    local ok, text = pcall(what)
    what = ok and text or waiter.ticket
  end
  local text = "waits for " .. tostring(what)
  local more = M.about and waiter.ticket and M.about(waiter.ticket)
  if more then text = text .. " on " .. more end
  if (waiter.position or 0) ~= 0 then text = format("%s until %.6g s", text, waiter.key) end
  return text
end

--- A report on everything that waits in a loop.
-- @tparam table loop
-- @tparam string heading its first line
-- @tparam ?table waiter the wait outside of tasks that this is about
-- @treturn string
function M.make(loop, heading, waiter)
  local lines = { heading }
  if waiter and not waiter.number then lines[2] = "  the caller " .. purpose(waiter) end
  local task = loop.oldest
  while task do
    -- One that drives in place cannot go on before those it runs from within have let go.
    lines[#lines + 1] = format("  %s%s %s%s", tostring(task), task.daemon and ", a daemon," or "", purpose(task),
      task.in_place and " (where it cannot yield)" or "")
    task = task.younger
  end
  return concat(lines, "\n")
end

return M
