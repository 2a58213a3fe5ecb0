---@meta netstack.core
-- Made by `make docs` from the comments in src/lua_*.c: change those.

---@alias netstack.core.handle netstack.core.tcp|netstack.core.udp|netstack.core.raw

---The methods of each class; the Lua layer adds its own to them.
---@class netstack.core.classes
---@field stack netstack.stack
---@field interface netstack.interface
---@field device netstack.device
---@field channel netstack.channel
---@field ticket netstack.ticket
---@field tcp netstack.core.tcp
---@field udp netstack.core.udp
---@field raw netstack.core.raw
---@field link netstack.link
---@field switch netstack.switch

---What the Lua layer is built on. No function waits. Of a closed object all but close answer nil, "closed".
---@class netstack.core
---@field classes netstack.core.classes
---@field errors table<string, { meaning: string, remedy: string }> each error string
local core = {}

---Makes a command channel.
---@param stack netstack.stack
---@return netstack.channel # which does not keep the stack alive
function core.channel(stack) end

---A ticket that is answered as soon as one of several is, a cancelled one too: whoever can wait for one ticket can so wait for the first of many. A ticket counts in the last group that it was put into.
---@param tickets ticket[]
---@return netstack.ticket
function core.first_of(tickets) end

---The next watched ticket that was answered.
---@return integer|nil # the number that `watch` was given
function core.ready() end

---Drives, flushes, and tells who is to be woken first: what a scheduler does in each round, in one call.
---@param now ?number seconds since the run began; nil: they have been driven already
---@param protected? boolean whether what a function of the user's raises is a result
---@return integer|nil # as from `ready`
---@return boolean # whether there is more to do before time goes on
---@return number|nil # run time of the next stack timer, when nobody is to be woken
---@return boolean # whether `ready` has more to tell
---@return boolean|nil # true: a function raised
function core.step(now, protected) end

---Begins to wait for a ticket; one that stands for a wait, not for a command, is armed anew.
---@param ticket netstack.ticket
---@param number integer to be reported by `ready`
---@param thread? thread the coroutine that would wait: false when the caller runs in another, or cannot yield
---@return nil|boolean|integer # nil: armed; true: answered already; false: cannot wait here; a number: armed, and that one, which was watching, is not told any more
function core.await(ticket, number, thread) end

---Asks for a number to be reported by `ready` once the ticket is answered; 0 takes that back.
---@param ticket netstack.ticket
---@param number integer
---@return integer|nil # the number that was watching, 0: none; nil when the ticket is answered already: then a report that is under way still comes, since others may wait for it under the same number
function core.watch(ticket, number) end

---A new run begins: its time starts at 0; every stack's clock goes on from where it stands.
function core.run_begin() end

---The run is over; stacks' clocks stand still until the next one.
function core.run_end() end

---Closed connections whose data or FIN is not acknowledged yet.
---@return integer
function core.unsettled() end

---Whether all that will come by itself is the end of connections in TIME-WAIT.
---@return boolean
function core.only_time_wait() end

---Whether an open stack has a device with a file descriptor, or somebody waits for one.
---@return boolean
---@return boolean # whether anything can still come from such a device: not from interfaces that were deleted
function core.has_fd() end

---The clock on the wall.
---@return number # seconds since 1970
function core.wall_clock() end

---The monotonic clock.
---@return number # seconds
function core.monotonic() end

---Waits in real time until a device has something, a signal comes or the time has passed; a second at most.
---@param seconds number|nil nil: as long as it may
function core.wait_io(seconds) end

---Tells the core which files are the library's own, so that errors name the user's line.
---@param prefix string of the chunk names of the Lua layer
function core.library(prefix) end

---Where the library was called from.
---@return string # "file:line: "
function core.where() end

---Whether the guard looks at packets; not in the build that shows what it is for (`make test GUARD=off`).
---@return boolean
function core.guarded() end

---Makes the bell: one descriptor for a loop that is not ours, readable when the stacks want to be driven.
---@return integer|nil # the descriptor, always the same in a process
---@return string|nil # "full": no descriptor is left, "no memory"
function core.bell_open() end

---The stacks have been driven; sets the bell.
---@param base number time of the monotonic clock when the run began
---@param time? number seconds since then at which it rings in any case
---@return number|nil # seconds since then at which it rings; nil: when something gives the stacks work
function core.bell(base, time) end

---Has a function called in place of the bell's descriptor, by whatever gives the stacks something to do before the time that `bell` told. It must not wait.
---@param fn ?function nil: no longer
function core.bell_call(fn) end

---The C function that is to be called with a notice of netstack.resty.owner's when the owner ends.
---@return lightuserdata
function core.notice() end

---Whether the caller can yield.
---@return boolean|nil # nil: Lua cannot tell (before 5.3, but LuaJIT can)
---@return thread|nil # the caller
function core.is_yieldable() end

---Whether a standard stream is a terminal.
---@param descriptor integer
---@return boolean
function core.is_terminal(descriptor) end

---The table of what an object of ours keeps alive. Its names `devices link a b trace on_wake stack` are the core's.
---@return table
function core.kept() end

---Makes a UDP handle, bound to nothing.
---@param stack netstack.stack
---@return netstack.core.udp|nil
---@return string|nil # "closed", "no memory"
function core.udp(stack) end

---Makes a raw handle.
---@param stack netstack.stack
---@param family string "ipv4" or "ipv6"
---@param protocol integer 0 to 255
---@return netstack.core.raw|nil
---@return string|nil # "closed", "no memory"
function core.raw(stack, family, protocol) end

---Two connected pipe ends.
---@param mtu integer 0: that of the first stack it is attached to
---@param medium string
---@param capacity integer packets, 0: unbounded
---@param checksum boolean
---@return netstack.device|nil
---@return netstack.device|string|nil # the other end, or "no memory"
function core.pipe(mtu, medium, capacity, checksum) end

---A device whose transmit function is called with each packet that the attached stack sends.
---@param mtu integer 0: that of the first stack it is attached to
---@param medium string
---@param transmit function
---@param checksum boolean
---@return netstack.device|nil
---@return string|nil # "no memory"
function core.device(mtu, medium, transmit, checksum) end

---A device on the host's kernel.
---@param name string|nil nil: the kernel chooses
---@param mode string|nil "tun", "tap"; nil: what `fd` is, or "tun"
---@param mtu integer 0: that of the kernel
---@param netns string|nil the name of a network namespace
---@param fd integer|nil one that is open already, which is duplicated
---@param offload boolean whether the kernel may hand over, and get, segments many at a time; of `fd`, what it is
---@return netstack.device|nil
---@return string|nil # "permission denied", "not supported", "address already in use", "address not available" (the namespace), "closed" (fd), "full" (descriptors), "no memory"
---@return string|nil # what to do about it
function core.tun(name, mode, mtu, netns, fd, offload) end

---What LuaJIT calls through its FFI.
---@return lightuserdata # the functions, as netstack.direct declares them
---@return lightuserdata # what tells that a userdata is a TCP handle of this Lua state
---@return lightuserdata # or a ticket
---@return lightuserdata # the hub of this Lua state
function core.direct() end

---Joins a device to a stack.
---@param stack netstack.stack
---@param device netstack.device
---@param name string|nil nil: the first free of "eth0", "eth1", ...
---@param mac? string six bytes; only on Ethernet
---@return netstack.interface|nil
---@return string|nil # "address already in use" (the device is attached, or the name taken), "full", "closed", "not supported" (a mac, and the device is no Ethernet)
function core.attach(stack, device, name, mac) end

---Adds a route, or replaces that of an equal prefix.
---@param stack netstack.stack
---@param prefix string
---@param via string|netstack.interface a gateway's address, or an interface
---@return integer|nil # 1
---@return string|nil # "invalid address", "no route", "wrong ip version"
function core.add_route(stack, prefix, via) end

---Takes a route away.
---@param stack netstack.stack
---@param prefix string
---@return integer|nil # 1
---@return string|nil # "no route": there was none
function core.remove_route(stack, prefix) end

---The routes of a stack.
---@param stack netstack.stack
---@return table[] # {prefix, interface, gateway}, the longest prefix first
function core.routes(stack) end

---The DNS servers that DHCP and routers have named, of the first interface that knows any.
---@param stack netstack.stack
---@return string[]|nil # nil: none
---@return string|nil # "empty"
function core.learned_dns(stack) end

---A set of addresses.
---@param addresses string[]
---@return filter|nil
---@return string|nil # "no memory" or "invalid address"
function core.filter(addresses) end

---A link and its two ends. Each keeps the others.
---@param mtu integer 0: that of the first stack it is attached to
---@param medium string
---@param checksum boolean
---@param seed integer
---@param since number|nil from which its times are told, by `lab_clock`; nil: now
---@return netstack.link|nil
---@return netstack.device|string|nil # or "no memory"
---@return netstack.device|nil
function core.link(mtu, medium, checksum, seed, since) end

---The clock by which links count: it goes on from run to run.
---@return number # seconds
function core.lab_clock() end

---What has been done so far, in all runs.
---@return integer # polls of stacks, and turns of switches
---@return integer # packets that entered a link
function core.work() end

---Makes a stack.
---@param config table checked by the caller
---@return netstack.stack|nil
---@return string|nil # "no memory"
function core.stack(config) end

---Has the stack forget all but its configuration, without a word to anybody. Until it is restarted, sockets cannot be made and what arrives is dropped.
---@param stack netstack.stack
---@return integer|nil # 1; harmless twice
---@return string|nil # "closed"
function core.crash(stack) end

---Whether the stack is open.
---@param stack netstack.stack
---@return boolean
function core.is_open(stack) end

---Random bytes of the stack's generator.
---@param stack netstack.stack
---@return integer # 0 to 2^32-1
function core.random(stack) end

---The first interface that is not the loopback.
---@param stack netstack.stack
---@return netstack.interface|nil
---@return string|nil # "no route" (there is none), "closed"
function core.first_interface(stack) end

---The address that packets to a host come from.
---@param stack netstack.stack
---@param host string
---@return string|nil
---@return string|nil # "no route", "invalid address"
function core.source_address(stack, host) end

---Reads an address.
---@param text string
---@return string|nil # the network-order bytes (4 or 16), "" for "*"
---@return string|nil # "invalid address"
function core.parse_address(text) end

---Writes an address.
---@param bytes string in network order, 4 or 16
---@return string # its text
function core.format_address(bytes) end

---A stack's own time.
---@param stack netstack.stack
---@return number # seconds
function core.now(stack) end

---A switch without ports.
---@param name string|nil nil: "switchN"
---@param ageing number seconds
---@param table_size integer stations
---@return netstack.switch|nil
---@return string|nil # "no memory"
function core.switch(name, ageing, table_size) end

---Makes a TCP handle, neither bound nor connected.
---@param stack netstack.stack
---@return netstack.core.tcp|nil
---@return string|nil # "closed", "no memory"
function core.tcp(stack) end

---A ticket to wait for: answered when the socket can be read or accepted from ("read"), or sent to ("write"). It is armed anew (`ticket:arm`) for each wait.
---@param handle netstack.core.handle of any protocol
---@param side string
---@return netstack.ticket|nil
---@return string|nil # "closed", "no memory"
function core.wait_ticket(handle, side) end

---@class netstack.stack
local stack = {}

---Ends the stack: RSTs what is open if the device has room, frees everything; devices are detached, not closed.
---@return integer # 1; harmless twice
function stack:close() end

---Has a crashed stack go on, as a new one with the same configuration.
---@return integer|nil # 1; harmless when it runs
---@return string|nil # "closed"
function stack:restart() end

---Whether the stack has crashed and was not restarted yet.
---@return boolean|nil
---@return string|nil # "closed"
function stack:crashed() end

---All work that can be done at `now` without waiting.
---@param now number seconds of the stack's clock, which never goes back
---@return boolean # whether anything was done
---@return number|nil # seconds until it must be polled again
function stack:poll(now) end

---When the stack wants to be polled.
---@param now number
---@return number|nil # seconds until it must be polled; nil: not before something comes
function stack:poll_delay(now) end

---When the stack wants to be polled, for cqueues.
---@return number|nil # seconds until it must be polled, by its own clock (cqueues)
function stack:timeout() end

---What to wait for, for cqueues.
---@return integer|nil # the device's file descriptor, or one that stands for those of several and stays the stack's; nil: it has none, or none from which anything can come
---@return string|nil # "closed"; "full": no descriptor is left to stand for several
function stack:pollfd() end

---What to wait for it to become, for cqueues.
---@return string|nil # what to wait for on `pollfd`: "r", or "rw" while the kernel has no room for a device that stands for itself; nil: nothing
function stack:events() end

---Runs queued commands without touching the device.
---@param max? integer
---@return integer # how many ran
function stack:process_commands(max) end

---Sets what is called when an idle stack needs a poll.
---@param fn function|nil fn(stack)
---@return integer|nil # 1
function stack:on_wake(fn) end

---Sets what is called, after each poll, with each event.
---@param fn function|nil fn(event): {time, stack, type = "command" | "in" | "out" | "drop" | "state", ...}; a command has `command`, a packet `interface` and `packet`, a drop `cause` too (and no `interface` when the packet had waited), a state `state` and the connection's addresses
---@return integer|nil # 1
function stack:trace(fn) end

---The name that `tostring` and traces show.
---@return string
function stack:name() end

---Counters by protocol.
---@return table # counters by protocol: ip, ip_frag, icmp, ip6, ip6_frag, icmp6, udp, tcp, raw, memory; reassembly: {datagrams, bytes} that wait for the rest of their fragments, and datagrams given up for {timeouts, contradictions, limited}; neighbours, on Ethernet: {entries, incomplete} of these, packets {waiting} for one that has not answered yet, and {failed, evicted, dropped, conflicts, duplicates} so far; nat, where an interface masquerades: {mappings, sessions}, and packets dropped: {limited} to keep to the bounds, {filtered} that nobody inside asked for, {unmatched} that would have left and belong to nothing, or cannot be translated; groups: {entries}, what was sent of them {reports, leaves}, {queries} that were heeded, {ignored} that break the rules, {unwanted} packets to groups that nobody joined; icmp_limited: errors not sent because there were too many; of a stack that an assertion of lwIP ended: {closed = true, cause}
function stack:stats() end

---The sockets.
---@return table[] # {protocol, state, addresses = {local_host, local_port, remote_host, remote_port}, queues = {receive, send, ...}} of each open or closing socket
function stack:sockets() end

---@class netstack.interface
local interface = {}

---Replaces all addresses but those that DHCP and SLAAC gave it.
---@param list string[] prefixes, "10.0.0.1/24"; a bare address means /32 or /128
---@return integer|nil # 1
---@return string|nil # "invalid address", "full" (more than 8 of a family), "not supported" (IPv6 needs an mtu of 1280)
function interface:set_addresses(list) end

---Its addresses, each with the length of its prefix.
---@return string[] # prefixes
function interface:addresses() end

---Lets packets pass.
---@return integer|nil # 1
function interface:up() end

---Lets no packet pass, without detaching the device.
---@return integer|nil # 1
function interface:down() end

---Whether it is up.
---@return boolean
function interface:is_up() end

---Its station's address on an Ethernet.
---@return string|nil # "02:00:00:00:00:01"
---@return string|nil # "not supported": its medium has none
function interface:mac() end

---The IPv6 address that it made for its link, on an Ethernet from its mac; not one of addresses().
---@return string|nil # "fe80::ff:fe00:1%eth0"
---@return string|nil # "not supported": on another medium without SLAAC, below an mtu of 1280, or when another station has it
function interface:link_local() end

---Counters of the device and of what the interface dropped.
---@return table # rx_packets, rx_bytes, tx_packets, tx_bytes, rx_dropped, tx_dropped, waiting, and guarded: what the guard dropped of rx_dropped, by cause
function interface:stats() end

---Takes the interface off its stack; the device stays open.
---@return integer # 1
function interface:detach() end

---Sets the default gateway of the address's family on the interface; nil takes both away. Of several interfaces with gateways the one that got its first is used, unless it is down.
---@param address string|nil
---@return integer|nil # 1
---@return string|nil # "invalid address", "no route" (the address is on no prefix of the interface), "closed"
function interface:set_gateway(address) end

---Starts to ask for an address by DHCP.
---@return integer|nil # 1
---@return string|nil # "not supported": its medium is no Ethernet
function interface:start_dhcp() end

---What DHCP has got.
---@return table|nil # {state, address, server, gateway, dns, expires, ignored}: RFC 2131's state in capitals; the rest once there is a lease, `expires` in seconds from now, none for ever; `ignored`, messages that made no sense
---@return string|nil # "not supported": no DHCP here
function interface:lease() end

---Starts to ask for routers, and to heed what they advertise. On another medium than an Ethernet it makes a link-local address first.
---@return integer|nil # 1
---@return string|nil # "not supported": IPv6 needs an mtu of 1280
function interface:start_slaac() end

---What SLAAC has got.
---@return table|nil # {state, addresses, gateway, routers, dns, mtu, ignored, limited}: `state` is "SOLICITING" until there is an address, then "BOUND"; addresses are {address, preferred, expires}, routers {address, expires, reachable}, times in seconds from now, none for ever; `gateway` is the router that is used; `mtu` what one said; `ignored`, advertisements and options that made no sense; `limited`, {routers, prefixes, dns} for which there was no room
---@return string|nil # "not supported": no SLAAC here
function interface:slaac() end

---Gives the IPv4 packets of others that leave through the interface its own first IPv4 address, and ports of that; or no longer does, and forgets all mappings.
---@param on boolean
---@return integer|nil # 1
---@return string|nil # "not supported": the stack is no router (`forwarding`)
function interface:masquerade(on) end

---Lets everybody outside reach a host inside at a port of the interface's address.
---@param protocol string "tcp" or "udp"
---@param port integer outside
---@param host string inside
---@param host_port? integer the same port
---@return integer|nil # 1
---@return string|nil # "address already in use" (the port, by a mapping or a socket of the stack, or the host's port by another mapping), "address not available" (the interface has no IPv4 address), "invalid address", "wrong ip version", "full", "not supported" (the interface does not masquerade)
function interface:map(protocol, port, host, host_port) end

---Takes a mapping of the user's away.
---@param protocol string "tcp" or "udp"
---@param port integer outside
---@return integer|nil # 1
---@return string|nil # "empty": there is none
function interface:unmap(protocol, port) end

---The mappings of an interface that masquerades, the oldest first.
---@return table[]|nil # {protocol, address, port, host, host_port, fixed, sessions}: protocol "tcp", "udp" or "icmp", whose ports are identifiers; `fixed` by `map`, then without sessions, and without an address while the interface has none or a socket of the stack has that port
function interface:mappings() end

---@class netstack.device
local device = {}

---Closes the device; a stack or a switch attached to it goes on without.
---@return integer # 1; harmless twice
function device:close() end

---The largest IP packet it carries; a frame's header of 14 bytes comes on top.
---@return integer # bytes
function device:mtu() end

---What its packets are.
---@return string # "ip" or "ethernet"
function device:medium() end

---Counters.
---@return table # rx_packets, rx_bytes, tx_packets, tx_bytes, rx_dropped, tx_dropped, as the attached side sees them; of a device with a file descriptor also syscalls
function device:stats() end

---The file descriptor of a device on the host's kernel; it stays the device's.
---@return integer|nil
---@return string|nil # "not supported": a device of another kind, "closed"
function device:fd() end

---What the kernel called the interface at its other end.
---@return string|nil
---@return string|nil # "not supported": a device of another kind, or on a socket, "closed"
function device:name() end

---Puts a packet into an unattached device, without waiting.
---@param packet string
---@return integer|nil # 1
---@return string|nil # "full", "closed", "message too long", "address already in use" while it is attached, "not supported" by a device in Lua
function device:try_send(packet) end

---Takes a packet out of an unattached device, without waiting.
---@return string|nil # packet
---@return string|nil # "empty", "closed", "address already in use" while it is attached
function device:try_receive() end

---Whether a packet could be received.
---@return boolean
function device:rx_ready() end

---Whether a packet could be sent.
---@return boolean
function device:tx_ready() end

---Gives a packet to the stack or switch that a Lua device is attached to.
---@param packet string
---@return integer|nil # 1
---@return string|nil # "closed", "message too long"
function device:input(packet) end

---A ticket that is answered when an unattached end has a packet ("read") or room ("write").
---@param side string
---@return netstack.ticket|nil
---@return string|nil # "closed", "no memory"
function device:wait_ticket(side) end

---@class netstack.channel
local channel = {}

---Queues a command.
---@param op string
---@param args table
---@return netstack.ticket|nil
---@return string|nil # "full", "closed", "invalid address"
function channel:submit(op, args) end

---As `submit`, for channel:request, in whose name its errors are.
---@param op string
---@param args table
---@return netstack.ticket|nil
---@return string|nil # "full", "closed", "invalid address"
function channel:submit_request(op, args) end

---Queues a command whose answer nobody wants; a close always has room.
---@param op string
---@param args table
---@return integer|nil # 1
---@return string|nil # "full", "closed", "invalid address"
function channel:post(op, args) end

---A ticket that is answered when the channel has room. It is armed anew (`ticket:arm`) for each wait.
---@return netstack.ticket|nil
---@return string|nil # "closed", "no memory"
function channel:room_ticket() end

---The channel's stack.
---@return netstack.stack|nil # nil once it was collected
---@return string|nil # "closed"
function channel:stack() end

---Closes the channel, not its stack; what was submitted still runs.
---@return integer # 1; harmless twice
function channel:close() end

---@class netstack.ticket
local ticket = {}

---Whether the command was answered.
---@return boolean
function ticket:done() end

---Takes the command back, or stops waiting; nothing that arrived is lost.
---@return boolean # false: it was done
function ticket:cancel() end

---Waits again with a ticket that is no command's: done at once when what it waits for is there.
---@return boolean|nil # whether it is done; nil when somebody is waiting with it already
function ticket:arm() end

---The answer of the command.
---@return table|nil # the response, the same table each time
---@return string|nil # the error; "wouldblock" while it is pending
function ticket:result() end

---@class netstack.core.tcp
local tcp = {}

---Binds to a local address.
---@param host string "*", "0.0.0.0", "::" or one of the stack's addresses
---@param port integer 0: any
---@return integer|nil # 1
---@return string|nil # "address already in use", "address not available", "invalid address"
function tcp:bind(host, port) end

---Makes the socket a listener, or changes its backlog.
---@param backlog? integer
---@return integer|nil # 1
---@return string|nil # "closed", ...
function tcp:listen(backlog) end

---Starts to connect.
---@param host string an address
---@param port integer
---@return integer|nil # 1
---@return string|nil # "wouldblock" when it is under way, "no route", "already connected", ...
function tcp:try_connect(host, port) end

---The outcome of connecting so far.
---@return integer|nil # 1
---@return string|nil # "wouldblock", "connection refused", "timeout", ...
function tcp:try_connected() end

---Takes the oldest connection that waits to be accepted.
---@return netstack.core.tcp|nil
---@return string|nil # "wouldblock", "closed"
function tcp:try_accept() end

---Queues as much as there is room for.
---@param data string
---@param i? integer first byte to send
---@param j? integer last byte to send
---@return integer|nil # index of the last byte, when all were taken
---@return string|nil # "wouldblock" or an error
---@return integer|nil # index of the last byte that was taken
function tcp:try_send(data, i, j) end

---Takes what was received: up to `max` bytes; without `max`, as much as can be had cheaply, at least a byte.
---@param max? integer
---@return string|nil # at least a byte
---@return string|nil # "wouldblock", "closed", "connection reset"
function tcp:try_receive(max) end

---Takes what was received up to and with the first newline; all of it when there is none.
---@return string|nil
---@return boolean|string|nil # whether it ends in a newline; or the error
function tcp:try_receive_line() end

---Ends one direction or both.
---@param how? string "send", "receive" or "both"
---@return integer|nil # 1
---@return string|nil # "not connected", "closed"
function tcp:shutdown(how) end

---Sends what is unsent, then FIN, in the background.
---@return integer # 1; harmless twice
function tcp:close() end

---Sends RST and forgets the connection; who waits for the socket is answered "connection aborted".
---@return integer # 1
function tcp:abort() end

---The local address.
---@return string|nil # host
---@return integer|nil # port
---@return string|nil # "inet", "inet6" or "unspec"
function tcp:getsockname() end

---The peer's address.
---@return string|nil # host
---@return integer|nil # port
---@return string|nil # "inet" or "inet6"
function tcp:getpeername() end

---What was sent and received.
---@return integer # bytes received
---@return integer # bytes sent
---@return number # age in seconds of the stack's clock
function tcp:getstats() end

---Whether something can be read or accepted without waiting.
---@return boolean
function tcp:dirty() end

---What is known of the connection.
---@return table # state, rtt, rttvar, rto (seconds), cwnd, ssthresh, snd_wnd, rcv_wnd, mss, unacked (bytes), retransmits
function tcp:info() end

---Sets an option.
---@param option string tcp-nodelay keepalive tcp-keepidle tcp-keepintvl tcp-keepcnt linger reuseaddr ipv6-v6only ip-ttl ip-tos ipv6-unicast-hops
---@param value boolean|number|table seconds for keepidle and keepintvl, {on=, timeout=} for linger
---@return integer|nil # 1
function tcp:setoption(option, value) end

---The value of an option.
---@param option string
---@return boolean|number|table|nil
function tcp:getoption(option) end

---What the socket is now.
---@return string # "new", "listening", "connecting", "connected" or "closed"
function tcp:phase() end

---@class netstack.core.udp
local udp = {}

---Binds to a local address.
---@param host string "*", "0.0.0.0", "::" or one of the stack's addresses
---@param port integer 0: any
---@return integer|nil # 1
---@return string|nil # "address already in use", "address not available", "invalid address"
function udp:setsockname(host, port) end

---Sets the peer, or takes it away.
---@param host string "*" takes the peer away
---@param port? integer
---@return integer|nil # 1
---@return string|nil # "wrong ip version", "invalid address", ...
function udp:setpeername(host, port) end

---Sends a datagram to the peer.
---@param data string
---@return integer|nil # bytes
---@return string|nil # "wouldblock", "message too long", ...
function udp:try_send(data) end

---Sends a datagram to an address.
---@param data string
---@param host string
---@param port integer
---@return integer|nil # bytes
---@return string|nil # "wouldblock", "message too long", "no route", ...
function udp:try_sendto(data, host, port) end

---Takes the next datagram.
---@param max? integer
---@return string|nil # datagram
---@return integer|string|nil # original length, when it was cut; or the error
function udp:try_receive(max) end

---Takes the next datagram and tells whose it is.
---@param max? integer
---@return string|nil # datagram
---@return string|nil # host, or the error
---@return integer|nil # port
---@return integer|nil # original length, when it was cut
function udp:try_receivefrom(max) end

---Closes the socket; what IP has taken is still sent.
---@return integer # 1; harmless twice
function udp:close() end

---The local address.
---@return string|nil # host
---@return integer|nil # port
---@return string|nil # family "inet", "inet6" or "unspec"
function udp:getsockname() end

---The peer's address.
---@return string|nil # host
---@return integer|nil # port
---@return string|nil # family "inet" or "inet6"
function udp:getpeername() end

---Sets an option.
---@param option string broadcast reuseaddr dont-fragment ipv6-v6only ip-multicast-loop ipv6-multicast-loop; ip-ttl ipv6-unicast-hops ip-tos ip-multicast-ttl ipv6-multicast-hops; ip-add-membership ip-drop-membership ipv6-add-membership ipv6-drop-membership; ip-multicast-if
---@param value boolean|integer|table|string a membership is {multiaddr =, interface =}
---@return integer|nil # 1
---@return string|nil # of memberships: "invalid address", "no route", "address already in use" (it is a member), "address not available" (it is none), "full", "wrong ip version"
function udp:setoption(option, value) end

---The value of an option.
---@param option string
---@return boolean|integer|string|nil
---@return string|nil # "closed"
function udp:getoption(option) end

---@class netstack.core.raw
local raw = {}

---Sends a packet.
---@param packet string with its IP header
---@return integer|nil # bytes
function raw:try_send(packet) end

---Takes the next packet.
---@param max? integer
---@return string|nil # packet with its IP header
---@return integer|string|nil # original length, when it was cut; or the error
function raw:try_receive(max) end

---Closes the socket.
---@return integer # 1; harmless twice
function raw:close() end

---@class netstack.link
local link = {}

---Closes both ends: packets under way are dropped, stacks that are attached send into nothing. Repeating it is harmless; everything else answers "closed" from now on.
---@return integer # 1
function link:close() end

---Changes one parameter for packets that enter from now on. What it may be is the caller's to check.
---@param direction integer 1 or 2: the end that sends
---@param name string
---@return integer|nil # 1
---@return string|nil # "closed"
function link:set_rule(direction, name) end

---The parameters of one direction.
---@param direction integer
---@return table|nil
---@return string|nil # "closed"
function link:rules(direction) end

---Counters of one direction: sent + duplicated = delivered + dropped + in_flight.
---@param direction integer
---@return table|nil # sent, sent_bytes, delivered, delivered_bytes, duplicated, corrupted, reordered, in_flight, queue, queue_bytes, untold (to the trace function), and dropped: closed, down, partition, mtu, loss, queue, codel, limit, memory
---@return string|nil # "closed"
function link:counters(direction) end

---Drops, from now on, what comes from the filter's addresses or goes to them: a partition. `unbar` ends it.
---@param direction integer
---@param filter filter
---@param source boolean
---@return integer|nil # 1
---@return string|nil # "closed" or "no memory"
function link:bar(direction, filter, source) end

---Takes all filters away.
---@param direction integer
---@return integer|nil # 1
---@return string|nil # "closed"
function link:unbar(direction) end

---Sets what is called, after the poll, with each packet that entered and what becomes of it.
---@param fn function|nil fn(event): {time, direction = 1 | 2, packet, arrival or cause, corrupted, reordered, duplicated, copy_arrival or copy_cause}; times are seconds since the link was made, or since what it was told
---@return integer|nil # 1
---@return string|nil # "closed"
function link:trace(fn) end

---@class netstack.switch
local switch = {}

---Its name.
---@return string|nil
---@return string|nil # "closed"
function switch:name() end

---Makes a device a port: an end of a pipe or a link, a TAP interface, a device in Lua. The port goes when the device is closed.
---@param dev netstack.device of medium "ethernet"
---@return integer|nil # the number of the port, the lowest that is free
---@return string|nil # "address already in use" (it is attached, here or elsewhere), "closed", "no memory"
function switch:attach(dev) end

---Takes a port off the switch, which forgets the stations behind it; the device stays open.
---@param port integer|netstack.device
---@return integer|nil # 1
---@return string|nil # "closed": there is no such port any more
function switch:detach(port) end

---The stations it has heard, by address.
---@return table[]|nil # each: address ("02:00:00:00:00:01"), port, age (seconds since it was heard)
---@return string|nil # "closed"
function switch:table() end

---Forgets all stations.
---@return integer|nil # 1
---@return string|nil # "closed"
function switch:flush() end

---Counters. Each frame received is forwarded to one port, flooded to all others, or dropped where it came in: "short" (no whole header), "reserved" (for bridges), "filtered" (its station is behind the port that it came from), "loop" (it has passed 255 switches), "queue" (4096 wait at the port). Of what was to be sent, a port drops what its device has no room for ("full"), what is longer than its mtu, what has a wrong checksum and goes where nobody would see that ("checksum"), and copies for which there is no memory.
---@return table|nil # received, forwarded, flooded, sent, dropped = { short, reserved, filtered, loop, queue, full, mtu, checksum, memory }; ports: the same by number, each with the device's counters since it was attached; and of stations: addresses (how many are known), learned, moved, aged, evicted (the table was full)
---@return string|nil # "closed"
function switch:stats() end

---Ends the switch: its devices are detached, not closed.
---@return integer # 1; harmless twice
function switch:close() end

return core
