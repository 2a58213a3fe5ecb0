-- What the conformance specs share: a check in both families, one that is known to fail, and how connections begin.
local assert = require "luassert"
local script = require "netstack.script"

local inject, expect, call = script.inject, script.expect, script.call

local M = {}

M.families = { { name = "IPv4", family = "ipv4", headers = 40 }, { name = "IPv6", family = "ipv6", headers = 60 } }

local function options_of(options, about)
  local made = { family = about.family, config = { seed = 1 } }
  for key, value in pairs(options or {}) do made[key] = value end
  return made
end

--- `check(title, steps, options)`: a check in each family; `steps` is called with the family's entry of `families` and
-- returns the script. `falls_short(title, why, pattern, steps, options)`: one that is known to fail, with an error that
-- matches `pattern`, and why. When it passes one day, that is a failure: the README lists it.
-- @param it busted's
-- @param pending calls busted's, as it is known within a spec
function M.checks(it, pending)
  local function check(title, steps, options)
    for _, about in ipairs(M.families) do
      it(title .. ", " .. about.name, function()
        script.run(steps(about), options_of(options, about))
      end)
    end
  end

  local function falls_short(title, why, pattern, steps, options)
    for _, about in ipairs(M.families) do
      it(title .. ", " .. about.name, function()
        local ok, err = pcall(script.run, steps(about), options_of(options, about))
        if ok then error("this holds now: make it a check, and take it off the README's list") end
        assert.matches(pattern, type(err) == "table" and tostring(err.message) or err)
        pending(why)
      end)
    end
  end

  return check, falls_short
end

--- Options of a SYN that allows what is checked, and no scaled windows.
M.PLAIN = { mss = 1000, sack_permitted = true }

--- Both sides' steps up to an established connection, `state.socket`, opened by the peer.
function M.opened(options, window)
  return {
    call(function(t)
      local listener = assert(t.stack:bind("*", 80))
      t.listener = listener
    end),
    inject { flags = "S", options = options or M.PLAIN, window = window },
    expect { flags = "SA", seq = 0, ack = 1 },
    inject { flags = "A", window = window },
    call(function(t)
      t.socket = assert(t.listener:accept())
      t.listener:close()
    end),
  }
end

--- The same, opened by the stack.
function M.connected(options, window)
  return {
    call(function(t) t.socket = assert(t.stack:connect(t.remote_host, 80)) end),
    expect { flags = "S", seq = 0 },
    inject { flags = "SA", options = options or M.PLAIN, window = window },
    expect { flags = "A", seq = 1, ack = 1 },
  }
end

--- Small segments need not wait.
M.nodelay = call(function(t) t.socket:setoption("tcp-nodelay", true) end)

--- The stack sends.
function M.send(data)
  return call(function(t) assert(t.socket:send(data)) end)
end

--- The stack's user gets what the peer sent, and nothing else is there.
function M.receive(data)
  return call(function(t)
    t.socket:settimeout(0)
    local got, err, rest = t.socket:receive(#data + 1)
    t.socket:settimeout()
    assert(not got and (err == "timeout" or err == "closed"), err)
    assert.equal(data, rest)
  end)
end

--- What `socket:info()` says.
function M.info(name, expected)
  return call(function(t)
    assert.equal(expected, t.socket:info()[name], name)
  end)
end

--- `fn(i)` for i from 1 to n, as a list of steps.
function M.times(n, fn)
  local steps = {}
  for i = 1, n do steps[i] = fn(i) end
  return steps
end

--- A number in a range.
function M.between(least, most)
  return function(value)
    if type(value) == "number" and value >= least and value <= most then return true end
    return false, ("expected %s to %s"):format(least, most)
  end
end

return M
