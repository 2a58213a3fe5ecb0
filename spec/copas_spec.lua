local helper = require "spec.helper"
local netstack = require "netstack"
local other_loops = require "spec.other_loops"

describe("netstack.copas", function()
  -- It is of Lua alone, and packaged for some versions.
  local path = package.path
  package.path = path .. ";/usr/share/lua/5.1/?.lua;/usr/share/lua/5.2/?.lua"
  local http = package.loaded["socket.http"]
  package.loaded["socket.http"] = nil -- copas wants to be first
  local missing = other_loops.missing("socket", "copas")
  package.loaded["socket.http"] = http
  package.path = path
  if missing then
    it("needs copas", function() pending(missing) end)
    return
  end
  local adapter, copas, socket = require "netstack.copas", require "copas", require "socket"
  local loop = { adapter = adapter, begin = function() end, attach = adapter.attach }

  function loop.start(fn) copas.addthread(fn) end

  -- Its own ends never, or not before `detach`.
  function loop.run(is_over)
    local limit = os.time() + 30
    while not is_over() and os.time() < limit do copas.step(1) end
  end

  loop.sleep = copas.pause or copas.sleep or netstack.sleep -- the oldest has no timers

  local function dress(client)
    client:settimeout(0)
    return {
      receive = function() return copas.receive(client) end,
      send = function(_, text) return copas.send(client, text) end,
      close = function() client:close() end,
    }
  end

  function loop.listen(handle)
    local server = assert(socket.bind("127.0.0.1", 0))
    copas.addserver(server, function(client)
      handle(dress(client))
    end)
    return (select(2, server:getsockname()))
  end

  function loop.connect(port)
    local client = socket.tcp()
    assert(copas.connect(client, "127.0.0.1", port))
    return dress(client)
  end

  other_loops.specs(loop, { it = it, pending = pending, before_each = before_each, after_each = after_each })

  it("gives the threads' handler of errors what a callback raised, and goes on", function()
    local a, b = helper.pair()
    local server, client, line, raised = b:udp(), a:udp(), nil, {}
    assert(server:setsockname("*", 53))
    local previous = print
    _G.print = function(err) raised[#raised + 1] = err end -- what copas reports by
    b:trace(function() error("in a callback", 0) end)
    loop.start(function()
      loop.sleep(0.01)
      client:sendto("x", "10.0.0.2", 53)
      loop.sleep(0.01)
      b:trace(nil)
      client:sendto("y", "10.0.0.2", 53)
    end)
    loop.start(function()
      assert.equal("x", (server:receive()))
      line = server:receive()
    end)
    loop.run(function() return line end)
    _G.print = previous
    assert.equal("y", line)
    assert.matches("in a callback", raised[1])
    client:close()
    server:close()
  end)
end)
