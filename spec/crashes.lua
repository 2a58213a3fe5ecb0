-- What the specs of crashes share.
local assert = require "luassert"
local netstack = require "netstack"
local helper = require "spec.helper"

local M = {}

--- That a call was answered `nil, "closed"`.
function M.closed(...)
  assert.same({ nil, "closed" }, { (...), (select(2, ...)) })
end

--- Two stacks like those of netstack.pair, on that medium, once their addresses are surely theirs; and a's interface
-- with the end of the pipe that it is on.
function M.pair(medium, config)
  local ends, stacks, interfaces = { netstack.pipe { medium = medium, checksum = true } }, {}, {}
  for i, name in ipairs { "a", "b" } do
    local own = { seed = i, name = name }
    for key, value in pairs(config or {}) do own[key] = value end
    stacks[i] = helper.watch(assert(netstack.new(own)))
    interfaces[i] = assert(stacks[i]:attach(ends[i], {
      addresses = { ("10.0.0.%d/24"):format(i), ("fd00::%d/64"):format(i) } }))
  end
  netstack.sleep(2)
  return stacks[1], stacks[2], interfaces[1], ends[1]
end

--- That nothing of what programs and peers have left is there any more.
function M.assert_empty(stack)
  local stats = stack:stats()
  assert.same({}, stack:sockets())
  assert.same({ 0, 0, 0, 0, 0, 0, 0, 0 }, { stats.sockets, stats.tcp.connections, stats.tcp.time_wait,
    stats.queued_commands, stats.reassembly.datagrams, stats.reassembly.bytes, stats.path_mtus, stats.groups.entries })
  assert.same({ 0, 0, 0 }, { stats.neighbours.entries, stats.neighbours.incomplete, stats.neighbours.waiting })
  assert.same({ 0, 0 }, { stats.memory.blocks, stats.memory.bytes })
  stack:poll(stats.time)
  assert.is_nil(stack:poll_delay(stats.time))
end

return M
