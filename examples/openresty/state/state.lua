-- GET /state[?bytes=N]: what both ends of a connection know.
local cjson = require "cjson"
local network = require "network"
local resty = require "netstack.resty"

local BYTES_AT_MOST = 1000000

local M = {}

local function say(status, answer)
  ngx.status = status
  ngx.header.content_type = "application/json"
  ngx.say(cjson.encode(answer))
end

-- What the service sends: the bytes are of no interest, the line after them is.
local function ask(socket, bytes)
  local ok, err = socket:send(bytes .. "\n")
  if not ok then return nil, err end
  ok, err = socket:receive(bytes)
  if not ok then return nil, err end
  return socket:receive()
end

function M.answer()
  local bytes = tonumber(ngx.var.arg_bytes or 0)
  if not bytes or bytes % 1 ~= 0 or bytes < 0 or bytes > BYTES_AT_MOST then
    return say(400, { error = ("bytes: 0 to %d"):format(BYTES_AT_MOST) })
  end
  local socket = resty.tcp(network.client)
  socket:settimeouts(1000, 1000, 5000) -- milliseconds, to connect, send and receive
  -- No more connections than the service takes: who comes when all are in use waits for one.
  local ok, err = socket:connect(network.host, network.port, { pool_size = network.connections, backlog = 256 })
  if not ok then
    ngx.log(ngx.ERR, "no connection to the service: ", err)
    return say(503, { error = err })
  end
  local line
  line, err = ask(socket, bytes)
  if not line then
    socket:close()
    ngx.log(ngx.ERR, "no answer from the service: ", err)
    return say(504, { error = err })
  end
  local answer = {
    reused = socket:getreusedtimes(),
    client = { connection = socket:info(), sockets = network.client:sockets(), tcp = network.client:stats().tcp },
    server = { connection = cjson.decode(line), sockets = network.server:sockets(), tcp = network.server:stats().tcp },
  }
  socket:setkeepalive(30000)
  say(200, answer)
end

return M
