-- Bad days in a lab: partitions, crashes, restarts, flaps, and what TCP makes of them.
local lab = require "netstack.lab"
local netstack = require "netstack"

local sleep, spawn = netstack.sleep, netstack.spawn

-- Four hosts: a and b on one switch, c behind a router, d linked to a directly.
local function world()
  local net = lab.new()
  local hosts = {}
  for _, name in ipairs { "a", "b", "c", "d" } do hosts[name] = net:host(name) end
  local s, r = net:switch "s", net:router "r"
  net:link(hosts.a, s)
  net:link(hosts.b, s)
  net:link(s, r)
  net:link(r, hosts.c)
  net:link(hosts.a, hosts.d)
  return net, hosts
end

-- Who reaches whom by ping, both families: "ab ba …".
local function reach(hosts, pairs_of)
  local list = {}
  for pair in pairs_of:gmatch "%a%a" do
    local from = hosts[pair:sub(1, 1)]
    local count = 0
    for i, address in ipairs(require "netstack.names".all(from, pair:sub(2, 2))) do
      if i <= 1 or address:find(":", 1, true) and count < 2 then
        if from:ping(address, { timeout = 0.5 }) then count = count + 1 end
      end
    end
    list[#list + 1] = count > 0 and pair or "--"
  end
  return table.concat(list, " ")
end

-- What gets to a UDP socket of `to`, of one datagram from each of the others.
local function heard(hosts, to)
  local socket, found = hosts[to]:udp(), {}
  socket:setsockname("*", 9)
  for _, name in ipairs { "a", "b", "c", "d" } do
    if name ~= to then
      local sender = hosts[name]:udp()
      sender:sendto(name, to, 9)
      sender:close()
    end
  end
  socket:settimeout(1)
  for _ = 1, 3 do
    local data = socket:receive()
    if data then found[#found + 1] = data end
  end
  socket:close()
  table.sort(found)
  return table.concat(found)
end

local ALL = "ab ba ac ca ad da bc cb"

describe("A partition", function()
  it("parts hosts over switches, routers and direct links, in both families, until it is healed", function()
    local net, hosts = world()
    net:run(function()
      assert.equal(ALL, reach(hosts, ALL))
      assert.equal(1, net:partition({ hosts.a }, { hosts.b, "c" }))
      assert.equal("-- -- -- -- ad da bc cb", reach(hosts, ALL))
      net:partition({ "a" }, { "d" })
      assert.equal("-- -- -- -- -- -- bc cb", reach(hosts, ALL))
      assert.equal("", heard(hosts, "a"))
      assert.equal("b", heard(hosts, "c"))
      net:heal()
      assert.equal(ALL, reach(hosts, ALL))
      assert.equal("bcd", heard(hosts, "a"))
    end)
    net:close()
  end)

  it("may be one way, and of many groups", function()
    local net, hosts = world()
    net:run(function()
      assert.equal("ab", heard(hosts, "c")) -- d knows nobody but a
      net:partition({ "a", "d" }, { "c" }, { oneway = true })
      assert.equal("b", heard(hosts, "c"))
      assert.equal("bcd", heard(hosts, "a"))
      net:heal()
      net:partition({ "a" }, { "b" }, { "c" }, { "d" })
      assert.equal("-- -- -- -- -- -- -- --", reach(hosts, ALL))
    end)
    net:close()
  end)

  it("lets multicast and broadcast through no more than anything else", function()
    local net = lab.new()
    local s = net:switch "s"
    local a, b = net:host "a", net:host "b"
    net:link(a, s)
    net:link(s, b)
    net:run(function()
      local socket, sender = b:udp(), a:udp()
      socket:setsockname("*", 5353)
      socket:setoption("ip-add-membership", { multiaddr = "224.0.0.251", interface = "*" })
      sender:setoption("broadcast", true)
      socket:settimeout(1)
      for _, group in ipairs { "224.0.0.251", "255.255.255.255" } do
        sender:sendto("hi", group, 5353)
        assert.equal("hi", socket:receive())
        net:partition({ "a" }, { "b" })
        sender:sendto("hi", group, 5353)
        assert.is_nil((socket:receive()))
        net:heal()
      end
      socket:close()
      sender:close()
    end)
    net:close()
  end)

  it("that heals in time costs TCP no byte, one that lasts ends the connection", function()
    for _, case in ipairs { { 20, 200000 }, { 3000, nil } } do
      local net = lab.new()
      local a, b = net:host "a", net:host "b"
      net:link(a, b, { rate = 1e6, delay = 0.01 })
      net:run(function()
        local listener = b:bind("*", 80)
        local sent
        spawn(function()
          local conn = a:connect("b", 80)
          sent = { conn:send(("x"):rep(200000)) }
          conn:shutdown "send"
          conn:receive "*a"
          conn:close()
        end)
        local conn = listener:accept()
        conn:settimeout(2000)
        sleep(0.5)
        net:partition({ "a" }, { "b" })
        sleep(case[1])
        net:heal()
        local data = conn:receive "*a"
        if case[2] then assert.equal(case[2], #data) else assert.is_nil(data) end
        conn:close()
        listener:close()
        sleep(1)
        assert.is_table(sent)
      end)
      net:close()
    end
  end)
end)

describe("A crash", function()
  it("answers closed to sockets of the host, and leaves peers in the dark until it is restarted", function()
    local net = lab.new()
    local a, b = net:host "a", net:host "b"
    local link = net:link(a, b, { delay = 0.01 })
    net:run(function()
      local listener = b:bind("*", 80)
      local client = a:connect("b", 80)
      local server = listener:accept()
      local waiting = spawn(function() return server:receive() end)
      sleep(1)
      local before = link:stats()["b->a"].sent
      assert.equal(1, net:crash(b))
      assert.same({ nil, "closed", "" }, { waiting:join() })
      assert.same({ nil, "closed" }, { listener:accept() })
      assert.equal(5, client:send "hello") -- nobody has told it
      sleep(10)
      assert.equal(before, link:stats()["b->a"].sent)
      assert.is_true(client:info().retransmits > 1)
      assert.same({ nil, "closed" }, { b:bind("*", 80) })
      net:restart "b"
      assert.same({ nil, "connection reset", "" }, { client:receive() }) -- nobody there knows of it
      local again = assert(b:bind("*", 80))
      assert.is_truthy(a:connect("b", 80))
      again:close()
    end)
    net:close()
  end)

  it("of a router parts the network, and its routes are there again afterwards", function()
    local net = lab.new()
    local a, r, b = net:host "a", net:router "r", net:host "b"
    net:link(a, r)
    net:link(r, b)
    net:run(function()
      assert.is_number(a:ping "b")
      net:crash "r"
      assert.is_nil((a:ping "b"))
      net:restart "r"
      assert.is_number(a:ping "b")
    end)
    net:close()
  end)

  it("forgets what a NAT has learned, not what it was told", function()
    local net = lab.new()
    local a, nat, b = net:host "a", net:nat "nat", net:host "b"
    net:link(a, nat)
    net:link(nat, b)
    net:run(function()
      local server = b:udp()
      server:setsockname("*", 53)
      local client = a:udp()
      client:settimeout(1)
      server:settimeout(1)
      client:sendto("q", "b", 53)
      local _, host, port = server:receivefrom()
      server:sendto("r", host, port)
      assert.equal("r", client:receive())
      net:crash "nat"
      net:restart "nat"
      server:sendto("late", host, port)
      assert.is_nil((client:receive()))
      client:sendto("q", "b", 53)
      assert.equal("q", server:receive())
      client:close()
      server:close()
    end)
    net:close()
  end)
end)
