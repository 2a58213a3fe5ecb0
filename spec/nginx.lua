-- An nginx of the spec's own, with ngx_lua, on a port of 127.0.0.1 and with all its files in a folder of its own;
-- `finish` in after_each or teardown ends it.
local assert = require "luassert"
local netns = require "spec.netns"
local socket_module_ok, socket = pcall(require, "socket")

local M = {}

local capture, read = netns.capture, netns.read
M.eventually, M.read = netns.eventually, read

--- What a command of the shell prints, and whether it succeeded.
M.capture = capture

local modules -- the folder of nginx's modules

-- What runs nginx, valgrind for example.
local RUNNER = os.getenv("NGINX_RUNNER") or ""

--- Why nginx with ngx_lua cannot be had here; nil when it can.
function M.missing()
  if not rawget(_G, "jit") then return "nginx embeds LuaJIT: these specs run in its suite" end
  if os.getenv("LD_PRELOAD") then return "nginx is not instrumented" end
  if not socket_module_ok then return "LuaSocket is missing" end
  local about, ok = capture("nginx -V")
  if not ok then return "nginx is missing" end
  modules = about:match("%-%-modules%-path=([^ \n]+)")
  if not modules or not read(modules .. "/ngx_http_lua_module.so") then return "nginx's Lua module is missing" end
  if not pcall(function() return assert(package.searchpath("resty.core", package.path)) end) then
    return "lua-resty-core is missing"
  end
end

--- Whether it cannot be had, which then is what the specs of a `describe` tell.
function M.absent(it, pending)
  local why = M.missing()
  if why then it("needs nginx with ngx_lua", function() pending(why) end) end
  return why ~= nil
end

local CONF = [[
load_module MODULES/ndk_http_module.so;
load_module MODULES/ngx_http_lua_module.so;
USER
worker_processes WORKERS;
pid FOLDER/nginx.pid;
error_log FOLDER/error.log notice;
MAIN
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path FOLDER/body;
  proxy_temp_path FOLDER/proxy;
  fastcgi_temp_path FOLDER/fastcgi;
  uwsgi_temp_path FOLDER/uwsgi;
  scgi_temp_path FOLDER/scgi;
  client_body_buffer_size 64k;
  lua_package_path 'LUA_PATH';
  lua_package_cpath 'LUA_CPATH';
  HTTP
  server {
    listen 127.0.0.1:PORT;
    location = /run {
      content_by_lua_block {
        ngx.req.read_body()
        local fn = assert(loadstring(ngx.req.get_body_data(), "=spec"))
        ngx.print(fn())
      }
    }
    location = /empty { return 204; }
    LOCATIONS
  }
}
]]

--- Whether a process has ended; nobody may have asked for its status yet.
function M.ended(pid)
  local stat = read("/proc/" .. pid .. "/stat")
  return not stat or stat:match("%) Z ") ~= nil
end

local Server = {}
Server.__index = Server
local servers = {}

local function free_port()
  local probe = assert(socket.bind("127.0.0.1", 0))
  local _, port = probe:getsockname()
  probe:close()
  return port
end
M.free_port = free_port

-- A configuration as users write it, with our paths unless it has its own, and a port that is free.
local function adopt(text, values)
  local paths = text:find("lua_package_path", 1, true) and "" or
    ("\nlua_package_path '%s';\nlua_package_cpath '%s';"):format(values.LUA_PATH, values.LUA_CPATH)
  local head = ("\n%shttp {%s"):format(values.USER, paths)
  return (text:gsub("/usr/lib/nginx/modules", values.MODULES):gsub("127%.0%.0%.1:%d+", "127.0.0.1:" .. values.PORT)
    :gsub("\nhttp {", function() return head end))
end

-- Our modules where anybody can read them: workers that are not root's may not be let into the tree. Returns the paths.
local function lay_out(folder)
  local core = assert(package.searchpath("netstack.core", package.cpath))
  local to = folder .. "/modules"
  netns.command(("cp -r lua %s && cp %s %s/netstack && chmod -R a+rX %s && chmod a+x %s")
    :format(to, core, to, to, folder))
  return ("%s/?.lua;%s/?/init.lua;"):format(to, to), to .. "/?.so;"
end

--- Starts it.
-- @param options texts for the configuration: `main`, `http`, `locations`; `workers` (1), `path` (put before that of
-- Lua modules), `user` of the workers (root); or `text`, a whole one; or `copy`, a folder with one, nginx.conf, and
-- what belongs to it
function M.start(options)
  local folder = capture("mktemp -d"):gsub("%s+$", "")
  local port = free_port()
  local lua_path, lua_cpath = "", ""
  if options.user then lua_path, lua_cpath = lay_out(folder) end
  local values = {
    MODULES = modules, FOLDER = folder, PORT = port, WORKERS = options.workers or 1, MAIN = options.main or "",
    HTTP = options.http or "", LOCATIONS = options.locations or "", LUA_CPATH = lua_cpath .. package.cpath,
    LUA_PATH = lua_path .. (options.path or "") .. package.path,
    USER = capture("id -u"):match("^0%s") and ("user %s;"):format(options.user or "root") or "",
  }
  local text = options.text
  if options.copy then
    assert(select(2, capture(("cp %s/*.conf %s/*.lua %s"):format(options.copy, options.copy, folder))))
    text = read(folder .. "/nginx.conf")
  end
  local file = assert(io.open(folder .. "/nginx.conf", "w"))
  file:write(text and adopt(text, values) or
    (CONF:gsub("%u[%u_]+", function(name) return values[name] end)))
  file:close()
  local self = setmetatable({ folder = folder, port = port }, Server)
  servers[#servers + 1] = self
  local output, ok = capture(("%s nginx -p %s/ -c nginx.conf"):format(RUNNER, folder))
  if not ok then error("nginx: " .. output, 2) end
  local limit = socket.gettime() + 10
  repeat
    self.pid = tonumber(read(folder .. "/nginx.pid") or "")
    if not self.pid then socket.sleep(0.01) end
  until self.pid or socket.gettime() > limit
  M.eventually(function() return #self:workers() == (options.workers or 1) end)
  return self
end

--- Lua code for a request's own Lua state (lua_code_cache off), which has it append a "x" to a file when it is closed.
function M.witness(path)
  return ([[
    local file = assert(io.open("%s", "a"))
    witness = newproxy(true)
    getmetatable(witness).__gc = function()
      file:write("x")
      file:close()
    end
  ]]):format(path)
end

--- What it has logged.
function Server:log() return read(self.folder .. "/error.log") or "" end

--- Raises when it has logged an error.
function Server:check_log()
  for line in self:log():gmatch("[^\n]+") do
    local level = line:match("^%S+ %S+ %[(%l+)%]")
    if level ~= "notice" and level ~= "info" and level ~= "warn" then error(line, 2) end
  end
end

--- The master's children that have not ended.
function Server:workers()
  local found = {}
  for pid in (read(("/proc/%d/task/%d/children"):format(self.pid, self.pid)) or ""):gmatch("%d+") do
    if not M.ended(pid) then found[#found + 1] = tonumber(pid) end
  end
  return found
end

--- Processor time that the workers have had, in seconds.
function Server:cpu()
  local ticks = 0
  for _, pid in ipairs(self:workers()) do
    local user, system = read(("/proc/%d/stat"):format(pid)):match("%) " .. ("%S+ "):rep(11) .. "(%d+) (%d+)")
    ticks = ticks + user + system
  end
  return ticks / 100
end

--- Memory that its worker holds, in KB.
function Server:resident()
  return tonumber(read(("/proc/%d/status"):format(self:workers()[1])):match("VmRSS:%s*(%d+)"))
end

function Server:signal(name)
  capture(("kill -%s %d"):format(name, self.pid))
end

--- Whether the master has.
function Server:ended() return M.ended(self.pid) end

local Request = {}
Request.__index = Request

--- Sends a request, and does not wait for the answer.
function Server:open(path, body)
  local connection = socket.tcp()
  connection:settimeout(30)
  assert(connection:connect("127.0.0.1", self.port))
  assert(connection:send(("%s %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s"):format(body and "POST" or "GET", path,
    body and #body or 0, body or "")))
  return setmetatable({ connection = connection }, Request)
end

--- Waits for the answer: its status and its body.
function Request:wait()
  local text, err, partial = self.connection:receive("*a")
  self.connection:close()
  text = text or partial
  local status, body = text:match("^HTTP/%S+ (%d+).-\r\n\r\n(.*)$")
  return tonumber(status), body or err
end

--- Goes away.
function Request:abort() self.connection:close() end

--- A request and its answer: status and body.
function Server:request(path, body) return self:open(path, body):wait() end

--- Runs Lua code in a worker; what it returned, as text. Its errors are ours.
function Server:run(code)
  local status, body = self:request("/run", code)
  if status ~= 200 then
    error(("status %s, %s\n%s"):format(status, body, self:log():match("%[error%].*") or ""), 2)
  end
  return body
end

--- Ends it at once.
function Server:stop()
  if self.pid and not self:ended() then
    self:signal("TERM")
    M.eventually(function() return self:ended() end)
  end
  self.pid = nil
end

--- Ends all, and removes their folders.
function M.finish()
  for i, server in ipairs(servers) do
    server:stop()
    capture("rm -rf " .. server.folder)
    servers[i] = nil
  end
end

return M
