-- `lab_it` and the assertions about networks: real busted runs small specs, and what it prints is read.
local lab = require "netstack.lab"
local lfs = require "lfs"
local netstack = require "netstack"
local pcap = require "netstack.pcap"
require "netstack.busted.matchers"

local concat, ipairs = table.concat, ipairs

-- ---- busted as a process ----

local folder -- of the specs that it runs

local function interpreter()
  local at = 0
  while arg[at - 1] do at = at - 1 end
  return arg[at]
end

-- Gives a command line with busted to a shell; what it says.
local function shell(line, options)
  local command = ("cd '%s' && env -u NETSTACK_SEED -u NETSTACK_SEEDS %s 2>&1"):format(folder,
    line:gsub("busted ", "'" .. interpreter() .. "' '" .. arg[0] .. "' -o TAP " .. (options or ""), 1))
  local pipe = assert(io.popen(command))
  local said = pipe:read("*a")
  pipe:close()
  return said
end

-- What TAP tells: by name of the test, whether it is "ok" or "not ok", and the message.
local function results(said)
  local all, last = {}, nil
  for line in said:gmatch("[^\n]*") do
    local outcome, name = line:match("^(n?o?t? ?ok) %d+ %- (.*)$")
    if outcome then
      last = { outcome = outcome, lines = {} }
      all[name] = last
    elseif last and line:find("^# ") then
      last.lines[#last.lines + 1] = line:sub(3):gsub("^Failure message: ", "")
    end
  end
  for _, one in pairs(all) do one.text = concat(one.lines, "\n") end
  return all
end

local function write(name, text)
  local file = assert(io.open(folder .. "/" .. name, "wb"))
  assert(file:write(text))
  file:close()
  return text
end

local function line_of(text, part)
  local at = assert(text:find(part, 1, true), part)
  return select(2, text:sub(1, at):gsub("\n", "")) + 1
end

local PARTS = [[
local lab_it = require "netstack.busted".lab_it
local netstack = require "netstack"

local function two(net)
  local found = { client = net:host "client", server = net:host "server" }
  found.link = net:link("client", "server", { delay = 0.01, loss = 0.2 })
  return found
end
]]

local FAILING = PARTS .. [[
describe("a lab", function()
  lab_it("is closed", { network = two, capture = "passed.pcapng" }, function(net, it)
    local listener = it.server:bind("*", 80)
    local client = it.client:connect("server", 80)
    local server = listener:accept()
    client:send("hello")
    assert.received(server, "hello")
    for _, socket in ipairs { listener, client, server } do socket:close() end
    finally(function() assert(not netstack.running) end)
  end)
  lab_it("asserts (100%, 'a' - b)", { network = two, packets = 3, capture = "failed.pcapng" }, function(net, it)
    local listener = it.server:bind("*", 80)
    it.client:connect("server", 80):send("hello")
    assert.equal("hallo", listener:accept():receive(5)) -- fails
  end)
  lab_it("waits for ever", { network = two }, function(net, it)
    local listener = it.server:bind("*", 80) -- listens
    netstack.spawn(function() -- spawned
      local client = it.client:connect("server", 80) -- made
      client:receive()
    end)
    local server = listener:accept()
    listener:accept()
  end)
  lab_it("takes too long", { timeout = 50 }, function() netstack.sleep(51) end)
  lab_it("leaves sockets", { network = two }, function(net, it)
    local listener = it.server:bind("*", 80) -- listener
    local client = it.client:connect("server", 80)
    local server = listener:accept() -- accepted
    it.server:udp():setsockname("*", 53) -- udp
    collectgarbage()
    collectgarbage()
    client:close()
  end)
  lab_it("leaves a command's socket", { network = two }, function(net, it)
    assert(it.client:channel():request("udp.bind", { host = "*", port = 53 }))
  end)
  lab_it("may leave sockets", { network = two, leaks = false }, function(net, it) it.client:udp() end)
  lab_it("may end with a broken link", { network = two }, function(net, it)
    local listener = it.server:bind("*", 80)
    local client = it.client:connect("server", 80)
    local server = listener:accept()
    it.link:down()
    for _, socket in ipairs { client, server } do
      socket:send("nobody will read this")
      socket:close()
    end
    listener:close()
  end)
  lab_it("is pending", function() pending("some day") end)
  lab_it("raises a table", function() error({ code = 7 }) end)
  lab_it("has no test inside", function() it("inside", function() end) end)
  lab_it("has no lab inside", function() lab_it("inside", function() end) end)
  lab_it("has weather", { network = two, seeds = 40 }, function(net, it)
    local udp = it.client:udp()
    for _ = 1, 3 do udp:sendto("x", "server", 9) end
    netstack.sleep(0)
    udp:close()
    assert.equal(0, it.link:stats()["a->b"].dropped.loss)
  end)
end)
it("is no task", function() assert.eventually(function() return true end) end)
]]

local README = (function()
  local root = debug.getinfo(1, "S").source:match("^@(.*)spec/[^/]*$") or ""
  local file = assert(io.open(root .. "README.md"))
  local text = file:read("*a")
  file:close()
  for code in text:gmatch("\n```lua\n(.-)\n```\n") do
    if code:find("lab_it", 1, true) then return code end
  end
end)()

describe("lab_it", function()
  local said, all

  local function expect(name, outcome)
    local found = assert(all["a lab " .. name], said)
    assert.equal(outcome, found.outcome, found.text)
    return found.text
  end

  local function has(text, part) assert.is_truthy(text:find(part, 1, true), text .. "\nlacks\n" .. part) end

  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(lfs.mkdir(folder))
    write("failing_spec.lua", FAILING)
    said = shell("busted failing_spec.lua")
    all = results(said)
  end)

  teardown(function()
    for name in lfs.dir(folder) do os.remove(folder .. "/" .. name) end
    lfs.rmdir(folder)
  end)

  it("is an `it`, and leaves what it finds alone when that holds", function()
    expect("is closed", "ok")
    expect("may leave sockets", "ok")
    expect("may end with a broken link", "ok")
    has(said, "# SKIP failing_spec.lua:" .. line_of(FAILING, "is pending") .. ": some day")
    has(said, "\n1..14\n")
    assert.is_nil(lfs.attributes(folder .. "/passed.pcapng"))
  end)

  it("tells the seed, how to have it again, and the last packets", function()
    local text = expect("asserts (100%, 'a' - b)", "not ok")
    has(text, ("failing_spec.lua:%d: Expected objects to be equal.\n"):format(line_of(FAILING, "-- fails")))
    has(text, "\n(string) 'hallo'\n")
    has(text, "\nSeed 1. To have it again:\n  NETSTACK_SEED=1 busted failing_spec.lua " ..
      "--filter='asserts %(100%%, '\\''a'\\'' %- b%)$'\nAll packets: failed.pcapng\nThe last 3 of ")
    assert.matches("\n +client +server\n[%d.]+  |[-<x >]+ Flags", text)
    assert.matches("seq 1:6, ack 1, win %d+, length 5 %-", text)
    local reader = assert(pcap.reader(folder .. "/failed.pcapng"))
    local count = 0
    for _ in reader:packets() do count = count + 1 end
    reader:close()
    assert.equal(tonumber(text:match("The last 3 of (%d+) packets")), count)
  end)

  it("tells where the tasks and sockets of a deadlock were made", function()
    local text = expect("waits for ever", "not ok")
    has(text, ("failing_spec.lua:%d: deadlock: every task waits and nothing is pending\n"):format(
      line_of(FAILING, "waits for ever")))
    has(text, ("task 1 (spawned at failing_spec.lua:%d) waits for accept on tcp (LISTEN) *:80 of 'server', made at " ..
      "failing_spec.lua:%d\n"):format(line_of(FAILING, "waits for ever"), line_of(FAILING, "-- listens")))
    has(text, ("task 2 (spawned at failing_spec.lua:%d) waits for receive on tcp (ESTABLISHED) 10.0.0.1:"):format(
      line_of(FAILING, "-- spawned")))
    has(text, (" to 10.0.0.2:80 of 'client', made at failing_spec.lua:%d\n"):format(line_of(FAILING, "-- made")))
    has(expect("takes too long", "not ok"), "timeout: not over after 50 s\n  task 1 (spawned at failing_spec.lua:" ..
      line_of(FAILING, "takes too long") .. ") sleeps until 51 s\n")
  end)

  it("tells where a socket that is left open was made", function()
    local text = expect("leaves sockets", "not ok")
    has(text, ("failing_spec.lua:%d: 3 sockets were left open:\n  tcp (LISTEN) *:80 of 'server', made at " ..
      "failing_spec.lua:%d\n"):format(line_of(FAILING, "leaves sockets"), line_of(FAILING, "-- listener")))
    has(text, (" of 'server', made at failing_spec.lua:%d\n"):format(line_of(FAILING, "-- accepted")))
    has(text, ("udp (port 53) *:53 of 'server', made at failing_spec.lua:%d\n"):format(line_of(FAILING, "-- udp")))
    has(expect("leaves a command's socket", "not ok"),
      "left behind:\n  udp (BOUND) of 'client', port 53, made by a command\n")
  end)

  it("names its own line where an error names none, and refuses tests inside of it", function()
    has(expect("raises a table", "not ok"),
      ("failing_spec.lua:%d: (table: "):format(line_of(FAILING, "raises a table")))
    has(expect("has no test inside", "not ok"), "'it' not supported inside current context block")
    has(expect("has no lab inside", "not ok"), "lab_it inside of a test")
    has(all["is no task"].text, "assert.eventually waits, which takes a task: it is for lab_it and netstack.run")
  end)

  it("tries seeds up to the first that fails, and the command that it prints fails alike", function()
    local text = expect("has weather", "not ok")
    local seed, passed = text:match("\nSeed (%d+), the first of 40 that fails %((%d+) passed before%)%.")
    assert.equal(tonumber(seed) - 1, tonumber(passed))
    has(text, "dropped: loss")
    local ladder = assert(text:match("\n(All %d+ packets:\n.*)$"))
    local again = results(shell(text:match("\n  (NETSTACK_SEED=[^\n]*)")))["a lab has weather"]
    assert.equal("not ok", again.outcome)
    has(again.text, "\nSeed " .. seed .. ". To have it again:\n")
    assert.equal(ladder, again.text:match("\n(All %d+ packets:\n.*)$"))
    if tonumber(seed) > 1 then
      assert.equal("ok", results(shell(("NETSTACK_SEED=%d busted failing_spec.lua --filter=weather"):format(passed)))
        ["a lab has weather"].outcome)
    end
  end)

  it("is known to all specs by a helper, and takes seeds from the environment", function()
    write("first_spec.lua", "local tried = {}\n" ..
      "lab_it('one', function(net) tried[#tried + 1] = net.seed if net.seed == 12 then error('twelve') end end)\n" ..
      "it('two', function() assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 }, tried) end)\n")
    write("second_spec.lua", README)
    local found = results(shell("NETSTACK_SEEDS=20 busted first_spec.lua second_spec.lua",
      "--helper=netstack.busted.global "))
    has(found.one.text, "\nSeed 12, the first of 20 that fails (11 passed before).")
    assert.equal("ok", found.two.outcome)
    local count = 0
    for name, one in pairs(found) do
      count = count + 1
      assert.is_true(one.outcome == "ok" or name == "one", one.text)
    end
    assert.is_true(count > 2)
    has(shell("NETSTACK_SEED=x busted failing_spec.lua"), "failing_spec.lua:" .. line_of(FAILING, "is closed") ..
      ": environment variable NETSTACK_SEED: integer expected, got 'x'")
  end)
end)

describe("An assertion about a network", function()
  -- Runs `fn` with two hosts and a connection between them.
  local function connected(fn, options)
    local net = lab.new { seed = 7 }
    local client, server = net:host "client", net:host "server"
    local link = net:link(client, server, options or { delay = 0.01 })
    net:run(function()
      local listener = server:bind("*", 80)
      local near = client:connect("server", 80)
      local far = listener:accept()
      fn(near, far, link, net)
    end)
    net:close()
  end

  -- The message of a failure.
  local function failure(fn, ...)
    local ok, err = netstack.pcall(fn, ...)
    if ok then error("no failure", 2) end
    return tostring(type(err) == "table" and err.message or err):gsub("^[^\n]-:%d+: ", "")
  end

  it("received: reads so many bytes and compares", function()
    connected(function(near, far)
      far:settimeout(3)
      far:settimeout(9, "t")
      netstack.spawn(function()
        near:send("hel")
        netstack.sleep(1)
        near:send("lo, and more")
      end)
      assert.received(far, "hello")
      assert.not_received(far, ", And more")
      assert.same({ 3, 9 }, { far:gettimeout() })
      local message = failure(assert.received, far, "more", 2)
      assert.equal("Expected tcp (ESTABLISHED) of 'server' to receive\n  \"more\" (4 bytes)\nand it received\n" ..
        "  nothing, then 'timeout'", message)
      near:send("a\0b\r\n" .. ("x"):rep(200))
      message = failure(assert.received, far, "a\0b\r\n" .. ("x"):rep(150) .. "y" .. ("x"):rep(49))
      assert.matches("receive\n  %.%.%.\"x+yx+\"%.%.%. %(205 bytes%)\nand it received\n  %.%.%.\"x+\"%.%.%. " ..
        "%(205 bytes%), other from byte 156 on$", message)
      near:send("abc")
      assert.equal("Expected tcp (ESTABLISHED) of 'server' not to receive\n  \"abc\" (3 bytes)\nand it did",
        failure(assert.not_received, far, "abc"))
    end)
  end)

  it("received: takes datagrams whole", function()
    connected(function(near, far, _, net)
      local server, client = net:find("server"):udp(), net:find("client"):udp()
      server:setsockname("*", 53)
      for _, data in ipairs { "one", "two", "" } do client:sendto(data, "server", 53) end
      assert.received(server, "one")
      assert.matches("receive\n  \"tw\" %(2 bytes%)\nand it received\n  \"two\" %(3 bytes%)$",
        failure(assert.received, server, "tw"))
      assert.received(server, "")
      assert.not_received(server, "one", 0.5)
      assert.matches("bad argument #1 to 'received' %(socket expected, got string%)", failure(assert.received, "x"))
      assert.matches("bad argument #2 to 'received' %(string expected, got nil%)", failure(assert.received, near))
      assert.matches("bad argument #3 to 'received' %(non%-negative number expected, got %-1%)",
        failure(assert.received, far, "x", -1))
    end)
  end)

  it("tcp_state: at once, by RFC 9293's names", function()
    connected(function(near, far)
      assert.tcp_state(near, "ESTABLISHED")
      assert.is_not.tcp_state(near, "SYN_SENT")
      near:shutdown("send")
      assert.tcp_state(near, "fin_wait_1")
      assert.equal("Expected tcp (FIN-WAIT-1) of 'client' to be in state ESTABLISHED, and it is in FIN-WAIT-1",
        failure(assert.tcp_state, near, "ESTABLISHED"))
      far:close()
      assert.tcp_state(far, "CLOSED")
      assert.equal("Expected tcp (closed) of 'server' not to be in state CLOSED",
        failure(assert.is_not.tcp_state, far, "CLOSED"))
      assert.matches("bad argument #2 to 'tcp_state' %(a state of TCP %(CLOSED, .*%) expected, got 'OPEN'%)",
        failure(assert.tcp_state, near, "OPEN"))
      assert.matches("bad argument #1 to 'tcp_state' %(TCP socket expected, got nil%)", failure(assert.tcp_state))
    end)
  end)

  it("eventually: looks again and again, in virtual time", function()
    connected(function()
      local from = netstack.now()
      assert.equal("done", assert.eventually(function() return netstack.now() >= from + 5 and "done" end))
      assert.is_true(netstack.now() < from + 5.2)
      assert.matches("^Expected the function to return something true within 2 s, and at last it returned nil$",
        failure(assert.eventually, function() end, 2))
      local count = 0
      assert.matches("within 10 s, and at last it raised:\n.*Expected objects to be equal", failure(assert.eventually,
        function()
          count = count + 1
          netstack.sleep(0)
          assert.equal(1, 2)
        end, 10, 5))
      assert.equal(3, count)
      assert.is_not.eventually(function() return false end, 1)
      assert.matches("to return nothing true within 1 s, and it returned 4$",
        failure(assert.is_not.eventually, function() return 4 end, 1))
      assert.matches("bad argument #3 to 'eventually' %(more than 0 expected%)",
        failure(assert.eventually, print, 1, 0))
    end)
  end)

  it("no_packets: shows those that came", function()
    connected(function(near, _, link, net)
      netstack.sleep(1)
      assert.no_packets(link)
      assert.no_packets(net, 3)
      local from = netstack.now()
      near:send("x")
      assert.no_packets(link, 0.005, "b->a")
      assert.is_near(0.005, netstack.now() - from, 1e-9)
      netstack.sleep(5)
      netstack.spawn(near.send, near, "hello")
      assert.matches("^Expected no packets on client %-> server within 1 s, and there were %(the only packet%):\n" ..
        " +client +server\n[%d.]+  |%-%- Flags %[P%.%].* length 5 %-+>|[^\n]*$",
        failure(assert.no_packets, link, 1, "a->b"))
      assert.matches("^Expected packets on the lab within 1 s, and there were none$",
        failure(assert.is_not.no_packets, net))
      assert.same({}, net.watchers)
      assert.matches("bad argument #1 to 'no_packets' %(link or lab expected, got userdata%)",
        failure(assert.no_packets, net:find("client")))
      assert.matches("bad argument #3 to 'no_packets' %('a%->b' or 'b%->a' expected, got c%)",
        failure(assert.no_packets, link, 1, "c"))
      link:close()
      assert.matches("assert.no_packets: closed", failure(assert.no_packets, link))
    end)
  end)
end)
