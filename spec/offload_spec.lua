-- Many segments in one system call (IFF_VNET_HDR): the kernel cuts and puts together what is ours, and nothing else.

local helper = require "spec.helper"
local netns = require "spec.netns"
local netstack = require "netstack"
local packets = require "spec.packets"

local run, spawn = netstack.run, netstack.spawn
local with, keep = netns.specs(it, pending), netns.keep

local TOTAL = 4 * 1024 * 1024
local HOSTS = { IPv4 = { kernel = "10.1.0.1", stack = "10.1.0.2" }, IPv6 = { kernel = "fd01::1", stack = "fd01::2" } }

describe("offload", function()
  after_each(netns.finish)

  local function attached(options)
    local namespace = netns.new()
    local all = { offload = true }
    for key, value in pairs(options or {}) do all[key] = value end
    local device = keep(namespace:tun(1, all))
    local stack = helper.watch(assert(netstack.new()))
    local interface = assert(stack:attach(device, { addresses = { "10.1.0.2/24", "fd01::2/64" } }))
    return stack, namespace, device, interface
  end

  -- How many segments with bad checksums the namespace's kernel has dropped.
  local function checksum_errors(namespace)
    local names, values = namespace:exec("cat /proc/net/snmp"):match("Tcp: (%a[^\n]*)\nTcp: (%d[^\n]*)")
    local place, found = 0, nil
    for name in names:gmatch("%S+") do
      place = place + 1
      if name == "InCsumErrors" then found = place end
    end
    place = 0
    for value in values:gmatch("%S+") do
      place = place + 1
      if place == found then return tonumber(value) end
    end
  end

  -- Moves TOTAL bytes each way at once; system calls per packet.
  local function exchange(stack, namespace, device, hosts)
    local up, down = netns.folder() .. "/up", netns.folder() .. "/down"
    local file, next_bytes = assert(io.open(up, "wb")), helper.stream(1)
    for _ = 1, TOTAL / 65536 do file:write(next_bytes(65536)) end
    file:close()
    local before = device:stats()
    run(function()
      local listener = stack:bind("*", 5000)
      local client = namespace:start(("nc -N %s 5000 <%s >%s"):format(hosts.stack, up, down))
      local socket = assert(listener:accept())
      listener:close()
      local writer = spawn(function()
        helper.send_stream(socket, 2, TOTAL)
        socket:shutdown("send")
      end)
      assert.equal(TOTAL, helper.receive_stream(socket, 1))
      writer:join()
      socket:close()
      assert.same({ 0, "" }, { client:wait() })
    end, { timeout = 30 })
    local text, expected = assert(netns.read(down)), helper.stream(2)
    assert.equal(TOTAL, #text)
    for i = 1, TOTAL, 65536 do assert.is_true(text:sub(i, i + 65535) == expected(65536), "other bytes after " .. i) end
    assert.equal(0, checksum_errors(namespace))
    assert.equal(0, stack:stats().tcp.checksum_errors)
    assert.equal(0, device:stats().tx_dropped)
    local after = device:stats()
    return (after.syscalls - before.syscalls) /
      (after.rx_packets - before.rx_packets + after.tx_packets - before.tx_packets)
  end

  for _, mode in ipairs { "tun", "tap" } do
    for _, family in ipairs { "IPv4", "IPv6" } do
      with({ "nc" }, ("takes few system calls, and every byte arrives: %s, %s"):format(mode, family), function()
        local stack, namespace, device = attached { mode = mode }
        local calls = exchange(stack, namespace, device, HOSTS[family])
        assert.is_true(calls < 0.5, calls)
      end)
    end
  end

  with({ "nc" }, "is not used when it is not wanted", function()
    local stack, namespace, device = netns.connected()
    assert.is_true(exchange(stack, namespace, device, HOSTS.IPv4) >= 1)
    assert.matches("bad argument #1 to 'tun' %(option 'offload': boolean expected, got string%)",
      packets.failure(function() netstack.tun { offload = "no" } end))
  end)

  with({ "nc" }, "is what it is on a descriptor that is adopted", function()
    local namespace = netns.new()
    for _, offload in ipairs { true, false } do
      local original = keep(namespace:tun(1, { offload = offload, name = "given" }))
      local device = keep(assert(netstack.tun { fd = original:fd() })) -- which says what it is
      original:close()
      local stack = helper.watch(netstack.new())
      assert(stack:attach(device, { addresses = { "10.1.0.2/24" } }))
      assert.equal(offload, exchange(stack, namespace, device, HOSTS.IPv4) < 0.5)
      stack:close()
      device:close()
    end
  end)

  with({ "nc" }, "makes segments that fit into the mtu", function()
    local stack, namespace, device, interface = attached { mtu = 1300 }
    exchange(stack, namespace, device, HOSTS.IPv6)
    assert.is_nil(interface:stats().guarded["longer than the mtu"])
  end)

  with({}, "does not repair what somebody else has written", function()
    local stack, namespace = attached()
    local channel = stack:channel()
    local handle = assert(channel:request("raw.open", { family = "ipv4", protocol = 253 })).handle
    local before = checksum_errors(namespace)
    -- Three segments that follow one another, with a checksum that is wrong.
    for i = 0, 2 do
      local tcp = "\0\7\0\9\0\0\0" .. string.char(i * 4) .. "\0\0\0\1\80\16\255\255\18\52\0\0data"
      local header = "\69\0\0" .. string.char(20 + #tcp) .. "\0\0\64\0\64\6\0\0\10\1\0\2\10\1\0\1"
      assert(channel:submit("raw.send", { handle = handle, data = header .. tcp }))
    end
    assert.equal(3, stack:process_commands()) -- which keeps what they send until the stack is polled: all goes at once
    netstack.sleep(0.05)
    assert.equal(before + 3, checksum_errors(namespace))
    channel:request("raw.close", { handle = handle })
  end)
end)
