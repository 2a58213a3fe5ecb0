-- A small HTTP/1.1 server on a stack: serves the files of a table or of a folder, GET and HEAD, keep-alive or close.
--
--   local serve = require "http_server"
--   netstack.daemon(serve, stack, 80, "/usr/share/common-licenses")
--   netstack.daemon(serve, stack, 80, { ["/hello.txt"] = "Hello!\n", ["/COPYING"] = { path = "/tmp/COPYING" } })
local netstack = require "netstack"

local REASONS = { [200] = "OK", [400] = "Bad Request", [404] = "Not Found", [501] = "Not Implemented" }

-- The text that a target stands for. A table has texts, or files of the host, which are read when first asked for.
local function content(files, target)
  local path, file = target:match("^[^?#]*"), nil
  if type(files) == "table" then file = files[path] else file = not path:find "%.%." and { path = files .. path } end
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
return function(stack, port, files)
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
