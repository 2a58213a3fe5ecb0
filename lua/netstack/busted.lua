--- Network tests with busted: `lab_it` is an `it` that runs in a lab, and says how to have a failure again.
--
-- `local lab_it = require "netstack.busted".lab_it` in a spec, or `helper = "netstack.busted.global"` in `.busted`, by
-- which every spec knows it. Either way luassert has the assertions of `netstack.busted.matchers`.
-- @module netstack.busted

local check = require "netstack.check"
local core = require "netstack.core"
local lab = require "netstack.lab"
local leaks = require "netstack.busted.leaks"
local origin = require "netstack.origin"
local seeds = require "netstack.busted.seeds"
local tape = require "netstack.busted.tape"
local tasks = require "netstack.task"
require "netstack.busted.matchers"

local concat, format, upper = table.concat, string.format, string.upper
local error, getinfo, getmetatable, ipairs, pcall, tostring, type = error, debug.getinfo, getmetatable, ipairs, pcall,
  tostring, type

---@class netstack.busted
local M = {}

local function a_function(value)
  if type(value) ~= "function" then return "function expected, got " .. type(value) end
end

local rules = {
  timeout = tasks.check_time, seed = seeds.one, seeds = seeds.several, packets = check.integer(0, 100000),
  capture = check.of_type("string"), network = a_function, leaks = check.of_type("boolean"),
}

local TIMEOUT = 3600 -- seconds of virtual time that a test may take

-- What an error is to busted: "failure" and "pending" are its own objects.
local function kind_of(err)
  local metatable = type(err) == "table" and getmetatable(err)
  return type(metatable) == "table" and metatable.__type or "error"
end

local function text_of(err)
  if type(err) == "string" then return err end
  local metatable = getmetatable(err)
  if type(metatable) == "table" and metatable.__tostring then return tostring(err) end
  return require("luassert"):format({ err, n = 1 })[1]
end

-- Runs the test once. Gives true; or false, what was raised, and the packets; or nil and what was left behind.
local function attempt(test, seed)
  local net, options = lab.new { seed = seed }, test.options
  local packets = tape.new(options.packets or 20)
  net:watch(packets)
  origin.begin()
  math.randomseed(seed % 2 ^ 31)
  local capture, ok, err = nil, true, nil
  if options.capture then
    capture, err = net:capture(options.capture)
    ok = capture ~= nil
  end
  if ok and options.network then ok, err = pcall(options.network, net) end
  -- Called by pcall, it names the task after the test's function.
  if ok then ok, err = pcall(net.run, net, test.fn, { timeout = options.timeout or TIMEOUT }, err) end
  packets:close()
  if capture then capture:close() end
  if ok and options.leaks ~= false then
    local found
    ok, found = pcall(leaks.find, net, net:stacks())
    if not ok then err = found elseif found then ok, err = nil, found end
  end
  origin.finish()
  net:close()
  return ok, err, packets
end

-- A pattern of Lua's for the names that end so, in quotes of the shell's.
local function quoted(name)
  return "'" .. name:gsub("[%^%$%(%)%%%.%[%]%*%+%-%?]", "%%%0"):gsub("'", "'\\''") .. "$'"
end

-- Calls a function that raises as if the line of the test did: that is what busted tells as the place.
local function raise_at(test, raise, err)
  local code = ("\n"):rep(test.line - 1) .. "local raise, err = ... raise(err, 0) return nil"
  local chunk = (loadstring or load)(code, "@" .. test.file) -- luacheck: ignore 113
  chunk(raise, err)
end

-- What is said after the message of a failure.
local function epilogue(test, i, list, packets)
  local lines = { "" }
  local seed = format("%.0f", list[i])
  lines[2] = format("Seed %s%s. To have it again:", seed, #list > 1 and
    format(", the first of %d that fails (%d passed before)", #list, i - 1) or "")
  lines[3] = format("  NETSTACK_SEED=%s busted %s --filter=%s", seed, test.file, quoted(test.name))
  if test.options.capture then lines[#lines + 1] = "All packets: " .. test.options.capture end
  if packets.count > 0 and packets.size > 0 then
    lines[#lines + 1] = packets:title():gsub("^%l", upper) .. ":"
    lines[#lines + 1] = packets:text()
  else
    lines[#lines + 1] = packets.count == 0 and "No packets." or nil
  end
  return concat(lines, "\n")
end

local running = false -- whether a test is

local function run(test, fail)
  local list = test.seeds
  for i, seed in ipairs(list) do
    running = true
    local ok, err, packets = attempt(test, seed)
    running = false
    if not ok then
      local kind = ok == nil and "failure" or kind_of(err)
      if kind == "pending" then raise_at(test, error, err) end
      local text = text_of(err)
      -- What names no line is about the test as a whole.
      if not text:find("^[^\n]-:%d+: ") then text = format("%s:%d: %s", test.file, test.line, text) end
      text = text .. "\n" .. epilogue(test, i, list, packets)
      raise_at(test, kind == "failure" and fail or error, text)
    end
  end
end

--- An `it` whose function runs as a task in a lab of its own: `lab_it("greets", function(net) ... end)`.
--
-- It fails when the function or a task raises, at a deadlock, after `timeout` seconds of virtual time, and when a
-- socket that it made is open at its end or a stack of the lab holds something that does not end by itself. What is
-- printed then has the seed, the command that runs the test with it, and the last packets.
-- @tparam string name
-- @tparam[opt] table opts `network`: a function that makes hosts and links before the run, called with the lab, whose
-- result the test gets second; `timeout` (3600), `seed` (1), `seeds` (how many, from 1, or a list: each in turn, up to
-- the first that fails), `packets` (20) shown, `capture` (a path: the pcapng of a failing test), `leaks` (true):
-- whether to look for what was left behind
-- @tparam function fn called with the lab and what `network` returned
---@param name string
---@param opts? table
---@param fn fun(net: netstack.lab, network: any)
---@overload fun(name: string, fn: fun(net: netstack.lab))
function M.lab_it(name, opts, fn)
  if fn == nil and type(opts) == "function" then opts, fn = nil, opts end
  if type(name) ~= "string" then check.bad(1, "lab_it", "string expected, got " .. type(name)) end
  local options = check.options(opts, rules, 2, "lab_it")
  if type(fn) ~= "function" then
    check.bad(opts == nil and 2 or 3, "lab_it", "function expected, got " .. (fn == nil and "no value" or type(fn)))
  end
  if running then error(core.where() .. "lab_it inside of a test", 0) end
  local busted = require "busted"
  if not busted.publish then error(core.where() .. "lab_it: not in a spec that busted runs", 0) end
  local environment = require "busted.compatibility"
  local here = getinfo(2, "Sl")
  if not here or here.currentline < 0 then -- a tail call
    here = getinfo(fn, "S")
    here.currentline = here.linedefined
  end
  local test = { name = name, fn = fn, options = options, seeds = seeds.of(options),
    file = here.source:match("^@(.*)") or here.short_src, line = here.currentline }
  here.traceback, here.message = "", name
  local function body()
    run(test, busted.fail)
    if options.capture then os.remove(options.capture) end
  end
  -- In the environment of the spec, by which busted refuses an `it` inside of a test; only what names a global, as this
  -- does, has one.
  environment.setfenv(body, environment.getfenv(fn))
  -- What `it` does, which would take this file for the place where the test is.
  busted.publish({ "register", "it" }, name, body, here)
end

return M
