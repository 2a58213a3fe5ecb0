--- What is done for each packet and each wait: functions of the core, which on LuaJIT are called through the FFI where
-- they do nothing unusual. Code that is compiled ends at each call of a Lua C function, and goes on past these.
-- @module netstack.direct

local core = require "netstack.core"

local methods = core.classes.tcp

local M = {
  --- As the core's functions of the same names.
  try_send = methods.try_send,
  try_receive = methods.try_receive,
  try_receive_line = methods.try_receive_line,
  await = core.await,
  watch = core.watch,
  ready = core.ready,
  step = core.step,
  bell = core.bell,
}

--- Asks what has come for devices with descriptors.
function M.look() core.wait_io(0) end

if not rawget(_G, "jit") then return M end

local declare = require "netstack.declare"
local ffi = require "ffi"

local cast, text = ffi.cast, ffi.string
local huge, type = math.huge, type
local try_send, try_receive, try_receive_line = M.try_send, M.try_receive, M.try_receive_line
local await, watch, step = M.await, M.watch, M.step

-- As in src/lua_direct.c.
declare("netstack_direct", [[
typedef struct netstack_stepped {
  unsigned id;
  bool more, others, calls;
  double next;
} netstack_stepped;
typedef struct netstack_direct {
  int (*send)(const void *tag, void *handle, const char *data, size_t length);
  int (*receive)(const void *tag, void *handle, char *to, size_t size, double most, bool line);
  int (*await)(const void *tag, void *ticket, unsigned number);
  int (*watch)(const void *tag, void *ticket, unsigned number);
  unsigned (*ready)(void *hub);
  void (*step)(void *hub, double now, netstack_stepped *stepped);
  double (*bell)(void *hub, double base, double at);
  void (*look)(void *hub);
} netstack_direct;
]])
local INDIRECT, ANSWERED = -1, -2

local functions, tcp, ticket_tag, hub = core.direct()
functions = cast("const netstack_direct *", functions)
tcp, ticket_tag, hub = cast("const void *", tcp), cast("const void *", ticket_tag), cast("void *", hub)
local direct_send, direct_receive = functions.send, functions.receive
local direct_await, direct_watch, direct_ready = functions.await, functions.watch, functions.ready
local direct_step, direct_bell, direct_look = functions.step, functions.bell, functions.look

-- More than this is copied once only, and by the other functions.
local SIZE = 8192
local buffer = ffi.new("char[?]", SIZE)

function M.try_send(handle, data, i, j)
  if i == nil and j == nil and type(data) == "string" and type(handle) == "userdata" then
    local sent = direct_send(tcp, handle, data, #data)
    if sent == #data then return sent end
    if sent ~= INDIRECT then return nil, "wouldblock", sent end
  end
  return try_send(handle, data, i, j)
end

function M.try_receive(handle, max)
  if type(handle) == "userdata" and (max == nil or type(max) == "number" and max >= 1) then
    local length = direct_receive(tcp, handle, buffer, SIZE, max or huge, false)
    if length > 0 then return text(buffer, length) end
    if length == 0 then return nil, "wouldblock" end
  end
  return try_receive(handle, max)
end

function M.try_receive_line(handle)
  if type(handle) == "userdata" then
    local length = direct_receive(tcp, handle, buffer, SIZE, huge, true)
    if length > 0 then return text(buffer, length), true end
    if length == 0 then return nil, "wouldblock" end
  end
  return try_receive_line(handle)
end

-- Whether a thread can yield, only Lua's API tells.
function M.await(ticket, number, thread)
  if thread == nil and type(ticket) == "userdata" then
    local before = direct_await(ticket_tag, ticket, number)
    if before == 0 then return nil end
    if before ~= INDIRECT then return before == ANSWERED or before end
  end
  return await(ticket, number, thread)
end

function M.watch(ticket, number)
  if type(ticket) == "userdata" then
    local before = direct_watch(ticket_tag, ticket, number)
    if before >= 0 then return before end
    if before == ANSWERED then return nil end
  end
  return watch(ticket, number)
end

function M.ready()
  local id = direct_ready(hub)
  if id ~= 0 then return id end
end

local stepped = ffi.new("netstack_stepped")

function M.step(now, protected)
  direct_step(hub, now, stepped)
  if stepped.calls then return step(nil, protected) end
  local id, next = stepped.id, stepped.next
  return id ~= 0 and id or nil, stepped.more, next >= 0 and next or nil, stepped.others
end

function M.bell(base, time)
  local at = direct_bell(hub, base, time or huge)
  if at >= 0 then return at end
end

function M.look() direct_look(hub) end

return M
