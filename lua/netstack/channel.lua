--- The command channel: what sockets are made of. Commands are queued here and run, in order, at the stack's next poll.
-- @module netstack.channel

local core = require "netstack.core"
local raw = require "netstack.raw"
local scheduler = require "netstack.scheduler"
local tcp = require "netstack.tcp"
local udp = require "netstack.udp"

local wait = scheduler.wait

---@class netstack.channel
local Channel = core.classes.channel
local submit = Channel.submit_request

--- Runs a command and waits for its answer, and for room in the channel before that.
-- @tparam string op
-- @tparam table args
-- @treturn table|nil response
-- @treturn string error
---@param op string
---@param args table
---@return table|nil, string?
function Channel:request(op, args)
  local ticket, err = submit(self, op, args)
  while not ticket and err == "full" do
    local room, why = self:room_ticket()
    if not room then return nil, why end
    local ok, reason = wait(room, nil, "room in the command channel")
    if ok then ok, reason = room:result() end
    if not ok then return nil, reason end
    ticket, err = submit(self, op, args)
  end
  if not ticket then return nil, err end
  while not ticket:done() do
    local ok, why = wait(ticket, nil, op)
    if not ok then
      ticket:cancel()
      return nil, why
    end
  end
  return ticket:result()
end

-- The stack, or nil and "closed".
local stack_of = Channel.stack

--- A TCP socket of the channel's stack.
---@return netstack.tcp|nil, string?
function Channel:tcp()
  local stack, err = stack_of(self)
  if not stack then return nil, err end
  return tcp.new(stack)
end

--- A UDP socket of the channel's stack.
---@return netstack.udp|nil, string?
function Channel:udp()
  local stack, err = stack_of(self)
  if not stack then return nil, err end
  return udp.new(stack)
end

--- A raw socket of the channel's stack.
---@param family "ipv4"|"ipv6"
---@param protocol integer
---@return netstack.raw|nil, string?
function Channel:raw(family, protocol)
  local stack, err = stack_of(self)
  if not stack then return nil, err end
  return raw.new(stack, family, protocol)
end

--- Connects, as `stack:connect`.
---@param ... any its arguments
---@return netstack.tcp|nil, string?
function Channel:connect(...)
  local stack, err = stack_of(self)
  if not stack then return nil, err end
  return stack:connect(...)
end

--- Binds and listens, as `stack:bind`.
---@param ... any its arguments
---@return netstack.tcp|nil, string?
function Channel:bind(...)
  local stack, err = stack_of(self)
  if not stack then return nil, err end
  return stack:bind(...)
end

return Channel
