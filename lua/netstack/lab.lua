--- The lab: whole networks in one process, with weather, and time itself.
--
-- Hosts, routers and NATs are stacks, switches are switches, and links join them. Everything is numbered and routed by
-- itself; names are known to all; one seed decides all chance.
-- @module netstack.lab

local capture = require "netstack.capture"
local check = require "netstack.check"
local core = require "netstack.core"
local drawing = require "netstack.lab.drawing"
local joining = require "netstack.lab.joining"
local links = require "netstack.link"
local names = require "netstack.lab.names"
local numbering = require "netstack.lab.numbering"
local parts = require "netstack.lab.parts"
local prefix = require "netstack.lab.prefix"
local progress = require "netstack.lab.progress"
local routes = require "netstack.lab.routes"
local scheduler = require "netstack.scheduler"
local stacks = require "netstack.stack"
local switches = require "netstack.switch"
local watch = require "netstack.watch"

local byte, concat, floor, format = string.byte, table.concat, math.floor, string.format
local error, ipairs, pairs, setmetatable, type = error, ipairs, pairs, setmetatable, type
local bad = check.bad

---@class netstack.lab
local Lab = {}
Lab.__index = Lab

local M = {}

-- ---- what there is ----

-- A seed for what has this name: whatever else the lab has does not matter to it.
local function seed_for(lab, name)
  local seed = lab.seed % 2 ^ 40
  for i = 1, #name do seed = (seed * 31 + byte(name, i) + 1) % 2 ^ 40 end
  return seed
end

local function extended(own, given)
  for key, value in pairs(given or {}) do own[key] = value end
  return own
end

local function check_open(lab, name)
  if lab.closed then error(format("%sthe lab is closed: '%s'", core.where(), name), 0) end
end

local function add(lab, node)
  node.ports, node.routes = {}, {}
  lab.nodes[#lab.nodes + 1] = node
  lab.by_name[node.name:lower()] = node
  lab.by_object[node.stack or node.switch] = node
  core.kept(node.stack or node.switch).lab = lab
end

local function make_stack(lab, name, kind, config)
  check_open(lab, kind)
  names.check(lab, name, kind)
  if config ~= nil and type(config) ~= "table" then bad(2, kind, "table expected, got " .. type(config)) end
  local own = extended({}, config)
  own.name = name
  if own.seed == nil then own.seed = seed_for(lab, name) end
  if kind ~= "host" then own.forwarding = true end
  local stack, err = stacks.make(own, kind, 2)
  if not stack then return nil, err end
  local node = { name = name, kind = kind, stack = stack, mtu = own.mtu or 1500 }
  add(lab, node)
  core.kept(stack).node = node
  names.tell(lab, node, own.hosts, own.dns)
  return stack
end

--- A host.
-- @tparam string name
-- @tparam[opt] table config as of `netstack.new`
-- @treturn stack|nil
-- @treturn string "no memory"
---@param name string
---@param config? table
---@return netstack.stack|nil, string?
function Lab:host(name, config) return make_stack(self, name, "host", config) end

--- A router: a stack with `forwarding`.
-- @tparam string name
-- @tparam[opt] table config
-- @treturn stack|nil
-- @treturn string "no memory"
---@param name string
---@param config? table
---@return netstack.stack|nil, string?
function Lab:router(name, config) return make_stack(self, name, "router", config) end

--- A router that hides what is inside behind its address outside (IPv4). `net:link(inner, nat)` is inside,
-- `net:link(nat, outer)` outside; where all links say the same, the first is outside, or the last when the NAT always
-- comes second. `{ outside = true | false }` among a link's options decides.
-- @tparam string name
-- @tparam[opt] table config
-- @treturn stack|nil
-- @treturn string "no memory"
---@param name string
---@param config? table
---@return netstack.stack|nil, string?
function Lab:nat(name, config) return make_stack(self, name, "nat", config) end

--- A learning Ethernet switch.
-- @tparam string name
-- @tparam[opt] table options as of `netstack.switch`
-- @treturn switch|nil
-- @treturn string "no memory"
---@param name string
---@param options? table
---@return netstack.switch|nil, string?
function Lab:switch(name, options)
  check_open(self, "switch")
  names.check(self, name, "switch")
  local switch, err = switches.new(extended({ name = name }, options))
  if not switch then return nil, err end
  local node = { name = name, kind = "switch", switch = switch }
  add(self, node)
  node.segment = { ports = {}, routers = {}, switches = { node }, hosts = 0 }
  return switch
end

-- The node that is meant by an object or a name.
local function node_of(lab, x, n, name)
  local node = lab.by_object[x]
  if not node and type(x) == "string" then node = lab.by_name[x:lower()] end
  if not node then
    bad(n, name, type(x) == "string" and format("there is no '%s'", x) or
      "host, router, nat or switch of this lab, or its name, expected, got " .. type(x))
  end
  return node
end

--- What has this name, or this address.
-- @tparam string name
-- @treturn stack|switch|nil
---@param name string
---@return netstack.stack|netstack.switch|nil
function Lab:find(name)
  if type(name) ~= "string" then bad(1, "find", "string expected, got " .. type(name)) end
  local address = core.parse_address(name)
  local node = self.by_name[name:lower()] or address and names.owner(self, address)
  return node and (node.stack or node.switch) or nil
end

--- A random number, as `math.random` gives it, but the same for the lab's seed on every Lua.
-- @tparam[opt] integer m a number from 1 to m, or from m to n; without it, from 0 up to, not including, 1
-- @tparam[opt] integer n
-- @treturn number
---@param m? integer
---@param n? integer
---@return number
function Lab:random(m, n)
  -- Park and Miller: the product is below 2^53.
  self.chance = (self.chance or seed_for(self, "random") % 2147483646 + 1) * 16807 % 2147483647
  local share = (self.chance - 1) / 2147483646
  if not m then return share end
  if not n then m, n = 1, m end
  if type(m) ~= "number" or type(n) ~= "number" or m > n then bad(1, "random", "an interval expected") end
  return floor(m + share * (n - m + 1))
end

-- ---- links ----

--- Joins two of the lab. Between hosts and routers packets are IP unless `medium = "ethernet"`; a switch has Ethernet.
-- @tparam stack|switch|string x
-- @tparam stack|switch|string y
-- @tparam[opt] table opts what `link:set` takes, from x to y and back alike; `addresses = { of x, of y }`, each one or
-- a list; `mtu`, `medium`, `outside` (of a NAT)
-- @treturn link|nil its directions are "a->b", from x to y, and "b->a"
-- @treturn string "full" (no room for addresses or interfaces), "no memory"
---@param x netstack.stack|netstack.switch|string
---@param y netstack.stack|netstack.switch|string
---@param opts? table
---@return netstack.link|nil, string?
function Lab:link(x, y, opts)
  check_open(self, "link")
  local nodes = { node_of(self, x, 1, "link"), node_of(self, y, 2, "link") }
  if opts ~= nil and type(opts) ~= "table" then bad(3, "link", "table expected, got " .. type(opts)) end
  for n, node in ipairs(nodes) do
    if node.stack and not core.is_open(node.stack) then bad(n, "link", format("'%s' is closed", node.name)) end
    if node.stack and node.stack:crashed() then bad(n, "link", format("'%s' is crashed", node.name)) end
  end
  if nodes[1] == nodes[2] then bad(2, "link", format("'%s' to itself", nodes[1].name)) end
  opts = opts or {}
  local given = joining.addresses(opts.addresses)
  if opts.outside ~= nil and type(opts.outside) ~= "boolean" then
    bad(3, "link", "option 'outside': boolean expected, got " .. type(opts.outside))
  end
  local segment = joining.segment(nodes[1], nodes[2])
  if not segment then bad(2, "link", "a second way between switches would go in circles") end
  if nodes[1].switch and nodes[2].switch and not joining.fits(segment, nodes[2].segment) then return nil, "full" end
  for side = 1, 2 do
    for _, text in ipairs(given[side] or {}) do
      local bytes, length = prefix.parse(text)
      if not self.numbering:take(bytes, length, segment) then
        bad(3, "link", format("option 'addresses': the prefix of %s is another link's, which was numbered by the lab",
          text))
      end
    end
  end

  local options = extended({}, opts)
  options.addresses, options.outside = nil, nil
  local ethernet = nodes[1].switch or nodes[2].switch
  if ethernet then options.medium = "ethernet" end
  options.since = self.since
  local between = nodes[1].name .. "-" .. nodes[2].name
  local count = (self.between[between] or 0) + 1 -- of links between the same two
  if options.seed == nil then options.seed = seed_for(self, between .. "." .. count) end
  local link, a, b = links.new(options, 3)
  if not link then return nil, a end
  local edge = { link = link, ports = {} }
  local devices = { a, b }
  for side = 1, 2 do
    local port, err = joining.join(self.numbering, edge, side, nodes[side], devices[side], segment, given[side])
    if not port then
      link:close()
      if edge.ports[1] and edge.ports[1].interface then edge.ports[1].interface:detach() end
      return nil, err
    end
    edge.ports[side] = port
  end
  for side = 1, 2 do
    edge.ports[side].says_outside = opts.outside
    joining.enlist(nodes[side], edge.ports[side])
  end
  watch.name(link, nodes[1].name, nodes[2].name)
  self.between[between] = count
  self.edges[#self.edges + 1] = edge
  core.kept(link).lab = self
  if nodes[1].switch and nodes[2].switch then joining.merge(self.numbering, segment, nodes[2].segment) end
  for _, watcher in ipairs(self.watchers) do watcher:add(link) end
  if not self.stale then
    self.stale = true
    scheduler.before(function() self:update() end)
  end
  return link
end

--- All links, in the order in which they were made.
-- @treturn {link,...}
---@return netstack.link[]
function Lab:links()
  local list = {}
  for i, edge in ipairs(self.edges) do list[i] = edge.link end
  return list
end

--- All hosts, routers and NATs, in the order in which they were made.
-- @treturn {stack,...}
---@return netstack.stack[]
function Lab:stacks()
  local list = {}
  for _, node in ipairs(self.nodes) do list[#list + 1] = node.stack end
  return list
end

--- Sets the routes, if there are new links. A run begins with it, and so does whatever waits outside of one.
function Lab:update()
  if not self.stale or self.closed then return end
  self.stale = false
  routes.update(self.nodes)
end

-- ---- time ----

--- Runs `fn(net)` as `netstack.run` does, on a virtual clock unless `opts` says otherwise.
-- @tparam function fn
-- @tparam[opt] table opts as of `netstack.run`; `progress`: true and false show virtual time, events and packets on the
-- standard error or do not; by default where that is a terminal
-- @param ... further arguments of fn
-- @return what fn returns
---@param fn fun(net: netstack.lab, ...): ...
---@param opts? table
function Lab:run(fn, opts, ...)
  check_open(self, "run")
  if type(fn) ~= "function" then bad(1, "run", "function expected, got " .. type(fn)) end
  if opts ~= nil and type(opts) ~= "table" then bad(2, "run", "table expected, got " .. type(opts)) end
  local own = extended({ clock = "virtual", seed = self.seed }, opts)
  if own.progress == nil then own.progress = progress.seen() end
  if own.progress == true then own.progress = progress.new(io.stderr) end
  own.progress = own.progress or nil
  local why = scheduler.check_options(own)
  if why then bad(2, "run", why) end
  return scheduler.run(fn, own, self, ...)
end

-- ---- bad days ----

local function is_options(value)
  return type(value) == "table" and value[1] == nil and value.oneway ~= nil
end

--- Lets no packet get from one group to another: `net:partition({ a, b }, { c })`. Who is in no group is reached by
-- all. Partitions add up until `heal`.
-- @tparam table ... groups, each a list of hosts, routers, switches or names; last, if given, `{ oneway = true }`: only
-- what goes from a group to a later one is dropped
-- @treturn integer 1
---@param ... table
---@return integer
function Lab:partition(...)
  check_open(self, "partition")
  local given, groups, seen = { ... }, {}, {}
  local count = select("#", ...)
  local oneway = false
  if is_options(given[count]) then
    check.options(given[count], { oneway = check.of_type("boolean") }, count, "partition")
    oneway, count = given[count].oneway, count - 1
  end
  if count < 2 then bad(1, "partition", "two groups or more expected") end
  for i = 1, count do
    local group = given[i]
    if type(group) ~= "table" then bad(i, "partition", "table expected, got " .. type(group)) end
    groups[i] = {}
    for _, x in ipairs(group) do
      local node = node_of(self, x, i, "partition")
      if seen[node] then bad(i, "partition", format("'%s' is in two groups", node.name)) end
      seen[node] = true
      groups[i][#groups[i] + 1] = node
    end
  end
  for i, from in ipairs(groups) do
    for j, to in ipairs(groups) do
      if i < j or i > j and not oneway then parts.part(from, to) end
    end
  end
  return 1
end

--- Ends all partitions.
-- @treturn integer 1
---@return integer
function Lab:heal()
  parts.heal(self.edges)
  return 1
end

local function stack_of(lab, x, name)
  local node = node_of(lab, x, 1, name)
  if not node.stack then bad(1, name, format("'%s' is a switch", node.name)) end
  return node
end

--- Pulls the plug of a host: it forgets all, silently; its sockets answer "closed", and packets to it are dropped.
-- @tparam stack|string host
-- @treturn integer|nil 1
-- @treturn string "closed"
---@param host netstack.stack|string
---@return integer|nil, string?
function Lab:crash(host)
  return stack_of(self, host, "crash").stack:crash()
end

--- Starts a crashed host again: the same stack, with its interfaces and routes.
-- @tparam stack|string host
-- @treturn integer|nil 1
-- @treturn string "closed"
---@param host netstack.stack|string
---@return integer|nil, string?
function Lab:restart(host)
  return stack_of(self, host, "restart").stack:restart()
end

-- ---- seeing ----

--- Gives `watcher:add(link)` all links, those made later, too, until the lab or the caller closes it.
-- @tparam table watcher its `add` returns nil and an error where a link cannot be watched, "closed" is none; its
-- `close`, which may be called twice, nil and an error
-- @treturn table|nil watcher; nil: it was closed
-- @treturn string what `add` says
function Lab:watch(watcher)
  check_open(self, "watch")
  for _, edge in ipairs(self.edges) do
    local ok, why = watcher:add(edge.link)
    if not ok and why ~= "closed" then
      watcher:close()
      return nil, why
    end
  end
  self.watchers[#self.watchers + 1] = watcher
  return watcher
end

--- Takes a watcher away, and closes it.
-- @tparam table watcher
-- @return what its `close` returns
function Lab:unwatch(watcher)
  for i, one in ipairs(self.watchers) do
    if one == watcher then
      table.remove(self.watchers, i)
      break
    end
  end
  return watcher:close()
end

--- Captures all links in one pcapng file from now on, those made later, too: one interface each, virtual times from the
-- lab's beginning. What a run carried is in the file when it is over.
-- @tparam string path
-- @treturn netstack.capture|nil
-- @treturn string what the system says
---@param path string
---@return netstack.capture|nil, string?
function Lab:capture(path)
  check_open(self, "capture")
  if type(path) ~= "string" then bad(1, "capture", "string expected, got " .. type(path)) end
  local running, err = capture.new(path)
  if not running then return nil, err end
  return self:watch(running)
end

--- Writes the lab as a graph for Graphviz, and its picture beside it where `dot` is installed.
-- @tparam string path of the graph ("net.dot"), or of the picture ("net.svg"), for which `dot` must be there
-- @treturn string|nil path of the graph
-- @treturn string|nil path of the picture; nil without `dot`, or what went wrong
---@param path string
---@return string|nil graph, string|nil picture_or_error
function Lab:draw(path)
  check_open(self, "draw")
  if type(path) ~= "string" then bad(1, "draw", "string expected, got " .. type(path)) end
  self:update()
  for _, node in ipairs(self.nodes) do
    node.crashed = node.stack and core.is_open(node.stack) and node.stack:crashed() or false
  end
  return drawing.write(path, drawing.text(self.nodes, self.edges))
end

--- Closes everything: captures and other watchers, stacks, switches, links. Repeating it is harmless.
-- @treturn integer|nil 1
-- @treturn string why a capture is not complete
---@return integer|nil, string?
function Lab:close()
  if self.closed then return 1 end
  self.closed = true
  local complaints = {}
  for _, watcher in ipairs(self.watchers) do
    local ok, err = watcher:close()
    if not ok then complaints[#complaints + 1] = err end
  end
  for _, node in ipairs(self.nodes) do (node.stack or node.switch):close() end
  for _, edge in ipairs(self.edges) do edge.link:close() end
  self.nodes, self.edges, self.by_name, self.by_object, self.watchers = {}, {}, {}, {}, {}
  if complaints[1] then return nil, concat(complaints, "; ") end
  return 1
end

Lab.__close = Lab.close

function Lab:__tostring()
  if self.closed then return "lab (closed)" end
  return format("lab (nodes: %d, links: %d)", #self.nodes, #self.edges)
end

--- A lab with nothing in it.
-- @tparam[opt] table options `seed` (1)
-- @treturn netstack.lab
---@param options? { seed?: integer }
---@return netstack.lab
function M.new(options)
  options = check.options(options, { seed = check.integer(0, 2 ^ 53) }, 1, "new")
  return setmetatable({ seed = options.seed or 1, nodes = {}, edges = {}, by_name = {}, by_object = {}, between = {},
    watchers = {}, numbering = numbering.new(), since = core.lab_clock(), stale = false, closed = false }, Lab)
end

return M
