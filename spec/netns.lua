-- Network namespaces with the host's kernel in them, and programs that run there, for specs of TUN devices. All of it
-- belongs to the spec that made it: `netns.finish` in after_each ends the programs and removes the namespaces.
local assert = require "luassert"
local helper = require "spec.helper"
local netstack = require "netstack"

local unpack = table.unpack or unpack -- luacheck: ignore 143

local M = {}

-- The sanitizers' library is for our core, not for the system's programs.
local CLEAN = "env -u LD_PRELOAD "
M.CLEAN = CLEAN

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end
M.quote = quote

-- What a shell command prints, and whether it ended well.
local function capture(command)
  local pipe = assert(io.popen(("{ %s\n} 2>&1; echo \" $?\""):format(command)))
  local text, status = pipe:read("*a"):match("^(.*) (%d+)\n$")
  pipe:close()
  return text, status == "0"
end

M.capture = capture

--- Runs a command of the system to its end; raises when it fails.
function M.command(text)
  local output, ok = capture(CLEAN .. text)
  if not ok then error(("%s: %s"):format(text, output), 2) end
  return output
end

--- What runs modules of the system's: another Python may come first.
M.PYTHON = "/usr/bin/python3"

--- Whether a program is installed, or a module of Python's.
function M.has(program)
  return (select(2, capture(("command -v %s || %s -c 'import %s'"):format(program, M.PYTHON, program))))
end

--- This interpreter with its arguments, as a shell can call it.
function M.lua()
  local i = -1
  while arg[i - 1] do i = i - 1 end
  return arg[i]
end

local function read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("*a")
  file:close()
  return text
end
M.read = read

--- Writes a text to a file.
function M.write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

local namespaces, programs, folder = {}, {}, nil
local made = 0

--- A folder for the spec's files.
function M.folder()
  if not folder then folder = M.command("mktemp -d"):gsub("%s+$", "") end
  return folder
end

--- Writes the first `total` bytes of a stream (`helper.stream`) to a file.
function M.write_stream(path, seed, total)
  local file, next_bytes = assert(io.open(path, "wb")), helper.stream(seed)
  for at = 0, total - 1, 65536 do file:write(next_bytes(math.min(65536, total - at))) end
  file:close()
end

--- Whether a file has these bytes and no others.
function M.assert_stream(path, seed, total)
  local file, next_bytes, at = assert(io.open(path, "rb")), helper.stream(seed), 0
  local text = file:read(65536)
  while text do
    assert.is_true(text == next_bytes(#text), ("other bytes between %d and %d"):format(at, at + #text))
    at = at + #text
    text = file:read(65536)
  end
  file:close()
  assert.equal(total, at)
end

local prefix -- of this process's namespaces

-- A run that was killed had no time to remove what it had made.
local function sweep()
  for name, pid in capture("ip netns list"):gmatch("(netstack(%d+)x%d+)") do
    if not M.read("/proc/" .. pid .. "/stat") then capture("ip netns del " .. name) end
  end
end

local Namespace = {}
Namespace.__index = Namespace

--- A new namespace, its loopback up.
function M.new()
  if not prefix then
    prefix = "netstack" .. capture("echo $PPID"):gsub("%s", "") .. "x" -- the shell's parent is this process
    sweep()
  end
  made = made + 1
  local name = prefix .. made
  M.command("ip netns add " .. name)
  namespaces[#namespaces + 1] = name
  local namespace = setmetatable({ name = name }, Namespace)
  namespace:ip("link set lo up")
  return namespace
end

--- Runs `ip` in it.
function Namespace:ip(arguments)
  return M.command(("ip -n %s %s"):format(self.name, arguments))
end

--- Runs a command in it to its end; what it printed. Nobody drives the stacks meanwhile.
function Namespace:exec(command)
  return M.command(("ip netns exec %s %s"):format(self.name, command))
end

--- Removes it before the spec is over.
function Namespace:delete()
  M.command("ip netns del " .. self.name)
  for i, name in ipairs(namespaces) do
    if name == self.name then table.remove(namespaces, i) break end
  end
end

--- A TUN device in it, up, with the far side's addresses: 10.<n>.0.1/24 and fd0<n>::1/64; the stack is to be …2.
-- The kernel's TCP there is cubic: its default differs between machines, and a namespace may not always change it.
function Namespace:tun(n, options)
  local all = { netns = self.name }
  for key, value in pairs(options or {}) do all[key] = value end
  local device = assert(netstack.tun(all))
  local lines = { "addr add 10.N.0.1/24 dev DEVICE", "link set DEVICE up",
    "route replace 10.N.0.0/24 dev DEVICE src 10.N.0.1 congctl cubic" }
  -- Kernels without IPv6 are none that this is for; without duplicate detection the address is there at once.
  if device:mtu() >= 1280 then
    table.insert(lines, 1, "addr add fd0N::1/64 dev DEVICE nodad")
    lines[#lines + 1] = "route replace fd0N::/64 dev DEVICE metric 1 congctl cubic"
  end
  local text = table.concat(lines, "\n"):gsub("N", n):gsub("DEVICE", device:name())
  self:ip("-batch - <<'END'\n" .. text .. "\nEND")
  return device
end

local Program = {}
Program.__index = Program

-- Starts a shell command that is one program, which `exec` makes the shell become.
local function start(command)
  made = made + 1
  local base = M.folder() .. "/" .. made
  local text = ("{ exec %s; } >%s.out 2>&1 </dev/null & echo $! >%s.pid; wait $!; echo $? >%s.new; mv %s.new %s.status")
    :format(command, base, base, base, base, base)
  os.execute(("( %s ) >/dev/null 2>&1 </dev/null &"):format(text))
  local program = setmetatable({ base = base, command = command }, Program)
  programs[#programs + 1] = program
  repeat program.pid = tonumber(read(base .. ".pid") or "") until program.pid
  return program
end

--- Starts a program in the namespace.
function Namespace:start(command)
  return start(CLEAN .. ("ip netns exec %s %s"):format(self.name, command))
end

--- Starts a program outside, with this process's environment.
M.start = start

--- Its exit status; nil while it runs.
function Program:status()
  return tonumber(read(self.base .. ".status") or "")
end

--- What it has printed so far.
function Program:output()
  return read(self.base .. ".out") or ""
end

--- Drives the stacks until it has ended; its exit status and what it printed.
function Program:wait(timeout)
  local limit = netstack.now() + (timeout or 30)
  while not self:status() do
    if netstack.now() > limit then error(self.command .. " has not ended: " .. self:output(), 2) end
    netstack.sleep(0.005)
  end
  return self:status(), self:output()
end

--- Drives the stacks until it has printed something.
function Program:expect(pattern, timeout)
  local limit = netstack.now() + (timeout or 10)
  while not self:output():find(pattern) do
    if netstack.now() > limit or self:status() then
      error(("%s did not print %s: %s"):format(self.command, pattern, self:output()), 2)
    end
    netstack.sleep(0.005)
  end
end

--- Sends it a signal.
function Program:signal(name)
  os.execute(("kill -%s %d 2>/dev/null"):format(name, self.pid))
end

--- Drives the stacks until something listens on a TCP or UDP port of the namespace.
function Namespace:listens(port, protocol)
  local limit = netstack.now() + 10
  repeat
    netstack.sleep(0.005)
    local found = self:exec(("ss -Hnl%s sport = :%d"):format(protocol == "udp" and "u" or "t", port)):find("%S")
    if not found and netstack.now() > limit then error("nobody listens on port " .. port, 2) end
  until found
end

--- Starts dnsmasq there, which knows what these lines of configuration say and nothing else; it is ready then. It
-- prints what it does.
function Namespace:dnsmasq(lines)
  local path = M.folder() .. "/dnsmasq.conf"
  M.write(path, table.concat({ "no-resolv", "no-hosts", "bind-interfaces", "local=/test/", "no-ping",
    "dhcp-leasefile=" .. M.folder() .. "/leases", table.concat(lines, "\n") }, "\n") .. "\n")
  local program = self:start("dnsmasq -d -C " .. path)
  program:expect("started, ")
  return program
end

--- Drives the stacks, if there are any, until `condition` returns something true, and returns that.
function M.eventually(condition, timeout)
  local limit = netstack.now() + (timeout or 10)
  while true do
    local result = condition()
    if result then return result end
    if netstack.now() > limit then error("it has not come about", 2) end
    netstack.sleep(0.005)
  end
end

local devices = {}

--- Has a device closed at the end of the spec.
function M.keep(device)
  devices[#devices + 1] = device
  return device
end

--- A namespace whose kernel has 10.<n>.0.1 and fd0<n>::1, and a stack with …2 on a TUN device in it.
-- @param options of the device
-- @param config of the stack
-- @return stack, namespace, device, interface
function M.connected(n, options, config)
  n = n or 1
  local namespace = M.new()
  local device = M.keep(namespace:tun(n, options))
  local stack = helper.watch(assert(netstack.new(config)))
  local addresses = { ("10.%d.0.2/24"):format(n), device:mtu() >= 1280 and ("fd0%d::2/64"):format(n) or nil }
  local interface = assert(stack:attach(device, { addresses = addresses }))
  return stack, namespace, device, interface
end

--- As `connected`, with a shim of ours between the stack and the device: `pass(packet, outward)` sees each packet, or
-- frame, and returns what goes on, nil for nothing. In a run on the real clock: the stack has a pipe, with checksums.
-- @param attach what `stack:attach` is told beside the addresses
-- @return stack, namespace, device, interface
function M.shimmed(n, options, pass, attach)
  local namespace = M.new()
  local device = M.keep(namespace:tun(n, options))
  local near, far = netstack.pipe { mtu = device:mtu(), medium = device:medium(), checksum = true }
  local function carry(from, to, outward)
    local packet
    repeat
      packet = from:receive(3600)
      local passed = packet and pass(packet, outward)
      if passed then to:send(passed, 10) end
    until not packet
  end
  netstack.daemon(carry, far, device, true)
  netstack.daemon(carry, device, far, false)
  local stack = helper.watch(assert(netstack.new()))
  local all = { addresses = { ("10.%d.0.2/24"):format(n), ("fd0%d::2/64"):format(n) } }
  for key, value in pairs(attach or {}) do all[key] = value end
  return stack, namespace, device, assert(stack:attach(near, all))
end

-- Ends what is still running, removes what was made.
local function clear()
  for _, program in ipairs(programs) do
    if not program:status() then program:signal("KILL") end
    for _ = 1, 200 do -- its shell has yet to write its status into our folder
      if program:status() then break end
      os.execute("sleep 0.01")
    end
  end
  for _, name in ipairs(namespaces) do capture("ip netns del " .. name) end
  if folder then os.execute("rm -r " .. quote(folder)) end
  namespaces, programs, folder = {}, {}, nil
end

--- For after_each: nothing is left, whatever became of the spec.
function M.finish()
  pcall(netstack.run, function() end) -- closed connections say goodbye while somebody is there to hear it
  local ok, err = pcall(clear)
  for _, device in ipairs(devices) do device:close() end
  devices = {}
  helper.nothing_left()
  if not ok then error(err, 0) end
end

--- That each of the first `count` requests of a `ping` was answered once, by what it printed. Start it with `-w`, which
-- has it wait for `count` answers, and send more requests meanwhile: without, it waits after its last one for no longer
-- than its interval or twice the longest round trip, and what a busy machine answers then counts as lost.
function M.assert_answered(text, count)
  for sequence = 1, count do assert.matches(("icmp_seq=%d "):format(sequence), text) end
  assert.is_nil(text:find("DUP!", 1, true), text)
end

local reason -- false: TUN is to be had

--- Why the specs cannot be had here; nil when they can. `...`: programs they need beside `ip`.
function M.missing(...)
  if reason == nil then
    reason = false
    if not M.has("ip") then
      reason = "ip (iproute2) is not installed"
    else
      local ok, err = pcall(function()
        local namespace = M.new()
        local device, why, message = netstack.tun { netns = namespace.name }
        if not device then error(("no TUN device: %s, %s"):format(why, message), 0) end
        device:close()
      end)
      if not ok then reason = tostring(err):gsub("%s+", " "):gsub("^%S+:%d+: ", "") end
      clear()
    end
  end
  if reason then return reason end
  for i = 1, select("#", ...) do
    local program = select(i, ...)
    if not M.has(program) then return program .. " is not installed" end
  end
end

--- Like `it`, with the programs that the spec needs first; pending with the reason where something is missing. That is
-- found out before the spec begins: `pending`, as it is known outside of specs, changes nothing within one.
function M.specs(it, pending)
  return function(needed, name, fn)
    local why = M.missing(unpack(needed))
    if why then pending(("%s (%s)"):format(name, why)) else it(name, fn) end
  end
end

return M
