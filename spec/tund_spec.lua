-- netstack-tund by itself, in a namespace of its own: what it takes, what it refuses, and that nobody gets it down.
local netns = require "spec.netns"
local packets = require "spec.packets"
local tund = require "spec.tund"

local PATH = "/nonexistent/tund.sock"

local function with(needed, name, fn)
  local why = tund.missing((table.unpack or unpack)(needed)) -- luacheck: ignore 143
  if why then pending(("%s (%s)"):format(name, why)) else it(name, fn) end
end

local function udp(from, to, data) return packets.udp(from, 7, to, 9, data) end

-- Seconds of the processor that a process has used.
local function cpu(pid)
  local user, system = netns.read(("/proc/%d/stat"):format(pid)):match("%) %S" .. (" %S+"):rep(10) .. " (%d+) (%d+)")
  return (user + system) / 100
end

describe("netstack-tund", function()
  local namespace, program

  after_each(netns.finish)

  -- Not before_each: without root there is no namespace.
  local function start(options)
    namespace = netns.new()
    program = tund.start(namespace, options)
    return program.path
  end

  local function check_ends(status)
    program:signal("TERM")
    tund.eventually(function() return program:status() end)
    assert.equal(status or 0, program:status(), program:output())
  end

  with({}, "says what there is, and what is wrong with options", function()
    local status, text = tund.run("--help")
    assert.equal(0, status)
    assert.matches("^usage: netstack%-tund %-%-socket PATH", text)
    status, text = tund.run("--version")
    assert.same({ 0, ("netstack-tund %s\n"):format(require "netstack.version") }, { status, text })
    local good = "--socket " .. PATH .. " --address 10.7.0.1/24 "
    for _, case in ipairs {
      { "", "--socket is missing" }, { "--socket " .. PATH, "--address is missing" },
      { good .. "more", "'more' is no option" }, { good .. "--colour", "unrecognized option" },
      { good .. "--address 10.8.0.1/24", "one of that family already" },
      { "--address 10.7.0.1", "ADDRESS/BITS expected" }, { "--address 10.7.0.1/33", "ADDRESS/BITS expected" },
      { "--address 10.7.0.1/0", "ADDRESS/BITS expected" }, { "--address 10.7.0.256/24", "ADDRESS/BITS expected" },
      { "--address fd07::1/129", "ADDRESS/BITS expected" }, { "--address ::ffff:1.2.3.4/128", "ADDRESS/BITS expected" },
      { good .. "--pool 10.7.1.0/28", "outside the network" }, { good .. "--pool 10.7.0.0/23", "outside the network" },
      { good .. "--pool fd07::/64", "outside the network" }, { good .. "--mtu 67", "68 to 65535 expected" },
      { good .. "--mtu 65536", "68 to 65535 expected" }, { good .. "--mtu 15x", "68 to 65535 expected" },
      { good .. "--mode 0778", "0 to 0777 expected" }, { good .. "--mode 7777", "0 to 0777 expected" },
      { good .. "--name 1234567890123456", "1 to 15 characters" }, { good .. "--name a/b", "1 to 15 characters" },
      { good .. "--address fd07::1/64 --mtu 1279", "IPv6 needs 1280" },
    } do
      status, text = tund.run(case[1])
      assert.equal(2, status, case[1])
      assert.is_truthy(text:find(case[2], 1, true), case[1] .. ": " .. text)
    end
  end)

  with({}, "tells what hinders it, and leaves nothing behind", function()
    namespace = netns.new()
    local folder = netns.folder()
    local function check(options, expected)
      local done = namespace:start(("%s %s %s"):format(tund.PROGRAM, tund.NETWORK, options))
      tund.eventually(function() return done:status() end)
      assert.equal(1, done:status(), options)
      assert.is_truthy(done:output():find(expected, 1, true), done:output())
    end
    netns.write(folder .. "/file", "precious")
    check("--socket " .. PATH, "a socket at " .. PATH .. ": No such file or directory")
    check("--socket /" .. ("x"):rep(108), "1 to 107 bytes")
    check(("--socket %s/file"):format(folder), "is there, and is no socket")
    assert.equal("precious", netns.read(folder .. "/file"))
    check(("--socket %s/s --group nosuchgroup"):format(folder), "there is no group nosuchgroup")
    check(("--socket %s/s --user nosuchuser"):format(folder), "there is no user nosuchuser")
    check(("--socket %s/s --name lo"):format(folder), "is an interface already")
    assert.is_nil(namespace:ip("link"):match("ns0"))
    assert.equal("file\n", netns.command("ls " .. folder .. " | grep -v '^[0-9]'"))
  end)

  with({}, "starts once on a path, and takes over what a dead one has left", function()
    local path = start()
    assert.matches("\nCapEff:\t0+\n", netns.read(("/proc/%d/status"):format(program.pid)))
    local second = namespace:start(("%s --socket %s --name ns1 %s"):format(tund.PROGRAM, path, tund.NETWORK))
    tund.eventually(function() return second:status() end)
    assert.equal(1, second:status())
    assert.matches("another program listens there", second:output())
    local client = tund.granted(path, "10.7.0.10")
    program:signal("KILL")
    tund.eventually(function() return program:status() end)
    assert.same({ nil, "closed" }, { client:receive() })
    program = tund.start(namespace, nil, path)
    tund.granted(path, "10.7.0.10")
    check_ends()
    assert.is_nil(tund.connect(path))
    assert.is_false((select(2, netns.capture("test -e " .. path))))
  end)

  with({}, "gives the socket to a group, and becomes another user", function()
    local path = start(tund.NETWORK .. " --user nobody --group www-data --mode 0620")
    assert.equal("620 www-data\n", netns.command("stat -c '%a %G' " .. path))
    local status = netns.read(("/proc/%d/status"):format(program.pid))
    assert.matches("\nUid:\t65534\t65534\t65534\t65534\n", status)
    assert.matches("\nCapEff:\t0+\n", status)
    assert.is_nil(status:match("\nGroups:[^\n]*%f[%d]0%f[^%d]"))
    local client = tund.granted(path, "10.7.0.10")
    assert.is_true(client:ping("10.7.0.10", "10.7.0.1"))
    check_ends()
  end)

  with({ "ping" }, "routes between the kernel and its clients, and from one to another", function()
    local path = start(tund.NETWORK .. " --mtu 1400 --name tund7")
    assert.matches("tund7: .*UP.* mtu 1400 ", namespace:ip("link show tund7"))
    local a, answer = tund.client(path, "10.7.0.10 fd07::10")
    assert.equal("granted mtu=1400 address=10.7.0.10/24 address=fd07::10/64 gateway=10.7.0.1 gateway=fd07::1", answer)
    local b
    b, answer = tund.client(path, "fd07::20/64 10.7.0.20/32")
    assert.equal("granted mtu=1400 address=fd07::20/64 address=10.7.0.20/24 gateway=10.7.0.1 gateway=fd07::1", answer)
    for _, family in ipairs { { "10.7.0.10", "10.7.0.20", "10.7.0.1" }, { "fd07::10", "fd07::20", "fd07::1" } } do
      assert.is_true(a:ping(family[1], family[3]))
      assert.is_true(b:ping(family[2], family[3]))
      for length = 1, 1000, 333 do
        local packet = udp(family[1], family[2], ("x"):rep(length))
        a:send(packet)
        assert.equal(packet, b:receive())
      end
      local ping = namespace:start(("ping -n -c 3 -i 0.2 %s"):format(family[1]))
      for _ = 1, 3 do
        local v6 = family[1]:find(":", 1, true)
        a:send(packets.icmp(family[1], family[3], v6 and 129 or 0, 0, a:receive():sub(v6 and 45 or 25)))
      end
      tund.eventually(function() return ping:status() end)
      assert.matches(" 3 received", ping:output())
    end
    a:send(udp("10.7.0.10", "10.7.0.99", "nobody's"))
    local counters = tund.counters(program)
    assert.same({ 2, 4, 0, 0, 0 }, { counters.clients, counters.addresses, counters.malformed, counters.foreign,
      counters.full })
    assert.equal(4 + 6 + 1, counters.out)
    assert.equal(counters.out + 8, counters.sent)
    check_ends()
    assert.matches("in=%d+ out=11 ", program:output():match("[^\n]*\n$"))
  end)

  with({}, "refuses what cannot be, and says why", function()
    local path = start()
    for _, case in ipairs {
      { "netstack 1 10.8.0.1\n", "10.8.0.1 outside the network" },
      { "netstack 1 10.7.0.1\n", "10.7.0.1 is the host's" },
      { "netstack 1 fd07::1\n", "fd07::1 is the host's" }, { "netstack 1 10.7.0.0\n", "10.7.0.0 is the network's" },
      { "netstack 1 fd07::\n", "fd07:: is the network's" },
      { "netstack 1 10.7.0.255\n", "10.7.0.255 is for broadcasts" },
      { "netstack 1 10.7.0.5 10.7.0.5\n", "10.7.0.5 is named twice" }, { "netstack 1 me\n", "me is no address" },
      { "netstack 1 " .. ("x"):rep(900) .. "\n", ("x"):rep(64) .. " is no address" },
      { "netstack 2\n", "another version of the protocol: 1 is spoken here" }, { "netstack\n", "another version" },
      { "GET / HTTP/1.0\r\n\r\n", "no request of netstack's" }, { "\n", "no request of netstack's" },
      { "netstack 1 10.7.0.5\0\n", "no request of netstack's" }, { ("x"):rep(2000), "no request of netstack's" },
      { "netstack 1\n", "no address is asked for, and there is no pool" },
      { "netstack 1" .. (" 10.7.0.%d"):rep(17):gsub("%%d", "9") .. "\n", "10.7.0.9 is named twice" },
    } do
      local client = tund.connect(path)
      client:write(case[1])
      local answer = client:line()
      assert.is_truthy(answer and answer:find("refused " .. case[2], 1, true), case[1] .. ": " .. tostring(answer))
      assert.same({ nil, "closed" }, { client:receive() })
    end
    local list = {}
    for i = 1, 17 do list[i] = "10.7.0." .. 100 + i end
    local client, answer = tund.client(path, table.concat(list, " "))
    assert.equal("refused more than 16 addresses", answer)
    client:close()
    assert.equal(16, #tund.granted(path, table.concat(list, " ", 1, 16)).addresses)
    check_ends()
  end)

  with({}, "has who wants another one's address wait for it, and leases what is free", function()
    local path = start(tund.NETWORK .. " --pool 10.7.0.0/30 --pool fd07::8/125")
    local first = tund.granted(path, "10.7.0.10 fd07::10")
    local second, answer = tund.client(path, "10.7.0.11 fd07::10")
    assert.equal("wait fd07::10 is another client's", answer)
    local third = tund.client(path, "10.7.0.10")
    assert.is_true(tund.granted(path, "10.7.0.11"):ping("10.7.0.11", "10.7.0.1")) -- who waits holds nothing
    first:close()
    assert.matches("^granted .*address=10.7.0.10/24", third:line())
    assert.is_true(third:ping("10.7.0.10", "10.7.0.1"))
    tund.eventually(function() return tund.counters(program).addresses == 2 end)
    second:close()

    local leased = {}
    for i = 1, 2 do -- .0 and .1 are nobody's
      leased[i] = tund.granted(path)
      assert.matches("^10%.7%.0%.[23]$", leased[i].addresses[1])
      assert.matches("^fd07::[89a-f]$", leased[i].addresses[2])
    end
    assert.are_not.equal(leased[1].addresses[1], leased[2].addresses[1])
    local waits
    waits, answer = tund.client(path)
    assert.equal("wait all addresses of the pool are in use", answer)
    local free = leased[2].addresses[1]
    leased[2]:close()
    assert.equal(free, waits:line():match("address=([^/]*)"))
    check_ends()
  end)

  with({}, "drops forged and malformed packets, and who sends no packets", function()
    local path = start()
    local a, b = tund.granted(path, "10.7.0.10 fd07::10"), tund.granted(path, "10.7.0.20 fd07::20")
    local good = udp("10.7.0.10", "10.7.0.20", "hello")
    local good6 = udp("fd07::10", "fd07::20", "hello")
    for _, packet in ipairs { udp("10.7.0.20", "10.7.0.20", "x"), udp("10.7.0.1", "10.7.0.20", "x"),
      udp("fd07::20", "fd07::20", "x") } do
      a:send(packet)
    end
    local mapped = ("\0"):rep(10) .. "\255\255"
    local malformed = { good:sub(1, -2), good .. "x", good:sub(1, 19), "\68" .. good:sub(2), "\79" .. good:sub(2),
      "\85" .. good:sub(2), "x", good6:sub(1, -2), good6 .. "x", good6:sub(1, 39),
      good6:sub(1, 8) .. mapped .. "\10\7\0\10" .. mapped .. "\10\7\0\20" .. good6:sub(41) }
    for _, packet in ipairs(malformed) do a:send(packet) end
    a:send(good)
    assert.equal(good, b:receive())
    local counters = tund.counters(program)
    assert.same({ 3, #malformed, 1 }, { counters.foreign, counters.malformed, counters.delivered })
    for _, bytes in ipairs { "\0\0", "\5\221" .. good } do -- 1501 bytes
      local client = tund.granted(path, "10.7.0.30")
      client:write(bytes)
      assert.same({ nil, "closed" }, { client:receive() })
    end
    assert.equal(2, tund.counters(program).broken)
    a:send(good)
    assert.equal(good, b:receive())
    check_ends()
  end)

  with({}, "is not held up by a client that does not read, nor by many", function()
    local path = start(nil)
    local stuck, other = tund.granted(path, "10.7.0.10"), tund.granted(path, "10.7.0.20")
    local sent = 0
    repeat
      for _ = 1, 100 do
        sent = sent + 1
        other:send(udp("10.7.0.20", "10.7.0.10", packets.u16(sent) .. ("x"):rep(1400)))
      end
      assert.is_true(other:ping("10.7.0.20", "10.7.0.1"))
      local full = tund.counters(program).full
    until full > 100 or sent > 5000
    assert.is_true(tund.counters(program).full > 100)
    local last, received = 0, 0
    repeat -- what it gets is whole and in order
      local packet = stuck:receive(0.1)
      if packet then
        local number = packets.get16(packet, 29)
        assert.is_true(#packet == 1430 and number > last)
        last, received = number, received + 1
      end
    until not packet
    assert.equal(sent, received + tund.counters(program).full)
    assert.is_true(stuck:ping("10.7.0.10", "10.7.0.1"))
    local silent = {}
    for i = 1, 254 do silent[i] = tund.connect(path) end
    local late, answer = tund.client(path, "10.7.0.30")
    assert.equal("refused too many clients", answer)
    late:close()
    assert.is_true(other:ping("10.7.0.20", "10.7.0.1"))
    for _, client in ipairs(silent) do client:close() end
    tund.eventually(function() return tund.counters(program).clients == 2 end)
    tund.granted(path, "10.7.0.30")
    check_ends()
  end)

  with({ "systemd-analyze" }, "has a unit for systemd, which starts it", function()
    local text = netns.read("examples/openresty/netstack-tund.service")
    local command = text:gsub("\\\n", ""):match("\nExecStart=([^\n]*)")
    local unit = netns.folder() .. "/netstack-tund.service"
    netns.write(unit, (text:gsub("/usr/local/sbin/netstack%-tund", (tund.PROGRAM:gsub("%%", "%%%%")))))
    assert.equal("", netns.command("systemd-analyze verify " .. unit .. " 2>&1 | grep netstack-tund; :"))
    local path = start(command:gsub("^%S+ %-%-socket %S+", ""))
    local client = tund.granted(path)
    assert.equal(2, #client.addresses)
    assert.is_true(client:ping(client.addresses[1], "10.7.0.1"))
    check_ends()
  end)

  with({}, "idles at no cost, also with one that waits", function()
    local path = start()
    local client = tund.granted(path, "10.7.0.10")
    local waits = tund.client(path, "10.7.0.10")
    client:send(udp("10.7.0.10", "10.7.0.1", "x"))
    local before = cpu(program.pid)
    require("socket").sleep(0.5)
    assert.is_true(cpu(program.pid) - before <= 0.01)
    waits:close()
    check_ends()
  end)

  with({}, "ends when its interface does", function()
    start()
    namespace:ip("link del ns0")
    tund.eventually(function() return program:status() end)
    assert.equal(1, program:status())
    assert.matches("the interface is gone", program:output())
  end)

  with({}, "survives whatever clients say", function()
    local path = start(tund.NETWORK .. " --pool 10.7.0.16/29")
    local steady = tund.granted(path, "10.7.0.10 fd07::10")
    local state = 4711
    local function random(n)
      state = (state * 16807) % 2147483647
      return state % n
    end
    local function noise(length)
      local bytes = {}
      for i = 1, length do bytes[i] = string.char(random(256)) end
      return table.concat(bytes)
    end
    local words = { "netstack", " ", "1", " 10.7.0.", "11", "\n", "fd07::", "/", "24", "\0", ":", "999999999", "%s%n" }
    local clients = {}
    local function own(at) return "10.7.0." .. 100 + at end
    local function claim(client, at) return client:write("netstack 1 " .. own(at) .. "\n") end
    local acts = { -- all return whether the client is still there
      claim, function(client) return client:write("netstack 1\n") end,
      function(client)
        return client:write(("netstack 1 10.7.0.%d fd07::%x\n"):format(random(256), random(256)))
      end,
      function(client) return client:write(noise(random(300) + 1)) end,
      function(client) return client:write(packets.u16(random(65536)) .. noise(random(40))) end,
      function(client)
        local line = {}
        for i = 1, random(12) do line[i] = words[random(#words) + 1] end
        return client:write(table.concat(line))
      end,
      function(client, at)
        return client:send(udp(own(at), "10.7.0." .. random(256), noise(random(100))))
      end,
      function(client, number) -- a packet that lies somewhere
        local packet = udp(own(number), "10.7.0.10", noise(20))
        local at = random(4)
        return client:send(packet:sub(1, at) .. noise(1) .. packet:sub(at + 2))
      end,
      function(client) client:close() end,
    }
    for i = 1, 3000 do
      local at = random(24) + 1
      if not clients[at] then
        clients[at] = tund.connect(path)
        clients[at].socket:settimeout(0)
        if random(3) > 0 then claim(clients[at], at) end
      elseif not acts[random(#acts) + 1](clients[at], at) then
        clients[at] = nil
      end
      if i % 500 == 0 then
        steady.socket:settimeout(0)
        repeat until not steady:receive(0)
        assert.is_true(steady:ping("10.7.0.10", "10.7.0.1"))
      end
    end
    local counters = tund.counters(program)
    for _, name in ipairs { "sent", "malformed", "foreign", "refused", "broken" } do
      assert.is_true(counters[name] > 0, name .. ": " .. counters[name])
    end
    for at = 1, 24 do
      if clients[at] then clients[at]:close() end
    end
    tund.eventually(function() return tund.counters(program).clients == 1 end)
    assert.equal(2, tund.counters(program).addresses)
    steady:close()
    tund.eventually(function() return tund.counters(program).addresses == 0 end)
    check_ends()
  end)
end)
