--- Packets in, packets out: a script plays the peer of one stack, and says what the stack has to answer and when.
--
-- A script is a list of steps, and of lists of steps; each is a table that begins with its kind. `script.inject{...}`,
-- `expect{...}`, `quiet(...)` and `call(...)` make such tables, which know the line they stand in.
--
-- - `{ "inject", ... }`: a packet to the stack. Its fields are those of `netstack.packet`; the fields of a TCP segment
--   (`flags`, `seq`, `ack`, `window`, `options` and so on) may stand in the step itself. IP header, addresses and ports
--   need not be given, nor `seq` and `ack`: then it is the next of the stream, and acknowledges what was expected.
--   `length = n` stands for a payload of n bytes. Instead of fields, second in the table: bytes, or a function that is
--   called with the script's state and returns fields or bytes.
-- - `{ "expect", ... }`: the next packet of the stack. What is not named may be anything, except that addresses and
--   ports have to be the connection's, and checksums right. A value may be a function, which gets what was found and
--   says whether that will do (second: why not); `false`: it is not there. Flags as letters are all that are set, as a
--   table (`{ ack = true }`) those that matter. `strict = false`: others may come before it.
-- - `{ "quiet", seconds }`: so long nothing comes.
-- - `{ "call", fn }`: `fn(state)` is called in a task of its own; the script goes on when it has ended or waits.
--
-- Numbers count from the first of each side: the peer's SYN is `seq = 0`, its first byte 1, and so it is for the stack;
-- before the stack has sent a SYN, its numbers are those on the wire. Edges of SACK blocks count as acknowledgements
-- do. A window is as in the header, not scaled.
--
-- Time is virtual, in seconds. `at` counts from the start of the script, `after` from the step before (when its packet
-- was sent or came); without either a step happens at once. What is expected has to come then, give or take the
-- tolerance, or, with `within`, until so long after the step before.
--
-- The state: `stack`; `family`, `local_host`, `local_port`, `remote_host`, `remote_port` (nil until they are known);
-- `packets`, all so far in `netstack.ladder`'s format, from "peer" and from "stack"; `last`, the one of these that was
-- expected last, with its `packet` as it was compared; `state:forget([isn])`: what comes next is a new connection, with
-- other numbers, and other ports unless options gave them. Functions may keep what they like in it.
-- @module netstack.script

local check = require "netstack.check"
local ladder = require "netstack.ladder"
local netstack = require "netstack"
local packet = require "netstack.packet"
local packets = require "netstack.script.packets"
local match = require "netstack.script.match"
local scheduler = require "netstack.scheduler"
local steps = require "netstack.script.steps"
local summary = require "netstack.packet.summary"

local concat, format = table.concat, string.format
local error, ipairs, type = error, ipairs, type

local M = {}

local HOSTS = { ipv4 = { "10.0.0.1", "10.0.0.2" }, ipv6 = { "fd00::1", "fd00::2" } } -- as of netstack.piped
local LOCAL_PORT, REMOTE_PORT = 80, 4000 -- of packets that come before the stack has said anything else
local ISN = 1000000 -- the peer's
local INSTANT = 1e-7 -- in which the stack does what can be done at one time
local SHOWN = 12 -- packets in a report

local rules = {
  family = check.one_of("ipv4", "ipv6"),
  config = check.of_type("table"),
  local_host = check.of_type("string"), remote_host = check.of_type("string"),
  local_port = check.integer(1, 65535), remote_port = check.integer(1, 65535),
  isn = check.integer(0, 4294967295),
  tolerance = function(value)
    if type(value) ~= "number" then return "number expected, got " .. type(value) end
    if not (value >= 0 and value <= 1e8) then return "out of range: 0 to 1e8" end
  end,
  strict = check.of_type("boolean"),
}

---@class netstack.script.Options
---@field family? "ipv4"|"ipv6"
---@field config? table
---@field local_host? string
---@field remote_host? string
---@field local_port? integer
---@field remote_port? integer
---@field isn? integer
---@field tolerance? number
---@field strict? boolean

---@class netstack.script.State
---@field stack netstack.stack
---@field family "ipv4"|"ipv6"
---@field local_host string
---@field remote_host string
---@field local_port? integer
---@field remote_port? integer
---@field packets table[]
---@field last? table
local State = {}
State.__index = State

--- What comes next is a new connection: numbers are counted anew, and ports that no option gave are learned anew.
-- @tparam[opt] integer isn the peer's initial sequence number; the same again without it
---@param isn? integer
function State:forget(isn)
  local why = isn ~= nil and rules.isn(isn)
  if why then check.bad(1, "forget", why) end
  self.isn = isn or self.isn
  self.connections = {}
  local options = self.options
  self.local_port, self.remote_port = options.local_port, options.remote_port
  for _, name in ipairs { "tcp", "udp" } do
    self.place[name] = { local_port = options.local_port, remote_port = options.remote_port }
  end
end

local function elapsed(state)
  return netstack.now() - state.start
end

-- What is known about the connection that a packet belongs to; nil for none of TCP's.
local function connection_of(state, parts, inbound)
  local ip, tcp = parts.ipv4 or parts.ipv6, parts.tcp
  if not ip or not tcp then return nil end
  local here = format("%s %s", ip.source, tcp.source_port)
  local there = format("%s %s", ip.destination, tcp.destination_port)
  local key = inbound and there .. " " .. here or here .. " " .. there
  local known = state.connections[key]
  if not known then
    known = { isn = state.isn, their_isn = 0, next = 0, their_next = 0 }
    state.connections[key] = known
  end
  return known
end

-- The connection's ports, from the first packet.
local function learn(state, name, local_port, remote_port)
  local ports = state.place[name]
  ports.local_port, ports.remote_port = ports.local_port or local_port, ports.remote_port or remote_port
  if name == "tcp" then state.local_port, state.remote_port = ports.local_port, ports.remote_port end
end

-- Puts a packet of the stack on the list of those that nobody has expected yet.
local function arrived(state, data)
  local parts, why = packet.dissect(data)
  if not parts then parts = { payload = data, malformed = why } end
  for _, name in ipairs { "tcp", "udp" } do
    local fields = parts[name]
    if fields then learn(state, name, fields.source_port, fields.destination_port) end
  end
  local known = connection_of(state, parts, false)
  if known and parts.tcp.flags.syn then known.their_isn = parts.tcp.seq end
  local entry = { time = elapsed(state), from = "stack", to = "peer", data = data, connection = known,
    packet = packets.read(parts, known) }
  state.packets[#state.packets + 1] = entry
  state.pending[#state.pending + 1] = entry
end

-- Raises: `what` about a step, and the last packets.
local function fail(state, step, what, entry)
  local lines = {}
  local where = step and step.where and step.where .. ": " or ""
  lines[1] = step and format("%sstep %d, %s: %s", where, step.number, step.kind, what) or what
  if step and step.packet and step.kind == "expect" then
    lines[#lines + 1] = "  expected: " .. match.show(step.packet)
  end
  if entry then
    lines[#lines + 1] = format("  got:      %s, at %.6f", summary.content(entry.packet), entry.time)
  end
  local drawn, all = {}, ladder.draw(state.packets, { left = "peer", right = "stack" })
  for line in all:gmatch("[^\n]+") do drawn[#drawn + 1] = line end
  lines[#lines + 1] = drawn[1]
  if #drawn > SHOWN + 1 then lines[#lines + 1] = format("(%d before)", #drawn - SHOWN - 1) end
  for i = #drawn > SHOWN + 1 and #drawn - SHOWN + 1 or 2, #drawn do lines[#lines + 1] = drawn[i] end
  error(concat(lines, "\n"), 0)
end

-- Raises what a call has raised: texts with the packets, anything else as it is.
local function check_calls(state)
  local failed = state.failed
  if not failed then return end
  if type(failed.err) ~= "string" then error(failed.err, 0) end
  fail(state, failed.step, failed.err)
end

-- Takes what the stack sends until a time.
local function advance(state, time)
  local data
  repeat
    local left = time - elapsed(state)
    data = state.far:receive(left > 0 and left or nil)
    if data then arrived(state, data) end
    check_calls(state)
  until not data
end

local function settle(state)
  advance(state, elapsed(state) + INSTANT)
end

-- When a step is to happen.
local function due(state, step)
  return step.at or state.previous + (step.after or 0)
end

local function await(state, step)
  local time = due(state, step)
  if time < elapsed(state) - state.tolerance then
    fail(state, step, format("%.6f s has passed, it is %.6f", time, elapsed(state)))
  end
  if time > elapsed(state) then advance(state, time) end
  state.previous = elapsed(state)
end

local play = {}

function play.inject(state, step)
  await(state, step)
  local made, data = step.packet, step.operand
  if type(data) == "function" then data = data(state) end
  if type(data) == "table" then
    local why
    made, why = steps.packet(data, step, state.family)
    if not made then fail(state, step, why) end
    data = nil
  elseif not made and type(data) ~= "string" then
    fail(state, step, "the function returned no packet, but " .. type(data))
  end
  local known
  if made then
    made = packets.copy(made)
    for _, name in ipairs { "tcp", "udp" } do
      if made[name] then
        learn(state, name, made[name].destination_port or LOCAL_PORT, made[name].source_port or REMOTE_PORT)
      end
    end
    packets.address(made, state.place, true)
    local why
    known = connection_of(state, made, true)
    data, why = packets.build(made, known)
    if not data then fail(state, step, why) end
  end
  state.packets[#state.packets + 1] = { time = elapsed(state), from = "peer", to = "stack", data = data }
  if known then -- what was built has absolute numbers
    local last = packets.relative(made.tcp.seq, known.isn) + packets.extent(made.tcp, made.payload or "")
    if last > known.next then known.next = last end
  end
  local sent, why = state.far:send(data)
  if not sent then fail(state, step, "cannot be sent: " .. why) end
  settle(state)
end

-- When it came, against when it was to come.
local function differs_in_time(entry, first, last)
  if entry.time >= first and entry.time <= last then return nil end
  return format("time: expected %.6f to %.6f, got %.6f", first, last, entry.time)
end

function play.expect(state, step)
  local tolerance = step.tolerance or state.tolerance
  local first, last
  if step.within then
    first, last = 0, state.previous + step.within + INSTANT
  else
    local time = due(state, step)
    first, last = time - tolerance - INSTANT, time + tolerance + INSTANT
  end
  local strict = state.strict
  if step.strict ~= nil then strict = step.strict end
  while true do
    local entry = table.remove(state.pending, 1)
    if entry then
      local expected = packets.copy(step.packet)
      packets.address(expected, state.place, false)
      local found = match.differences(expected, entry.packet)
      found[#found + 1] = differs_in_time(entry, first, last)
      if #found == 0 then
        state.previous, state.last = entry.time, entry
        local known, tcp = entry.connection, entry.packet.tcp
        if known then
          local stop = tcp.seq + packets.extent(tcp, entry.packet.payload)
          if not tcp.flags.rst and stop > known.their_next then known.their_next = stop end
        end
        return
      elseif strict then
        fail(state, step, concat(found, "; "), entry)
      end
    else
      if elapsed(state) >= last then fail(state, step, format("nothing came until %.6f", last)) end
      local data = state.far:receive(last - elapsed(state))
      if data then arrived(state, data) end
      check_calls(state)
    end
  end
end

function play.quiet(state, step)
  advance(state, state.previous + step.operand)
  local entry = state.pending[1]
  if entry then fail(state, step, "a packet came", entry) end
  state.previous = elapsed(state)
end

function play.call(state, step)
  await(state, step)
  state.calls[#state.calls + 1] = step
  step.task = netstack.spawn(function()
    local ok, err = netstack.pcall(step.operand, state)
    if not ok then state.failed = state.failed or { step = step, err = err } end
    step.task = nil
  end)
  settle(state)
end

local function finish(state)
  settle(state)
  local entry = state.strict and state.pending[1]
  if entry then fail(state, nil, "after the last step: a packet came that nothing expected", entry) end
  for _, step in ipairs(state.calls) do
    if step.task then fail(state, step, "still waits when the script is over") end
  end
end

local function perform(list, options)
  local family = options.family or "ipv4"
  local hosts = HOSTS[family]
  local state = setmetatable({ options = options, family = family, strict = options.strict ~= false,
    tolerance = options.tolerance or 0.001, isn = options.isn or ISN, packets = {}, pending = {}, calls = {},
    local_host = options.local_host or hosts[1], remote_host = options.remote_host or hosts[2], previous = 0,
    start = netstack.now() }, State)
  state.place = { family = family, local_host = state.local_host, remote_host = state.remote_host }
  state:forget()
  local near, far = netstack.pipe { checksum = true, capacity = 0, mtu = options.config and options.config.mtu }
  state.stack, state.far = assert(netstack.new(options.config)), far
  local interface, why = state.stack:attach(near, { addresses = { state.local_host } })
  if not interface then check.bad(2, "run", "option 'local_host': " .. why) end
  local ok, err = netstack.pcall(function()
    for _, step in ipairs(list) do play[step.kind](state, step) end
    finish(state)
  end)
  for _, step in ipairs(state.calls) do
    if step.task then step.task:cancel() end
    step.task = nil
  end
  state.stack:close()
  far:close()
  if not ok then error(err, 0) end
  local entries = {}
  for i, entry in ipairs(state.packets) do
    entries[i] = { time = entry.time, from = entry.from, to = entry.to, data = entry.data }
  end
  return entries
end

--- Plays a script against a new stack on a pipe that computes and checks checksums. What is not as the script says is
-- raised, with the step, what was expected and the last packets; so is a packet that nothing expected at the end, and a
-- call that still waits then. Within `netstack.run` it is part of that run, else it is a run on the virtual clock.
-- @tparam table list steps
-- @tparam[opt] table options `family` ("ipv4"; "ipv6"), `config` (of `netstack.new`), `local_host`, `remote_host` (as
-- of `netstack.piped`), `local_port`, `remote_port` (those of the first packet; what is injected before that is from
-- port 4000 to port 80), `isn` (the peer's initial sequence number), `tolerance` (0.001 seconds), `strict` (true: each
-- packet of the stack has to be expected, in order)
-- @treturn table all packets, as `netstack.ladder` draws them
---@param list table[]
---@param options? netstack.script.Options
---@return table[] packets
function M.run(list, options)
  if type(list) ~= "table" then check.bad(1, "run", "table expected, got " .. type(list)) end
  options = check.options(options, rules, 2, "run")
  local read, why = steps.read(list, options.family or "ipv4")
  if not read then check.bad(1, "run", why) end
  if scheduler.running() then return perform(read, options) end
  return netstack.run(function() return perform(read, options) end, { clock = "virtual", linger = 0 })
end

--- A step: a packet to the stack.
-- @function inject
-- @tparam table|string|function packet fields, bytes, or a function that returns them; `at`, `after` among the fields
-- @treturn table
---@type fun(packet: table|string|function): table
M.inject = steps.maker "inject"

--- A step: a packet of the stack.
-- @function expect
-- @tparam table packet fields; `at`, `after`, `within`, `tolerance`, `strict` among them
-- @treturn table
---@type fun(packet: table): table
M.expect = steps.maker "expect"

--- A step: nothing comes.
-- @function quiet
-- @tparam number seconds
-- @treturn table
---@type fun(seconds: number): table
M.quiet = steps.maker "quiet"

--- A step: a function is called.
-- @function call
-- @tparam function|table fn or a table that begins with it, with `at` or `after`
-- @treturn table
---@type fun(fn: function|table): table
M.call = steps.maker "call"

return M
