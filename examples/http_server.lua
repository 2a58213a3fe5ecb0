-- A small HTTP/1.1 server on a stack: serves the texts and files of a table, or a folder; keep-alive or close. A
-- function in the table answers requests of any method, uploads too. As a program (see its end) it serves a folder on a
-- TUN interface; as a module, whatever stack it is given:
--
--   local serve = require "http_server"
--   netstack.daemon(serve, stack, 80, "/usr/share/common-licenses")
--   netstack.daemon(serve, stack, 80, { ["/hello.txt"] = "Hello!\n", ["/COPYING"] = { path = "/tmp/COPYING" },
--     ["/upper"] = function(request) return request.body:upper() end })
--
-- `request` has `method`, `target`, `headers` (names in lower case) and `body`; the function returns a text and, if it
-- is not 200, a status.
local netstack = require "netstack"

local REASONS = { [200] = "OK", [400] = "Bad Request", [404] = "Not Found", [413] = "Content Too Large",
  [501] = "Not Implemented" }
local BLOCK = 65536 -- bytes of a file at a time
local BODY_AT_MOST = 64 * 1024 * 1024 -- bytes that a client may upload

-- A file of the host: its handle, and how many bytes it has; nil when there is none, or it is a folder.
local function open(path)
  local handle = io.open(path, "rb")
  if not handle then return nil end
  local size = handle:seek "end"
  handle:seek "set"
  if size == 0 or handle:read(0) then return { handle = handle, size = size } end
  handle:close()
end

-- Sends a file as it is read. One that has shrunk meanwhile ends the connection, which is how the client knows.
local function send_file(connection, file)
  local left = file.size
  while left > 0 do
    local block = file.handle:read(math.min(BLOCK, left))
    if not (block and connection:send(block)) then return nil end
    left = left - #block
  end
  return true
end

-- Sends a response whose body is a text or a file. Returns whether all of it was sent.
local function respond(connection, status, body, keep, head)
  local header = ("HTTP/1.1 %d %s\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n"):format(status,
    REASONS[status] or "Status", type(body) == "table" and body.size or #body, keep and "keep-alive" or "close")
  if head then return connection:send(header) end
  if type(body) == "table" then return connection:send(header) and send_file(connection, body) end
  if #body > 4096 then return connection:send(header) and connection:send(body) end -- no copy of it
  return connection:send(header .. body)
end

-- Reads a request up to its body; nil when there is no other, or the status that says what is wrong.
local function read_head(connection)
  local line = connection:receive()
  if not line then return nil end
  local method, target, minor = line:match("^(%u+) (%S+) HTTP/1%.(%d)$")
  if not method then return 400 end
  local headers = {}
  while true do
    line = connection:receive()
    if not line then return nil end
    if line == "" then break end
    local name, value = line:match("^([%w-]+):%s*(.-)%s*$")
    if not name then return 400 end
    headers[name:lower()] = value
  end
  local wish, length = (headers.connection or ""):lower(), headers["content-length"] or "0"
  if headers["transfer-encoding"] then return 501 end -- where its body would end is not known
  if not length:find "^%d+$" then return 400 end
  length = tonumber(length)
  if length > BODY_AT_MOST then return 413 end
  return { method = method, target = target, headers = headers, length = length, is_old = minor == "0",
    keep = not wish:find "close" and (minor ~= "0" or wish:find "keep%-alive" ~= nil) }
end

-- The status and the body, a text or an open file, that answer a request.
local function answer(files, request)
  local path = request.target:match("^[^?#]*"):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
  local file = type(files) == "table" and files[path]
  if type(file) == "function" then
    local text, status = file(request)
    return status or 200, text
  end
  if request.method ~= "GET" and request.method ~= "HEAD" then return 501, "" end
  if type(files) == "string" and not path:find "%.%." then
    file = { path = files .. path:gsub("/$", "/index.html") }
  end
  if type(file) == "table" then file = open(file.path) end
  return file and 200 or 404, file or "not found\n"
end

-- Serves one request. Returns whether another may follow.
local function serve_request(connection, files)
  local request = read_head(connection)
  if not request then return false end
  if type(request) == "number" then return respond(connection, request, "", false) and false end
  if request.headers.expect == "100-continue" and not request.is_old then -- it waits with its body (RFC 9110 10.1.1)
    connection:send "HTTP/1.1 100 Continue\r\n\r\n"
  end
  request.body = connection:receive(request.length)
  if not request.body then return false end
  local status, body = answer(files, request)
  local sent = respond(connection, status, body, request.keep, request.method == "HEAD")
  if type(body) == "table" then body.handle:close() end
  return sent and request.keep
end

--- Accepts connections for ever, each served by a task of its own.
local function serve(stack, port, files)
  local listener = assert(stack:bind("*", port, 128))
  while true do
    local connection = assert(listener:accept())
    netstack.daemon(function()
      connection:settimeout(60)
      repeat until not serve_request(connection, files)
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
