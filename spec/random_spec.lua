-- What an attacker must not be able to foretell: sequence numbers (RFC 6528), ports (RFC 6056). With a seed the same
-- numbers come again, in another process too; without one they are the operating system's.
local netstack = require "netstack"
local helper = require "spec.helper"
local packets = require "spec.packets"

local run = netstack.run

-- The first segments of `count` connects, from a stack by hand.
local function syns(config, count, host, port)
  local list = {}
  run(function()
    local stack, far = helper.piped(config)
    for i = 1, count do
      local socket = stack:tcp()
      socket:settimeout(0)
      socket:connect(host or "10.0.0.2", port or 80)
      netstack.sleep(0.001)
      list[i] = helper.parse(far:receive())
      socket:close()
    end
    packets.drain(far)
    stack:close()
  end)
  return list
end

local function field(list, name)
  local values = {}
  for i, segment in ipairs(list) do values[i] = segment[name] end
  return values
end

-- How many of the steps from one number to the next are the same.
local function repeated_steps(values)
  local seen, again = {}, 0
  for i = 2, #values do
    local step = (values[i] - values[i - 1]) % 2 ^ 32
    if seen[step] then again = again + 1 end
    seen[step] = true
  end
  return again
end

describe("Random numbers", function()
  after_each(helper.nothing_left)

  it("of initial sequences differ between connections by no pattern (RFC 6528) #guarded", function()
    local numbers = field(syns({ seed = 1 }, 1000), "seq")
    assert.is_true(repeated_steps(numbers) <= 2, repeated_steps(numbers))
    local high = 0
    for _, number in ipairs(numbers) do high = high + (number >= 2 ^ 31 and 1 or 0) end
    assert.is_true(high > 400 and high < 600, high) -- six standard deviations
  end)

  it("of initial sequences go on from one connection to the next between the same ports (RFC 6528 §3)", function()
    run(function()
      local stack, far = helper.piped { seed = 1 }
      local last
      for _ = 1, 20 do
        local socket = stack:tcp()
        socket:settimeout(0)
        assert(socket:bind("*", 5000))
        socket:connect("10.0.0.2", 80)
        netstack.sleep(0.01)
        local number = helper.parse(far:receive()).seq
        if last then
          local step = (number - last) % 2 ^ 32
          assert.is_true(step > 0 and step < 100000, step) -- a clock of 4 µs and what was sent
        end
        last = number
        socket:close()
        netstack.sleep(0.01)
        packets.drain(far)
      end
    end)
  end)

  it("of ports cover what there is (RFC 6056) #guarded", function()
    local ports = field(syns({ seed = 1 }, 1000), "from_port")
    assert.is_true(repeated_steps(ports) < 30, repeated_steps(ports))
    local quarters = { 0, 0, 0, 0 }
    for _, port in ipairs(ports) do
      assert.is_true(port >= 1024)
      local quarter = math.floor((port - 1024) / 16128) + 1
      quarters[quarter] = quarters[quarter] + 1
    end
    for _, count in ipairs(quarters) do assert.is_true(count > 170 and count < 330, count) end
  end)

  it("are the same with the same seed, others with another, and others without", function()
    local function numbers(config)
      local list = syns(config, 20)
      return { field(list, "seq"), field(list, "from_port") }
    end
    local first = numbers { seed = 7 }
    assert.same(first, numbers { seed = 7 })
    for _, config in ipairs { { seed = 8 }, {}, {} } do
      local other = numbers(config)
      assert.is_not.same(first, other)
      first = other
    end
  end)

  it("say nothing about another stack's #guarded", function()
    local a, b = syns({ seed = 1 }, 50), syns({ seed = 2 }, 50)
    local differences = {}
    for i = 1, 50 do differences[i] = (a[i].seq - b[i].seq) % 2 ^ 32 end
    assert.equal(0, repeated_steps(differences))
  end)
end)
