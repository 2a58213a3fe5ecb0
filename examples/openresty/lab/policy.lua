-- A retry policy, tried in a lab. Runs in a thread of nginx's pool, whose Lua state knows nothing of requests.
local lab = require "netstack.lab"
local netstack = require "netstack"

local PATIENCE = 10 -- seconds of real time

local M = {}

-- One attempt: a connection, a question, so many bytes. All of that has its time, after which nobody listens any more.
local function attempt(client, given)
  local ends = netstack.now() + given.timeout
  local socket = client:tcp()
  socket:settimeout(given.timeout)
  local ok, err = socket:connect("server", 80)
  if ok then
    socket:settimeout(ends - netstack.now(), "t")
    ok, err = socket:send("give\n")
  end
  if ok then ok, err = socket:receive(given.size) end
  if ok then socket:close() else socket:abort() end
  return ok and true or nil, err
end

-- To the microsecond.
local function rounded(time) return math.floor(time * 1e6 + 0.5) / 1e6 end

-- One trial: attempts until one succeeds, with pauses between them, each `backoff` times as long as the one before.
local function trial(client, given)
  local began, pause = netstack.now(), given.pause
  local result = { at = rounded(began), attempts = 0 }
  while true do
    local ok, err = attempt(client, given)
    result.attempts = result.attempts + 1
    if ok then
      result.latency = rounded(netstack.now() - began)
      return result
    elseif result.attempts > given.retries then
      result.error = err
      return result
    end
    netstack.sleep(pause)
    pause = pause * given.backoff
  end
end

local function serve(listener, given)
  local answer = ("x"):rep(given.size)
  while true do
    local peer = listener:accept()
    netstack.daemon(function()
      peer:settimeout(60)
      if peer:receive() then peer:send(answer) end
      peer:close()
    end)
  end
end

local function run(net, given)
  local client, server = net:host "client", net:host "server"
  net:link(client, server, { loss = given.loss, delay = given.delay, jitter = given.jitter, rate = given.rate })
  local limit = os.time() + PATIENCE
  return net:run(function()
    netstack.daemon(serve, assert(server:bind("*", 80)), given)
    local results = {}
    for n = 1, given.trials do
      if os.time() > limit then error("too slow", 0) end
      results[n] = trial(client, given)
    end
    return results
  end, { progress = false })
end

--- Tries a policy.
-- @param given numbers: loss, delay, jitter, rate (or nil), size, timeout, retries, pause, backoff, trials, seed
-- @return for each trial { at, attempts, latency | error }, in virtual time; nil and "too slow", or what went wrong
function M.try(given)
  local net = lab.new { seed = given.seed }
  local ok, results = pcall(run, net, given)
  net:close()
  if ok then return results end
  return nil, tostring(results)
end

--- The same, and what was on the wire.
-- @return a text, pcapng; nil and what went wrong
function M.capture(given)
  local path = os.tmpname()
  local net = lab.new { seed = given.seed }
  local ok, err = net:capture(path)
  if ok then ok, err = pcall(run, net, given) end
  net:close()
  local file = io.open(path, "rb")
  local text = file and file:read "*a"
  if file then file:close() end
  os.remove(path)
  if ok then return text end
  return nil, tostring(err)
end

return M
