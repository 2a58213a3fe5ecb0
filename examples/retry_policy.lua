-- Two retry policies of a client, tried in the same 100 worlds, where the link loses packets in bursts and is down for
-- 0.7 of every 4 seconds. A world is a seed: with it as an argument each request is told, to look at the worst.
--   lua5.4 examples/retry_policy.lua [SEED]
local lab, netstack = require "netstack.lab", require "netstack"
local POLICIES = { -- each try waits `factor` times as long as the one before, and up to `jitter` of that longer
  { name = "naive", timeout = 0.1, tries = 5, factor = 1, jitter = 0 },
  { name = "backoff", timeout = 0.1, tries = 5, factor = 2, jitter = 0.5 },
}
local REQUESTS = 20

-- Asks until there is an answer: how many tries that took; nil when they are used up.
local function ask(socket, id, policy, random)
  for try = 1, policy.tries do
    local till = netstack.now() + policy.timeout * policy.factor ^ (try - 1) * (1 + policy.jitter * random())
    socket:send(id)
    repeat -- what comes may answer an earlier request
      socket:settimeout(math.max(till - netstack.now(), 0))
      local answer, err = socket:receive()
      if answer == id then return try end
    until err
  end
end

-- One world: adds the latencies of the requests that were answered, and tells how many those are.
local function try_out(policy, seed, times, tell)
  local net, state, before = lab.new { seed = seed }, seed, #times
  local function random() -- from 0 to 1, and the same on every Lua
    state = state * 16807 % (2 ^ 31 - 1)
    return state / (2 ^ 31 - 1)
  end
  local client, server = net:host("client"):udp(), net:host("server"):udp()
  net:link("client", "server", { delay = 0.01, loss_model = { p = 0.05, r = 0.5 }, flap = { up = 3.3, down = 0.7 } })
  net:run(function()
    assert(server:setsockname("*", 7) and client:setpeername("server", 7))
    netstack.daemon(function() while true do server:sendto(server:receivefrom()) end end)
    for n = 1, REQUESTS do
      netstack.sleep(random())
      local began = netstack.now()
      local tries = ask(client, tostring(n), policy, random)
      if tries then times[#times + 1] = netstack.now() - began end
      tell(("%-8s %7.3f s  request %2d: %s"):format(policy.name, began, n,
        tries and ("%4.0f ms, tries: %d"):format(times[#times] * 1e3, tries) or "no answer"))
    end
  end)
  net:close()
  return #times - before
end

local first, last = tonumber(arg[1]) or 1, tonumber(arg[1]) or 100
for _, policy in ipairs(POLICIES) do
  local times, worst, fewest = {}, nil, math.huge
  for seed = first, last do
    local answered = try_out(policy, seed, times, arg[1] and print or function() end)
    if answered < fewest then worst, fewest = seed, answered end
  end
  table.sort(times)
  print(("%-8s answered %.2f %%, median %.0f ms, p99 %.0f ms, worst seed %d: %d of %d"):format(policy.name,
    #times / REQUESTS / (last - first + 1) * 100, times[math.ceil(#times / 2)] * 1e3,
    times[math.ceil(#times * 0.99)] * 1e3, worst, fewest, REQUESTS))
end
