local WORLD = require "spec.resty_world"
local nginx = require "spec.nginx"

describe("What a request owns of netstack.resty", function()
  if nginx.absent(it, pending) then return end
  local socket = require "socket"

  local server

  setup(function() server = nginx.start { http = WORLD } end)
  teardown(nginx.finish)

  local function run(code) return server:run(code) end

  it("closes all of many sockets, those forgotten before included", function()
    assert.equal("30 of 30, 0 left, true", run [[
      local owners = require "netstack.resty.owner"
      local before, most = owners.count(), nil
      local listener, done = resty.listen(b, "*", 8000, 100), require("ngx.semaphore").new()
      ngx.timer.at(0, function()
        local held = {}
        for i = 1, 90 do
          local socket = resty.tcp(a)
          assert(socket:connect("10.0.0.2", 8000))
          if i % 3 == 0 then held[#held + 1] = socket end
          if i % 30 == 0 then
            socket = nil
            collectgarbage()
            collectgarbage()
          end
        end
        collectgarbage "stop" -- from here on nothing else closes the 30
        most = owners.count() - before
        for i = 1, 30, 3 do held[i]:close() end
        done:post()
      end)
      done:wait(5)
      ngx.sleep(0.01)
      local peers, closed = {}, 0
      for i = 1, 90 do
        peers[i] = listener:accept()
        peers[i]:settimeout(1000)
        local _, err = peers[i]:receive()
        if err == "closed" and i % 3 == 0 then closed = closed + 1 end
        peers[i]:close()
      end
      listener:close()
      collectgarbage "restart"
      return closed .. " of 30, " .. owners.count() - before .. " left, " .. tostring(most < 70)
    ]])
  end)

  it("closes what a request leaves open", function()
    assert.equal("closed", run [[
      collectgarbage "stop"
      local listener, request = resty.listen(b, "*", 8000), require("ngx.semaphore").new()
      local peers, line = {}, nil
      ngx.timer.at(0, function()
        local socket, in_pool = resty.tcp(a), resty.tcp(a)
        assert(socket:connect("10.0.0.2", 8000) and in_pool:connect("10.0.0.2", 8000))
        resty.udp(a):setpeername("10.0.0.2", 53)
        in_pool:setkeepalive()
      end)
      for i = 1, 2 do peers[i] = listener:accept() end
      local _, err = peers[1]:receive() -- which is not told by the pooled one
      peers[2]:settimeout(20)
      assert(select(2, peers[2]:receive()) == "timeout")
      for i = 1, 2 do peers[i]:close() end
      listener:close()
      ngx.sleep(0.01)
      local open = {}
      for _, one in ipairs(a:sockets()) do
        if one.state ~= "TIME-WAIT" then open[#open + 1] = one.protocol .. " " .. tostring(one.state) end
      end
      collectgarbage "restart"
      return table.concat(open, " ") .. err
    ]])
  end)

  it("forgets a client that goes away", function()
    local request = server:open("/run", [[
      local socket = resty.tcp(a)
      socket:connect("10.0.0.2", 80)
      socket:receive() -- for ever
    ]])
    local function guests() return run [[
      collectgarbage "stop" -- what is closed is not by the collector
      local open = 0
      for _, one in ipairs(a:sockets()) do if one.state ~= "TIME-WAIT" then open = open + 1 end end
      return require("netstack.scheduler").outside().guests .. " " .. open
    ]] end
    socket.sleep(0.1)
    local before, sockets = guests():match("^(%d+) (%d+)$")
    request:abort()
    nginx.eventually(function()
      local now, open = guests():match("^(%d+) (%d+)$")
      return tonumber(now) < tonumber(before) and tonumber(open) < tonumber(sockets)
    end)
  end)
end)
