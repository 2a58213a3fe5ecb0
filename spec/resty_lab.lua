-- For ngx.run_worker_thread: what runs in a Lua state of its own.
local M = {}

--- The size of what a host got from another one.
function M.download(size)
  local lab, netstack = require "netstack.lab", require "netstack"
  local net = lab.new { seed = 1 }
  local client, server = net:host "client", net:host "server"
  net:link(client, server, { delay = 0.05, loss = 0.01 })
  return net:run(function()
    local listener = server:bind("*", 80)
    netstack.spawn(function()
      local peer = listener:accept()
      peer:send(("x"):rep(size))
      peer:close()
    end)
    local socket = client:connect("server", 80)
    return #socket:receive("*a")
  end)
end

--- What comes of it there.
function M.require_resty()
  return select(2, pcall(require, "netstack.resty"))
end

return M
