-- The injectors by statistics: what was measured lies within five standard errors of what was asked for (a chance of
-- 1 in 1.7 million for each check to fail, were the seeds not fixed).
local helper = require "spec.helper"
local link = require "netstack.link"
local netstack = require "netstack"

local SEEDS, EACH = 20, 500
local N = SEEDS * EACH

-- What was told of each of `EACH` packets, `space` seconds apart, over each of `SEEDS` links.
local function observe(weather, space, seen)
  for seed = 1, SEEDS do
    weather.seed = seed
    netstack.run(function()
      local l, a, b = link.new(weather)
      l:trace(function(event) seen(event, seed) end)
      for _ = 1, EACH do
        a:send(("\0"):rep(100))
        netstack.sleep(space)
        repeat local packet = b:receive() until not packet
      end
      netstack.sleep(1)
      l:trace(nil)
    end)
  end
end

local function near(expected, found, error, what)
  assert.is_true(math.abs(found - expected) <= 5 * error, ("%s: %.6f, not %.6f"):format(what, found, expected))
end

local function share(weather, field)
  local count = 0
  observe(weather, 0.001, function(event) if event[field] then count = count + 1 end end)
  return count / N
end

describe("Weather", function()
  for _, case in ipairs { { "loss", "cause" }, { "duplicate", "duplicated" }, { "corrupt", "corrupted" },
    { "reorder", "reordered" } } do
    it("strikes as often as asked: " .. case[1], function()
      for _, p in ipairs { 0, 0.01, 0.3, 1 } do
        near(p, share({ [case[1]] = p, delay = 0.1 }, case[2]), math.sqrt(p * (1 - p) / N), case[1])
      end
    end)

    it("strikes as often with correlation, but in bursts: " .. case[1], function()
      local hits, both, before = 0, 0, false
      observe({ [case[1]] = 0.2, [case[1] .. "_correlation"] = 0.7 }, 0.001, function(event)
        local hit = event[case[2]] and true or false
        if hit then hits = hits + 1 end
        if hit and before then both = both + 1 end
        before = hit
      end)
      near(0.2, hits / N, math.sqrt(0.16 / N) * 2.5, case[1]) -- (1 + 0.7) / (1 - 0.7) bounds what correlation adds
      assert.is_true(both / hits > 0.4, case[1] .. " after itself: " .. both / hits)
    end)
  end

  it("loses in Gilbert-Elliott's bursts", function()
    local p, r = 0.02, 0.25
    local lost, bursts, before = 0, 0, false
    observe({ loss_model = { p = p, r = r } }, 0.001, function(event)
      local now = event.cause == "loss"
      if now then lost = lost + 1 end
      if now and not before then bursts = bursts + 1 end
      before = now
    end)
    local rate = p / (p + r)
    near(rate, lost / N, math.sqrt(rate * (1 - rate) / N * (2 - p - r) / (p + r)), "loss")
    near(1 / r, lost / bursts, math.sqrt((1 - r) / r ^ 2 / bursts), "burst length")
  end)

  it("loses in either state as k and h say", function()
    local rate = 0.5 * 0.1 + 0.5 * 0.6
    near(rate, share({ loss_model = { p = 0.5, r = 0.5, k = 0.9, h = 0.4 } }, "cause"),
      math.sqrt(rate * (1 - rate) / N), "loss")
  end)

  -- Share of the delays below the mean, and its standard deviation in jitters.
  for _, case in ipairs {
    { "uniform", sd = 1 / math.sqrt(3), below = 0.5, within = 0.5 },
    { "normal", sd = 1, below = 0.5, within = 0.382925 },
    { "pareto", below = 1 - 1.5 ^ -3, within = 1 - (1.5 + 0.5 * math.sqrt(0.75)) ^ -3 - (1 - (1.5 - 0.5 *
      math.sqrt(0.75)) ^ -3) },
  } do
    for _, rho in ipairs { 0, 0.5 } do
      it(("delays by %s jitter, correlation %g"):format(case[1], rho), function()
        local sum, squares, product, below, within, last, of = 0, 0, 0, 0, 0, nil, nil
        observe({ delay = 10, jitter = 1, distribution = case[1], correlation = rho }, 200, function(event, seed)
          local x = event.arrival - event.time - 10
          sum, squares = sum + x, squares + x * x
          if x < 0 then below = below + 1 end
          if math.abs(x) < 0.5 then within = within + 1 end
          if of == seed then product = product + x * last end
          last, of = x, seed
        end)
        local more = math.sqrt((1 + rho) / (1 - rho)) -- what correlation adds to a mean's error, at most
        local sd = case.sd or 1
        near(0, sum / N, sd / math.sqrt(N) * more, "mean")
        near(case.below, below / N, 0.5 / math.sqrt(N) * more, "below the mean")
        near(case.within, within / N, 0.5 / math.sqrt(N) * more, "near the mean")
        if case.sd then
          near(sd, math.sqrt(squares / N), sd / math.sqrt(2 * N) * more, "standard deviation")
          local expected = case[1] == "normal" and rho or 6 / math.pi * math.asin(rho / 2)
          near(expected, product / squares * EACH / (EACH - 1), 1.5 / math.sqrt(N) * more, "correlation")
        end
      end)
    end
  end

  it("carries as many bits a second as asked, whatever the sizes", function()
    for seed = 1, SEEDS do
      local random, bits, last = helper.random(seed), 0, nil
      netstack.run(function()
        local l, a = link.new { rate = 10e6, queue = 1000, seed = seed, duplicate = 0.1 }
        local began
        l:trace(function(event)
          began = began or event.time
          bits, last = bits + 8 * #event.packet * (event.duplicated and 2 or 1), event.copy_arrival or event.arrival
        end)
        for _ = 1, 500 do a:send(("x"):rep(40 + random(1460))) end
        netstack.sleep(10)
        last = last - began
        l:trace(nil)
      end)
      assert.is_true(math.abs(bits / last / 10e6 - 1) < 1e-8, ("%.3f bits a second"):format(bits / last))
    end
  end)

  it("has as many overtake as asked, seen from the far end", function()
    local overtook = 0
    for seed = 1, SEEDS do
      netstack.run(function()
        local _, a, b = link.new { delay = 0.1, reorder = 0.3, seed = seed }
        netstack.daemon(function()
          local highest = 0
          while true do
            local number = tonumber((b:receive(1000)))
            -- What went without delay has overtaken the hundred before it; what comes late is no longer the highest.
            if number < highest then overtook = overtook + 1 end
            highest = math.max(highest, number)
          end
        end)
        for i = 1, EACH do
          a:send(("%d"):format(i))
          netstack.sleep(0.001)
        end
        netstack.sleep(1)
      end)
    end
    -- Of those that are delayed, 7 in 10, each is overtaken but for a chance of 0.7^100; the last hundred of a seed may
    -- have nobody left to overtake them.
    near(0.7, overtook / N, math.sqrt(0.7 * 0.3 / N) + 0.006 / 5, "overtaken")
  end)

  it("flips one bit of what it corrupts, anywhere", function()
    local places = {}
    netstack.run(function()
      local _, a, b = link.new { corrupt = 1 }
      for _ = 1, 2000 do
        a:send(("\0"):rep(8))
        local packet = b:receive()
        local at = packet:find("[^%z]")
        local bit = math.floor(math.log(packet:byte(at)) / math.log(2) + 0.5)
        assert.equal(2 ^ bit, packet:byte(at))
        assert.is_nil(packet:find("[^%z]", at + 1))
        local place = at * 8 + bit
        places[place] = (places[place] or 0) + 1
      end
    end)
    for place = 8, 71 do near(2000 / 64, places[place] or 0, math.sqrt(2000 / 64), "bit " .. place) end
  end)

  it("leaves one injector's draws alone when another changes", function()
    local function lost(weather)
      local marks = {}
      observe(weather, 0.001, function(event) marks[#marks + 1] = event.cause == "loss" and "x" or "." end)
      return table.concat(marks)
    end
    local alone = lost { loss = 0.1 }
    assert.is_true(alone == lost { loss = 0.1, corrupt = 0.5, duplicate = 0.2, delay = 0.01, jitter = 0.01 })
  end)
end)
