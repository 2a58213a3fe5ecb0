--- Stacks inside an nginx worker, with OpenResty's Lua (ngx_lua and lua-resty-core): sockets that handlers use like
-- nginx's own cosockets, and listeners that light threads accept on.
--
--     local netstack, resty = require "netstack", require "netstack.resty"
--     local stack = netstack.new() -- and what connects it
--     local socket = resty.tcp(stack)
--     socket:settimeout(1000) -- milliseconds
--     local ok, err = socket:connect("10.0.0.2", 80)
--
-- One coroutine in each worker drives all stacks, and sleeps while there is nothing to do. Sockets wait in the phases
-- rewrite, access, content, of timers and of TLS; elsewhere, and where Lua cannot yield, what would have to wait
-- answers nil, "not supported". When the worker exits, listeners and idle connections are closed at once, the stacks
-- after 2 s.
--
-- `join` connects a stack to other workers, the host's kernel, and what it routes to, by way of netstack-tund.
--
-- Clients that are written for cosockets run unchanged: `with` binds what a function does to a stack, once `install`
-- has been called, and `load` gives a copy of a client's module that is bound to one for good.
-- @module netstack.resty

-- Neither has a thread of ngx.run_worker_thread's.
if not (rawget(_G, "ngx") and rawget(_G, "ngx").timer) then
  error("netstack.resty: this is no nginx worker with ngx_lua (OpenResty), where alone it can be used", 0)
end

local check = require "netstack.check"
local clients = require "netstack.resty.clients"
local common = require "netstack.resty.socket"
local listen = require "netstack.resty.listen"
local network = require "netstack.resty.network"
local tcp = require "netstack.resty.tcp"
local udp = require "netstack.resty.udp"
local worker = require "netstack.resty.driver"

local M = {}

local check_port = check.integer(0, 65535)

--- Has the worker drive a stack from now on, whether or not somebody waits for it; in `init_worker_by_lua` it is also
-- kept. Repeating it is harmless. Sockets and listeners have their stack driven while they need it in any case.
-- @tparam stack stack
-- @treturn integer|nil 1
-- @treturn string "not supported" (nginx reads its configuration), "closed" (the stack, or the worker exits)
---@param stack netstack.stack
---@return integer|nil, string?
function M.start(stack)
  common.check_stack(stack, "start")
  return worker.start(stack, true)
end

--- A TCP socket of a stack, with what `ngx.socket.tcp` has.
-- @tparam stack stack
-- @treturn netstack.resty.tcp
---@param stack netstack.stack
---@return netstack.resty.tcp
function M.tcp(stack)
  common.check_stack(stack, "tcp")
  return tcp.new(stack)
end

--- A UDP socket of a stack, with what `ngx.socket.udp` has.
-- @tparam stack stack
-- @treturn netstack.resty.udp
---@param stack netstack.stack
---@return netstack.resty.udp
function M.udp(stack)
  common.check_stack(stack, "udp")
  return udp.new(stack)
end

--- Listens on a stack.
-- @tparam stack stack
-- @tparam string host "*" for all addresses
-- @tparam integer port 0: any
-- @tparam[opt=32] integer backlog
-- @treturn netstack.resty.listener|nil
-- @treturn string "address already in use", "cannot assign requested address", "closed", "not supported"
---@param stack netstack.stack
---@param host string
---@param port integer
---@param backlog? integer
---@return netstack.resty.listener|nil, string?
function M.listen(stack, host, port, backlog)
  common.check_stack(stack, "listen")
  if type(host) ~= "string" then check.bad(2, "listen", "string expected, got " .. type(host)) end
  local why = check_port(port)
  if why then check.bad(3, "listen", why) end
  return listen.new(stack, host, port, backlog)
end

--- Has a stack join a network that netstack-tund, a program beside nginx, has with the host's kernel: attaches an
-- interface, asks for addresses, and sets them and the gateway when they are granted. When the program is away, or
-- another client has an address, that is logged once, and it is asked for until it is granted. What joins in
-- `init_worker_by_lua*` stays until the stack or the network is closed, or the worker exits; in a request or a timer,
-- until that ends.
-- @tparam stack stack
-- @tparam table options `path` of the program's socket; `addresses` that the stack is to have, and has from the
-- beginning (without: any free ones out of the program's pools); `name` of the interface; `mtu` (that of the stack),
-- which has to be the program's
-- @treturn netstack.resty.network|nil
-- @treturn string "closed" (the stack, or the worker exits), "not supported" (nginx reads its configuration), and as
-- `stack:attach`
---@param stack netstack.stack
---@param options { path: string, addresses?: string[], name?: string, mtu?: integer }
---@return netstack.resty.network|nil, string?
function M.join(stack, options)
  common.check_stack(stack, "join")
  return network.join(stack, options)
end

--- Puts functions in the place of `ngx.socket.tcp`, `udp`, `stream` and `connect` that make sockets of a stack for who
-- is bound to one by `with`, nginx's own for everybody else; and in the place of `ngx.thread.spawn`, `coroutine.create`
-- and `coroutine.wrap` ones that have the binding inherited. To be called in `init_by_lua*` (or `init_worker_by_lua*`),
-- before clients are loaded, for those keep what they find; raises in other phases. Repeating it is harmless.
-- @treturn integer 1
---@return integer
function M.install()
  return clients.install()
end

--- Calls a function, bound to a stack: sockets that it, what it calls, and light threads and coroutines that it starts
-- make by `ngx.socket` are the stack's. What it starts stays bound when it has returned; timers are not. Within `with`
-- the inner one counts. Raises when nothing was installed.
-- @tparam stack stack
-- @tparam function fn
-- @param ... its arguments
-- @return what fn returns
---@param stack netstack.stack
---@param fn function
---@param ... any
---@return any ...
function M.with(stack, fn, ...)
  common.check_stack(stack, "with")
  if type(fn) ~= "function" then check.bad(2, "with", "function expected, got " .. type(fn)) end
  return clients.with(stack, fn, ...)
end

--- Loads a copy of a client's module, whose sockets are always a stack's: whether or not it was loaded before, and
-- without `install`. Modules that it requires are copied, too, when they use sockets. A stack has one copy of each.
-- @tparam stack stack
-- @tparam string name as "resty.redis"
-- @return what the module returns; raises when it cannot be loaded
---@param stack netstack.stack
---@param name string
---@return any
function M.load(stack, name)
  common.check_stack(stack, "load")
  if type(name) ~= "string" then check.bad(2, "load", "string expected, got " .. type(name)) end
  return clients.load(stack, name)
end

return M
