-- The resolver (RFC 1035, RFC 3596, RFC 5452) against servers in Lua on other stacks: honest, silent, and lying ones.
local netstack = require "netstack"
local helper = require "spec.helper"
local packets = require "spec.packets"

local char, floor = string.char, math.floor
local run, sleep = netstack.run, netstack.sleep
local u16, bytes, get16 = packets.u16, packets.bytes, packets.get16

local A, AAAA, CNAME = 1, 28, 5

local function encode(name)
  local encoded = name:gsub("([^.]+)%.?", function(label) return char(#label) .. label end)
  return encoded .. "\0"
end

-- What a question asks: its id, the name as text, the type, and the question's bytes.
local function asked(query)
  local labels, at = {}, 13
  while query:byte(at) > 0 do
    labels[#labels + 1] = query:sub(at + 1, at + query:byte(at))
    at = at + query:byte(at) + 1
  end
  return { id = query:sub(1, 2), name = table.concat(labels, "."), type = get16(query, at + 1),
    question = query:sub(13, at + 4) }
end

-- A record; `data` is an address or a name.
local function record(name, kind, data, ttl)
  data = kind == CNAME and encode(data) or bytes(data)
  return (name and encode(name) or "\192\12") .. u16(kind) .. u16(1) .. "\0\0" .. u16(ttl or 60) .. u16(#data) .. data
end

-- o: code, cut, id, question
local function answer(q, records, o)
  o = o or {}
  return (o.id or q.id) .. char(0x81 + (o.cut and 2 or 0), 0x80 + (o.code or 0)) .. u16(1) .. u16(#records) ..
    "\0\0\0\0" .. (o.question or q.question) .. table.concat(records)
end

-- A client at 10.0.0.1 whose servers are at 10.0.0.2 (and others); `serve(q, from)` answers each question.
local function world(servers, serve)
  local client, server = helper.watch(netstack.new { seed = 1, dns = servers }), helper.watch(netstack.new { seed = 2 })
  local near, far = netstack.pipe { checksum = true }
  assert(client:attach(near, { addresses = { "10.0.0.1/24", "fd00::1/64" } }))
  assert(server:attach(far, { addresses = { "10.0.0.2/24", "10.0.0.4/24", "fd00::2/64" } }))
  local questions, sockets = {}, {}
  for i, own in ipairs { "10.0.0.2", "10.0.0.4", "fd00::2" } do
    local socket = server:udp()
    sockets[i] = socket
    assert(socket:setsockname(own, 53))
    netstack.daemon(function()
      while true do
        local data, host, port = socket:receivefrom()
        if not data then return end
        local q = asked(data)
        q.port, q.time = port, netstack.now()
        questions[#questions + 1] = q
        local reply = serve and serve(q, { socket = socket, sockets = sockets, host = host, port = port, n = #questions,
          server = server })
        if reply then socket:sendto(reply, host, port) end
      end
    end)
  end
  return client, server, questions, function()
    for _, socket in ipairs(sockets) do socket:close() end
  end
end

-- Answers from a table: name -> {type -> {addresses}}, or an alias.
local function zone(names)
  return function(q)
    local known = names[q.name:lower()]
    if not known then return answer(q, {}, { code = 3 }) end
    local records = {}
    for _, address in ipairs(known[q.type] or {}) do records[#records + 1] = record(nil, q.type, address, known.ttl) end
    return answer(q, records)
  end
end

local hosts = {
  ["www.example.com"] = { [A] = { "10.0.0.4", "10.0.0.5" }, [AAAA] = { "fd00::4" } },
  ["six.example.com"] = { [AAAA] = { "fd00::6" } },
}

describe("DNS", function()
  after_each(helper.nothing_left)

  local function spec(name, servers, serve, fn)
    it(name, function()
      run(function()
        local client, server, questions, close = world(servers, serve)
        fn(client, server, questions)
        close()
      end)
    end)
  end

  local function unknown(client, name)
    return assert.same({ nil, "host not found" }, { client:resolve(name) })
  end

  spec("tells the addresses of a name, IPv4 first (RFC 1035, RFC 3596)", { "10.0.0.2" }, zone(hosts), function(client)
    assert.equal("10.0.0.4", client:resolve("www.example.com"))
    assert.equal("10.0.0.4", client:resolve("WWW.Example.com."))
    assert.equal("fd00::6", client:resolve("six.example.com"))
    local _, about = require "netstack.luasocket"(client).dns.toip("www.example.com")
    assert.same({ "10.0.0.4", "10.0.0.5", "fd00::4" }, about.ip)
    unknown(client, "nobody.example.com")
  end)

  spec("is asked over IPv6, too", { "fd00::2" }, zone(hosts), function(client)
    assert.equal("10.0.0.4", client:resolve("www.example.com"))
  end)

  spec("is used by connect, sendto, setpeername and ping", { "10.0.0.2" }, zone {
    ["server.test"] = { [A] = { "10.0.0.2" } } }, function(client, server)
      local listener = server:bind("*", 80)
      local socket = assert(client:connect("server.test", 80))
      socket:close()
      listener:accept():close()
      listener:close()
      local udp, to = client:udp(), server:udp()
      to:setsockname("*", 7)
      assert.equal(1, udp:sendto("x", "server.test", 7))
      assert.equal("x", to:receive())
      assert(udp:setpeername("server.test", 7))
      assert.is_true(client:ping("server.test") < 1)
      assert.same({ nil, "host not found" }, { client:connect("nobody.test", 80) })
      udp:close()
      to:close()
    end)

  spec("is not asked for addresses, nor for names that cannot be", { "10.0.0.2" }, zone(hosts),
    function(client, _, questions)
      for _, name in ipairs { "10.0.0.9", "fd00::9", "10.0.0", "", "a..b", ("x"):rep(64) .. ".com",
        ("abc."):rep(70) } do
        client:resolve(name)
      end
      assert.same({}, questions)
    end)

  it("is asked after the stack's own names", function()
    run(function()
      local stack = helper.watch(netstack.new { hosts = { known = "10.0.0.7" }, dns = { "10.0.0.2" } })
      local near, far = netstack.pipe()
      stack:attach(near, { addresses = { "10.0.0.1/24" } })
      assert.equal("10.0.0.7", stack:resolve("known"))
      sleep(1)
      assert.is_nil(far:receive())
    end)
  end)

  spec("remembers an answer for as long as it lives", { "10.0.0.2" }, zone {
    ["a.test"] = { [A] = { "10.0.0.7" }, ttl = 30 }, ["b.test"] = { [A] = { "10.0.0.8" }, ttl = 0 } },
    function(client, _, questions)
      for _ = 1, 10 do assert.equal("10.0.0.7", client:resolve("a.test")) end
      assert.equal(2, #questions) -- A and AAAA
      sleep(31)
      client:resolve("a.test")
      assert.equal(4, #questions)
      for _ = 1, 3 do client:resolve("b.test") end
      assert.equal(10, #questions)
    end)

  spec("follows aliases, in an answer and from one to the next (RFC 1034 3.6.2)", { "10.0.0.2" }, function(q)
    if q.name == "alias.test" then
      return answer(q, { record(nil, CNAME, "middle.test"), record("middle.test", CNAME, "real.test"),
        q.type == A and record("real.test", A, "10.0.0.7") or nil })
    elseif q.name == "far.test" then
      return answer(q, { record(nil, CNAME, "elsewhere.test") })
    elseif q.name == "elsewhere.test" and q.type == A then
      return answer(q, { record(nil, A, "10.0.0.8") })
    elseif q.name == "loop.test" then
      return answer(q, { record(nil, CNAME, "pool.test") })
    elseif q.name == "pool.test" then
      return answer(q, { record(nil, CNAME, "loop.test") })
    end
    return answer(q, {})
  end, function(client, _, questions)
    assert.equal("10.0.0.7", client:resolve("alias.test"))
    assert.equal("10.0.0.8", client:resolve("far.test"))
    unknown(client, "loop.test")
    assert.is_true(#questions < 40)
  end)

  spec("asks again, and other servers", { "10.0.0.3", "10.0.0.2", "10.0.0.4" }, function(q, from)
    if from.n <= 2 then return nil end -- silent at first
    return zone(hosts)(q)
  end, function(client, _, questions)
    local began = netstack.now()
    assert.equal("10.0.0.4", client:resolve("www.example.com"))
    -- Nobody is at 10.0.0.3; 10.0.0.2 and 10.0.0.4 are silent; then from the start, with more patience.
    assert.near(2 + 2 + 2 + 4, questions[3].time - began, 0.1)
  end)

  spec("asks the next server when one cannot tell", { "10.0.0.2", "10.0.0.4" }, function(q, from)
    if from.n == 1 then return answer(q, {}, { code = 2 }) end -- SERVFAIL
    return zone(hosts)(q)
  end, function(client)
    local began = netstack.now()
    assert.equal("10.0.0.4", client:resolve("www.example.com"))
    assert.is_true(netstack.now() - began < 1)
  end)

  spec("gives up when nobody answers", { "10.0.0.2", "10.0.0.4" }, nil, function(client, _, questions)
    local began = netstack.now()
    unknown(client, "www.example.com")
    assert.near(2 * (2 + 4), netstack.now() - began, 0.1)
    assert.equal(4, #questions)
  end)

  it("knows at once that no server listens", function()
    run(function()
      local client, server = helper.watch(netstack.new { dns = { "10.0.0.2" } }), helper.watch(netstack.new())
      local near, far = netstack.pipe()
      client:attach(near, { addresses = { "10.0.0.1/24" } })
      server:attach(far, { addresses = { "10.0.0.2/24" } })
      unknown(client, "www.example.com")
      assert.is_true(netstack.now() < 1)
      local alone = helper.watch(netstack.new { dns = { "10.0.0.2" } })
      unknown(alone, "www.example.com")
    end)
  end)

  spec("asks over TCP for what was cut (RFC 7766)", { "10.0.0.2" }, function(q)
    return answer(q, {}, { cut = true })
  end, function(client, server)
    local listener = server:bind("*", 53)
    netstack.daemon(function()
      while true do
        local peer = listener:accept()
        if not peer then return end
        local query = peer:receive(get16(peer:receive(2), 1))
        local reply = zone(hosts)(asked(query))
        peer:send(u16(#reply) .. reply)
        peer:close()
      end
    end)
    assert.equal("10.0.0.4", client:resolve("www.example.com"))
    listener:close()
  end)

  -- ------------------------------------------------------------------------------------------------ liars

  -- A server that says that its answer is too long, and what it then does with the connection; the other is honest.
  for _, case in ipairs {
    { "hangs up", 0.1, function() end },
    { "resets", 0.1, function(peer) peer:abort() end },
    { "says nothing", 2.1, function(peer) peer:receive() end },
    { "stops within the length", 2.1, function(peer) peer:send "\1" peer:receive() end },
    { "stops within the answer", 2.1, function(peer) peer:send "\255\255abc" peer:receive() end },
    { "answers nothing", 0.1, function(peer) peer:send "\0\0" end },
    { "answers garbage", 0.1, function(peer) peer:send("\0\100" .. ("\200"):rep(100)) end },
    { "answers another question", 0.1, function(peer, q)
      local reply = answer(q, { record(nil, q.type, "10.6.6.6") }, { id = "\0\0" })
      peer:send(u16(#reply) .. reply)
    end },
    { "is not there", 0.1 },
  } do
    spec("goes on when a server over TCP " .. case[1], { "10.0.0.2", "10.0.0.4" }, function(q, from)
      return from.socket == from.sockets[1] and answer(q, {}, { cut = true }) or zone(hosts)(q)
    end, function(client, server)
      local listener = case[3] and server:bind("*", 53)
      if listener then
        helper.serve(listener, function(peer)
          netstack.daemon(function() -- which nobody waits for
            local query = peer:receive(get16(peer:receive(2), 1))
            case[3](peer, asked(query))
            peer:close()
          end)
        end)
      end
      local began = netstack.now()
      assert.equal("10.0.0.4", client:resolve("www.example.com"))
      assert.is_true(netstack.now() - began < 2 * case[2], netstack.now() - began) -- for each kind of address
      if listener then listener:close() end
    end)
  end

  spec("hears only what answers its question (RFC 5452 §9)", { "10.0.0.2" }, function(q, from)
    local function say(data) from.socket:sendto(data, from.host, from.port) end
    local lie = { record(nil, q.type, q.type == A and "10.6.6.6" or "fd66::6") }
    local id = get16(q.id, 1)
    for i = 1, 20 do say(answer(q, lie, { id = u16((id + i) % 65536) })) end
    say(answer(q, lie, { question = encode "other.test" .. u16(q.type) .. u16(1) }))
    say(answer(q, lie, { question = encode(q.name) .. u16(16) .. u16(1) }))
    say(answer(q, { record("other.test", q.type, q.type == A and "10.6.6.6" or "fd66::6") })) -- not what was asked for
  end, function(client)
    unknown(client, "www.example.com")
  end)

  spec("does not hear another port or address than it asked", { "10.0.0.2" }, function(q, from)
    for _, place in ipairs { { "10.0.0.2", 5353 }, { "10.0.0.4", 5353 } } do
      local other = from.server:udp()
      assert(other:setsockname(place[1], place[2]))
      other:sendto(answer(q, { record(nil, q.type, q.type == A and "10.6.6.6" or "fd66::6") }), from.host, from.port)
      other:close()
    end
    -- The right port of the wrong address.
    from.sockets[2]:sendto(answer(q, { record(nil, q.type, q.type == A and "10.6.6.6" or "fd66::6") }), from.host,
      from.port)
    sleep(0.1)
    return zone(hosts)(q)
  end, function(client)
    assert.equal("10.0.0.4", client:resolve("www.example.com"))
  end)

  spec("survives whatever a server says", { "10.0.0.2" }, (function()
    local random = helper.random(5)
    return function(q, from)
      local n = from.n
      local address = q.type == A and "10.6.6.6" or "fd66::6"
      local reply = answer(q, { record(nil, CNAME, "a.b.c"), record(nil, q.type, address) })
      local kind = n % 4
      if kind == 0 then return reply:sub(1, 12 + random(#reply - 12)) end -- cut anywhere
      local list = { reply:byte(1, -1) }
      for _ = 1, kind == 1 and 3 or 12 do list[3 + random(#list - 2)] = random(256) end
      for i, value in ipairs(list) do list[i] = char(value) end
      return table.concat(list)
    end
  end)(), function(client, _, questions)
    for i = 1, 200 do client:resolve("name" .. i .. ".test") end
    assert.is_true(#questions >= 200)
  end)

  spec("reads no message for ever, whatever its pointers say", { "10.0.0.2" }, function(q, from)
    local here = 12 + #q.question
    local pointers = { "\192" .. char(here), "\192" .. char(here + 2) .. "\192" .. char(here), "\255\255", "\192" }
    local name = pointers[from.n % #pointers + 1]
    return answer(q, { name .. u16(q.type) .. u16(1) .. "\0\0\0\60" .. u16(4) .. "\10\6\6\6" })
  end, function(client)
    for i = 1, 8 do unknown(client, "name" .. i .. ".test") end
  end)

  spec("asks with ids and from ports that nobody foretells (RFC 5452 §9.2)", { "10.0.0.2" }, zone {},
    function(client, _, questions)
      for i = 1, 150 do client:resolve("name" .. i .. ".test") end
      assert.equal(300, #questions)
      for _, of in ipairs { function(q) return get16(q.id, 1) end, function(q) return q.port end } do
        local steps, again, high = {}, 0, 0
        for i = 2, #questions do
          local step = of(questions[i]) - of(questions[i - 1])
          again = again + (steps[step] and 1 or 0)
          steps[step] = true
          high = high + (of(questions[i]) > 33000 and 1 or 0)
        end
        assert.is_true(again < 10, again)
        assert.is_true(high > 100 and high < 200, floor(high))
      end
    end)

  spec("remembers a bounded number of names", { "10.0.0.2" }, function(q)
    return q.type == A and answer(q, { record(nil, A, "10.0.0.7") }) or answer(q, {})
  end, function(client, _, questions)
    for i = 1, 300 do client:resolve("name" .. i .. ".test") end
    local before = #questions
    client:resolve("name300.test")
    assert.equal(before, #questions)
    client:resolve("name1.test")
    assert.equal(before + 2, #questions)
  end)
end)
