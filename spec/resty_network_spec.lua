-- Workers of a real nginx, without privileges, on a network of netstack-tund's, whose other side is a kernel's in a
-- namespace.
local netns = require "spec.netns"
local nginx = require "spec.nginx"
local tund = require "spec.tund"

local MIB = 1048576

-- `JOIN` is what `resty.join` is told beside the path, `INIT` loads more. Each connection is served lines, or what it
-- asks for.
local WORLD = [[
  lua_socket_log_errors off;
  lua_socket_buffer_size 64k;
  init_by_lua_block {
    netstack, resty = require "netstack", require "netstack.resty"
    INIT
  }
  init_worker_by_lua_block {
    stack = netstack.new()
    PATH = "SOCKET"
    network = assert(resty.join(stack, { path = PATH, JOIN }))
    local listener = assert(resty.listen(stack, "*", 7))
    local function serve()
      while true do
        local peer = listener:accept()
        if not peer then return end
        local line = peer:receive()
        while line do
          local size = line:match("^give (%d+)$")
          if size then peer:send(("x"):rep(tonumber(size)))
          else peer:send { line, " from ", ngx.worker.pid(), "\n" } end
          line = peer:receive()
        end
        peer:close()
      end
    end
    ngx.timer.at(0, function() for _ = 1, 4 do ngx.thread.spawn(serve) end end)
  }
]]

describe("netstack.resty.join", function()
  local namespace, program, server, path

  local function with(needed, name, fn)
    local why = nginx.missing() or tund.missing((table.unpack or unpack)(needed)) -- luacheck: ignore 143
    if why then pending(("%s (%s)"):format(name, why)) else it(name, fn) end
  end

  local function start_tund(options)
    program = tund.start(namespace, tund.NETWORK .. " --group www-data " .. (options or ""), path)
  end

  -- A namespace, and where the socket is to be.
  local function prepare()
    namespace = netns.new()
    netns.command("chmod 711 " .. netns.folder())
    path = netns.folder() .. "/s"
  end

  local function start_nginx(join, options)
    options = options or {}
    options.http = (options.http or WORLD):gsub("SOCKET", path):gsub("JOIN", join or "")
      :gsub("INIT", options.init or "")
    options.user = "www-data"
    server = nginx.start(options)
  end

  after_each(function()
    nginx.finish()
    netns.finish()
  end)

  local function count(text)
    return select(2, server:log():gsub(text:gsub("%p", "%%%0"), ""))
  end

  -- Lists of what workers have joined as, so far.
  local function joined(expected)
    return nginx.eventually(function()
      local list = {}
      for addresses in server:log():gmatch("joined as ([^\n]-), context") do
        list[#list + 1] = { v4 = addresses:match("(10[%d.]+)/24"), v6 = addresses:match("(fd07[%x:]+)/64") }
      end
      return #list >= expected and list
    end)
  end

  local function no_errors()
    assert.is_nil(server:log():match("%[%a*[ec]r[ri]%a*%][^\n]*"))
  end

  -- What a line to a worker's server brings back.
  local function ask(address, line)
    return namespace:exec(("sh -c 'echo %s | nc -w 2 -N %s 7'"):format(line, address))
  end

  with({ "ping", "nc", "ss" }, "has two workers on one network, each with addresses of its own", function()
    prepare()
    start_tund("--pool 10.7.0.16/28 --pool fd07::100/120")
    start_nginx(nil, { workers = 2 })
    local list = joined(2)
    for i, pid in ipairs(server:workers()) do
      local status = nginx.read(("/proc/%d/status"):format(pid))
      assert.matches("\nCapEff:\t0+\n", status)
      assert.is_nil(status:match("\nUid:\t0"))
      assert.are_not.equal(list[1].v4, i == 2 and list[2].v4)
    end
    for _, one in ipairs(list) do
      for _, address in ipairs { one.v4, one.v6 } do
        netns.assert_answered(namespace:exec("ping -n -c 3 -i 0.02 -w 5 -s 1400 " .. address), 3)
        one.pid = ask(address, "hello"):match("^hello from (%d+)\n$")
      end
    end
    assert.is_true(list[1].pid ~= list[2].pid)
    -- Each of them reaches the other one, and a server of the kernel's.
    namespace:start("sh -c 'while echo kernel | nc -N -l 10.7.0.1 5000; do :; done'")
    namespace:listens(5000)
    local seen = {}
    nginx.eventually(function()
      local pid, text = server:run(([[
        local lines = { ngx.worker.pid() }
        for _, host in ipairs { "%s", "%s" } do
          local socket = resty.tcp(stack)
          assert(socket:connect(host, 7))
          socket:send("hello\n")
          lines[#lines + 1] = socket:receive()
          socket:close()
        end
        local socket, ok = resty.tcp(stack), nil
        for _ = 1, 50 do -- nc takes a moment between two
          ok = socket:connect("10.7.0.1", 5000)
          if ok then break end
          ngx.sleep(0.02)
        end
        lines[#lines + 1] = socket:receive() or "none"
        socket:close()
        return table.concat(lines, " ")
      ]]):format(list[1].v4, list[2].v6)):match("^(%d+) (.*)$")
      assert.equal(("hello from %s hello from %s kernel"):format(list[1].pid, list[2].pid), text)
      seen[pid] = true
      return seen[list[1].pid] and seen[list[2].pid]
    end)
    local counters = tund.counters(program)
    assert.same({ 0, 0, 0, 2 }, { counters.foreign, counters.malformed, counters.full, counters.clients })
    -- Idle they cost nothing, and they leave at once.
    local before = server:cpu()
    require("socket").sleep(0.4)
    assert.is_true(server:cpu() - before < 0.015) -- one tick of the clock that counts it
    no_errors()
    server:signal("QUIT")
    nginx.eventually(function() return server:ended() end, 1.5)
    assert.equal(0, tund.counters(program).clients)
  end)

  with({ "nc", "ss" }, "brings connections through a crash of the program", function()
    prepare()
    start_tund()
    start_nginx('addresses = { "10.7.0.10", "fd07::10" }')
    joined(1)
    local folder, total = netns.folder(), 24 * MIB
    netns.write_stream(folder .. "/up", 1, total)
    local sink = namespace:start(("nc -l 10.7.0.1 5000 >%s/down"):format(folder))
    namespace:listens(5000)
    local upload = server:open("/run", ([[
      local socket = resty.tcp(stack)
      assert(socket:connect("10.7.0.1", 5000))
      local sent = 0
      while sent < %d do
        assert(socket:send(("x"):rep(65536)))
        sent = sent + 65536
        if sent %% 1048576 == 0 then ngx.sleep(0.01) end
      end
      socket:close()
      return sent
    ]]):format(total))
    local size = function() return #(nginx.read(folder .. "/down") or "") end
    nginx.eventually(function() return size() > 2 * MIB end)
    program:signal("KILL")
    nginx.eventually(function() return program:status() end)
    assert.is_true(size() < total / 2, size())
    start_tund()
    assert.same({ 200, tostring(total) }, { upload:wait() })
    nginx.eventually(function() return sink:status() end)
    assert.equal(0, sink:status())
    assert.equal(total, size())
    assert.is_true(nginx.read(folder .. "/down") == ("x"):rep(total))
    assert.equal(1, count("trying again"))
    assert.equal(2, #joined(2))
    assert.matches("^hello from ", ask("fd07::10", "hello"))
  end)

  with({ "nc" }, "waits for the program, and says so once", function()
    prepare()
    start_nginx('addresses = { "10.7.0.10/24" }')
    assert.equal("false no such file or directory; trying again each second", server:run [[
      local up, why = network:is_up()
      return tostring(up) .. " " .. why
    ]])
    assert.equal("timeout no such file or directory; trying again each second, 0", server:run [[
      local ok, err, why = network:wait(1100)
      return tostring(ok or err) .. " " .. why .. ", " .. #network:addresses()
    ]])
    assert.equal(1, count("no such file"))
    local waiting = server:open("/run", [[
      local socket = resty.tcp(stack) -- what is sent meanwhile waits, too
      local start = netstack.now()
      local ok, err = socket:connect("10.7.0.1", 5000)
      return network:wait() .. " " .. table.concat(network:addresses()) .. " " .. err
    ]])
    start_tund()
    assert.same({ 200, "1 10.7.0.10/24 connection refused" }, { waiting:wait() })
    assert.equal(1, count("no such file"))
    assert.equal(0, count("connect() to unix:")) -- nginx would log each of them
    -- A program that stands still is waited for, too.
    program:signal("STOP")
    local request = server:open("/run", [[
      local socket = resty.tcp(stack)
      return select(2, socket:connect("10.7.0.1", 5000))
    ]])
    require("socket").sleep(0.2)
    program:signal("CONT")
    assert.same({ 200, "connection refused" }, { request:wait() })
    assert.equal("1 1 0", server:run [[
      local stats = network:stats()
      return stats.connected .. " " .. tostring(stats.sent > 1 and 1) .. " " .. stats.dropped
    ]])
    server:run("return stack:close()")
    nginx.eventually(function() return tund.counters(program).clients == 0 end)
  end)

  with({ "nc" }, "hands a fixed address over when nginx reloads", function()
    prepare()
    start_tund()
    -- It can listen on its address from the beginning.
    start_nginx('addresses = { "10.7.0.10" }', { http = WORLD:gsub("local function serve", [[
      own = assert(resty.listen(stack, "10.7.0.10", 8))
      %0]]) })
    joined(1)
    local old = tostring(server:workers()[1])
    local client = namespace:start("sh -c '{ echo one; sleep 0.4; echo two; } | nc -w 2 -N 10.7.0.10 7'")
    nginx.eventually(function() return client:output():find("one from " .. old, 1, true) end)
    server:signal("HUP")
    nginx.eventually(function() return client:output():find("two from " .. old, 1, true) end)
    joined(2)
    nginx.eventually(function() return nginx.ended(old) end, 4)
    assert.equal(1, count("waits: 10.7.0.10 is another client's"))
    assert.equal("", namespace:exec("nc -z -w 2 10.7.0.10 8"))
    local new = ask("10.7.0.10", "hello"):match("^hello from (%d+)")
    assert.equal(new, tostring(server:workers()[1]))
    assert.equal(1, tund.counters(program).clients)
    no_errors()
  end)

  with({ "nc" }, "leases another address to the next worker when nginx reloads", function()
    prepare()
    start_tund("--pool 10.7.0.16/28")
    start_nginx()
    local old = joined(1)[1].v4
    local pid = server:workers()[1]
    local held = server:open("/run", [[
      local socket = resty.tcp(stack)
      socket:settimeout(600)
      return select(2, socket:connect("10.7.0.99", 7)) -- nobody
    ]])
    server:signal("HUP")
    local new = joined(2)[2].v4
    assert.are_not.equal(old, new)
    assert.is_false(nginx.ended(pid))
    assert.matches("^hello from ", ask(new, "hello"))
    assert.same({ 200, "timeout" }, { held:wait() })
    nginx.eventually(function() return nginx.ended(pid) end, 3)
    nginx.eventually(function() return tund.counters(program).clients == 1 end)
    -- After a crash of the program it asks for what it had, unless that is another's by then.
    program:signal("KILL")
    nginx.eventually(function() return program:status() end)
    start_tund("--pool 10.7.0.16/28")
    local thief = tund.granted(path, new)
    assert.are_not.equal(new, joined(3)[3].v4)
    thief:close()
  end)

  with({}, "leaves with its request, its stack, or when it is told to", function()
    prepare()
    start_tund()
    start_nginx(nil, { http = [[
      init_by_lua_block {
        netstack, resty = require "netstack", require "netstack.resty"
        early = table.concat({ tostring(resty.join(netstack.new(), { path = "SOCKET" })),
          (select(2, resty.join(netstack.new(), { path = "SOCKET" }))) }, " ")
      }
      init_worker_by_lua_block { stacks = {} }
    ]] })
    assert.equal("nil not supported", server:run("return early"))
    local function addresses() return tund.counters(program).addresses end
    assert.equal("1 10.7.0.10/24 true closed closed", server:run(([[
      local stack = netstack.new()
      local network = assert(resty.join(stack, { path = "%s", addresses = { "10.7.0.10" } }))
      local up = network:wait(1000)
      local interface = network:interface()
      local first = table.concat(interface:addresses())
      local pinged = stack:ping("10.7.0.1") ~= nil
      network:close()
      local _, err = network:wait()
      ngx.sleep(0.05)
      return table.concat({ up, first, tostring(pinged), err, (select(2, interface:stats())) }, " ")
    ]]):format(path)))
    assert.equal(0, addresses())
    assert.equal("1", server:run(([[
      local stack = netstack.new()
      left = setmetatable({ stack }, { __mode = "v" })
      return resty.join(stack, { path = "%s", addresses = { "10.7.0.10" } }):wait(1000)
    ]]):format(path)))
    nginx.eventually(function() return tund.counters(program).clients == 0 end)
    nginx.eventually(function()
      return server:run("collectgarbage() collectgarbage() return tostring(left[1])") == "nil"
    end)
    assert.equal(2, tund.counters(program).accepted - 1) -- one was the spec's
    assert.equal("1 1", server:run(([[
      local stack = netstack.new()
      local network = resty.join(stack, { path = "%s", addresses = { "10.7.0.10" } })
      return network:wait(1000) .. " " .. stack:close()
    ]]):format(path)))
    nginx.eventually(function() return tund.counters(program).clients == 0 end)
    assert.matches("timeout refused 10.9.0.1 outside the network; ", server:run(([[
      local network = resty.join(netstack.new(), { path = "%s", addresses = { "10.9.0.1" } })
      return table.concat({ select(2, network:wait(200)) }, " ")
    ]]):format(path)))
    assert.matches("its mtu is 1500, the stack's 1400: they have to be equal", server:run(([[
      local network = resty.join(netstack.new { mtu = 1400 }, { path = "%s", addresses = { "10.7.0.10" } })
      return table.concat({ select(2, network:wait(200)) }, " ")
    ]]):format(path)))
    for given, expected in pairs {
      ["nil"] = "#2 to 'join' (table expected, got nil)",
      ["{}"] = "#2 to 'join' (option 'path': string expected, got nil)",
      ["{ path = 's' }"] = "option 'path': an absolute path of at most 107 bytes expected",
      ["{ path = '/s', addresses = {} }"] = "option 'addresses': 1 to 16 addresses expected",
      ["{ path = '/s', addresses = { 'x' } }"] = "option 'addresses': invalid address 'x'",
      ["{ path = '/s', address = '10.7.0.10' }"] = "unknown option 'address'",
    } do
      local text = server:run(("return (select(2, pcall(resty.join, netstack.new(), %s)))"):format(given))
      assert.is_truthy(text:find(expected, 1, true), text)
    end
    nginx.eventually(function() return tund.counters(program).clients == 0 end)
  end)

  with({ "nc" }, "does what the README says, from an empty configuration", function()
    prepare()
    start_tund("--pool 10.7.0.128/25 --pool fd07::1:0/112")
    local conf
    for block in nginx.read("README.md"):gmatch("\n```nginx\n(.-)\n```\n") do
      if block:find("resty.join", 1, true) then conf = block end
    end
    conf = conf:gsub("/run/netstack/tund.sock", path):gsub("\nuser [^\n]*", "")
    server = nginx.start { text = conf, user = "www-data", workers = 2 }
    for _, one in ipairs(joined(2)) do
      local line = namespace:exec("nc -w 2 " .. one.v4 .. " 7")
      assert.equal(("as %s/24, %s/64\n"):format(one.v4, one.v6), line:match("^worker %d+ (.*)$"))
      assert.same({ 200, line }, { server:request("/ask?host=" .. one.v6) })
    end
  end)

  with({}, "keeps no Lua state without lua_code_cache", function()
    prepare()
    start_tund("--pool 10.7.0.16/28")
    start_nginx(nil, { http = "lua_code_cache off;" })
    netns.command("install -o www-data /dev/null " .. netns.folder() .. "/closed")
    for _ = 1, 3 do
      assert.equal("1", server:run(nginx.witness(netns.folder() .. "/closed") .. ([[
        local netstack, resty = require "netstack", require "netstack.resty"
        app = netstack.new()
        local network = assert(resty.join(app, { path = "%s" }))
        return network:wait(1000)
      ]]):format(path)))
    end
    nginx.eventually(function() return nginx.read(netns.folder() .. "/closed") == "xxx" end)
    assert.equal(0, tund.counters(program).clients)
  end)

  with({ "redis-server", "memcached", "ss" }, "has clients reach Redis and memcached behind the kernel", function()
    local modules, fetched = nginx.capture(".build/fetch-nginx-clients")
    if not fetched then return pending(modules) end
    prepare()
    start_tund("--pool 10.7.0.16/28")
    namespace:start("redis-server --bind 10.7.0.1 --port 6379 --protected-mode no --save '' --appendonly no --dir " ..
      netns.folder())
    namespace:start("memcached -l 10.7.0.1 -p 11211 -U 0 -m 16 -t 1 -u \"$(id -un)\"")
    namespace:listens(6379)
    namespace:listens(11211)
    start_nginx(nil, { path = modules:match("([^\n]*)%s*$") .. "/?.lua;", init = [[
      resty.install()
      redis, memcached = require "nginx.redis", require "nginx.memcached"
    ]] })
    assert.equal("value 100000 1|kept 100000 1", server:run [[
      assert(network:wait(5000) == 1)
      local large = ("0123456789"):rep(10000)
      local function use(client, port, value)
        client:set_timeout(5000)
        assert(client:connect("10.7.0.1", port))
        assert(client:set("name", value) and client:set("large", large))
        assert(client:get("large") == large)
        local result = client:get("name") .. " " .. #large .. " " .. client:get_reused_times()
        assert(client:set_keepalive() == 1)
        return result
      end
      return resty.with(stack, function()
        use(redis:new(), 6379, "value")
        use(memcached:new(), 11211, "kept")
        return use(redis:new(), 6379, "value") .. "|" .. use(memcached:new(), 11211, "kept")
      end)
    ]])
    no_errors()
  end)
end)
