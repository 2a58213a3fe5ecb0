-- The lab: what is numbered, named and routed by itself, and what it says to mistakes.
local lab = require "netstack.lab"
local netstack = require "netstack"
local packets = require "spec.packets"

local unpack = table.unpack or unpack -- luacheck: ignore 143
local sleep, spawn = netstack.sleep, netstack.spawn
local failure = packets.failure

-- A server that tells each client its address.
local function tell_address(host, port)
  netstack.daemon(function(listener)
    while true do
      local conn = listener:accept()
      conn:send(conn:getpeername() .. "\n")
      conn:close()
    end
  end, assert(host:bind("*", port or 80)))
end

local function ask(from, name, port)
  local conn, err = from:connect(name, port or 80)
  if not conn then return nil, err end
  local line = conn:receive()
  conn:close()
  return line
end

local function prefixes(stack)
  local list = {}
  for _, route in ipairs(stack:routes()) do
    if route.gateway then list[#list + 1] = route.prefix .. " " .. route.gateway end
  end
  table.sort(list)
  return table.concat(list, ", ")
end

describe("A lab", function()
  local net
  before_each(function() net = lab.new() end)
  after_each(function() assert.equal(1, net:close()) end)

  it("numbers links, networks of switches and their hosts, in both families", function()
    local a, b, c, r, s = net:host "a", net:host "b", net:host "c", net:router "r", net:switch "s"
    net:link(a, r)
    net:link(r, s)
    net:link(b, s)
    net:link("s", "c")
    assert.same({ "10.0.0.1/24", "fd00::1/64" }, a:addresses())
    assert.same({ "10.128.0.2/20", "fd00:0:0:1::2/64" }, b:addresses())
    assert.same({ "10.128.0.3/20", "fd00:0:0:1::3/64" }, c:addresses())
    assert.equal(b, net:find "B")
    assert.equal(b, net:find "10.128.0.2")
    assert.equal(r, net:find "FD00:0:0:1::1")
    assert.is_nil(net:find "d")
    assert.is_nil(net:find "10.128.0.9")
    net:run(function()
      tell_address(c)
      assert.equal("10.0.0.1", ask(a, "c"))
      assert.equal("fd00::1", ask(a, "fd00:0:0:1::3"))
      assert.equal("10.128.0.2", ask(b, "C"))
    end)
  end)

  it("takes addresses that are named, and keeps its own away from them", function()
    local a, b, c, d = net:host "a", net:host "b", net:host "c", net:host "d"
    net:link(a, b, { addresses = { "10.0.0.77/16", { "10.0.1.1/16", "fd00:7::1/64" } } })
    net:link(c, d)
    assert.same({ "10.0.0.77/16" }, a:addresses())
    assert.same({ "10.0.1.1/16", "fd00:7::1/64" }, b:addresses())
    assert.equal("10.1.0.1/24", c:addresses()[1])
    assert.matches("the prefix of 10.1.0.5/24 is another link's", failure(net.link, net, b, d,
      { addresses = { "10.1.0.5/24" } }))
    net:run(function()
      tell_address(b)
      assert.equal("10.0.0.77", ask(a, "b"))
    end)
  end)

  it("numbers who joins a segment where a prefix was named from that", function()
    local s = net:switch "s"
    net:link(net:host "a", s, { addresses = { "192.168.7.2/29" } })
    for _, name in ipairs { "b", "c" } do net:link(net:host(name), s) end
    assert.same({ "192.168.7.1/29", "fd00::1/64" }, net:find("b"):addresses())
    assert.same({ "192.168.7.3/29", "fd00::3/64" }, net:find("c"):addresses())
    net:run(function() assert.is_number(net:find("c"):ping "a") end)
    for i = 1, 3 do assert(net:link(net:host("d" .. i), s)) end
    assert.same({ nil, "full" }, { net:link(net:host "e", s) })
    assert.same({}, net:find("e"):addresses())
  end)

  it("names hosts for everything that takes a host, IPv4 first, without a packet", function()
    local a, b = net:host("a", { hosts = { other = "10.9.9.9" } }), net:host "b"
    local l = net:link(a, b)
    assert.equal("10.0.0.2", a:resolve "b")
    assert.equal("10.9.9.9", a:resolve "other")
    assert.same({ nil, "host not found" }, { a:resolve "nobody" })
    assert.equal(0, l:stats()["a->b"].sent)
    net:run(function()
      local receiver, sender = b:udp(), a:udp()
      receiver:setsockname("*", 7)
      assert.equal(2, sender:sendto("hi", "b", 7))
      assert.equal("hi", receiver:receive())
      assert.equal(1, sender:setpeername("B", 7))
      assert.equal(2, sender:send("ho"))
      local data, host = receiver:receivefrom()
      assert.same({ "ho", "10.0.0.1" }, { data, host })
      assert.is_number(a:ping "b")
      sender:close()
      receiver:close()
    end)
  end)

  it("routes outside net:run, too: a plain script just works", function()
    local a, b, r = net:host "a", net:host "b", net:router "r"
    net:link(a, r)
    net:link(r, b)
    assert.is_number(a:ping "10.0.1.2")
    netstack.run(function() assert.is_number(b:ping "10.0.0.1") end)
  end)

  it("makes links while it runs", function()
    local a, b, r = net:host "a", net:host "b", net:router "r"
    net:link(a, r)
    net:run(function()
      assert.same({ nil, "host not found" }, { a:ping "b" })
      net:link(r, b)
      assert.is_number(a:ping "b")
    end)
  end)

  it("is given to the function that it runs, whose results it gives back", function()
    assert.same({ net, 7 }, { net:run(function(given) return given, 7 end) })
    assert.equal("boom", failure(net.run, net, function() error("boom", 0) end))
    assert.matches("^timeout:", failure(net.run, net, function() sleep(10) end, { timeout = 5 }))
  end)

  it("lets an hour of idle network cost nothing, and a long transfer what its packets cost", function()
    local a, b = net:host "a", net:host "b"
    local l = net:link(a, b, { rate = 10e6, delay = 0.02 })
    net:run(function()
      local listener = b:bind("*", 80)
      local server
      spawn(function() server = listener:accept() end)
      local client = a:connect("b", 80)
      local jobs = require "netstack.core".work()
      sleep(3600)
      assert.is_true(require "netstack.core".work() - jobs < 10)
      local began = netstack.now()
      spawn(function()
        client:send(("x"):rep(14e6))
        client:close()
      end)
      assert.equal(14e6, #server:receive "*a")
      -- 1460 of 1500 bytes are data: 9.73 Mbit/s.
      local took, packets_sent = netstack.now() - began, l:stats()["a->b"].sent
      assert.is_true(took > 11.5 and took < 12, "took " .. took)
      assert.is_true(packets_sent < 9800, packets_sent .. " packets")
      server:close()
      listener:close()
    end)
  end)

  it("says what is wrong with arguments, and changes nothing", function()
    local a, b, s, s2 = net:host "a", net:host "b", net:switch "s", net:switch "s2"
    net:link(a, s)
    net:link(s, s2)
    local other = lab.new()
    local stranger = other:host "stranger"
    for _, case in ipairs {
      { "host", { "a" }, "#1 to 'host' (there is a 'a' already)" },
      { "router", { "A" }, "#1 to 'router' (there is a 'A' already)" },
      { "host", { "10.0.0.1" }, "#1 to 'host' (a name expected, got an address)" },
      { "host", { "" }, "#1 to 'host' (1 to 63 letters" },
      { "host", {}, "#1 to 'host' (string expected, got nil)" },
      { "host", { "x", { weight = 1 } }, "#2 to 'host' (unknown option 'weight')" },
      { "nat", { "x", 7 }, "#2 to 'nat' (table expected, got number)" },
      { "switch", { "x", { weight = 1 } }, "(unknown option 'weight')" },
      { "link", { a, a }, "#2 to 'link' ('a' to itself)" },
      { "link", { a, "zz" }, "#2 to 'link' (there is no 'zz')" },
      { "link", { a, stranger }, "#2 to 'link' (host, router, nat or switch of this lab, or its name, expected" },
      { "link", { s2, s }, "#2 to 'link' (a second way between switches would go in circles)" },
      { "link", { a, b, { loss = 1.5 } }, "#3 to 'link' (option 'loss': out of range: 0 to 1)" },
      { "link", { a, b, { delay = -1 } }, "#3 to 'link' (option 'delay': out of range" },
      { "link", { a, b, { weather = 1 } }, "#3 to 'link' (unknown option 'weather')" },
      { "link", { a, b, 7 }, "#3 to 'link' (table expected, got number)" },
      { "link", { a, b, { addresses = "10.0.0.1" } }, "#3 to 'link' (option 'addresses': table expected" },
      { "link", { a, b, { addresses = { "10.0.0.300/24" } } }, "(option 'addresses': invalid address '10.0.0.300/24'" },
      { "partition", { { a } }, "#1 to 'partition' (two groups or more expected)" },
      { "partition", { { a }, { b, a } }, "#2 to 'partition' ('a' is in two groups)" },
      { "partition", { { a }, 7 }, "#2 to 'partition' (table expected, got number)" },
      { "crash", { s }, "#1 to 'crash' ('s' is a switch)" },
      { "run", {}, "#1 to 'run' (function expected, got nil)" },
      { "run", { print, { weight = 1 } }, "#2 to 'run' (unknown option 'weight')" },
      { "capture", {}, "#1 to 'capture' (string expected, got nil)" },
      { "draw", {}, "#1 to 'draw' (string expected, got nil)" },
    } do
      local ok, text = pcall(net[case[1]], net, unpack(case[2]))
      assert.is_false(ok)
      assert.is_truthy(text:find("bad argument " .. case[3], 1, true) or text:find(case[3], 1, true), text)
      assert.matches("lab_spec.lua:%d+:", text)
    end
    net:crash(b)
    assert.matches("'b' is crashed", failure(net.link, net, a, b))
    assert.equal(2, #net:links())
    assert.same({}, b:addresses())
    other:close()
    assert.matches("the lab is closed: 'host'", failure(other.host, other, "x"))
  end)

  it("has random numbers that are its seed's on every Lua", function()
    local list = {}
    for i = 1, 5 do list[i] = net:random(100) end
    assert.same({ 10, 11, 21, 27, 73 }, list)
    for _ = 1, 1000 do
      local share, die = net:random(), net:random(3, 8)
      assert.is_true(share >= 0 and share < 1 and die % 1 == 0 and die >= 3 and die <= 8)
    end
    assert.is_false(net:random() == lab.new({ seed = 2 }):random())
    assert.matches("an interval expected", failure(net.random, net, 2, 1))
  end)

  it("names a link's directions by its ends", function()
    local link = net:link(net:host "left", net:host "right")
    link:set("right->left", { delay = 1 })
    assert.same({ 0, 1 }, { link:get("left->right").delay, link:get("b->a").delay })
    link:down "left->right"
    assert.is_true(link:get("a->b").down)
    assert.matches("'a%->b' or 'b%->a' %(or 'left%->right', 'right%->left'%) expected, got up", failure(link.down, link,
      "up"))
  end)

  it("closes everything, also what waits", function()
    local a, b = net:host "a", net:host "b"
    net:link(a, b)
    net:run(function()
      local task = spawn(function() return b:bind("*", 80):accept() end)
      sleep(1)
      net:close()
      assert.same({ nil, "closed" }, { task:join() })
      assert.same({ nil, "closed" }, { a:connect("10.0.0.2", 80) })
    end)
  end)

  it("tells what it is, and its capture", function()
    local path = os.tmpname()
    local running = assert(net:capture(path))
    net:link(net:host "a", net:host "b")
    assert.same({ "lab (nodes: 2, links: 1)", "capture " .. path }, { tostring(net), tostring(running) })
    net:close()
    os.remove(path)
    assert.same({ "lab (closed)", "capture " .. path .. " (closed)" }, { tostring(net), tostring(running) })
  end)

  if _VERSION >= "Lua 5.4" then
    it("and its capture are closed by <close>", function()
      local path = os.tmpname()
      local one, running = assert(load [[
        local one, path = ...
        do
          local closing <close> = one
          one:host "a"
        end
        local other, running = require "netstack.lab".new()
        do
          local closing <close> = other:capture(path)
          running = closing
        end
        other:close()
        return one, running
      ]])(lab.new(), path)
      os.remove(path)
      assert.same({ "lab (closed)", "capture " .. path .. " (closed)" }, { tostring(one), tostring(running) })
    end)
  end

  it("is kept alive by any of its hosts", function()
    local function make()
      local one = lab.new()
      local a, b, r = one:host "a", one:host "b", one:router "r"
      one:link(a, r)
      one:link(r, b)
      return a
    end
    local a = make()
    collectgarbage()
    collectgarbage()
    assert.is_number(a:ping "b")
  end)
end)

describe("A lab's routes", function()
  local net
  before_each(function() net = lab.new() end)
  after_each(function() net:close() end)

  it("lead over any number of routers", function()
    local a, last = net:host "a", nil
    for i = 1, 12 do
      local r = net:router("r" .. i)
      net:link(last or a, r)
      last = r
    end
    local b = net:host "b"
    net:link(last, b)
    net:run(function()
      assert.is_number(a:ping("b", { ttl = 13 }))
      assert.is_nil((a:ping("b", { ttl = 12 })))
      tell_address(b)
      assert.equal(a:addresses()[1]:match "[^/]+", ask(a, "b"))
      assert.equal("fd00::1", ask(a, b:addresses()[2]:match "[^/]+"))
    end)
  end)

  it("are the shortest, of equal ones that linked first", function()
    local a, b = net:host "a", net:host "b"
    local r = {}
    for i = 1, 6 do r[i] = net:router("r" .. i) end
    net:link(a, r[1])
    local ways = {}
    for i = 1, 6 do ways[i] = net:link(r[i], r[i % 6 + 1]) end -- a ring: to r4 both ways are equally long
    net:link(b, r[4])
    net:run(function()
      assert.is_number(a:ping "b")
      assert.is_true(ways[1]:stats()["a->b"].sent == 1 and ways[6]:stats()["b->a"].sent == 0)
      local near = net:host "near"
      net:link(near, r[5])
      assert.is_number(a:ping "near")
      assert.is_true(ways[6]:stats()["b->a"].sent == 1)
    end)
  end)

  it("of a host on two links are to each prefix, as a router's, and it passes nothing on", function()
    local a, b, c = net:host "a", net:host "b", net:host "c"
    local left, right = net:router "left", net:router "right"
    net:link(a, left)
    net:link(left, b)
    net:link(b, right)
    net:link(right, c)
    net:run(function()
      assert.is_true(b:ping "a" and b:ping "c" and true)
      assert.same({ nil, "host unreachable" }, { a:ping "c" })
    end)
    assert.equal("10.0.0.0/24 10.0.1.1, 10.0.3.0/24 10.0.2.2, fd00:0:0:3::/64 fd00:0:0:2::2, fd00::/64 fd00:0:0:1::1",
      prefixes(b))
  end)

  it("over a switch lead to whichever router is the right one", function()
    local hosts, s = {}, net:switch "s"
    for i = 1, 3 do
      local r = net:router("r" .. i)
      hosts[i] = net:host("h" .. i)
      net:link(hosts[i], r)
      net:link(r, s)
    end
    local x = net:host "x"
    net:link(x, s)
    net:run(function()
      for i = 1, 3 do
        for j = 1, 3 do
          if i ~= j then assert.is_number(hosts[i]:ping("h" .. j)) end
        end
        assert.is_number(x:ping("h" .. i))
        assert.is_number(hosts[i]:ping "x")
      end
    end)
  end)

  it("leave the user's alone, and go when there is a shorter way", function()
    local a, b = net:host "a", net:host "b"
    local r1, r2, r3 = net:router "r1", net:router "r2", net:router "r3"
    net:link(a, r1)
    net:link(r1, r2)
    net:link(r2, r3)
    net:link(r3, b)
    net:update()
    assert.equal(1, r1:add_route("192.0.2.0/24", "10.0.1.2"))
    assert.matches("10.0.3.0/24 10.0.1.2", prefixes(r1), 1, true)
    net:link(r1, r3)
    net:update()
    assert.matches("10.0.3.0/24 10.0.4.2", prefixes(r1), 1, true)
    assert.matches("192.0.2.0/24 10.0.1.2", prefixes(r1), 1, true)
  end)
end)

describe("A lab's switches", function()
  it("become one network when they are linked, numbered as the first", function()
    local net = lab.new()
    local s1, s2 = net:switch "s1", net:switch "s2"
    local a, b, c = net:host "a", net:host "b", net:host "c"
    net:link(a, s1)
    net:link(b, s2)
    net:link(c, s2)
    assert.equal("10.128.16.1/20", b:addresses()[1])
    net:link(s1, s2)
    assert.same({ "10.128.0.1/20", "10.128.0.2/20", "10.128.0.3/20" }, { a:addresses()[1], b:addresses()[1],
      c:addresses()[1] })
    net:run(function()
      assert.is_number(a:ping "b")
      assert.is_number(c:ping "a")
    end)
    net:close()
  end)

  it("have room for 4094 hosts", function()
    local numbering = require "netstack.lab.numbering".new()
    local segment = { switches = { {} }, hosts = 0 }
    local seen = {}
    for i = 1, 4094 do
      local list = assert(numbering:addresses(segment, true))
      assert.is_nil(seen[list[1]])
      seen[list[1]] = i
    end
    assert.equal(4094, seen["10.128.15.254/20"])
    assert.same({ nil, "full" }, { numbering:addresses(segment, true) })
    assert.equal("10.128.16.1/20", numbering:addresses({ switches = { {} }, hosts = 0 }, true)[1])
  end)
end)

describe("A lab's NAT", function()
  for _, case in ipairs {
    { "by the order of ends", function(net, inner, nat, outer)
      net:link(inner, nat)
      net:link(nat, outer)
    end },
    { "by the order of ends, outside first", function(net, inner, nat, outer)
      net:link(nat, outer)
      net:link(inner, nat)
    end },
    { "the first, where all links name it first", function(net, inner, nat, outer)
      net:link(nat, outer)
      net:link(nat, inner)
    end },
    { "the last, where all links name it second", function(net, inner, nat, outer)
      net:link(inner, nat)
      net:link(outer, nat)
    end },
    { "by its option", function(net, inner, nat, outer)
      net:link(outer, nat, { outside = true })
      net:link(nat, inner, { outside = false })
    end },
  } do
    it("hides what is inside; outside is " .. case[1], function()
      local net = lab.new()
      local inner, nat, outer, server = net:host "inner", net:nat "nat", net:router "outer", net:host "server"
      case[2](net, inner, nat, outer)
      net:link(outer, server)
      net:run(function()
        tell_address(server)
        assert.equal(server:resolve "nat", ask(inner, "server"))
        assert.is_nil((server:ping "inner"))
        assert.is_number(inner:ping "server")
        assert.is_number(server:ping "nat")
      end)
      net:close()
    end)
  end
end)
