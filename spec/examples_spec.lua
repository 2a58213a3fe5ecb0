local netns = require "spec.netns"
local netstack = require "netstack"
local pcap = require "netstack.pcap"

local unpack = table.unpack or unpack -- luacheck: ignore 143

local has_luasocket = pcall(require, "socket")

-- An example is loaded from its file: busted runs in the project's folder.
local function example(name)
  return assert(loadfile("examples/" .. name .. ".lua"))
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

describe("the HTTP server", function()
  local serve = example "http_server"()

  -- Gives fn a function that sends text to a server of those files, and returns all that comes back.
  local function with(files, fn)
    local client, server = netstack.pair()
    netstack.run(function()
      netstack.daemon(serve, server, 80, files)
      fn(function(text, host)
        local c = assert(client:connect(host or "fd00::2", 80))
        c:settimeout(10)
        assert(c:send(text))
        local answer, err, partial = c:receive("*a")
        c:close()
        return answer or partial, err
      end, client)
    end)
    client:close()
    server:close()
  end

  it("answers GET and HEAD, and keeps the connection as it is asked to", function()
    with({ ["/hello"] = "Hello!\n" }, function(ask)
      local body = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nHello!\n"
      assert.equal(body, (ask("GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")))
      assert.equal(body, (ask("GET /hello?x=1 HTTP/1.0\r\n\r\n", "10.0.0.2")))
      assert.equal("HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n",
        (ask("HEAD /hello HTTP/1.1\r\nconnection: TE, close\r\n\r\n")))
      local kept = body:gsub("close", "keep-alive")
      local text, err = ask("GET /hello HTTP/1.1\r\n\r\nGET /hello HTTP/1.1\r\nX: y\r\n\r\n")
      assert.same({ kept .. kept, "timeout" }, { text, err })
      assert.equal(kept .. body,
        (ask("GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /hello HTTP/1.0\r\n\r\n")))
    end)
  end)

  it("refuses the rest", function()
    with({ ["/hello"] = "Hello!\n" }, function(ask)
      assert.matches("^HTTP/1.1 404 Not Found\r\n", (ask("GET /nothing HTTP/1.0\r\n\r\n")))
      assert.matches("^HTTP/1.1 400 Bad Request\r\n", (ask("\1\2\3 garbage\r\n")))
      assert.matches("^HTTP/1.1 400 Bad Request\r\n", (ask("\r\n")))
      assert.matches("^HTTP/1.1 400 Bad Request\r\n", (ask("GET /hello HTTP/1.1\r\nnonsense\r\n\r\n")))
      assert.matches("^HTTP/1.1 501 Not Implemented\r\n", (ask("POST /hello HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc")))
    end)
  end)

  it("serves files and folders", function()
    with({ ["/licence"] = { path = "LICENSE" } }, function(ask)
      assert.equal(read("LICENSE"), (ask("GET /licence HTTP/1.0\r\n\r\n"):gsub("^.-\r\n\r\n", "")))
    end)
    with("examples", function(ask)
      assert.equal(read("examples/demo.lua"), (ask("GET /demo.lua HTTP/1.0\r\n\r\n"):gsub("^.-\r\n\r\n", "")))
      assert.matches("404", (ask("GET /../LICENSE HTTP/1.0\r\n\r\n")))
      assert.matches("404", (ask("GET /nothing HTTP/1.0\r\n\r\n")))
    end)
  end)

  it("downloads with the client", function()
    if not has_luasocket then return pending("LuaSocket is not installed") end
    local text = ("0123456789"):rep(100000)
    with({ ["/data"] = text }, function(_, client)
      local download = example "http_client"(client)(client)
      local path, told = os.tmpname(), 0
      assert.equal(#text, download("http://10.0.0.2/data", path, function(bytes) told = told + bytes end))
      assert.equal(#text, told)
      assert.is_true(read(path) == text)
      assert.same({ nil, "HTTP status 404" }, { download("http://[fd00::2]/nothing", path) })
      assert.same({ nil, "connection refused" }, { download("http://10.0.0.2:81/", path) })
      assert.is_nil((download("http://10.0.0.2/data", "/nowhere/at/all")))
      os.remove(path)
    end)
  end)
end)

describe("the demo", function()
  local lua = netns.lua()

  it("runs twice, without a terminal, says that all is well and leaves nothing behind", function()
    if not has_luasocket then return pending("LuaSocket is not installed") end
    local folder = os.tmpname()
    os.remove(folder)
    os.execute("mkdir " .. folder)
    -- Its temporary files come to lie where nobody else's do.
    local init = ("n = 0 os.tmpname = function() n = n + 1 return [[%s/]] .. n end"):format(folder)
    for _ = 1, 2 do
      local command = "LUA_INIT='%s' %s examples/demo.lua 2 </dev/null 2>&1; echo status $?"
      local pipe = io.popen(command:format(init, lua))
      local text = pipe:read("*a")
      pipe:close()
      assert.matches("\nstatus 0\n$", text)
      assert.matches("  100 %% of ", text)
      assert.is_nil(text:find("\r", 1, true))
      assert.matches("MiB/s", text)
      assert.matches(" packets one way, %d+ the other, 0 retransmissions", text)
      local _, agree = text:gsub("  agree\n", "")
      assert.equal(4, agree)
    end
    assert.is_truthy(os.remove(folder)) -- which works for an empty one only
  end)

  it("fails when what arrives is not what was sent", function()
    if not has_luasocket then return pending("LuaSocket is not installed") end
    -- A sha256sum that never says the same twice.
    local folder = os.tmpname()
    os.remove(folder)
    os.execute("mkdir " .. folder)
    local file = assert(io.open(folder .. "/sha256sum", "w"))
    file:write("#!/bin/sh\ncat >/dev/null\nod -An -N8 -tx8 /dev/urandom | tr -d ' '\n")
    file:close()
    os.execute("chmod +x " .. folder .. "/sha256sum")
    local pipe = io.popen(("PATH=%s:$PATH %s examples/demo.lua 1 </dev/null 2>&1; echo status $?"):format(folder, lua))
    local text = pipe:read("*a")
    pipe:close()
    os.execute("rm -r " .. folder)
    assert.matches("  DIFFER\n", text)
    assert.matches("\nstatus 1\n$", text)
  end)
end)

describe("the examples of the lab", function()
  after_each(netns.finish)

  -- What one prints, each a process of its own; its standard error counts.
  local function output_of(name, argument)
    local pipe = io.popen(("%s examples/%s.lua %s 2>&1 </dev/null; echo status $?"):format(netns.quote(netns.lua()),
      name, argument and netns.quote(argument) or ""))
    local text = pipe:read "*a"
    pipe:close()
    assert.matches("\nstatus 0\n$", text)
    return (text:gsub("status 0\n$", ""))
  end

  it("shows bufferbloat, and two cures that cost no throughput", function()
    local median, rate = {}, {}
    for line in output_of "bufferbloat":gmatch "[^\n]+" do
      local name, m, r = line:match "^(.-)  +([%d.]+) ms +[%d.]+ ms +(%S+)"
      if name then median[name], rate[name] = tonumber(m), tonumber(r) end
    end
    local deep, short, codel = "queue of 1000 packets", "queue of 30 packets", "CoDel"
    assert.is_true(median["idle line"] > 20 and median["idle line"] < 21)
    assert.is_true(median[deep] > 1000 and median[short] < 60 and median[codel] < 40)
    assert.is_true(rate[deep] > 8 and rate[short] > 0.95 * rate[deep] and rate[codel] > 0.95 * rate[deep])
  end)

  it("tells what TCP does in a partition and after a crash", function()
    local text = output_of "partition"
    local before, healed, crashed, restarted = text:match(
      "^(.*)%-%- healed(.*)%-%- the server crashes(.*)%-%- the server is restarted(.*)$")
    -- Each retransmission comes when the time that the one before told has passed, and tells twice as much.
    local count, due, rto = 0, nil, nil
    for time, told in before:gmatch "([%d.]+) s  client: %d segments sent again, rto ([%d.]+) s" do
      if due then
        assert.is_near(due, time, 0.02)
        assert.is_near(2 * rto, told, 0.02)
      end
      count, due, rto = count + 1, time + told, tonumber(told)
    end
    assert.equal(5, count)
    assert.matches("client: 6 segments sent again.*server: more bytes arrive\n", healed)
    assert.matches("server: its socket says 'closed'\n.*client: %d+ segments sent again", crashed)
    assert.matches("client: its socket says 'connection reset'\n.*'connection refused'\n$", restarted)
  end)

  it("traces a route", function()
    local hops, last = {}, 0
    for line in output_of "traceroute":gmatch "[^\n]+" do
      local ttl, name, address, time = line:match "^ *(%d+)  (%a+) +10%.0%.(%d)%.2 .- ([%d.]+) ms"
      hops[#hops + 1] = ("%s %s %s"):format(ttl, name, address)
      assert.is_true(tonumber(time) > last)
      last = tonumber(time)
    end
    assert.same({ "1 gateway 0", "2 provider 1", "3 exchange 2", "4 server 3" }, hops)
  end)

  it("compares retry policies, and has the worst world again", function()
    local shares, late, worst = {}, {}, {}
    for name, share, median, p99, seed, fewest in output_of "retry_policy":gmatch("(%a+) +answered ([%d.]+) %%, " ..
      "median (%d+) ms, p99 (%d+) ms, worst seed (%d+): (%d+) of 20\n") do
      shares[name], late[name], worst[name] = tonumber(share), tonumber(p99), { seed, fewest }
      assert.equal("20", median)
    end
    assert.is_true(shares.naive < 95 and shares.backoff > 97 and shares.backoff < 100)
    assert.is_true(late.naive < 500 and late.backoff > 500)
    for name, world in pairs(worst) do
      local _, answered = output_of("retry_policy", world[1]):gsub(name .. "[^\n]+ tries: ", "")
      assert.equal(tonumber(world[2]), answered)
    end
  end)

  it("draws a download", function()
    local folder = netns.folder() .. "/the plots"
    local drawn = netns.has "gnuplot"
    local text = output_of("lossy_download", folder)
    assert.matches("^client: 2097152 bytes in %d+%.%d+ s, %d+%.%d+ Mbit/s\nsender: %d+ retransmissions, " ..
      "rtt 8%d%.%d ms\n", text)
    for _, name in ipairs { "sequence", "window", "rtt", "throughput", "queue" } do
      local line = "%-10s %s/%s.svg\n"
      if not drawn then line = "%-10s gnuplot not found; the script is %s/%s.gp\n" end
      assert.is_truthy(text:find(line:format(name, folder, name), 1, true), text)
      assert.is_true(#read(("%s/%s.gp"):format(folder, name)) > 500)
      assert.is_true(not drawn or read(("%s/%s.svg"):format(folder, name)):find "</svg>%s*$" ~= nil)
    end
    for _, name in ipairs { "download.csv", "sequence.csv" } do assert.is_true(#read(folder .. "/" .. name) > 10000) end
    local capture, passed, lost = assert(pcap.reader(folder .. "/download.pcapng")), { [0] = 0, 0 }, 0
    for packet in capture:packets() do
      passed[packet.interface] = passed[packet.interface] + 1
      if packet.comment == "dropped: loss" then lost = lost + 1 end
    end
    capture:close()
    assert.is_true(passed[0] > 2000 and passed[1] > 2000 and lost > 10)
  end)
end)

describe("the programs on a TUN interface", function()
  after_each(netns.finish)

  -- A spec with programs, which are waited for on the real clock.
  local function with(needed, name, fn)
    netns.specs(it, pending)(needed, name, function() netstack.run(fn, { clock = "real" }) end)
  end

  local function shell(program, arguments)
    return ("%s examples/%s %s"):format(netns.quote(netns.lua()), program, arguments or "")
  end

  -- The sanitizers' library is preloaded into what the programs run, too, and `ip` frees nothing at its end.
  local function start(program, arguments, namespace)
    return netns.start("env ASAN_OPTIONS=detect_leaks=0 " ..
      shell(program, ("--netns %s %s"):format(namespace.name, arguments)))
  end

  -- The same where 127.0.0.1 is a namespace's own, so that ports are free.
  local function start_in(namespace, command)
    return netns.start(("env ASAN_OPTIONS=detect_leaks=0 ip netns exec %s %s"):format(namespace.name, command))
  end

  local function to_their_end(expected, ...)
    local status, text = start(...):wait()
    assert.equal(expected, status, text)
    return text
  end

  -- Does on the kernel's side what the program says is to be done.
  local function do_as_told(program)
    program:expect "link set %S+ up"
    for command in program:output():gmatch "\n  (ip [^\n]+)" do netns.command(command) end
  end

  -- An interface that was there before and stays, with the kernel's addresses.
  local function prepared(namespace, mode, address)
    namespace:ip(("tuntap add dev %s0 mode %s"):format(mode, mode))
    namespace:ip(("addr add %s dev %s0"):format(address, mode))
    namespace:ip(("link set %s0 up"):format(mode))
  end

  with({ "curl" }, "serve HTTP", function()
    local namespace, folder = netns.new(), netns.folder()
    local text = ("0123456789abcdef"):rep(20000)
    for name, content in pairs { ["a file"] = text, ["index.html"] = "front page" } do
      local file = assert(io.open(folder .. "/" .. name, "w"))
      file:write(content)
      file:close()
    end
    local server = start("http_server.lua", "8080 --address 10.9.0.2/24 --address fd09::2/64 " .. folder, namespace)
    do_as_told(server)
    server:expect "http://10.9.0.2:8080/\nhttp://%[fd09::2%]:8080/\n"
    local function curl(arguments)
      local status, output = namespace:start("curl -sS --noproxy '*' -m 20 " .. arguments):wait()
      assert.equal(0, status, output)
      return output
    end
    assert.equal("front pagefront page", curl "http://10.9.0.2:8080/ 'http://[fd09::2]:8080/'")
    local both = "-Z -o %s/4 -o %s/6 http://10.9.0.2:8080/a%%20file 'http://[fd09::2]:8080/a%%20file'"
    curl(both:format(folder, folder))
    assert.is_true(read(folder .. "/4") == text and read(folder .. "/6") == text)
    assert.matches("^not found\n404$", curl("-w '%{http_code}' http://10.9.0.2:8080/nothing"))
    assert.matches("^not found\n404$", curl("-w '%{http_code}' http://10.9.0.2:8080/%2e./" ..
      folder:match "[^/]*$" .. "/index.html"))
    server:signal "INT"
    local status, output = server:wait()
    assert.equal(130, status)
    assert.is_nil(output:find "interrupted")

    server = start("http_server.lua", "--setup", namespace)
    server:expect "http://10.9.0.2:80/"
    assert.equal("Hello from " .. netstack._VERSION .. ".\n", curl "http://10.9.0.2/")
    server:signal "INT"
    server:wait()
  end)

  with({}, "ping the kernel", function()
    local namespace = netns.new()
    local text = to_their_end(0, "ping.lua", "--setup -c 3 -i 0.05 10.9.0.1", namespace)
    assert.matches("^PING 10.9.0.1 %(10.9.0.1%) 56 bytes of data\n", text)
    for i = 1, 3 do assert.matches("\n64 bytes from 10.9.0.1: icmp_seq=" .. i .. " time=%d+%.%d%d%d ms\n", text) end
    assert.matches("\n%-%-%- 10.9.0.1 ping statistics %-%-%-\n3 packets transmitted, 3 received, 0%% packet loss, " ..
      "time 1%d%d ms\nrtt min/avg/max = %d+%.%d+/%d+%.%d+/%d+%.%d+ ms\n$", text)
    text = to_their_end(0, "ping.lua", "fd09::2 --setup --address=fd09::1/64 -c1 -s 3000", namespace)
    assert.matches("\n3008 bytes from fd09::2: icmp_seq=1 time=", text)
    text = to_their_end(0, "ping.lua", "10.9.0.2 --setup --address=10.9.0.1/24 -c1 --tap=tap9", namespace)
    assert.matches("\n64 bytes from 10.9.0.2: icmp_seq=1 time=", text)
  end)

  with({}, "tell of hosts that do not answer", function()
    local namespace = netns.new()
    prepared(namespace, "tun", "10.9.0.1/24")
    namespace:exec "sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'"
    namespace:ip "route add unreachable 10.8.0.0/16"
    local text = to_their_end(1, "ping.lua", "--tun tun0 -c 2 -i 0.01 10.8.0.1", namespace)
    assert.matches("\nno answer from 10.8.0.1: icmp_seq=2 host unreachable\n.*\n2 packets transmitted, 0 received, " ..
      "100%% packet loss, time %d+ ms\n$", text)
    namespace:ip "route add blackhole 10.7.0.0/16"
    text = to_their_end(1, "ping.lua", "--tun tun0 -c 2 -i 0.01 -W 0.1 10.7.0.1", namespace)
    assert.matches("\nno answer from 10.7.0.1: icmp_seq=2 timeout\n", text)
  end)

  with({}, "ping until Ctrl-C", function()
    local namespace = netns.new()
    prepared(namespace, "tun", "10.9.0.1/24")
    local program = start("ping.lua", "--tun tun0 -i 0.05 10.9.0.1", namespace)
    program:expect "icmp_seq=3 time="
    program:signal "INT"
    local status, text = program:wait()
    assert.equal(0, status, text)
    assert.matches("\n\n%-%-%- 10.9.0.1 ping statistics %-%-%-\n.*rtt min/avg/max = [%d./]+ ms\n$", text)
    program = start("ping.lua", "--tun tun0 -W 60 10.9.0.99", namespace)
    program:expect "PING"
    program:signal "INT"
    status, text = program:wait()
    assert.equal(1, status, text)
    assert.matches("\n1 packets transmitted, 0 received, 100%% packet loss", text)
  end)

  with({ "dnsmasq" }, "look names up, and find name servers by DHCP", function()
    local namespace = netns.new()
    prepared(namespace, "tun", "10.9.0.1/24")
    prepared(namespace, "tap", "10.8.0.1/24")
    local silent = start("dns_lookup.lua", "host.test @10.9.0.9 --address 10.9.0.3/24", namespace)
    do_as_told(silent)
    local server = namespace:start("dnsmasq --no-daemon --conf-file=/dev/null --user=root --no-resolv --no-hosts " ..
      "--host-record=host.test,10.8.0.1,2001:db8::7 --address=/none.test/ " ..
      "--dhcp-range=10.8.0.50,10.8.0.60 --no-ping --dhcp-leasefile=" .. netns.folder() .. "/leases")
    namespace:listens(53, "udp")

    assert.matches("\nhost.test has IPv4 address 10.8.0.1\nhost.test has IPv6 address 2001:db8::7\n$",
      to_their_end(0, "dns_lookup.lua", "host.test @10.9.0.1 --tun tun0", namespace))
    assert.matches("\ndns_lookup.lua: x.none.test: host not found %(asked 10.9.0.1%)\n$",
      to_their_end(1, "dns_lookup.lua", "x.none.test @10.9.0.1 --tun tun0", namespace))
    local text = to_their_end(0, "ping.lua", "-c 1 --dhcp --tap tap0 host.test", namespace)
    assert.matches("\ntap0: 10.8.0.%d+/24 by DHCP\nPING host.test %(10.8.0.1%)", text)
    assert.matches("\n64 bytes from 10.8.0.1: icmp_seq=1 time=", text)
    server:signal "TERM"

    local status
    status, text = silent:wait()
    assert.equal(1, status)
    assert.matches("\ndns_lookup.lua: host.test: host not found %(no answer from 10.9.0.9%)\n$", text)
  end)

  with({ "ping" }, "route", function()
    local left, right = netns.new(), netns.new()
    local router = netns.start(shell("router.lua", ("%s=10.1.0.2/24,fd01::2/64 %s=10.2.0.2/24"):format(left.name,
      right.name)))
    router:expect("\n10.2.0.2/24 on " .. right.name .. "\n")
    for n, namespace in ipairs { left, right } do
      namespace:ip(("addr add 10.%d.0.1/24 dev router"):format(n))
      namespace:ip "link set router up"
      namespace:ip(("route add default via 10.%d.0.2"):format(n))
    end
    local status, text = left:start "ping -n -c 2 -i 0.01 -W 5 10.2.0.1":wait()
    assert.equal(0, status, text)
    assert.equal(1, (left:start "ping -n -c 1 -W 5 10.9.0.1":wait()))
    router:expect(left.name .. " dropped 84 bytes: no route\n")
    router:signal "INT"
    status, text = router:wait()
    assert.equal(0, status, text)
    assert.matches("\n4 packets forwarded\n$", text)
  end)

  with({ "nc" }, "pass TCP connections on", function()
    if not pcall(require, "cqueues") then return pending("cqueues is not installed") end
    local host, namespace, folder = netns.new(), netns.new(), netns.folder()
    local text = ("0123456789abcdef"):rep(250000)
    local file = assert(io.open(folder .. "/data", "w"))
    file:write(text)
    file:close()
    local proxy = start_in(host, shell("tcp_proxy.lua", "--setup 7000 10.9.0.1 5001 --netns " .. namespace.name))
    proxy:expect "127.0.0.1:7000 is 10.9.0.1:5001 now"
    local function client(arguments)
      return host:start(("timeout 20 sh -c 'exec nc %s'"):format(arguments:format(folder)))
    end
    client("-N 127.0.0.1 7000 <%s/data"):wait() -- nobody listens there
    proxy:expect "10.9.0.1:5001: connection refused\n"
    -- Each way by itself: `nc -l` may end before its own input does when the other side's has ended.
    local server
    for _, case in ipairs {
      { there = "-l 10.9.0.1 5001 </dev/null >%s/up", here = "-N 127.0.0.1 7000 <%s/data", file = "/up" },
      { there = "-lN 10.9.0.1 5001 <%s/data", here = "-d 127.0.0.1 7000 >%s/down", file = "/down" },
    } do
      server = namespace:start(("sh -c 'exec nc %s'"):format(case.there:format(folder)))
      namespace:listens(5001)
      assert.equal(0, (client(case.here):wait()))
      assert.equal(0, (server:wait()))
      assert.is_true(read(folder .. case.file) == text)
    end
    -- And one that is reset does not hang.
    server = namespace:start "sh -c 'exec timeout 0.2 nc -l 10.9.0.1 5001 </dev/null >/dev/null'"
    namespace:listens(5001)
    client("-N 127.0.0.1 7000 <%s/data"):wait()
    server:wait()
    assert.is_nil(proxy:status())
    proxy:signal "TERM"
  end)

  with({ "nc" }, "run in loops of others", function()
    local path = "LUA_PATH=\"$LUA_PATH;/usr/share/lua/5.1/?.lua;;\" "
    local namespace = netns.new()
    for _, module in ipairs { "cqueues", "luv", "copas" } do
      local there = os.execute(path .. netns.lua() .. " -e 'require \"" .. module .. "\"' 2>/dev/null")
      if there == true or there == 0 then
        local program = start_in(namespace, "sh -c " .. netns.quote(path .. shell("with_" .. module .. ".lua",
          "7007 2")))
        program:expect("listening on")
        for _ = 1, 2 do
          local client = namespace:start("sh -c 'echo hello | timeout 20 nc -N 127.0.0.1 7007'")
          local status, text = client:wait()
          assert.equal(0, status, text)
          assert.matches("^HELLO\r?\n$", text) -- as cqueues ends lines
        end
        local status, text = program:wait()
        assert.equal(0, status, text)
        assert.matches("^listening on .*done\n$", text)
      end
    end
  end)

  with({ "setpriv" }, "say what is missing", function()
    local text = to_their_end(1, "ping.lua", "-c 1 host.test --setup", netns.new())
    assert.equal("ping.lua: host.test: host not found without --dns\n", text)
    text = to_their_end(1, "ping.lua", "-c 1 10.9.0.1", { name = "nowhere-at-all" })
    assert.equal("ping.lua: there is no network namespace nowhere-at-all: ip netns add nowhere-at-all\n", text)
    for _, program in ipairs { "ping.lua 10.9.0.1", "http_server.lua", "dns_lookup.lua host.test @10.9.0.1" } do
      local status
      status, text = netns.start("setpriv --bounding-set=-net_admin --inh-caps=-all " .. shell(program)):wait()
      assert.equal(1, status, text)
      assert.matches("^" .. program:match "%S+" .. ": run as root or with CAP_NET_ADMIN, or let root once make", text)
    end
  end)

  it("take no wrong arguments", function()
    for _, case in ipairs {
      { "ping.lua", "", "an argument is missing" },
      { "ping.lua", "a b", "b is one argument too many" },
      { "ping.lua", "-x a", "there is no option -x" },
      { "ping.lua", "--count 1 a", "there is no option --count" },
      { "ping.lua", "a -c", "-c needs a value" },
      { "ping.lua", "-c 0 a", "-c: 0 is no number from 1 to 2147483648" },
      { "ping.lua", "-c1.5 a", "-c: 1.5 is no number from 1 to 2147483648" },
      { "ping.lua", "-i soon a", "-i: soon is no number from 0.002 to 86400" },
      { "dns_lookup.lua", "a", "whom to ask? An @SERVER is missing, or --dhcp" },
      { "dns_lookup.lua", "a 10.9.0.1", "10.9.0.1 is no @SERVER" },
      { "dns_lookup.lua", "a @b", "option 'dns': invalid address 'b'" },
      { "http_server.lua", "http", "http is no port" },
      { "http_server.lua", "65536", "65536 is no port" },
      { "http_server.lua", "--tun sixteen-letters-",
        "option 'name': 1 to 15 characters without '/', ':' and blanks expected" },
    } do
      local program, arguments, why = unpack(case)
      local pipe = io.popen(shell(program, arguments) .. " 2>&1 >/dev/null </dev/null; echo $?")
      local text = pipe:read "*a"
      pipe:close()
      assert.equal(program .. ": " .. why .. "\n", text:match "^[^\n]*\n")
      assert.matches("\nusage: " .. program .. " %[options%] [^\n]+\n +" .. program .. " %-%-help\n2\n$", text)
    end
    local pipe = io.popen(shell("ping.lua", "--help 2>/dev/null; echo $?"))
    assert.matches("^usage: ping.lua .*\n  %-c COUNT .*\n  %-%-setup .*\n0\n$", (pipe:read "*a"))
    pipe:close()
  end)

  with({}, "take no wrong addresses", function()
    local namespace = netns.new()
    for arguments, why in pairs {
      ["--address 10.9.0.2"] = "--address 10.9.0.2: the length of the prefix is missing, as in 10.9.0.2/24",
      ["--address 10.9.0.2/33"] = "invalid address: --address 10.9.0.2/33 --gateway 10.9.0.1",
      ["--tap t --gateway 10.8.0.1"] = "no route: --address 10.9.0.2/24 --gateway 10.8.0.1",
    } do
      local text = to_their_end(2, "http_server.lua", arguments, namespace)
      assert.equal("http_server.lua: " .. why .. "\n", text:match "^[^\n]*\n")
    end
    assert.equal("http_server.lua: /nowhere is no folder that can be read\n",
      to_their_end(1, "http_server.lua", "80 /nowhere", namespace))
  end)
end)
