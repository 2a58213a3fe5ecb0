-- TCP between a stack in an nginx worker and the host's kernel, through netstack-tund, both ways: what it costs the
-- worker, and, as "others", netstack-tund. Needs root, ip, LuaSocket, nginx with ngx_lua, and the build for LuaJIT.
--   lua bench/resty_network.lua [seconds]

local host = dofile(arg[0]:gsub("[^/]*$", "") .. "host.lua")

local KERNEL, STACK = "10.1.0.1", "10.1.0.2"

local CONF = [[
load_module MODULES/ndk_http_module.so;
load_module MODULES/ngx_http_lua_module.so;
daemon off;
user root;
worker_processes 1;
pid FOLDER/pid;
error_log FOLDER/error.log notice;
events {}
http {
  access_log off;
  lua_socket_buffer_size BUFFER;
  lua_package_path 'ROOTlua/?.lua;ROOTlua/?/init.lua;;';
  lua_package_cpath 'ROOTbuild/luajit/?.so;;';
  init_worker_by_lua_block {
    local netstack, resty = require "netstack", require "netstack.resty"
    local stack = netstack.new()
    local network = assert(resty.join(stack, { path = "FOLDER/tund.sock", addresses = { "STACK" } }))
    local function cpu()
      local file = io.open("/proc/self/stat")
      local user, system = file:read("*a"):match("%) " .. ("%S+ "):rep(11) .. "(%d+) (%d+)")
      file:close()
      return user / 100, system / 100
    end
    ngx.timer.at(0, function()
      local peer = resty.listen(stack, "*", 5001):accept()
      local block, total = ("x"):rep(65536), 0
      local user, system = cpu()
      local start, before = netstack.now(), network:stats()
      if "WAY" == "send" then
        repeat total = total + peer:send(block) until netstack.now() - start >= SECONDS
        peer:close()
      else
        local data = peer:receiveany(65536)
        while data do
          total = total + #data
          data = peer:receiveany(65536)
        end
      end
      local took, after = netstack.now() - start, network:stats()
      local user_after, system_after = cpu()
      local file = io.open("FOLDER/result", "w")
      file:write(total, " ", took, " ", user_after - user, " ", system_after - system, " ",
        after.sent - before.sent + after.received - before.received, "\n")
      file:close()
    end)
  }
}
]]

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

local function read(path)
  local file = io.open(path)
  local text = file and file:read("*a")
  if file then file:close() end
  return text
end

local function cpu(pid)
  local user, system = read("/proc/" .. pid .. "/stat"):match("%) " .. ("%S+ "):rep(11) .. "(%d+) (%d+)")
  return (user + system) / 100
end

local seconds = tonumber(arg[1] or os.getenv("BENCH_SECONDS")) or 1
local interpreter = os.getenv("BENCH_LUASOCKET") or "lua5.4"

local function through_worker(way, buffer)
  return function()
    local folder = select(2, host.shell("mktemp -d")):match("%S+")
    local root = select(2, host.shell("cd " .. host.root .. " && pwd")):match("%S+") .. "/"
    local modules = select(2, host.shell("nginx -V")):match("%-%-modules%-path=(%S+)")
    if not modules then error("nginx with ngx_lua is missing", 0) end
    write(folder .. "/nginx.conf", (CONF:gsub("%f[%w]%u%u%u+", { MODULES = modules, FOLDER = folder, ROOT = root,
      STACK = STACK, WAY = way, SECONDS = seconds, BUFFER = buffer }):gsub("ROOT", root)))
    local program = host.start(("ip netns exec %s %sbuild/luajit/netstack-tund --socket %s/tund.sock --address %s/24")
      :format(host.one, root, folder, KERNEL))
    while not select(2, host.shell("ls " .. folder)):find("tund.sock") do os.execute("sleep 0.02") end
    local server = host.start(("nginx -p %s -c nginx.conf"):format(folder))
    while not (read(folder .. "/error.log") or ""):find("joined as") do os.execute("sleep 0.02") end
    local pid = select(2, host.shell("pgrep -n -x netstack-tund")):match("%d+")
    local before = cpu(pid)
    local _, theirs = host.shell(("ip netns exec %s timeout 60 %s %stun.lua kernel %s %g"):format(host.one, interpreter,
      host.directory, way == "send" and "receive" or "send", seconds))
    while not read(folder .. "/result") do os.execute("sleep 0.02") end
    local tund = cpu(pid) - before
    host.shell("kill $(cat " .. folder .. "/pid)")
    host.finish(server)
    host.shell("kill " .. pid)
    host.finish(program)
    local worker, kernel = host.numbers(read(folder .. "/result")), host.numbers(theirs)
    host.shell("rm -r " .. folder)
    if not kernel[4] then error(theirs, 0) end
    return { amount = math.min(kernel[1], worker[1]) / 1e6, seconds = worker[2], user = worker[3], system = worker[4],
      packets = worker[5], others = tund }
  end
end

host.within(function()
  host.head("TCP, through netstack-tund", "MB/s", "worker")
  local list = {}
  for _, buffer in ipairs { "4k", "64k" } do
    for _, way in ipairs { "send", "receive" } do
      list[#list + 1] = { measure = through_worker(way, buffer),
        title = (way == "send" and "worker to kernel" or "kernel to worker") .. ", buffers of " .. buffer }
    end
  end
  host.table(list)
  print()
end)
