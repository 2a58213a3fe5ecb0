---@meta
-- What `netstack.busted` adds to specs, for the Lua language server; never run.

--- An `it` that runs in a lab of its own (with the helper `netstack.busted.global`).
---@param name string
---@param opts? { network?: (fun(net: netstack.lab): any), timeout?: number, seed?: integer, seeds?: integer|integer[], packets?: integer, capture?: string, leaks?: boolean }
---@param fn fun(net: netstack.lab, network: any)
---@overload fun(name: string, fn: fun(net: netstack.lab))
function lab_it(name, opts, fn) end -- luacheck: ignore 111

---@class luassert.internal
local assertions = {}

--- The next bytes of a TCP socket, or the next datagram, are `data`.
---@param socket netstack.tcp|netstack.udp|netstack.raw
---@param data string
---@param timeout? number seconds (60)
function assertions.received(socket, data, timeout) end

--- The connection is in a state, by RFC 9293's name, now.
---@param socket netstack.tcp
---@param state string
function assertions.tcp_state(socket, state) end

--- `fn` returns something true in time, which is returned.
---@generic T
---@param fn fun(): T
---@param timeout? number seconds (60)
---@param interval? number seconds (0.1)
---@return T
function assertions.eventually(fn, timeout, interval) end

--- Nothing enters a link, or the links of a lab, for a while.
---@param where netstack.link|netstack.lab
---@param seconds? number (1)
---@param direction? "a->b"|"b->a"
function assertions.no_packets(where, seconds, direction) end
