-- A small HTTP service on a stack: what stands behind the gateway.
local resty = require "netstack.resty"

local CONNECTIONS = 64 -- at once

local M = {}

local function respond(peer, request, status, headers, body)
  return peer:send { "HTTP/1.1 ", status, "\r\n", headers, "Content-Length: ", #body, "\r\n\r\n",
    request.method ~= "HEAD" and body or "" }
end

local pages = {}

function pages.hello(peer, request)
  return respond(peer, request, "200 OK", ("Content-Type: text/plain\r\nX-Request: %d\r\n"):format(request.number),
    "hello from " .. request.service .. "\n")
end

function pages.echo(peer, request)
  return respond(peer, request, "200 OK", ("X-Method: %s\r\n"):format(request.method), request.body)
end

-- A line, a chunk, each 0.1 s.
function pages.count(peer, request)
  peer:send "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
  for i = 1, tonumber(request.target:match "%?to=(%d+)") or 3 do
    local line = ("%d from %s\n"):format(i, request.service)
    if not peer:send { ("%x\r\n"):format(#line), line, "\r\n" } then return nil end
    ngx.sleep(0.1)
  end
  return peer:send "0\r\n\r\n"
end

-- Says nothing for so many milliseconds.
function pages.slow(peer, request)
  ngx.sleep((tonumber(request.target:match "%?ms=(%d+)") or 0) / 1000)
  return pages.hello(peer, request)
end

-- Fails in the middle of an answer.
function pages.broken(peer)
  peer:send "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbut\n\r\n"
  return nil
end

local function read(peer)
  local line = peer:receive()
  if not line then return nil end -- the gateway keeps the connection no longer
  local request = { method = line:match "^%S+", target = line:match "^%S+ (%S+)", headers = {} }
  repeat
    line = peer:receive()
    local name, value = (line or ""):match "^([^:]+):%s*(.-)%s*$"
    if name then request.headers[name:lower()] = value end
  until not name
  request.body = line and peer:receive(tonumber(request.headers["content-length"]) or 0)
  return request.target and request.body and request
end

-- Serves a connection as long as it lasts.
local function serve(peer, name)
  peer:settimeouts(1000, 5000, 60000)
  local count = 0 -- requests on this connection
  repeat
    local request = read(peer)
    if not request then break end
    count = count + 1
    request.service, request.number = name, count
    local page = pages[request.target:match "/(%w+)[^/]*$"]
    local sent
    if page then
      sent = page(peer, request)
    else
      sent = respond(peer, request, "404 Not Found", "", "no such page\n")
    end
  until not sent
  peer:close()
end

--- To be called when the worker starts.
function M.start(stack, name, port)
  local listener = assert(resty.listen(stack, "*", port, 128))
  assert(ngx.timer.at(0, function()
    for _ = 1, CONNECTIONS do
      ngx.thread.spawn(function()
        local peer = listener:accept()
        while peer do
          serve(peer, name)
          peer = listener:accept()
        end
      end)
    end
  end))
end

return M
