--- ICMP echo (RFC 792, RFC 4443 §4) over a raw socket.
-- @module netstack.ping

local check = require "netstack.check"
local core = require "netstack.core"
local names = require "netstack.names"
local raw = require "netstack.raw"
local scheduler = require "netstack.scheduler"

local char, floor = string.char, math.floor

local M = {}

local function u16(value)
  return char(floor(value / 256) % 256, value % 256)
end

-- The Internet checksum (RFC 1071).
local function checksum(data)
  local sum = 0
  for i = 1, #data - 1, 2 do
    local a, b = data:byte(i, i + 1)
    sum = sum + a * 256 + b
  end
  if #data % 2 == 1 then sum = sum + data:byte(-1) * 256 end
  while sum > 0xffff do sum = sum % 0x10000 + floor(sum / 0x10000) end
  return 0xffff - sum
end

local function with_checksum(message, pseudo_header)
  return message:sub(1, 2) .. u16(checksum((pseudo_header or "") .. message)) .. message:sub(5)
end

-- What differs between the families. The errors: unreachable, too many hops.
local families = {
  [4] = {
    name = "ipv4", protocol = 1, request = 8, reply = 0, errors = { [3] = true, [11] = true },
    packet = function(source, destination, ttl, message)
      return char(0x45, 0) .. u16(20 + #message) .. "\0\0\0\0" .. char(ttl, 1) .. "\0\0" .. source .. destination ..
        with_checksum(message)
    end,
    -- The ICMP message of a packet, and the echo request that an error quotes.
    message = function(packet) return packet:sub(packet:byte(1) % 16 * 4 + 1) end,
  },
  [16] = {
    name = "ipv6", protocol = 58, request = 128, reply = 129, errors = { [1] = true, [3] = true },
    packet = function(source, destination, ttl, message)
      local pseudo_header = source .. destination .. "\0\0" .. u16(#message) .. "\0\0\0\58"
      return "\96\0\0\0" .. u16(#message) .. char(58, ttl) .. source .. destination ..
        with_checksum(message, pseudo_header)
    end,
    message = function(packet) return packet:sub(41) end,
  },
}

local rules = {
  timeout = function(value)
    if type(value) ~= "number" or value ~= value or value < 0 then return "seconds, 0 or more, expected" end
  end,
  size = check.integer(0, 65000),
  ttl = check.integer(1, 255),
}

-- Waits for the answer to the request with this identifier.
local function await(socket, family, identifier, deadline)
  while true do
    local left = deadline - scheduler.deadline(0)
    if left < 0 then return nil, "timeout" end
    socket:settimeout(left)
    local packet, err = socket:receive()
    if not packet then return nil, err end
    local message = family.message(packet)
    local kind = message:byte(1)
    if kind == family.reply and message:sub(5, 8) == identifier then return 1 end
    if family.errors[kind] then
      local quoted = family.message(message:sub(9))
      if quoted:byte(1) == family.request and quoted:sub(5, 8) == identifier then return nil, "host unreachable" end
    end
  end
end

--- Sends an echo request and waits for the answer.
-- @tparam stack stack
-- @tparam string host address or name
-- @tparam[opt] table options `timeout` (1 s), `size` (56 bytes of data), `ttl` (64)
-- @treturn number|nil round-trip time in seconds of the clock of the run
-- @treturn string "timeout", "host unreachable", "no route", "host not found"
function M.ping(stack, host, options)
  options = check.options(options, rules, 2, "ping")
  if type(host) ~= "string" then check.bad(1, "ping", "string expected, got " .. type(host)) end
  local address, unknown = names.resolve(stack, host)
  if not address then return nil, unknown end
  if address == "*" then return nil, "invalid address" end
  local source, err = core.source_address(stack, address)
  if not source then return nil, err end
  local destination = core.parse_address(address:match("^[^%%]*"))
  local family = families[#destination]
  local socket, failure = raw.new(stack, family.name, family.protocol)
  if not socket then return nil, failure end
  local random = core.random(stack)
  local identifier = u16(floor(random / 0x10000)) .. u16(random % 0x10000)
  local message = char(family.request, 0, 0, 0) .. identifier .. ("\170"):rep(options.size or 56)
  local start = scheduler.deadline(0)
  local deadline = start + (options.timeout or 1)
  socket:settimeout(options.timeout or 1)
  local sent
  sent, err = socket:send(family.packet(core.parse_address(source:match("^[^%%]*")), destination, options.ttl or 64,
    message))
  if sent then sent, err = await(socket, family, identifier, deadline) end
  socket:close()
  if not sent then return nil, err end
  return scheduler.deadline(0) - start
end

return M
