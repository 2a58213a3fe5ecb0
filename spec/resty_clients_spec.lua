-- Clients as Debian packages them, unchanged, in a worker: on a stack that reaches a real Redis and memcached, and a
-- websocket server of another nginx's, through a pipe to a second stack, whose light threads pass bytes on.
local nginx = require "spec.nginx"
local servers = require "spec.local_servers"
local world = require "spec.resty_clients_world"

describe("Clients of nginx's Lua", function()
  local missing = nginx.missing() or servers.missing()
  local path
  if not missing then
    local text, ok = nginx.capture(".build/fetch-nginx-clients")
    if ok then path = text:match("([^\n]*)%s*$") .. "/?.lua;" else missing = text end
  end
  if missing then
    it("need nginx with ngx_lua, Debian's packages of them, and servers", function() pending(missing) end)
    return
  end

  local server, ports

  setup(function()
    local other = nginx.start { path = path, locations = world.WEBSOCKET }
    ports = { REDIS = servers.redis(), MEMCACHED = servers.memcached(), SERVER = other.port }
    server = nginx.start { path = path, locations = world.PHASES, http = world.INIT .. world.WORKER:gsub("%u+", ports) }
  end)

  teardown(function()
    nginx.finish()
    servers.finish()
  end)

  -- Runs code in the worker; REDIS is the port of Redis at 127.0.0.1.
  local function run(code) return server:run((code:gsub("REDIS", ports.REDIS))) end

  it("keep values in Redis, in pipelines too, over connections that are used again", function()
    assert.equal("OK value null|PONG|OK 1 2 binary\r\n\0|0 1|unknown ok", run [[
      return resty.with(a, function()
        local client = redis:new()
        client:set_timeout(5000)
        assert(client:connect("redis", 6379))
        local results = { client:set("name", "value") .. " " .. client:get("name") .. " " ..
          (client:get("nothing") == ngx.null and "null" or "?"), client:ping() }
        client:init_pipeline()
        client:set("binary", "binary\r\n\0")
        client:del("count")
        client:incr("count")
        client:incr("count")
        client:get("binary")
        local replies = assert(client:commit_pipeline())
        results[3] = table.concat({ replies[1], replies[3], replies[4], replies[5] }, " ")
        local large = ("0123456789"):rep(100000)
        assert(client:set("large", large) and client:get("large") == large)
        local before = client:get_reused_times()
        assert(client:set_keepalive(10000, 10) == 1)
        client = redis:new()
        assert(client:connect("redis", 6379))
        results[4] = before .. " " .. client:get_reused_times()
        local ok, err = client:hset("name", "of", "another type")
        results[5] = (ok == false and err:match("^WRONGTYPE") and "unknown" or "?") .. " " ..
          (client:get("name") == "value" and "ok" or "?")
        client:close()
        return table.concat(results, "|")
      end)
    ]])
  end)

  it("subscribe to what Redis publishes", function()
    assert.equal("subscribe news 1 message news hello", run [[
      return resty.with(a, function()
        local subscriber, client, heard = redis:new(), redis:new(), {}
        assert(subscriber:connect("redis", 6379) and client:connect("redis", 6379))
        for _, part in ipairs(subscriber:subscribe("news")) do heard[#heard + 1] = part end
        local thread = ngx.thread.spawn(function() return subscriber:read_reply() end)
        assert(client:publish("news", "hello") == 1)
        local _, reply = ngx.thread.wait(thread)
        for _, part in ipairs(reply) do heard[#heard + 1] = part end
        subscriber:close()
        client:close()
        return table.concat(heard, " ")
      end)
    ]])
  end)

  it("tell of errors as over nginx's own sockets", function()
    assert.equal("connection refused|timeout|closed|nobody could not be resolved (3: Host not found)", run [[
      return resty.with(a, function()
        local results, client = {}, redis:new()
        results[1] = select(2, client:connect("10.0.0.2", 6380))
        local listener = resty.listen(b, "*", 9) -- says nothing
        client:set_timeout(20)
        assert(client:connect("10.0.0.2", 9))
        results[2] = select(2, client:get("name"))
        listener:close()
        results[3] = select(2, client:get("name"))
        results[4] = select(2, redis:new():connect("nobody", 6379))
        return table.concat(results, "|")
      end)
    ]])
  end)

  it("keep values in memcached", function()
    assert.equal("1 value 5|nil|NOT_STORED|8|0 1", run [[
      return resty.with(a, function()
        local client, results = assert(memcached:new()), {}
        assert(client:connect("10.0.0.2", 11211))
        assert(client:flush_all())
        local ok = client:set("a key", "value", 0, 5)
        local value, flags = client:get("a key")
        results[1] = ok .. " " .. value .. " " .. flags
        results[2] = tostring((client:get("nothing")))
        results[3] = select(2, client:add("a key", "again"))
        client:set("count", 7)
        results[4] = client:incr("count", 1)
        local before = client:get_reused_times()
        client:set_keepalive()
        assert(client:connect("10.0.0.2", 11211))
        results[5] = before .. " " .. client:get_reused_times()
        client:close()
        return table.concat(results, "|")
      end)
    ]])
  end)

  it("speak to a websocket server", function()
    assert.equal("you said hello text|pong alive|true binary|close", run [[
      return resty.with(a, function()
        local client = assert(websocket:new { timeout = 5000, max_payload_len = 200000 })
        assert(client:connect("ws://10.0.0.2/websocket"))
        local results = {}
        assert(client:send_text("hello"))
        results[1] = table.concat({ client:recv_frame() }, " ", 1, 2)
        client:send_ping("alive")
        local data, kind = client:recv_frame()
        results[2] = kind .. " " .. data
        local large = ("0123456789"):rep(10000)
        client:send_binary(large)
        data, kind = client:recv_frame()
        results[3] = tostring(data == large:reverse()) .. " " .. kind
        client:send_close()
        results[4] = select(2, client:recv_frame())
        client:close()
        return table.concat(results, "|")
      end)
    ]])
  end)

  it("are bound in one request while another one runs outside, each with sockets of its own", function()
    local requests = {}
    for i = 1, 8 do
      requests[i] = server:open("/run", (([[
        local inside, told, overlaps = BOUND, {}, 0
        busy = busy or { [true] = 0, [false] = 0 } -- how many are under way
        local function work()
          busy[inside] = busy[inside] + 1
          for i = 1, 20 do
            local client = redis:new()
            client:set_timeout(5000)
            -- 10.0.0.2 is on the stack only, 127.0.0.1 is nginx's only.
            assert(client:connect(inside and "10.0.0.2" or "127.0.0.1", inside and 6379 or REDIS))
            assert(client:set("own NUMBER", "NUMBER " .. i))
            ngx.sleep(0.001)
            assert(client:get("own NUMBER") == "NUMBER " .. i)
            told[client._sock.stack and "stack" or "nginx"] = true
            client:close()
            if busy[not inside] > 0 then overlaps = overlaps + 1 end
          end
          busy[inside] = busy[inside] - 1
        end
        if inside then resty.with(a, work) else work() end
        return (told.stack and "stack " or "") .. (told.nginx and "nginx " or "") ..
          (overlaps > 0 and "both" or "alone")
      ]]):gsub("%u%u%u%u+", { NUMBER = i, BOUND = tostring(i % 2 == 0), REDIS = ports.REDIS })))
    end
    for i, request in ipairs(requests) do
      assert.same({ 200, i % 2 == 0 and "stack both" or "nginx both" }, { request:wait() })
    end
  end)

  -- `is()`: whose socket ngx.socket.tcp makes now.
  local IS = [[
    local function is()
      local socket = ngx.socket.tcp()
      return not socket.stack and "-" or socket.stack.stack == a and "a" or socket.stack.stack == b and "b" or "?"
    end
  ]]

  it("have light threads and coroutines inherit the binding, also when they outlive it", function()
    assert.equal("-aaaaa-|a a -", run(IS .. [[
      local results, late, outer = { is() }, nil, coroutine.wrap(function() coroutine.yield(is()) end)
      local go = require("ngx.semaphore").new()
      resty.with(a, function(...)
        local one, two = ...
        assert(one == 1 and two == nil and select("#", ...) == 2)
        results[2] = is()
        results[3] = select(2, ngx.thread.wait(ngx.thread.spawn(function(x)
          ngx.sleep(0.001)
          return is() .. x
        end, "")))
        results[4] = select(2, coroutine.resume(coroutine.create(is)))
        results[5] = coroutine.wrap(function() return coroutine.wrap(is)() end)()
        late = ngx.thread.spawn(function()
          go:wait(5)
          local first = is()
          return first .. " " .. select(2, ngx.thread.wait(ngx.thread.spawn(is)))
        end)
        results[6] = select(2, ngx.thread.wait(ngx.thread.spawn(function()
          local ok, what = pcall(is)
          return what
        end)))
      end, 1, nil)
      results[7] = is()
      go:post()
      local _, told = ngx.thread.wait(late)
      return table.concat(results) .. "|" .. told .. " " .. outer()
    ]]))
  end)

  it("are unbound again when a function returns, raises, or is within another one", function()
    assert.equal("1 nil 3 nil 4|a b a|a|- boom -", run(IS .. [[
      local results = { texts(resty.with(a, function() return 1, nil, 3, nil end)) .. " " ..
        select("#", resty.with(a, function() return 1, nil, 3, nil end)) }
      resty.with(a, function()
        local told = { is(), (resty.with(b, is)), is() }
        results[2] = table.concat(told, " ")
        pcall(resty.with, b, error)
        results[3] = is()
      end)
      local before = is()
      local ok, err = pcall(resty.with, a, function() error("boom", 0) end)
      results[4] = before .. " " .. err .. " " .. is()
      for _ = 1, 500 do -- compiled code, too
        assert(resty.with(a, function() return is() .. resty.with(b, is) .. is() end) .. is() == "aba-")
      end
      return table.concat(results, "|")
    ]]))
  end)

  it("are unbound where nginx has dropped a coroutine and uses it anew", function()
    -- nginx keeps the coroutines of what it has dropped for who comes next, in this request and in others.
    assert.equal(("-"):rep(40), run(IS .. [[
      local told = {}
      for i = 1, 20 do
        local killed = resty.with(a, function() return ngx.thread.spawn(function() ngx.sleep(10) end) end)
        ngx.thread.kill(killed)
        told[#told + 1] = is()
        told[#told + 1] = select(2, ngx.thread.wait(ngx.thread.spawn(is)))
      end
      return table.concat(told)
    ]]))
    for _ = 1, 5 do
      assert.equal(200, (server:request("/run", "resty.with(a, function() ngx.exit(200) end)")))
      local request = server:open("/run", "resty.with(a, function() ngx.sleep(10) end)")
      assert.equal("-", run(IS .. "return is()"))
      request:abort()
      assert.equal("-", run(IS .. "return is()"))
    end
  end)

  it("are bound in each phase by itself", function()
    assert.same({ 200, "PONG false" }, { server:request("/phases") })
    assert.equal("PONG -", run(IS .. [[
      local semaphore, said = require("ngx.semaphore").new(), nil
      resty.with(a, function()
        ngx.timer.at(0, function()
          local whose = is() -- not inherited
          said = resty.with(a, function()
            local client = redis:new()
            client:connect("redis", 6379)
            return client:ping()
          end) .. " " .. whose
          semaphore:post()
        end)
      end)
      semaphore:wait(5)
      return said
    ]]))
    local request = server:open("/filter")
    assert.matches("answer: not supported, false", (request.connection:receive("*a")))
    request:abort()
  end)

  it("use UDP sockets, and ngx.socket.connect", function()
    assert.equal("pong|PONG a -|no", run(IS .. [[
      local peer, results = b:udp(), {}
      peer:setsockname("*", 53)
      return resty.with(a, function()
        local socket = ngx.socket.udp()
        assert(socket:setpeername("10.0.0.2", 53))
        socket:send("ping")
        local _, host, port = peer:receivefrom()
        peer:sendto("pong", host, port)
        results[1] = socket:receive()
        peer:close()
        local connection = assert(ngx.socket.connect("10.0.0.2", 6379))
        connection:send("PING\r\n")
        results[2] = connection:receive():sub(2) .. " " .. (connection.stack.stack == a and "a" or "?") .. " -"
        results[3] = ngx.socket.connect("10.0.0.2", 6380) and "?" or "no"
        return table.concat(results, "|")
      end)
    ]]))
  end)

  it("are copied for a stack by load, also when they were loaded before", function()
    assert.equal("value|true false true|text|nginx|stack", run [[
      local mine = resty.load(a, "nginx.memcached")
      local client, results = assert(mine:new()), {}
      assert(client:connect("10.0.0.2", 11211))
      client:set("key", "value")
      results[1] = client:get("key")
      client:close()
      results[2] = texts(mine == resty.load(a, "nginx.memcached"), mine == early,
        mine ~= resty.load(b, "nginx.memcached"))
      local socket = resty.load(a, "nginx.websocket.client"):new()
      assert(socket:connect("ws://10.0.0.2/websocket"))
      socket:send_text("x")
      results[3] = select(2, socket:recv_frame())
      socket:send_close()
      socket:close()
      -- The others are what they were: one that was loaded before `install` knows no binding.
      results[4] = resty.with(a, function() return early:new().sock.stack and "stack" or "nginx" end)
      results[5] = resty.with(a, function() return memcached:new().sock.stack and "stack" or "nginx" end)
      return table.concat(results, "|")
    ]])
    assert.equal("true|module 'nginx.nothing' not found:", run [[
      local folder = os.tmpname()
      os.remove(folder)
      local path = package.path
      local function write(name, text)
        local file = assert(io.open(folder .. name .. ".lua", "w"))
        file:write(text)
        file:close()
      end
      package.path = folder .. "?.lua;" .. path
      -- A module that uses sockets by way of another one that does not mention them; and one that has nothing to bind.
      write("outer", 'return { middle = require "middle", types = require "types" }')
      write("middle", 'return { tcp = select(2, pcall(require, "inner")).tcp }')
      write("inner", 'return { tcp = ngx.socket.tcp, header = ngx.header }')
      write("types", '-- of no socket, a type\nrequire("ffi").cdef "typedef struct once { int x; } once;" return {}')
      local shared = require "outer"
      local copy = resty.load(a, "outer")
      local results = { tostring(copy.types == shared.types and copy.middle ~= shared.middle and
        copy.middle.tcp().stack.stack == a and not shared.middle.tcp().stack) }
      for _, name in ipairs { "outer", "middle", "inner", "types" } do os.remove(folder .. name .. ".lua") end
      package.path = path
      results[2] = select(2, pcall(resty.load, a, "nginx.nothing")):match("^[^\n]*")
      return table.concat(results, "|")
    ]])
  end)

  it("refuse what makes no sense", function()
    for code, why in pairs {
      ["resty.with(1, print)"] = "bad argument #1 to 'with' %(stack expected, got number%)",
      ["resty.with(a)"] = "bad argument #2 to 'with' %(function expected, got nil%)",
      ["resty.load({}, 'nginx.redis')"] = "bad argument #1 to 'load' %(stack expected, got table%)",
      ["resty.load(a)"] = "bad argument #2 to 'load' %(string expected, got nil%)",
      ["resty.with(a, function() ngx.thread.spawn(1) end)"] = "bad argument",
    } do
      assert.matches(why, run("return (select(2, pcall(function() " .. code .. " end)))"))
    end
    assert.equal("1", run("return resty.install()")) -- it was
  end)

  it("do what the README says", function()
    local init, location = nginx.read("README.md"):match(
      "\n```nginx\n(init_by_lua_block {.-)\n```\n.-\n```nginx\n(location.-)\n```\n")
    local other = nginx.start { path = path, http = init:gsub("resty%.redis", "nginx.redis") .. "\n" ..
      world.WORKER:gsub("%u+", ports), locations = location }
    for i = 1, 2 do assert.same({ 200, i .. "\n" }, { other:request("/visits") }) end
    other:stop()
  end)

  it("leave no connection behind", function()
    local before = run "ngx.sleep(0.05) return open_sockets()"
    assert.equal(before + 4, tonumber(run [[
      return resty.with(a, function()
        local clients = {}
        for i = 1, 4 do
          clients[i] = redis:new()
          assert(clients[i]:connect("redis", 6379, { pool = "own" }) and clients[i]:ping())
        end
        local open = open_sockets()
        for i = 1, 3 do clients[i]:set_keepalive(10, 2) end -- the fourth one is forgotten
        return open
      end)
    ]]))
    assert.equal(before, run "ngx.sleep(0.05) return open_sockets()")
  end)
end)

describe("resty.install", function()
  local missing = nginx.missing()
  if missing then
    it("needs nginx with ngx_lua", function() pending(missing) end)
    return
  end

  after_each(nginx.finish)

  it("is for the phases in which clients are not loaded yet, and with needs it", function()
    local server = nginx.start { http = [[
      init_worker_by_lua_block {
        netstack, resty = require "netstack", require "netstack.resty"
        a = netstack.new()
      }
    ]] }
    assert.matches("^%S+: netstack.resty: install%(%) belongs in init_by_lua%*, before .*; this is phase content$",
      server:run("return select(2, pcall(function() resty.install() end))"))
    assert.matches("^%S+: netstack.resty: with%(%) needs install%(%) to be called in init_by_lua%*",
      server:run("return select(2, pcall(function() resty.with(a, print) end))"))
  end)

  it("works with lua_code_cache off, in the Lua state of each request", function()
    local server = nginx.start { http = [[
      lua_code_cache off;
      init_by_lua_block {
        resty = require "netstack.resty"
        resty.install()
        tcp = ngx.socket.tcp
      }
    ]] }
    for _ = 1, 3 do
      assert.equal("hello true", server:run [[
        local stack, other = require("netstack").pair()
        local listener = resty.listen(other, "*", 80)
        ngx.thread.spawn(function()
          local peer = listener:accept()
          peer:send(peer:receive() .. "\n")
          peer:close()
        end)
        local line = resty.with(stack, function()
          local socket = tcp()
          socket:connect("10.0.0.2", 80)
          socket:send("hello\n")
          return (socket:receive())
        end)
        return line .. " " .. tostring(tcp().stack == nil)
      ]])
    end
  end)
end)
