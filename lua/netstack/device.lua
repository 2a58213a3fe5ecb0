--- Devices: pipes between two stacks, and devices in Lua. Their methods that need not wait are the core's.
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
  return wait(ticket, limit, side == "read" and "a packet of a pipe" or "room in a pipe")
end

--- Puts a packet into an unattached end: the stack at the other end receives it.
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

--- Takes the next packet out of an unattached end: what the stack at the other end sent.
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
