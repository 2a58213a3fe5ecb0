-- A small HTTP/1.1 server on a stack: serves the files of a table or of a folder, GET and HEAD, keep-alive or close. As
-- a program (see its end) it serves a folder on a TUN interface; as a module, whatever stack it is given:
--
--   local serve = require "http_server"
--   netstack.daemon(serve, stack, 80, "/usr/share/common-licenses")
--   netstack.daemon(serve, stack, 80, { ["/hello.txt"] = "Hello!\n", ["/COPYING"] = { path = "/tmp/COPYING" } })
local netstack = require "netstack"

local REASONS = { [200] = "OK", [400] = "Bad Request", [404] = "Not Found", [501] = "Not Implemented" }

-- The text that a target stands for. A table has texts, or files of the host, which are read when first asked for.
local function content(files, target)
  local path = target:match("^[^?#]*"):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
  local file = type(files) == "table" and files[path]
  if type(files) == "string" and not path:find "%.%." then
    file = { path = files .. path:gsub("/$", "/index.html") }
  end
  if type(file) ~= "table" then return file end
  local handle = not file.text and io.open(file.path, "rb")
  if handle then
    file.text = handle:read("*a")
    handle:close()
  end
  return file.text
end

local function respond(connection, status, body, keep, head)
  local header = ("HTTP/1.1 %d %s\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n"):format(status, REASONS[status],
    #body, keep and "keep-alive" or "close")
  if #body > 4096 and not head then return connection:send(header) and connection:send(body) end -- no copy of it
  return connection:send(header .. (head and "" or body))
end

-- Answers one request. Returns whether another may follow.
local function answer(connection, files)
  local line = connection:receive()
  if not line then return false end
  local method, target, minor = line:match("^(%u+) (%S+) HTTP/1%.(%d)$")
  if not method then return respond(connection, 400, "", false) and false end
  local keep, length = minor ~= "0", 0
  repeat
    line = connection:receive()
    if not line then return false end
    local name, value = line:match("^([%w-]+):%s*(.-)%s*$")
    if not name and line ~= "" then return respond(connection, 400, "", false) and false end
    name, value = (name or ""):lower(), (value or ""):lower()
    if name == "connection" then keep = not value:find "close" and (keep or value:find "keep%-alive" ~= nil) end
    if name == "content-length" then length = tonumber(value) or 0 end
  until line == ""
  if length > 0 and not connection:receive(length) then return false end
  local head = method == "HEAD"
  if not head and method ~= "GET" then return respond(connection, 501, "", keep) and keep end
  local body = content(files, target)
  return respond(connection, body and 200 or 404, body or "not found\n", keep, head) and keep
end

--- Accepts connections for ever, each served by a task of its own.
local function serve(stack, port, files)
  local listener = assert(stack:bind("*", port))
  while true do
    local connection = assert(listener:accept())
    netstack.daemon(function()
      connection:settimeout(60)
      repeat until not answer(connection, files)
      connection:close()
    end)
  end
end

if not (arg and (arg[0] or ""):match "[^/]*$" == "http_server.lua") then return serve end

package.path = (arg[0]:match "^.*/" or "./") .. "?.lua;" .. package.path
local program = require "stack_on_tun"

program.run(function()
  local options, words = program.options("http_server.lua [options] [PORT [FOLDER]]", {}, 0, 2)
  local port, folder = tonumber(words[1] or 80), words[2]
  if not port or port % 1 ~= 0 or port < 1 or port > 65535 then program.wrong(words[1] .. " is no port") end
  if folder and not io.open(folder .. "/.") then program.fail(folder .. " is no folder that can be read") end
  local stack = program.stack(options)
  for _, address in ipairs(stack:addresses()) do
    local host = address:match "[^/]*"
    print(("http://%s:%d/"):format(host:find(":", 1, true) and "[" .. host .. "]" or host, port))
  end
  netstack.run(serve, nil, stack, port, folder or { ["/"] = "Hello from " .. netstack._VERSION .. ".\n" })
end)
