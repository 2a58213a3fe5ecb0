--- Stacks: the methods that need more than the core, and the functions that make stacks.
-- @module netstack.stack

local channel = require "netstack.channel" -- luacheck: ignore 211 (gives the channel its methods that wait)
local check = require "netstack.check"
local core = require "netstack.core"
local device = require "netstack.device"
local dns = require "netstack.dns"
local names = require "netstack.names"
local ping = require "netstack.ping"
local raw = require "netstack.raw"
local scheduler = require "netstack.scheduler"
local tcp = require "netstack.tcp"
local udp = require "netstack.udp"

local type, unpack = type, table.unpack or unpack

---@class netstack.stack
local Stack = core.classes.stack

local M = {}

local boolean = check.of_type("boolean")
local count = check.integer(1, 2 ^ 31)

local function list_of_strings(value)
  if type(value) ~= "table" then return "table expected, got " .. type(value) end
  for _, item in ipairs(value) do
    if type(item) ~= "string" then return "a list of strings expected" end
  end
end

local function hosts(value)
  if type(value) ~= "table" then return "table expected, got " .. type(value) end
  for name, address in pairs(value) do
    if type(name) ~= "string" or (type(address) ~= "string" and list_of_strings(address)) then
      return "a table of names and their addresses expected"
    end
    for _, text in ipairs(type(address) == "table" and address or { address }) do
      if not core.parse_address(text) then return "invalid address '" .. text .. "'" end
    end
  end
end

local config_rules = {
  name = function(value)
    if type(value) ~= "string" then return "string expected, got " .. type(value) end
    if #value == 0 or #value > 63 then return "1 to 63 characters expected" end
  end,
  mtu = check.integer(68, 65535),
  loopback = boolean,
  command_channel_capacity = check.integer(0, 2 ^ 31),
  tcp_buffer_size = check.integer(2048, 16 * 1024 * 1024),
  udp_buffer_size = count,
  udp_message_count = count,
  raw_buffer_size = count,
  raw_message_count = count,
  forwarding = boolean,
  seed = check.integer(-2 ^ 53, 2 ^ 53),
  dns = function(value)
    local why = list_of_strings(value)
    if why then return why end
    for _, text in ipairs(value) do
      if not core.parse_address(text:match("^[^%%]*")) then return "invalid address '" .. text .. "'" end
    end
  end,
  hosts = hosts,
}

local seeded_run, made_in_run = nil, 0

-- Stacks made in a run that has a seed are repeatable too, each in its own way.
local function seed_of_run()
  local seed = scheduler.seed()
  if not seed then return nil end
  if seeded_run ~= scheduler.run_id() then seeded_run, made_in_run = scheduler.run_id(), 0 end
  made_in_run = made_in_run + 1
  return (seed * 65537 + made_in_run) % 2 ^ 52
end

--- A stack, for the function whose errors are to name it.
-- @tparam table|nil config
-- @tparam string name
-- @tparam[opt=1] integer n which argument the config is
-- @treturn stack|nil
-- @treturn string "no memory"
local function make(config, name, n)
  config = check.options(config, config_rules, n or 1, name)
  local copy = {}
  for key, value in pairs(config) do copy[key] = value end
  if copy.seed == nil then copy.seed = seed_of_run() end
  local stack, err = core.stack(copy)
  if not stack then return nil, err end
  local known = {}
  for host, address in pairs(config.hosts or {}) do known[host:lower()] = address end
  names.set(stack, known, config.dns and { unpack(config.dns) })
  return stack
end
M.make = make

--- A new stack, isolated from all others.
-- @tparam[opt] table config `name`, `mtu` (1500), `loopback` (false), `command_channel_capacity` (32; 0 is unbounded),
-- `tcp_buffer_size` (262144), `udp_buffer_size` (65536), `udp_message_count` (256), `raw_buffer_size` (65536),
-- `raw_message_count` (256), `forwarding` (false), `seed`, `hosts` (name -> address), `dns` (addresses of servers)
-- @treturn stack|nil
-- @treturn string "no memory"
---@param config? table
---@return netstack.stack|nil, string?
function M.new(config)
  return make(config, "new")
end

local attach_rules = {
  name = function(value)
    if type(value) ~= "string" or not value:match("^[%w_.:-]+$") or #value > 31 then
      return "1 to 31 letters, digits or any of _ . : - expected"
    end
  end,
  addresses = list_of_strings,
  gateway = check.of_type("string"),
  gateway6 = check.of_type("string"),
  mac = function(value)
    if type(value) ~= "string" or not value:match("^%x%x:%x%x:%x%x:%x%x:%x%x:%x%x$") then
      return "six bytes expected, like '02:00:00:00:00:01'"
    end
    if tonumber(value:sub(1, 2), 16) % 2 == 1 then return "a station's address expected, not a group's" end
  end,
  dhcp = boolean,
  slaac = boolean,
  masquerade = boolean,
}

local function set_gateway(interface, address, ipv6)
  if (address:find(":", 1, true) ~= nil) ~= ipv6 then return nil, "wrong ip version" end
  return interface:set_gateway(address)
end

--- Joins a device to the stack. Nothing is sent on a medium "ip" (but for `slaac`); on an Ethernet the addresses are
-- announced.
-- @tparam device dev
-- @tparam[opt] table opts `name` (the first free of "eth0", "eth1", …), `addresses`, `gateway`, `gateway6`,
-- `slaac`, `masquerade` (what is forwarded through it gets its address); on Ethernet only `mac` (a random one) and
-- `dhcp`
-- @treturn interface|nil
-- @treturn string "address already in use" (the device is attached, or the name taken), "closed", "invalid address",
-- "full" (255 interfaces and their second and further IPv4 addresses, or too many addresses), "no route" (a gateway
-- outside the addresses' prefixes), "not supported" (by the medium, or the mtu; `masquerade`, and the stack is no
-- router)
---@param dev netstack.device
---@param opts? table
---@return netstack.interface|nil, string?
function Stack:attach(dev, opts)
  -- First of all, since what follows the nil of a failure (`stack:attach(netstack.tun())`) is no table of options.
  if dev == nil then check.bad(1, "attach", "device expected, got nil") end
  opts = check.options(opts, attach_rules, 2, "attach")
  local mac = opts.mac and opts.mac:gsub("(%x%x):?", function(byte) return string.char(tonumber(byte, 16)) end)
  local interface, err = core.attach(self, dev, opts.name, mac or nil)
  if not interface then return nil, err end
  local ok, why = true, nil
  if opts.addresses then ok, why = interface:set_addresses(opts.addresses) end
  if ok and opts.gateway then ok, why = set_gateway(interface, opts.gateway, false) end
  if ok and opts.gateway6 then ok, why = set_gateway(interface, opts.gateway6, true) end
  if ok and opts.dhcp then ok, why = interface:start_dhcp() end
  if ok and opts.masquerade then ok, why = interface:masquerade(true) end
  if ok and opts.slaac then ok, why = interface:start_slaac() end
  if ok then return interface end
  interface:detach()
  return nil, why
end

--- Replaces the addresses of the first interface; the loopback keeps its own.
-- @tparam {string,...} list
-- @treturn integer|nil 1
-- @treturn string "no route" (no interface), "invalid address", "full"
---@param list string[]
---@return integer|nil, string?
function Stack:set_addresses(list)
  local interface, err = core.first_interface(self)
  if not interface then return nil, err end
  return interface:set_addresses(list)
end

--- The addresses of the first interface.
-- @treturn {string,...}|nil
---@return string[]|nil, string?
function Stack:addresses()
  local interface, err = core.first_interface(self)
  if not interface then
    if err == "no route" then return {} end
    return nil, err
  end
  return interface:addresses()
end

--- Adds a route, or replaces that of an equal prefix.
-- @function Stack:add_route
-- @tparam string prefix
-- @tparam string|interface via a gateway's address, or an interface
-- @treturn integer|nil 1
-- @treturn string "invalid address", "no route" (the gateway is on no prefix of the stack), "wrong ip version"
Stack.add_route = core.add_route

--- Takes a route away.
-- @function Stack:remove_route
-- @tparam string prefix
-- @treturn integer|nil 1
-- @treturn string "no route" (there was none), "invalid address"
Stack.remove_route = core.remove_route

--- The routes, the longest prefix first, those that follow from addresses included.
-- @function Stack:routes
-- @treturn {table,...}|nil each with `prefix`, `interface` (its name) and, if there is one, `gateway`
Stack.routes = core.routes

--- A command channel; it does not keep the stack alive.
-- @function Stack:channel
-- @treturn channel|nil
-- @treturn string "closed"
Stack.channel = core.channel

--- A new TCP socket.
---@return netstack.tcp|nil, string?
function Stack:tcp()
  return tcp.new(self)
end

--- A new UDP socket.
---@return netstack.udp|nil, string?
function Stack:udp()
  return udp.new(self)
end

--- A new raw socket.
-- @tparam string family "ipv4" or "ipv6"
-- @tparam integer protocol 0 to 255
-- @treturn raw|nil
---@param family "ipv4"|"ipv6"
---@param protocol integer
---@return netstack.raw|nil, string?
function Stack:raw(family, protocol)
  return raw.new(self, family, protocol)
end

--- Connects to a host.
-- @tparam string host
-- @tparam integer port
-- @tparam[opt] string local_host
-- @tparam[opt] integer local_port
-- @treturn tcp|nil
-- @treturn string error
---@param host string
---@param port integer
---@param local_host? string
---@param local_port? integer
---@return netstack.tcp|nil, string?
function Stack:connect(host, port, local_host, local_port)
  local socket, err = tcp.new(self)
  if not socket then return nil, err end
  local ok, why = true, nil
  if local_host ~= nil or local_port ~= nil then
    ok, why = socket:bind(local_host == nil and "*" or local_host, local_port or 0)
  end
  if ok then ok, why = socket:connect(host, port) end
  if ok then return socket end
  socket:close()
  return nil, why
end

--- Binds and listens, with `reuseaddr` set.
-- @tparam string host "*" for all addresses
-- @tparam integer port 0: any
-- @tparam[opt=32] integer backlog
-- @treturn tcp|nil
-- @treturn string error
---@param host string
---@param port integer
---@param backlog? integer
---@return netstack.tcp|nil, string?
function Stack:bind(host, port, backlog)
  local socket, err = tcp.new(self)
  if not socket then return nil, err end
  socket:setoption("reuseaddr", true)
  local ok, why = socket:bind(host, port)
  if ok then ok, why = socket:listen(backlog) end
  if ok then return socket end
  socket:close()
  return nil, why
end

local function runs(stack)
  return core.is_open(stack) and not stack:crashed()
end

--- Sends an ICMP echo request and waits for the answer.
---@param host string address or name
---@param options? { timeout?: number, size?: integer, ttl?: integer } seconds (1), bytes of data (56), 64
---@return number|nil # round-trip time in seconds
---@return string? # "timeout", "host unreachable", "no route", "host not found"
function Stack:ping(host, options)
  if not runs(self) then return nil, "closed" end
  return ping.ping(self, host, options)
end

--- The address of a name.
-- @tparam string name
-- @treturn string|nil
-- @treturn string "host not found"
---@param name string
---@return string|nil, string?
function Stack:resolve(name)
  if not runs(self) then return nil, "closed" end
  if type(name) ~= "string" then check.bad(1, "resolve", "string expected, got " .. type(name)) end
  local address, err = names.resolve(self, name)
  if not address or name == "*" then return nil, err or "host not found" end
  if not core.parse_address(address:match("^[^%%]*")) then return nil, "host not found" end
  return address
end

--- Crashes the stack, as when a machine's power fails. It forgets its sockets and connections, what was queued, its
-- caches and all that it has learned, and tells nobody: no RST, no FIN, no message to routers or a DHCP server. Every
-- socket, waiting call, ticket and command of it answers "closed", for good. Until `restart`, what arrives is dropped
-- (its cause: "stack crashed"), and new sockets, commands, `ping` and `resolve` answer "closed"; interfaces, addresses
-- and routes can be seen and changed.
-- @treturn integer|nil 1; harmless twice
-- @treturn string "closed"
---@return integer|nil, string?
function Stack:crash()
  local ok, err = core.crash(self)
  if not ok then return nil, err end
  dns.forget(self)
  return ok
end

-- Two stacks joined by a pipe share all of their config but what must differ.
local function config_of(config, n)
  local copy = {}
  for key, value in pairs(config or {}) do copy[key] = value end
  if copy.name then copy.name = copy.name .. n end
  if copy.seed then copy.seed = copy.seed + n - 1 end
  return copy
end

local function addresses_for(n, mtu)
  local addresses = { "10.0.0." .. n .. "/24" }
  if mtu >= 1280 then addresses[2] = "fd00::" .. n .. "/64" end -- IPv6 needs that much (RFC 8200 §5)
  return addresses
end

--- Two stacks on a pipe: 10.0.0.1 and fd00::1, 10.0.0.2 and fd00::2.
-- @tparam[opt] table config of both; a name gets "1" and "2" appended, a seed is one more for the second
-- @tparam[opt] table pipe_opts of the pipe; its mtu defaults to that of the config
-- @treturn stack|nil
-- @treturn stack|string
---@param config? table
---@param pipe_opts? { mtu?: integer, medium?: "ip"|"ethernet", capacity?: integer, checksum?: boolean }
---@return netstack.stack|nil, netstack.stack|string
function M.pair(config, pipe_opts)
  check.options(config, config_rules, 1, "pair")
  check.options(pipe_opts, device.pipe_rules, 2, "pair")
  local options = {}
  for key, value in pairs(pipe_opts or {}) do options[key] = value end
  local first, err = make(config_of(config, 1), "pair")
  if not first then return nil, err end
  options.mtu = options.mtu or (config and config.mtu)
  local second, why = make(config_of(config, 2), "pair")
  if not second then return nil, why end
  local a, b = device.pipe(options)
  local ok
  ok, why = first:attach(a, { addresses = addresses_for(1, a:mtu()) })
  if ok then ok, why = second:attach(b, { addresses = addresses_for(2, b:mtu()) }) end
  if not ok then return nil, why end
  return first, second
end

--- A stack (10.0.0.1, fd00::1) on one end of a pipe; the other end is driven by hand.
-- @tparam[opt] table config
-- @treturn stack|nil
-- @treturn device|string
---@param config? table
---@return netstack.stack|nil, netstack.device|string
function M.piped(config)
  local stack, err = make(config, "piped")
  if not stack then return nil, err end
  local a, b = device.pipe { mtu = config and config.mtu }
  local ok, why = stack:attach(a, { addresses = addresses_for(1, a:mtu()) })
  if not ok then return nil, why end
  return stack, b
end

return M
