-- A router: a stack that lets packets pass between the TUN interfaces it makes, one in each network namespace that it
-- is told of. It prints what it drops, until Ctrl-C.
--
--   ip netns add left && ip netns add right
--   lua5.4 examples/router.lua left=10.1.0.2/24,fd01::2/64 right=10.2.0.2/24
--
-- Each word names a namespace, and the router's addresses there; the interfaces are called `router`. The kernel's side:
--
--   ip -n left addr add 10.1.0.1/24 dev router && ip -n left link set router up
--   ip -n left route add default via 10.1.0.2
--
-- and so on the right, and then `ip netns exec left traceroute 10.2.0.1`.
local netstack = require "netstack"

local function fail(status, ...)
  io.stderr:write("router.lua: ", ...)
  io.stderr:write("\n")
  os.exit(status)
end

local function split(text)
  local list = {}
  for item in text:gmatch "[^,]+" do list[#list + 1] = item end
  return list
end

-- Adds an interface in a namespace.
local function add(stack, namespace, addresses)
  local device, _, why = netstack.tun { name = "router", netns = namespace }
  if not device then fail(1, why) end
  local interface, err = stack:attach(device, { name = namespace, addresses = split(addresses) })
  if not interface then fail(2, namespace, "=", addresses, ": ", err) end
end

local router = netstack.new { name = "router", forwarding = true }
for _, word in ipairs(arg) do
  local namespace, addresses = word:match "^([^=]+)=(.+)$"
  if not namespace then fail(2, word, ": NAMESPACE=ADDRESS/LENGTH[,ADDRESS/LENGTH] expected") end
  add(router, namespace, addresses)
end
if #arg < 2 then fail(2, "usage: router.lua NAMESPACE=ADDRESS/LENGTH,... NAMESPACE=ADDRESS/LENGTH,...") end

router:trace(function(event)
  if event.type ~= "drop" then return end
  print(("%s dropped %d bytes: %s"):format(event.interface or "router", #event.packet, event.cause))
end)
io.stdout:setvbuf "line"
for _, route in ipairs(router:routes()) do print(route.prefix .. " on " .. route.interface) end
local ok, err = pcall(netstack.run, function()
  while true do netstack.sleep(3600) end
end)
print(("%d packets forwarded"):format(router:stats().forwarded))
if not ok and not tostring(err):find "interrupted!" then fail(1, tostring(err)) end
