-- TCP with the host's kernel over a lossy way: a shim of ours between a stack and a TUN device drops packets at random,
-- both ways. Real time, so what is lost is another packet each time; that the bytes are the same is what counts.
local helper = require "spec.helper"
local netns = require "spec.netns"
local netstack = require "netstack"

local run, spawn = netstack.run, netstack.spawn
local with = netns.specs(it, pending)

local KIB = 1024
local FAMILIES = { { kernel = "10.1.0.1", stack = "10.1.0.2" }, { kernel = "fd01::1", stack = "fd01::2" } }

describe("a lossy way to the kernel", function()
  after_each(netns.finish)

  for _, case in ipairs { { loss = 0.01, size = 1024 * KIB }, { loss = 0.05, size = 256 * KIB } } do
    with({ "nc", "ss" }, ("with %g %% loss carries TCP both ways, byte for byte"):format(case.loss * 100), function()
      local random = helper.random(case.size)
      local packets, lost = 0, 0
      local folder, streams = netns.folder(), {}
      run(function()
        local stack, namespace = netns.shimmed(1, nil, function(packet)
          packets = packets + 1
          if random() >= case.loss then return packet end
          lost = lost + 1
        end)
        -- Four at once: each family, each way.
        local tasks = {}
        for i, family in ipairs(FAMILIES) do
          local down, up = 5000 + i, 6000 + i
          local sink = ("%s/down%d"):format(folder, i)
          streams[i] = { path = sink, seed = down }
          local server = namespace:start(("nc -N -l %s %d >%s"):format(family.kernel, down, sink))
          namespace:listens(down)
          tasks[#tasks + 1] = spawn(function()
            local socket = assert(stack:connect(family.kernel, down))
            helper.send_stream(socket, down, case.size)
            socket:close()
            assert.equal(0, (server:wait()))
          end)
          local source = ("%s/up%d"):format(folder, i)
          netns.write_stream(source, up, case.size)
          local listener = assert(stack:bind("*", up))
          local client = namespace:start(("nc -N %s %d <%s"):format(family.stack, up, source))
          tasks[#tasks + 1] = spawn(function()
            local socket = assert(listener:accept())
            listener:close()
            assert.equal(case.size, helper.receive_stream(socket, up))
            socket:close()
            assert.equal(0, (client:wait()))
          end)
        end
        for _, task in ipairs(tasks) do task:join() end
        -- The last FINs may be lost, too, and the shim ends with this task.
        netns.eventually(function()
          local stats = stack:stats()
          return stats.tcp.connections == stats.tcp.time_wait
        end, 60)
        assert.is_true(stack:stats().tcp.retransmits > 0)
      end, { clock = "real", timeout = 120 })
      for _, stream in ipairs(streams) do netns.assert_stream(stream.path, stream.seed, case.size) end
      local share = lost / packets
      assert.is_true(share > case.loss / 2 and share < case.loss * 2, share)
    end)
  end
end)
