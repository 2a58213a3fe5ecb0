-- What the Lua sides of the bench share: the sizes, the clock and the way a row is measured and told.
-- bench/driver.c measures in the same way.

local M = {}

M.BLOCK = ("x"):rep(65536)
M.DATAGRAM = ("x"):rep(1400)
M.BURST = 32 -- datagrams sent before they are read: they fit into every default receive queue

-- Real time: netstack.now() is virtual inside a run. Without LuaSocket the processor time must do; it says the same
-- of a process that never sleeps.
local has_socket, socket = pcall(require, "socket")
M.now = has_socket and socket.gettime or os.clock

--- How much of what step() counts is done per second. The clock is read once per batch; the first batch warms up
--- and does not count.
function M.rate(seconds, batch, step)
  for _ = 1, batch do step() end
  local start, done, elapsed = M.now(), 0
  repeat
    for _ = 1, batch do done = done + step() end
    elapsed = M.now() - start
  until elapsed >= seconds
  return done / elapsed
end

--- A result as bench/run.lua reads it.
function M.report(name, value, unit)
  print(("%s %.0f %s"):format(name, value, unit))
end

--- Runs the row that the command line names: `script.lua ROW [seconds]`.
function M.main(rows)
  local row = rows[arg[1]]
  if row then return row(tonumber(arg[2]) or 1, arg[1]) end
  local names = {}
  for name in pairs(rows) do names[#names + 1] = name end
  table.sort(names)
  io.stderr:write("usage: ", arg[0], " ROW [seconds]; the rows are: ", table.concat(names, " "), "\n")
  os.exit(1)
end

return M
