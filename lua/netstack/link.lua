--- Links with weather: what stands between two stacks of the lab. Words and order of injectors are netem's.
-- @module netstack.link

local capture = require "netstack.capture"
local check = require "netstack.check"
local core = require "netstack.core"
local watch = require "netstack.watch"

local format, ipairs, pairs, type = string.format, ipairs, pairs, type
local bad = check.bad

---@class netstack.link
local Link = core.classes.link
local set_rule, rules_of, counters = Link.set_rule, Link.rules, Link.counters

local M = {}

local LONGEST = 1e6 -- seconds

local function within(most, what)
  return function(value)
    if type(value) ~= "number" then return "number expected, got " .. type(value) end
    if not (value >= 0 and value <= most) then return format("out of range: 0 to %.0f%s", most, what) end
  end
end

local share, seconds = within(1, ""), within(LONGEST, " seconds")

-- A limit, or false: none.
local function limit(least, most)
  local rule = check.integer(least, most)
  return function(value)
    if value ~= false then return rule(value) end
  end
end

-- Options that are tables: the rule of each part, which ones must be there, what the core is told, and back again.
local function parts_of(value, parts)
  if type(value) ~= "table" then return "table expected, got " .. type(value) end
  local wrong
  for name in pairs(value) do
    if not parts[name] and (not wrong or tostring(name) < wrong) then wrong = tostring(name) end
  end
  if wrong then return "unknown option '" .. wrong .. "'" end
  for _, name in ipairs(parts) do
    local why = (value[name] ~= nil or parts.required[name]) and parts[name](value[name])
    if why then return "'" .. name .. "': " .. why end
  end
end

local function positive(value)
  return seconds(value) or value < 1e-9 and "out of range: a nanosecond to 1000000 seconds" or nil
end

local compounds = {
  loss_model = {
    parts = { "p", "r", "k", "h", p = share, r = share, k = share, h = share, required = { p = true } },
    tell = function(given)
      if not given then return { { "model", false } } end
      return { { "p", given.p }, { "r", given.r or 1 - given.p }, { "k", given.k or 1 }, { "h", given.h or 0 },
        { "model", true } }
    end,
    read = function(found) return found.model and { p = found.p, r = found.r, k = found.k, h = found.h } end,
  },
  codel = {
    parts = { "target", "interval", target = positive, interval = positive, required = {} },
    tell = function(given)
      if not given then return { { "codel", false } } end
      return { { "target", given.target or 0.005 }, { "interval", given.interval or 0.1 }, { "codel", true } }
    end,
    read = function(found) return found.codel and { target = found.target, interval = found.interval } end,
  },
  flap = {
    parts = { "up", "down", up = positive, down = positive, required = { up = true, down = true } },
    tell = function(given)
      if not given then return { { "flap_down", 0 } } end
      return { { "flap_up", given.up }, { "flap_down", given.down }, { "flap", 0 } }
    end,
    read = function(found) return found.flap_down > 0 and { up = found.flap_up, down = found.flap_down } end,
  },
}
local in_core = { "model", "p", "r", "k", "h", "target", "interval", "flap_up", "flap_down", "cut" }

local function compound(name)
  return function(value)
    if value ~= false then return parts_of(value, compounds[name].parts) end
  end
end

local names = { "delay", "jitter", "distribution", "correlation", "loss", "loss_correlation", "loss_model", "duplicate",
  "duplicate_correlation", "reorder", "reorder_correlation", "corrupt", "corrupt_correlation", "rate", "queue",
  "queue_bytes", "codel", "mtu", "flap" }

local rules = {
  delay = seconds, jitter = seconds, distribution = check.one_of("uniform", "normal", "pareto"), correlation = share,
  loss = share, loss_correlation = share, loss_model = compound "loss_model",
  duplicate = share, duplicate_correlation = share, reorder = share, reorder_correlation = share,
  corrupt = share, corrupt_correlation = share,
  rate = limit(1, 1e12), queue = check.integer(0, 2 ^ 31), queue_bytes = limit(1, 2 ^ 53), mtu = limit(68, 65535),
  codel = compound "codel", flap = compound "flap",
}

local calm = {
  delay = 0, jitter = 0, distribution = "uniform", correlation = 0, loss = 0, loss_correlation = 0, loss_model = false,
  duplicate = 0, duplicate_correlation = 0, reorder = 0, reorder_correlation = 0, corrupt = 0, corrupt_correlation = 0,
  rate = false, queue = 1000, queue_bytes = false, mtu = false, codel = false,
  flap = false,
}

local creation = {
  seed = check.integer(0, 2 ^ 53), medium = check.one_of("ip", "ethernet"), checksum = check.of_type("boolean"),
  since = within(2 ^ 53, " seconds"),
}
for name, rule in pairs(rules) do creation[name] = rule end
creation.mtu = check.integer(68, 65535)

local numbers = { ["a->b"] = 1, ["b->a"] = 2 }

-- First and last of the directions meant, by place or by the names of the ends; nil: both.
local function range(link, direction, name)
  if direction == nil then return 1, 2 end
  local number = numbers[direction]
  if not number then
    local a, b = watch.names(link)
    local there, back = a .. "->" .. b, b .. "->" .. a
    number = direction == there and 1 or direction == back and 2
    if not number then
      local known = a == "a" and b == "b" and "" or format(" (or '%s', '%s')", there, back)
      bad(1, name, format("'a->b' or 'b->a'%s expected, got %s", known, tostring(direction)))
    end
  end
  return number, number
end

local function apply(link, first, last, options)
  for direction = first, last do
    for _, name in ipairs(names) do
      local value = options[name]
      local rule = compounds[name]
      if rule and value ~= nil then
        for _, part in ipairs(rule.tell(value)) do
          local ok, err = set_rule(link, direction, part[1], part[2])
          if not ok then return nil, err end
        end
      elseif value ~= nil then
        local ok, err = set_rule(link, direction, name, value or 0)
        if not ok then return nil, err end
      end
    end
  end
  return 1
end

--- A link between two devices, whose ends attach to stacks as any device. Times pass in `netstack.run` only.
-- @tparam[opt] table options `seed` (1), `medium` ("ip"), `checksum` (true), `mtu` of the ends (that of the first
-- stack), `since` (by `core.lab_clock`, from which traces tell times), and what `set` takes, for both directions
-- @tparam[opt=1] integer n which argument of `link` these are, in errors
-- @treturn link|nil
-- @treturn device|string end a, or "no memory"
-- @treturn device end b
---@param options? table
---@param n? integer which argument of `link` the options are, in errors
---@return netstack.link|nil, netstack.device|string, netstack.device?
function M.new(options, n)
  options = check.options(options, creation, n or 1, "link")
  local link, a, b = core.link(options.mtu or 0, options.medium or "ip", options.checksum ~= false, options.seed or 1,
    options.since)
  if not link then return nil, a end
  local weather = {}
  for _, name in ipairs(names) do weather[name] = options[name] end
  weather.mtu = nil
  apply(link, 1, 2, weather)
  watch.begin(link, options.medium or "ip")
  return link, a, b
end

--- Calls `fn(event)` with each packet that enters, after the poll in which it did. An event has `time` (seconds since
-- the link was made, or since its `since`), `direction` ("a->b"), `from`, `to` (names of the ends), `packet`, `link`
-- ("ip", "ethernet"), `arrival` (a time) or `cause` (why it was dropped: "loss", "queue", "codel", "down", "partition",
-- "mtu", "closed", "limit", "memory"), `corrupted`, `reordered`, `duplicated`, and then `copy_arrival` or `copy_cause`.
-- @tparam function|nil fn
-- @treturn integer|nil 1
-- @treturn string "closed"
---@param fn function|nil
---@return integer|nil, string?
function Link:trace(fn)
  if fn ~= nil and type(fn) ~= "function" then bad(1, "trace", "function or nil expected, got " .. type(fn)) end
  return watch.set(self, "trace", fn)
end

--- Captures the link in a pcapng file from now on: each packet once, as it enters; a comment says why it was dropped.
-- @tparam string path
-- @treturn netstack.capture|nil `capture:close()` ends it; what a run carried is in the file when it is over
-- @treturn string what the system says: "x/y.pcapng: No such file or directory"; "closed"
---@param path string
---@return netstack.capture|nil, string?
function Link:capture(path)
  if type(path) ~= "string" then bad(1, "capture", "string expected, got " .. type(path)) end
  local found, err = capture.new(path)
  if not found then return nil, err end
  local ok
  ok, err = found:add(self)
  if ok then return found end
  found:close()
  return nil, err
end

--- Changes parameters for packets that enter from now on; what is not named stays. `false` takes a limit
-- or the model away.
-- @tparam[opt] string direction "a->b", "b->a"; without it both
-- @tparam table options `delay`, `jitter` (seconds), `distribution`, `correlation`, `loss`, `loss_model`, `duplicate`,
-- `reorder`, `corrupt` (0 to 1; each with `…_correlation`), `rate` (bits per second), `queue` (packets),
-- `queue_bytes`, `codel` (`{target=0.005, interval=0.1}` seconds; RFC 8289), `mtu`, `flap` (`{up=, down=}` seconds: up,
-- then down, from now on, again and again)
-- @treturn integer|nil 1
-- @treturn string "closed"
---@param direction string|table
---@param options? table
---@return integer|nil, string?
function Link:set(direction, options)
  local n = 2
  if type(direction) == "table" then direction, options, n = nil, direction, 1 end
  local first, last = range(self, direction, "set")
  if options == nil then bad(n, "set", "table expected, got nil") end
  return apply(self, first, last, check.options(options, rules, n, "set"))
end

--- Good weather again, without limits.
-- @tparam[opt] string direction
-- @treturn integer|nil 1
-- @treturn string "closed"
---@param direction? string
---@return integer|nil, string?
function Link:reset(direction)
  local first, last = range(self, direction, "reset")
  return apply(self, first, last, calm)
end

--- The parameters of one direction, as `set` takes them, and `down`.
-- @tparam string direction
-- @treturn table|nil
-- @treturn string "closed"
---@param direction string
---@return table|nil, string?
function Link:get(direction)
  local found, err = rules_of(self, (range(self, direction or "a->b", "get")))
  if not found then return nil, err end
  local read = {}
  for name, rule in pairs(compounds) do read[name] = rule.read(found) or false end
  for _, name in ipairs(in_core) do found[name] = nil end
  for name, value in pairs(read) do found[name] = value end
  for _, name in ipairs { "rate", "queue_bytes", "mtu" } do
    if found[name] == 0 then found[name] = false end
  end
  return found
end

local function turn(link, direction, name, down)
  local first, last = range(link, direction, name)
  for number = first, last do
    local ok, err = set_rule(link, number, "down", down)
    if not ok then return nil, err end
  end
  return 1
end

--- Drops what enters from now on; what is under way arrives.
-- @tparam[opt] string direction
-- @treturn integer|nil 1
-- @treturn string "closed"
---@param direction? string
---@return integer|nil, string?
function Link:down(direction) return turn(self, direction, "down", true) end

--- Carries packets again.
-- @tparam[opt] string direction
-- @treturn integer|nil 1
-- @treturn string "closed"
---@param direction? string
---@return integer|nil, string?
function Link:up(direction) return turn(self, direction, "up", false) end

--- Counters of both directions: `stats["a->b"].dropped.loss`.
-- @treturn table|nil
-- @treturn string "closed"
---@return table|nil, string?
function Link:stats()
  local there, err = counters(self, 1)
  if not there then return nil, err end
  return { ["a->b"] = there, ["b->a"] = counters(self, 2) }
end

return M
