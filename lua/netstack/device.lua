--- Devices: pipes between two stacks, devices in Lua, and devices on the host's kernel.
-- Their methods that need not wait are the core's.
-- @module netstack.device

local check = require "netstack.check"
local core = require "netstack.core"
local scheduler = require "netstack.scheduler"

local wait, deadline = scheduler.wait, scheduler.deadline
local type = type

---@class netstack.device
local Device = core.classes.device
local try_send, try_receive = Device.try_send, Device.try_receive

local M = {}

local medium = check.one_of("ip", "ethernet")
local boolean = check.of_type("boolean")
local pipe_options = {
  mtu = check.integer(68, 65535),
  medium = medium,
  capacity = check.integer(0, 2 ^ 31),
  checksum = boolean,
}
M.pipe_rules = pipe_options
local device_options = { mtu = check.integer(68, 65535), medium = medium, transmit = check.of_type("function"),
  checksum = boolean }

local function either(value, otherwise)
  if value == nil then return otherwise end
  return value
end

--- A pipe: two ends; what is sent into one comes out of the other.
-- @tparam[opt] table options `mtu` (that of the first stack it is attached to), `medium` ("ip"), `capacity` in packets
-- (1024; 0 is unbounded), `checksum` (false: checksums are sent as zeros and not checked)
-- @treturn device
-- @treturn device
---@param options? { mtu?: integer, medium?: "ip"|"ethernet", capacity?: integer, checksum?: boolean }
---@return netstack.device, netstack.device
function M.pipe(options)
  options = check.options(options, pipe_options, 1, "pipe")
  local checksum = either(options.checksum, false)
  return core.pipe(options.mtu or 0, options.medium or "ip", options.capacity or 1024, checksum)
end

--- A device in Lua: `transmit` is called, outside lwIP, with each packet the attached stack sends; `device:input` feeds
-- the stack. It computes and checks checksums unless `checksum` is false.
-- @tparam table options `mtu` (that of the stack it is attached to), `medium` ("ip"), `transmit`, `checksum` (true)
-- @treturn device
---@param options { mtu?: integer, medium?: "ip"|"ethernet", transmit: fun(packet: string), checksum?: boolean }
---@return netstack.device
function M.device(options)
  if type(options) ~= "table" then check.bad(1, "device", "table expected, got " .. type(options)) end
  check.options(options, device_options, 1, "device")
  if not options.transmit then check.bad(1, "device", "option 'transmit': function expected, got nil") end
  return core.device(options.mtu or 0, options.medium or "ip", options.transmit, either(options.checksum, true))
end

-- What the kernel takes for the name of an interface (dev_valid_name); it fills in a number for "%d".
local function interface_name(value)
  if type(value) ~= "string" then return "string expected, got " .. type(value) end
  if #value > 15 or not value:find("^[^%z/:%s]+$") or value == "." or value == ".." then
    return "1 to 15 characters without '/', ':' and blanks expected"
  end
end

local function namespace_name(value)
  if type(value) ~= "string" then return "string expected, got " .. type(value) end
  if #value == 0 or #value > 255 or value:find("[%z/]") or value == "." or value == ".." then
    return "the name of a network namespace expected"
  end
end

local tun_options = {
  name = interface_name,
  mode = check.one_of("tun", "tap"),
  mtu = check.integer(68, 65535),
  netns = namespace_name,
  fd = check.integer(0, 2 ^ 31 - 1),
  offload = boolean,
}

--- A device on the host's kernel: a TUN interface, or a TAP interface, which is an Ethernet. What the stack sends is
-- received there, and what is routed to the interface the stack receives.
-- @tparam[opt] table options `name` (the kernel chooses), `mode` ("tun"), `mtu` (the kernel's; it is told ours if it
-- lets us), `netns` (a network namespace of that name), `fd` (an open TUN or TAP device, or a datagram socket: it is
-- duplicated, the caller closes his own; both do not block from then on), `offload` (false: the kernel sees each
-- segment by itself; true: it may hand over and take many at once, which to the stack are single ones)
-- @treturn device|nil
-- @treturn string "permission denied", "not supported" (no /dev/net/tun, or what `fd` is), "address already in use"
-- (the name is taken), "address not available" (no such namespace), "closed" (`fd` is not open), "full", "no memory"
-- @treturn string what to do about it
---@param options? { name?: string, mode?: "tun"|"tap", mtu?: integer, netns?: string, fd?: integer, offload?: boolean }
---@return netstack.device|nil, string?, string?
function M.tun(options)
  options = check.options(options, tun_options, 1, "tun")
  if options.fd and options.name then check.bad(1, "tun", "options 'fd' and 'name' exclude each other") end
  return core.tun(options.name, options.mode, options.mtu or 0, options.netns, options.fd,
    options.offload or false)
end

-- When a wait of `timeout` seconds ends; false: it may not wait at all.
local function deadline_of(timeout, position, name)
  if timeout == nil then return false end
  if type(timeout) ~= "number" or timeout ~= timeout then
    check.bad(position, name, "number expected, got " .. type(timeout))
  end
  if timeout <= 0 then return false end
  return deadline(timeout)
end

local function await(device, side, limit)
  local ticket, err = device:wait_ticket(side)
  if not ticket then return nil, err end
  return wait(ticket, limit, side == "read" and "a packet of a device" or "room in a device")
end

--- Puts a packet into an unattached device: who is at its other end receives it.
-- @tparam string packet
-- @tparam[opt] number timeout seconds to wait for room; without it nothing is waited for
-- @treturn integer|nil 1
-- @treturn string "full", "closed", "message too long", "address already in use" (a stack is attached)
---@param packet string
---@param timeout? number
---@return integer|nil, string?
function Device:send(packet, timeout)
  local limit = deadline_of(timeout, 2, "send")
  local ok, err = try_send(self, packet)
  while not ok and err == "full" and limit do
    if not await(self, "write", limit) then break end
    ok, err = try_send(self, packet)
  end
  if ok then return 1 end
  return nil, err
end

--- Takes the next packet out of an unattached device: what was sent at its other end.
-- @tparam[opt] number timeout seconds to wait for one; without it nothing is waited for
-- @treturn string|nil packet
-- @treturn string "empty", "closed", "address already in use" (a stack is attached)
---@param timeout? number
---@return string|nil, string?
function Device:receive(timeout)
  local limit = deadline_of(timeout, 1, "receive")
  local packet, err = try_receive(self)
  while not packet and err == "empty" and limit do
    if not await(self, "read", limit) then break end
    packet, err = try_receive(self)
  end
  if packet then return packet end
  return nil, err
end

return M
