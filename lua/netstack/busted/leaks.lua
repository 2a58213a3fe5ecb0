--- What a test left behind in its lab.
-- @module netstack.busted.leaks

local origin = require "netstack.origin"
local scheduler = require "netstack.scheduler"

local concat, format, ipairs = table.concat, string.format, ipairs

local M = {}

-- How many seconds closed connections, fragments that wait for others and the like get to end by themselves: what is
-- there after TIME_WAIT, after a reassembly, after a connection whose peer is gone.
local PATIENCE = { 0, 3, 120, 7200 }
local LONGEST_LIST = 20

local function listed(heading, lines)
  local shown = {}
  for i, line in ipairs(lines) do
    if i <= LONGEST_LIST then shown[i] = "\n  " .. line end
  end
  if #lines > LONGEST_LIST then shown[#shown + 1] = format("\n  and %d more", #lines - LONGEST_LIST) end
  return heading .. concat(shown)
end

local function socket_line(name, row)
  local at = row.addresses
  local text = format("%s (%s) of '%s'", row.protocol, row.state, name)
  if at.local_port then text = format("%s, port %d", text, at.local_port) end
  return text .. ", made by a command"
end

-- What a stack holds, as lines; none when it holds nothing.
local function held(stack, lines)
  local stats = stack:stats()
  if not stats then return end -- it was closed
  local name = stack:name()
  if stats.closed then
    lines[#lines + 1] = format("'%s' ended by an assertion: %s", name, stats.cause)
    return
  end
  for _, row in ipairs(stack:sockets()) do lines[#lines + 1] = socket_line(name, row) end
  if stats.queued_commands > 0 then
    lines[#lines + 1] = format("'%s': %d commands that did not run", name, stats.queued_commands)
  end
  if stats.sockets == 0 and stats.memory.blocks > 0 then
    lines[#lines + 1] = format("'%s': %d buffers of %d bytes", name, stats.memory.blocks, stats.memory.bytes)
  end
end

--- Says what is left, once all that ends by itself has had its time to.
-- @tparam netstack.lab net not running
-- @tparam {stack,...} stacks
-- @treturn string|nil
function M.find(net, stacks)
  local open = origin.open()
  if open[1] then
    return listed(format(#open == 1 and "%d socket was left open:" or "%d sockets were left open:", #open), open)
  end
  local lines
  for _, seconds in ipairs(PATIENCE) do
    if seconds > 0 then net:run(function() scheduler.sleep(seconds) end, { linger = 0 }) end
    lines = {}
    for _, stack in ipairs(stacks) do held(stack, lines) end
    if not lines[1] then return nil end
  end
  return listed("left behind:", lines)
end

return M
