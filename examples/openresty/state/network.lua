-- Two stacks of this worker, and a service on the second one. It reads a number, and answers with a line that says how
-- its end of the connection is, in JSON, after so many bytes.
local cjson = require "cjson"
local link = require "netstack.link"
local netstack = require "netstack"
local resty = require "netstack.resty"

local PORT, SERVERS = 7000, 32 -- so many connections at once

local M = { host = "10.0.0.2", port = PORT, connections = SERVERS }

local function serve(peer)
  while true do
    local line = peer:receive()
    local count = tonumber(line)
    if not count then return peer:close() end -- the client has gone, or the worker exits
    peer:send(("x"):rep(count))
    peer:send { cjson.encode(peer:info()), "\n" }
  end
end

--- To be called when the worker starts.
function M.start()
  local _, near, far = assert(link.new { delay = 0.005, rate = 50e6 })
  M.client, M.server = netstack.new { name = "client" }, netstack.new { name = "server" }
  M.client:attach(near, { addresses = { "10.0.0.1/24" } })
  M.server:attach(far, { addresses = { "10.0.0.2/24" } })
  resty.start(M.client)
  resty.start(M.server)
  local listener = assert(resty.listen(M.server, "*", PORT))
  assert(ngx.timer.at(0, function()
    for _ = 1, SERVERS do
      ngx.thread.spawn(function()
        local peer = listener:accept()
        while peer do
          serve(peer)
          peer = listener:accept()
        end
      end)
    end
  end))
end

return M
