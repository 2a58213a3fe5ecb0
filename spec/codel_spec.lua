-- CoDel on a link: a standing queue is drained to its target, a burst is left alone.
local link = require "netstack.link"
local netstack = require "netstack"

local run, sleep = netstack.run, netstack.sleep

-- What a queue at 1 Mbit/s does to 1250-byte packets (10 ms each) that come each `space` seconds for `seconds`: the
-- delays of those that came through, and the statistics.
local function flow(options, space, seconds)
  local delays, stats = {}, nil
  options.rate = 1e6
  run(function()
    local l, a = link.new(options)
    l:trace(function(event)
      if event.arrival then delays[#delays + 1] = event.arrival - event.time - 0.01 end
    end)
    for _ = 1, math.floor(seconds / space + 0.5) do
      a:send(("x"):rep(1250))
      sleep(space)
    end
    stats = l:stats()["a->b"]
    l:trace(nil)
  end)
  return delays, stats
end

describe("CoDel", function()
  it("drains a standing queue that a tail drop would keep", function()
    local without = flow({ queue = 100 }, 0.0098, 60)
    local with, stats = flow({ queue = 100, codel = {} }, 0.0098, 60)
    assert.is_true(without[#without] > 0.98, "the queue is full without it: " .. without[#without])
    local over = 0
    for i = math.floor(#with / 2), #with do if with[i] > 0.1 then over = over + 1 end end
    assert.equal(0, over)
    assert.is_true(stats.dropped.codel > 100 and stats.dropped.queue == 0, "dropped " .. stats.dropped.codel)
  end)

  it("drops nothing while the delay is below the target, or above it for less than an interval", function()
    local _, calm = flow({ codel = {} }, 0.011, 20)
    assert.equal(0, calm.dropped.codel)
    local _, burst = flow({ codel = { target = 0.02, interval = 0.1 } }, 0.002, 0.016)
    assert.equal(0, burst.dropped.codel)
  end)

  it("drops ever more often: the gaps shrink with the square root of their number (RFC 8289 5.3)", function()
    local times = {}
    run(function()
      local l, a = link.new { rate = 1e6, queue = 1e6, codel = {} }
      l:trace(function(event) if event.cause == "codel" then times[#times + 1] = event.time end end)
      for _ = 1, 4000 do
        a:send(("x"):rep(1250))
        sleep(0.005) -- twice what goes through: it never gets short
      end
      l:trace(nil)
    end)
    assert.is_true(#times > 20)
    -- Time as the queue sees it goes half as fast here, for what waits leaves later than it comes.
    local first, tenth = times[2] - times[1], times[12] - times[11]
    assert.is_true(tenth < first / 2, ("gaps of %.3f and %.3f s"):format(first, tenth))
  end)
end)
