-- The network of this worker, and what is on it: a switch, the gateway's stack, and three that serve. Whatever else
-- carries frames could be attached to the switch as well.
local netstack = require "netstack"
local resty = require "netstack.resty"
local service = require "service"

local SERVICES = { "app1", "app2", "app3" }

local M = {}

-- The upstreams of each route. So that there is something to see, nobody listens at app1:8080, and no host is app4.
M.routes = {
  ["/app/"] = { "app1:80", "app2:80", "app3:80" },
  ["/beta/"] = { "app1:8080", "app4:80", "app2:80" },
  ["/gone/"] = { "app1:8080" },
}

local hosts = { app1 = "10.0.0.11", app2 = "10.0.0.12", app3 = "10.0.0.13", app4 = "10.0.0.14" }

local function host(switch, name, address)
  local stack = netstack.new { name = name, hosts = hosts }
  local near, far = netstack.pipe { medium = "ethernet" }
  assert(switch:attach(far))
  assert(stack:attach(near, { addresses = { address .. "/24" } }))
  assert(resty.start(stack))
  return stack
end

--- To be called when the worker starts.
function M.start()
  local switch = require("netstack.switch").new()
  M.stack = host(switch, "gateway", "10.0.0.1")
  M.services = {}
  for i, name in ipairs(SERVICES) do
    M.services[i] = host(switch, name, hosts[name])
    service.start(M.services[i], name, 80)
  end
end

return M
