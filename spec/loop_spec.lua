local netstack = require "netstack"
local scheduler = require "netstack.scheduler"

describe("the loop", function()
  it("starts spawned tasks before it drives the stacks", function()
    local a, b = netstack.pair()
    netstack.run(function()
      netstack.daemon(function()
        -- Started by a task that was itself only spawned.
        netstack.spawn(function() assert(b:bind("*", 80)) end)
      end)
      assert(a:connect("10.0.0.2", 80))
    end)
  end)

  it("ends a wait in place before tasks that were woken with it", function()
    netstack.run(function()
      local log = {}
      local first = netstack.spawn(function() netstack.sleep(1) end)
      netstack.spawn(function()
        first:join()
        log[#log + 1] = "yields"
      end)
      netstack.sleep(0.5)
      table.sort({ 1, 2 }, function()
        first:join()
        log[#log + 1] = "in place"
        return false
      end)
      netstack.sleep(0)
      assert.equal("in place", log[1])
    end)
  end)

  it("tells the others when a task is cancelled whose ticket was answered but not yet reported", function()
    local a, b = netstack.pair()
    netstack.run(function()
      local channel, woken = a:channel(), 0
      local handle = assert(channel:request("udp.bind", { host = "*", port = 53 })).handle
      local ticket = channel:submit("udp.recv", { handle = handle })
      local tasks = {}
      for i = 1, 3 do
        tasks[i] = netstack.spawn(function()
          scheduler.wait(ticket)
          woken = woken + 1
        end)
      end
      netstack.sleep(1)
      b:udp():sendto("x", "10.0.0.1", 53)
      for _ = 1, 3 do
        a:poll(1)
        b:poll(1)
      end
      assert.is_true(ticket:done())
      tasks[3]:cancel()
      netstack.sleep(1)
      assert.equal(2, woken)
    end)
  end)

  it("lets time go on while a task only polls", function()
    local a, b = netstack.pair()
    netstack.run(function()
      local u = b:udp()
      assert(u:setsockname("*", 53))
      u:settimeout(0)
      netstack.spawn(function()
        netstack.sleep(1)
        a:udp():sendto("x", "10.0.0.2", 53)
      end)
      local data
      repeat data = u:receive() until data
      assert.equal(1, netstack.now())
    end)
  end)
end)
