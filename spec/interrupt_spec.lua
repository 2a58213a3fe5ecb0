-- SIGINT has Lua raise an error at any instruction. Here a hook does so, at each in turn: stacks and runs go on
-- afterwards.

local helper = require "spec.helper"
local netstack = require "netstack"

-- Calls fn with an error at its n-th instruction; whether it came that far.
local function interrupted(n, fn)
  local count, hit = 0, false
  local function hook()
    count = count + 1
    if count == n then
      hit = true
      debug.sethook()
      error("interrupted!", 0)
    end
  end
  local jit = rawget(_G, "jit")
  if jit then jit.off() end -- compiled code calls no hooks
  local ok, err = pcall(function()
    debug.sethook(hook, "", 1)
    fn()
    debug.sethook()
  end)
  if jit then jit.on() end
  if not ok and not tostring(err):find("interrupted!", 1, true) then error(err, 0) end
  return hit
end

describe("An interrupt", function()
  after_each(helper.nothing_left)

  it("at any instruction of run leaves none behind", function()
    local n = 0
    repeat
      n = n + 1
      local hit = interrupted(n, function() netstack.run(function() return 1 end) end)
      local ok, err = pcall(netstack.run, function() return netstack.now() end)
      if not ok then error(("after instruction %d: %s"):format(n, tostring(err)), 0) end
    until not hit
    assert.is_true(n > 200, n)
  end)

  it("at any instruction of a call outside run leaves no wait behind", function()
    local a = helper.pair()
    local socket, n = a:udp(), 0
    assert(socket:setsockname("*", 53))
    socket:settimeout(0.01)
    repeat
      n = n + 1
      local hit = interrupted(n, function() socket:receive() end)
      local ok, err = pcall(netstack.run, function() return netstack.now() end)
      if not ok then error(("after instruction %d: %s"):format(n, tostring(err)), 0) end
      assert.same({ nil, "timeout" }, { socket:receive() })
    until not hit
    assert.is_true(n > 200, n)
    socket:close()
  end)
end)
