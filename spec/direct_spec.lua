-- What is called in place of functions of the core: on LuaJIT by its FFI, elsewhere it is the same functions.
local core = require "netstack.core"
local direct = require "netstack.direct"
local helper = require "spec.helper"
local netns = require "spec.netns"
local netstack = require "netstack"
local packets = require "spec.packets"

local methods = core.classes.tcp
local failure = packets.failure
local unpack = table.unpack or unpack -- luacheck: ignore 143

local function results(...)
  return { n = select("#", ...), ... }
end

describe("netstack.direct", function()
  after_each(helper.nothing_left)

  -- Two connections on which the same is done: by these functions, and by the core's.
  local function both(fn, config)
    local a, b = helper.pair(config or { seed = 1 })
    netstack.run(function()
      local said = {}
      for i, functions in ipairs { direct, methods } do
        local client, server = helper.connection(a, b, helper.families[1])
        said[i] = { fn(functions, client, server, a) }
        client:close()
        server:close()
      end
      assert.same(said[2], said[1])
      assert.is_true(#said[1] > 0)
    end, { timeout = 10000 })
  end

  it("sends and receives what the core's functions do", function()
    both(function(try, client, server)
      local said = {}
      local function note(...) said[#said + 1] = results(...) end
      local function take(name, max)
        netstack.sleep(1)
        note(try[name](server.handle, max))
      end
      note(try.try_send(client.handle, ""))
      note(try.try_send(client.handle, "a line\nanother\r\nsome"))
      note(try.try_send(client.handle, "by position", 4))
      note(try.try_send(client.handle, "by position", 1, 2))
      note(try.try_send(client.handle, 5))
      for _ = 1, 3 do take("try_receive_line") end
      take("try_receive_line")
      note(try.try_send(client.handle, ("x"):rep(10000) .. "\n" .. ("y"):rep(20000)))
      take("try_receive_line") -- longer than any buffer
      take("try_receive", 1)
      take("try_receive", 1.5)
      take("try_receive", 0)
      take("try_receive", 8192)
      take("try_receive", 1e300)
      for _ = 1, 30 do -- the window opens in between
        note(try.try_send(client.handle, ("z"):rep(100)))
        take("try_receive")
      end
      take("try_receive")
      client:shutdown("send")
      note(try.try_send(client.handle, "too late"))
      take("try_receive")
      take("try_receive_line")
      return unpack(said)
    end)
  end)

  it("sends as much as there is room for, and says why it cannot", function()
    both(function(try, client, server, stack)
      local sent = results(try.try_send(client.handle, ("x"):rep(3000000)))
      local more = results(try.try_send(client.handle, "x"))
      server:setoption("linger", { on = true, timeout = 0 })
      server:close()
      netstack.sleep(1)
      local reset = results(try.try_send(client.handle, "x"))
      local closed = results(try.try_send(client.handle, "x"))
      assert.is_true(sent[3] > 1000 and sent[3] < 3000000)
      return sent, more, reset, closed, #stack:sockets()
    end)
  end)

  it("is loaded again with the other modules, by who wants them fresh", function()
    local pipe = io.popen(netns.quote(netns.lua()) .. " -e " .. netns.quote [[
      local first = require "netstack"
      for name in pairs(package.loaded) do
        if name:match "^netstack" then package.loaded[name] = nil end
      end
      local netstack = require "netstack"
      local a = netstack.pair()
      netstack.run(function() print(first ~= netstack, a:ping("10.0.0.2")) end)
    ]] .. " 2>&1")
    assert.matches("^true\t0", pipe:read("*a"))
    pipe:close()
  end)

  it("raises what the core's functions raise", function()
    local udp = netstack.new():udp()
    for _, name in ipairs { "try_send", "try_receive", "try_receive_line" } do
      for _, handle in ipairs { false, 5, "handle", {}, print, io.stdout, udp.handle } do
        local err = failure(direct[name], handle, "data")
        assert.equal(failure(methods[name], handle, "data"), err)
        assert.matches("tcp socket expected", err)
      end
    end
    for _, name in ipairs { "await", "watch" } do
      for _, ticket in ipairs { false, 5, "ticket", {}, io.stdout, udp.handle } do
        assert.equal(failure(core[name], ticket, 1), failure(direct[name], ticket, 1))
      end
    end
    udp:close()
  end)
end)
