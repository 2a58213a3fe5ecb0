-- iperf3 from one kernel to another through examples/relay.lua, which has a stack on a TUN device to each of them.

local netns = require "spec.netns"
local netstack = require "netstack"

local run = netstack.run
local with = netns.specs(it, pending)
local relay = assert(loadfile("examples/relay.lua"))()

local PORT = 5201 -- of iperf3's control connection, its streams and its datagrams

-- What a report of iperf3 says under a name, within an object of its last part.
local function figure(report, object, name)
  local text = report:match('\n\t"end":.*$'):match('"' .. object .. '":%s*(%b{})')
  return tonumber(text:match('"' .. name .. '":%s*([%d.]+)'))
end

describe("iperf3 through a relay", function()
  after_each(netns.finish)

  -- Runs iperf3 with these arguments to the end; its report.
  local function measure(arguments, host, target)
    host, target = host or "10.1.0.2", target or "10.2.0.1"
    local inner, near = netns.connected(1)
    local outer, far = netns.connected(2)
    return run(function()
      local listener, socket = assert(inner:bind("*", PORT)), inner:udp()
      assert(socket:setsockname("*", PORT))
      netstack.spawn(relay.tcp, listener, outer, target, PORT)
      netstack.spawn(relay.udp, socket, outer, target, PORT)
      local server = far:start("iperf3 -s -1 -p " .. PORT)
      far:listens(PORT)
      local client = near:start(("iperf3 -J -c %s -p %d %s"):format(host, PORT, arguments))
      local status, report = client:wait()
      assert.equal(0, status, report)
      assert.is_nil(report:match '"error"', report)
      local text
      status, text = server:wait()
      assert.equal(0, status, text)
      listener:close()
      socket:close()
      for _, stack in ipairs { inner, outer } do
        local stats = stack:stats()
        assert.equal(0, stats.tcp.checksum_errors)
        assert.equal(0, stats.udp.checksum_errors)
      end
      return report
    end)
  end

  local MIB = 1024 * 1024

  -- iperf3 ends when the last bytes are in the sender's buffer, so somewhat fewer have been received then; the buffers
  -- are small enough for most to have been.
  local function tcp(name, arguments, streams, host, target)
    with({ "iperf3", "ss" }, name, function()
      local report = measure(("-C cubic -w 64K -n %d %s"):format(8 * MIB, arguments), host, target)
      local sent, received = figure(report, "sum_sent", "bytes"), figure(report, "sum_received", "bytes")
      assert.is_true(sent >= 8 * MIB)
      assert.is_true(received <= sent)
      assert.is_true(streams > 1 or received >= 5 * MIB, ("%d of %d bytes"):format(received, sent))
      local count = 0
      for receiver in report:match('\n\t"end":.*$'):gmatch('"receiver":%s*(%b{})') do
        count = count + 1
        assert.is_true(tonumber(receiver:match('"bytes":%s*(%d+)')) > 0)
      end
      assert.equal(streams, count)
    end)
  end

  tcp("carries a stream of TCP", "", 1)
  tcp("carries a stream the other way", "-R", 1)
  tcp("carries 16 streams at once", "-P 16", 16)
  tcp("carries a stream over IPv6", "-6", 1, "fd01::2", "fd02::1")

  local function udp(name, arguments)
    with({ "iperf3", "ss" }, name, function()
      local report = measure("-u -l 1400 -b 5M -n 512K " .. arguments)
      local sent, lost = figure(report, "sum", "packets"), figure(report, "sum", "lost_packets")
      assert.is_true(sent >= 512 * 1024 / 1400 - 1)
      assert.is_true(lost <= sent / 100, ("%d of %d are lost"):format(lost, sent))
    end)
  end

  udp("carries datagrams at a low rate without a loss", "")
  udp("carries datagrams the other way", "-R")

  with({ "iperf3", "ss", "ping" }, "which is a program of its own", function()
    local near, far = netns.new(), netns.new()
    for n, namespace in ipairs { near, far } do
      namespace:ip("tuntap add relay mode tun")
      namespace:ip(("addr add 10.%d.0.1/24 dev relay"):format(n))
      namespace:ip("link set relay up")
    end
    local program = netns.start(("%s examples/relay.lua %s %s 10.2.0.1 %d"):format(netns.lua(), near.name, far.name,
      PORT))
    run(function()
      local status, text = far:start("ping -n -c 1 -w 10 10.2.0.2"):wait() -- once it is there
      assert.equal(0, status, text)
      for _, arguments in ipairs { "-n 1M", "-u -b 5M -n 64K" } do
        local server = far:start("iperf3 -s -1 -p " .. PORT)
        far:listens(PORT)
        status, text = near:start(("iperf3 -c 10.1.0.2 -p %d %s"):format(PORT, arguments)):wait()
        assert.equal(0, status, text .. program:output())
        server:wait()
      end
    end, { clock = "real" })
    program:signal("INT")
  end)
end)
