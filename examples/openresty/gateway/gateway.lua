-- Answers each request with what an upstream says to it.
local http = require "http"
local network = require "network"
local resty = require "netstack.resty"

local CONNECT, SEND, READ = 300, 1000, 1000 -- milliseconds; the latter two without any progress
local POOL = { pool_size = 64, backlog = 1024 } -- connections to each upstream, and who may wait for one
local KEEP = 30000 -- milliseconds that an idle connection is kept
local DOWN = 5 -- seconds that an upstream is left alone after it was down
local BUSY = 1 -- second: who has answered since is not down, when no connection is to be had

-- Those that an upstream may be asked twice (RFC 9110 9.2.2).
local REPEATABLE = { GET = true, HEAD = true, OPTIONS = true, PUT = true, DELETE = true }

-- What is between two neighbours only (RFC 9110 7.6.1), or said anew.
local OURS = { connection = true, ["keep-alive"] = true, ["proxy-connection"] = true, te = true, trailer = true,
  ["transfer-encoding"] = true, upgrade = true, ["content-length"] = true, expect = true }

local M = {}

local routes = {}
for prefix, upstreams in pairs(network.routes) do
  local route = { prefix = prefix, turn = 0 }
  for i, name in ipairs(upstreams) do
    local host, port = name:match "^(.+):(%d+)$"
    route[i] = { name = name, host = host, port = tonumber(port), down_till = 0, answered = 0 }
  end
  routes[#routes + 1] = route
end
table.sort(routes, function(x, y) return #x.prefix > #y.prefix end)

local function find_route(path)
  for _, route in ipairs(routes) do
    if path:sub(1, #route.prefix) == route.prefix then return route end
  end
end

-- The upstreams in the order in which they are to be tried: in turn, and those that were down last.
local function in_turn(route)
  local now, up, down = ngx.now(), {}, {}
  for i = 0, #route - 1 do
    local upstream = route[(route.turn + i) % #route + 1]
    local list = upstream.down_till > now and down or up
    list[#list + 1] = upstream
  end
  route.turn = (route.turn + 1) % #route
  for _, upstream in ipairs(down) do up[#up + 1] = upstream end
  return up
end

-- A function that tells whether a header may pass, given what the Connection header names.
local function passes(connection)
  local named = {}
  for name in (connection or ""):gmatch "[^%s,]+" do named[name:lower()] = true end
  return function(name) return not (OURS[name:lower()] or named[name:lower()]) end
end

-- Bodies lie in a file when they come in chunks that fill nginx's buffer.
local function read_body()
  ngx.req.read_body()
  local path = ngx.req.get_body_file()
  if not path then return ngx.req.get_body_data() end
  local file = assert(io.open(path, "rb"))
  local body = file:read "*a"
  file:close()
  return body
end

local function read_request()
  local headers, given = {}, ngx.req.get_headers()
  local connection = given.connection
  local may_pass = passes(type(connection) == "table" and table.concat(connection, ",") or connection)
  for name, values in pairs(given) do
    for _, value in ipairs(type(values) == "table" and values or { values }) do
      if may_pass(name) then headers[#headers + 1] = { name = name, value = value } end
    end
  end
  headers[#headers + 1] = { name = "X-Forwarded-For", value = ngx.var.proxy_add_x_forwarded_for }
  return { method = ngx.req.get_method(), target = ngx.var.request_uri, headers = headers,
    body = read_body() or given["content-length"] and "" or nil }
end

-- Asks one upstream: the socket and the head of its answer; nil, why, and whether another one may be asked.
local function ask(upstream, request)
  local socket = resty.tcp(network.stack)
  socket:settimeouts(CONNECT, SEND, READ)
  local ok, err = socket:connect(upstream.host, upstream.port, POOL)
  if not ok then
    local now = ngx.now()
    if upstream.answered + BUSY < now then upstream.down_till = now + DOWN end
    return nil, err, true
  end
  local response
  ok, err = http.send(socket, request)
  if ok then response, err = http.receive(socket, request) end
  if response then
    upstream.answered = ngx.now()
    return socket, response
  end
  socket:close()
  return nil, err, REPEATABLE[request.method]
end

-- Passes an answer on, as it comes. An answer that breaks off breaks off for the client, too.
local function pass(upstream, socket, response)
  ngx.status = response.status
  local may_pass, lists = passes(response.first.connection), {}
  for _, header in ipairs(response.headers) do
    local key = header.name:lower()
    lists[key] = lists[key] or {}
    table.insert(lists[key], header.value)
    if may_pass(header.name) then ngx.header[header.name] = lists[key] end
  end
  ngx.header["Content-Length"] = response.length ~= "chunked" and response.first["content-length"] or nil
  ngx.send_headers()
  local next_block = http.blocks(socket, response)
  local block, err = next_block()
  while block and block ~= "" do
    ngx.print(block)
    local sent = ngx.flush(true)
    if not sent then -- the client is gone
      socket:close()
      return ngx.exit(ngx.ERROR)
    end
    block, err = next_block()
  end
  if not block then
    socket:close()
    ngx.log(ngx.ERR, "the answer of ", upstream.name, " broke off: ", err)
    return ngx.exit(ngx.ERROR)
  end
  if response.keep then socket:setkeepalive(KEEP) else socket:close() end
end

local function fail(status, why)
  ngx.status = status
  ngx.header["Content-Type"] = "text/plain"
  ngx.say(status, ": ", why)
end

function M.answer()
  local route = find_route(ngx.var.uri)
  if not route then return fail(404, "no route") end
  local request = read_request()
  local last
  for _, upstream in ipairs(in_turn(route)) do
    local socket, answer, again = ask(upstream, request)
    if socket then return pass(upstream, socket, answer) end
    last = answer
    ngx.log(ngx.WARN, upstream.name, " did not answer: ", last)
    if not again then break end
  end
  ngx.log(ngx.ERR, "no upstream of ", route.prefix, " answered; the last one: ", last)
  if last == "timeout" then return fail(504, "no upstream answered in time") end
  return fail(502, "no upstream answered: " .. last)
end

return M
