-- The kernel on a port of a switch, with stacks whose pipes have no checksums on the others.
local helper = require "spec.helper"
local netns = require "spec.netns"
local netstack = require "netstack"
local switch = require "netstack.switch"

local run, sleep = netstack.run, netstack.sleep
local with, keep, eventually = netns.specs(it, pending), netns.keep, netns.eventually

local function lan()
  local namespace = netns.new()
  local tap = keep(namespace:tun(1, { mode = "tap" }))
  local sw, stacks = switch.new(), {}
  assert.equal(1, sw:attach(tap))
  for i = 2, 3 do
    local near, far = netstack.pipe { medium = "ethernet", mtu = 1500 }
    stacks[i] = helper.watch(assert(netstack.new()))
    assert(stacks[i]:attach(near, { addresses = { "10.1.0." .. i .. "/24", "fd01::" .. i .. "/64" },
      mac = "02:00:00:00:00:0" .. i }))
    assert.equal(i, sw:attach(far))
  end
  return sw, stacks, namespace, tap
end

describe("A switch with a TAP port", function()
  after_each(netns.finish)

  with({ "ping", "nc", "ss" }, "joins the kernel and stacks, by the real clock", function()
    run(function()
      local sw, stacks, namespace = lan()
      sleep(2) -- IPv6 addresses are surely their own
      for i = 2, 3 do
        for _, host in ipairs { "10.1.0." .. i, "fd01::" .. i } do
          assert.equal(0, (namespace:start("ping -c 2 -i 0.01 -W 5 " .. host):wait()))
        end
        for _, host in ipairs { "10.1.0.1", "fd01::1" } do
          local folder = netns.folder()
          local sink = namespace:start(("nc -N -l %s 5001 >%s/got"):format(host, folder))
          namespace:listens(5001)
          local socket = assert(stacks[i]:connect(host, 5001))
          helper.send_stream(socket, 3, 300000)
          socket:close()
          assert.equal(0, (sink:wait()))
          netns.assert_stream(folder .. "/got", 3, 300000)
        end
      end
      local stations = {}
      for _, entry in ipairs(sw:table()) do stations[entry.address] = entry.port end
      assert.equal(2, stations["02:00:00:00:00:02"])
      assert.equal(3, stations["02:00:00:00:00:03"])
      assert.equal(3, #sw:table())
      assert.is_true(sw:stats().ports[1].sent > 600)
    end)
  end)

  with({}, "goes on without it when its interface is deleted", function()
    run(function()
      local sw, stacks, namespace, tap = lan()
      eventually(function() return stacks[2]:ping("10.1.0.1") end)
      namespace:ip("link del " .. tap:name())
      sleep(0.1)
      local clock = os.clock()
      sleep(0.5)
      assert.is_true(os.clock() - clock < 0.1)
      assert.is_nil((stacks[2]:ping("10.1.0.1", { timeout = 0.05 })))
      assert.is_number(stacks[2]:ping("10.1.0.3"))
      for _, entry in ipairs(sw:table()) do assert.is_true(entry.port ~= 1) end
    end, { clock = "real", timeout = 60 })
  end)
end)
