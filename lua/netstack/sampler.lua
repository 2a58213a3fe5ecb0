--- What connections and links tell of themselves, over time, as a table in a file (CSV).
--
-- A sampler looks and changes nothing: a run with one exchanges the same packets as one without, ends when it would
-- have ended, and is a deadlock when it would have been one.
-- @module netstack.sampler

local check = require "netstack.check"
local csv = require "netstack.csv"
local scheduler = require "netstack.scheduler"

local error, ipairs, pairs, pcall = error, ipairs, pairs, pcall
local setmetatable, tostring, type = setmetatable, tostring, type
local ceil, format, max, sort = math.ceil, string.format, math.max, table.sort
local now, sleep = scheduler.now, scheduler.sleep

---@class netstack.sampler
local Sampler = {}
Sampler.__index = Sampler
Sampler.__name = "netstack.sampler"

local M = {}

local INTERVAL = 0.01 -- seconds
local SHORTEST = 1e-9 -- what the clock tells apart

local TCP = { "state", "rtt", "rttvar", "rto", "cwnd", "ssthresh", "snd_wnd", "rcv_wnd", "mss", "retransmits",
  "unacked" }
local LINK = { "queue", "queue_bytes", "drops", "delivered_bytes" }
local DIRECTIONS = { "a->b", "b->a" }

local function interval(value)
  if value == false then return end
  if type(value) ~= "number" then return "number expected, got " .. type(value) end
  if not (value >= SHORTEST and value < math.huge) then return "out of range: 1e-09 seconds or more" end
end

-- A rule: what has a method, or a function that will give such a thing.
local function object(method, what)
  return function(value)
    if type(value) == "function" then return end
    local ok, found = pcall(function() return value[method] end)
    if not ok or type(found) ~= "function" then return format("%s or function expected, got %s", what, type(value)) end
  end
end

-- The names in a table, in order.
local function names_of(list)
  local names = {}
  for name in pairs(list) do names[#names + 1] = name end
  sort(names, function(a, b) return tostring(a) < tostring(b) end)
  return names
end

-- A rule: a table of such values by name.
local function named(rule)
  return function(value)
    if type(value) ~= "table" then return "table expected, got " .. type(value) end
    for _, name in ipairs(names_of(value)) do
      if type(name) ~= "string" or name:find('[%c,"]') then
        return "names without commas and quotes expected, got " .. tostring(name)
      end
      local why = rule(value[name])
      if why then return "'" .. name .. "': " .. why end
    end
  end
end

local connection, link = object("info", "TCP socket"), object("stats", "link")
local rules = {
  interval = interval, connection = connection, connections = named(connection), link = link, links = named(link),
  direction = check.one_of("a->b", "b->a"), columns = named(check.of_type("function")),
}

-- What of a connection or link there is now.
local function present(source)
  if type(source) == "function" then return source() end
  return source
end

local function info_of(source)
  local socket = present(source)
  return socket and socket:info()
end

local function stats_of(source)
  local found = present(source)
  local stats = found and found:stats()
  if not stats then return nil end
  local directions = {}
  for _, direction in ipairs(DIRECTIONS) do
    local counters, drops = stats[direction], 0
    for _, count in pairs(counters.dropped) do drops = drops + count end
    directions[direction] = { queue = counters.queue, queue_bytes = counters.queue_bytes, drops = drops,
      delivered_bytes = counters.delivered_bytes }
  end
  return directions
end

-- The columns' names, and how to fill a row: `look(row)` for each source, each with its place.
local function plan(options)
  local columns, looks = { "time" }, {}
  local function add(prefix, fields, look)
    local first = #columns
    for i, field in ipairs(fields) do columns[first + i] = prefix .. field end
    looks[#looks + 1] = function(row) look(row, first) end
  end
  local function add_connection(prefix, source)
    add(prefix, TCP, function(row, first)
      local info = info_of(source)
      for i, field in ipairs(TCP) do row[first + i] = info and info[field] end
    end)
  end
  local function add_link(prefix, source)
    for _, direction in ipairs(options.direction and { options.direction } or DIRECTIONS) do
      add(options.direction and prefix or prefix .. direction .. ".", LINK, function(row, first)
        local stats = stats_of(source)
        for i, field in ipairs(LINK) do row[first + i] = stats and stats[direction][field] end
      end)
    end
  end
  if options.connection then add_connection("", options.connection) end
  for _, name in ipairs(names_of(options.connections or {})) do
    add_connection(name .. ".", options.connections[name])
  end
  if options.link then add_link("", options.link) end
  for _, name in ipairs(names_of(options.links or {})) do add_link(name .. ".", options.links[name]) end
  for _, name in ipairs(names_of(options.columns or {})) do
    local value = options.columns[name]
    add("", { name }, function(row, first) row[first + 1] = value() end)
  end
  return columns, looks
end

-- Until the sampler is closed, or what it writes or calls fails. In real time, rows that were missed are left out.
local function watch(self, step)
  local start, n = self.start, 0
  while true do
    n = max(n + 1, ceil((now() - start) / step))
    sleep(max(start + n * step - now(), 0))
    local called, ok, err = pcall(self.sample, self)
    if not called or not ok then
      self.failure = self.failure or tostring(called and err or ok)
      return
    end
  end
end

---@class netstack.sampler.Options
---@field interval? number|false
---@field connection? netstack.tcp|(fun(): netstack.tcp?)
---@field connections? table<string, netstack.tcp|(fun(): netstack.tcp?)>
---@field link? netstack.link|(fun(): netstack.link?)
---@field links? table<string, netstack.link|(fun(): netstack.link?)>
---@field direction? "a->b"|"b->a"
---@field columns? table<string, fun(): any>

--- Begins to sample: one row now, one each `interval`, and one when it is closed, while the run is on.
--
-- The columns are `time` (`netstack.now()`); of a connection what `tcp:info()` tells (`state`, `rtt`, `rttvar`, `rto`
-- in seconds, `cwnd`, `ssthresh`, `snd_wnd`, `rcv_wnd`, `mss`, `unacked` in bytes, `retransmits`); of a link `queue`
-- (packets), and `queue_bytes`, `drops` and `delivered_bytes` so far, of both directions as `a->b.queue`; and those of
-- one's own. `connections`, `links` and `columns` come in the order of their names, as `name.cwnd`, `name.queue` and
-- `name`. Cells of what is closed or not there yet are empty.
-- @tparam string|file target a path, or an open file, which `close` leaves open
-- @tparam[opt] table options `interval` (0.01 seconds; false: rows come from `sample` alone, also outside a run);
-- `connection`: a TCP socket, or a function that returns one or nil; `connections`: several by name; `link`, `links`:
-- likewise; `direction`: "a->b" or "b->a", nil both; `columns`: functions by name, which must not wait
-- @treturn sampler|nil
-- @treturn string what the system says: "x/y.csv: No such file or directory"
---@param target string|file*
---@param options? netstack.sampler.Options
---@return netstack.sampler|nil
---@return string|nil err
function M.new(target, options)
  options = check.options(options, rules, 2, "new")
  local step = options.interval == nil and INTERVAL or options.interval
  local columns, looks = plan(options)
  local self = setmetatable({ looks = looks, run = scheduler.run_id(), start = now() }, Sampler)
  -- Before the file is made: outside a run this raises.
  self.task = step and scheduler.observer("sampler.new", function() watch(self, step) end)
  local out, err = csv.new(target, columns, "new")
  self.out = out
  local ok, raised = pcall(self.sample, self)
  if out and ok then return self end
  if self.task then self.task:cancel() end
  if out then
    out:close()
    error(raised, 0)
  end
  return nil, err
end

--- Takes a row now. Raises what a function among the columns raises.
-- @treturn integer|nil 1
-- @treturn string what the system says, "closed"
---@return integer|nil
---@return string|nil err
function Sampler:sample()
  if not self.out then return nil, "closed" end
  local row = { now() }
  for _, look in ipairs(self.looks) do look(row) end
  self.last = row[1]
  return self.out:row(row)
end

--- Takes a last row and ends the table.
-- @treturn integer|nil 1, also the second time
-- @treturn string why rows are missing: what the system said ("No space left on device"), or what a function among the
-- columns raised
---@return integer|nil
---@return string|nil err
function Sampler:close()
  local out = self.out
  if not out then return 1 end
  if self.task and scheduler.run_id() == self.run then
    self.task:cancel()
    if not self.failure and now() ~= self.last then
      local called, err = pcall(self.sample, self)
      if not called then self.failure = tostring(err) end
    end
  end
  self.out = nil
  local ok, err = out:close()
  if ok and not self.failure then return 1 end
  return nil, self.failure or err
end

Sampler.__tostring = function(self) return self.out and "sampler" or "sampler (closed)" end
Sampler.__close = Sampler.close

return M
