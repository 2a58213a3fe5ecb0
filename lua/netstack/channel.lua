--- The command channel: what sockets are made of. Commands are queued here and run, in order, at the stack's next poll.
-- @module netstack.channel

local core = require "netstack.core"
local raw = require "netstack.raw"
local scheduler = require "netstack.scheduler"
local tcp = require "netstack.tcp"
local udp = require "netstack.udp"

local wait = scheduler.wait

---@class netstack.channel
---@field submit fun(self, op: string, args: table): netstack.ticket|nil, string?
---@field post fun(self, op: string, args: table): integer|nil, string?
---@field close fun(self): integer
local Channel = core.classes.channel
local submit = Channel.submit_request

---@class netstack.ticket
---@field done fun(self): boolean
---@field result fun(self): table|nil, string?
---@field cancel fun(self): boolean

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
    if not room:arm() then
      local ok, reason = wait(room, nil, "room in the command channel")
      if not ok then return nil, reason end
    end
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

--- A TCP socket of the channel's stack. @treturn tcp|nil
function Channel:tcp()
  local stack, err = stack_of(self)
  if not stack then return nil, err end
  return tcp.new(stack)
end

--- A UDP socket of the channel's stack. @treturn udp|nil
function Channel:udp()
  local stack, err = stack_of(self)
  if not stack then return nil, err end
  return udp.new(stack)
end

--- A raw socket of the channel's stack. @treturn raw|nil
function Channel:raw(family, protocol)
  local stack, err = stack_of(self)
  if not stack then return nil, err end
  return raw.new(stack, family, protocol)
end

--- Connects, as `stack:connect`. @treturn tcp|nil
function Channel:connect(...)
  local stack, err = stack_of(self)
  if not stack then return nil, err end
  return stack:connect(...)
end

--- Binds and listens, as `stack:bind`. @treturn tcp|nil
function Channel:bind(...)
  local stack, err = stack_of(self)
  if not stack then return nil, err end
  return stack:bind(...)
end

return Channel
