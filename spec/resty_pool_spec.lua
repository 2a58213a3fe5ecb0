local WORLD = require "spec.resty_world"
local nginx = require "spec.nginx"

describe("A pool of netstack.resty", function()
  if nginx.absent(it, pending) then return end
  local server

  setup(function() server = nginx.start { http = WORLD } end)
  teardown(nginx.finish)

  it("has no more connections than it is to have, however many want one", function()
    assert.equal("2 of 40", server:run [[
      local made, served, threads = 0, 0, {}
      local function work()
        for _ = 1, 5 do
          local socket = resty.tcp(a)
          assert(socket:connect("10.0.0.2", 80, { pool = "two", pool_size = 2, backlog = 10 }))
          if socket:getreusedtimes() == 0 then made = made + 1 end
          socket:send("wait 0.001\n")
          if socket:receive() == "waited" then served = served + 1 end
          assert(socket:setkeepalive())
        end
      end
      for i = 1, 8 do threads[i] = ngx.thread.spawn(work) end
      for i = 1, 8 do ngx.thread.wait(threads[i]) end
      return made .. " of " .. served
    ]])
  end)

  it("gives the connection to who has waited for it, not to who comes then", function()
    assert.equal("waited 1|timeout", server:run [[
      local options, waiter, late = { pool = "one", pool_size = 1, backlog = 2 }, resty.tcp(a), resty.tcp(a)
      local first = resty.tcp(a)
      assert(first:connect("10.0.0.2", 80, options))
      local waits = ngx.thread.spawn(function()
        assert(waiter:connect("10.0.0.2", 80, options))
        return waiter:getreusedtimes()
      end)
      first:setkeepalive()
      late:settimeout(20)
      local _, err = late:connect("10.0.0.2", 80, options)
      local _, reused = ngx.thread.wait(waits)
      return "waited " .. reused .. "|" .. err
    ]])
  end)
end)
