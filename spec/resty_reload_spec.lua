-- nginx reloads again and again while clients ask. HTTP has a server close a connection that it has kept when it likes,
-- and a client ask anew (RFC 9112 9.3.1, 9.5): nginx does that to each of them at a reload, whatever its requests do.
-- All else must be answered; who begins to talk to a listener of a worker that exits is told that it is closed.
local WORLD = require "spec.resty_world"
local nginx = require "spec.nginx"

describe("netstack.resty, while nginx reloads,", function()
  if nginx.absent(it, pending) then return end
  local socket = require "socket"

  after_each(nginx.finish)

  local LOCATION = [[
    keepalive_requests 1000000;
    location = /load { content_by_lua_block {
      local socket = resty.tcp(a)
      local line, err = socket:connect("10.0.0.2", 80)
      if line then line, err = socket:send(math.random(10) == 1 and "wait 0.03\n" or "waited\n") end
      if line then line, err = socket:receive() end
      if math.random(2) == 1 then socket:setkeepalive() else socket:close() end
      if not line then ngx.status = ngx.worker.exiting() and 503 or 500 end
      line = (line or err) .. "\n"
      ngx.header.content_length = #line
      ngx.print(line)
    } }
  ]]

  local Client = {}
  Client.__index = Client

  function Client:ask()
    if not self.connection then
      self.connection, self.used = assert(socket.connect("127.0.0.1", self.port)), false
      self.connection:settimeout(0)
    end
    self.text = ""
    self.connection:send(("GET /load HTTP/1.%d\r\nHost: x\r\n\r\n"):format(self.keeps and 1 or 0))
  end

  -- To be called when there is something to read.
  function Client:go_on(counts)
    local _, err, part = self.connection:receive(65536)
    self.text = self.text .. part
    local answered = self.text:match("^HTTP/1%.1 200 .*\r\n\r\nwaited\n$")
    local refused = self.text:match("^HTTP/1%.1 503 .*\r\n\r\nconnection re[^\n]*\n$")
    if answered or refused then
      counts[answered and "answered" or "refused"] = counts[answered and "answered" or "refused"] + 1
      self.used = true
    elseif err == "timeout" then
      return
    elseif self.text == "" and self.used then
      counts.closed = counts.closed + 1
    else
      counts.failed[#counts.failed + 1] = tostring(err) .. " " .. self.text
    end
    if err == "closed" or not self.keeps then
      self.connection:close()
      self.connection = nil
    end
    self:ask()
  end

  it("answers all requests, and leaves no worker behind", function()
    local server = nginx.start { http = WORLD, locations = LOCATION }
    local clients, counts = {}, { answered = 0, refused = 0, closed = 0, failed = {} }
    for i = 1, 12 do
      clients[i] = setmetatable({ port = server.port, keeps = i <= 8 }, Client)
      clients[i]:ask()
    end
    local endless = server:open("/run", [[
      local socket = resty.tcp(a)
      socket:connect("10.0.0.2", 80)
      return (select(2, socket:receive()))
    ]])
    local RELOADS, PERIOD = 5, 0.3
    local start, old, reloads, first = socket.gettime(), {}, 0, nil
    while reloads < RELOADS or socket.gettime() < start + (RELOADS + 1) * PERIOD do
      local now, by_connection, connections = socket.gettime(), {}, {}
      if reloads < RELOADS and now > start + (reloads + 1) * PERIOD then
        for _, pid in ipairs(server:workers()) do old[pid] = true end
        server:signal "HUP"
        reloads, first = reloads + 1, first or now
      end
      for i, client in ipairs(clients) do
        connections[i], by_connection[client.connection] = client.connection, client
      end
      for _, connection in ipairs((socket.select(connections, nil, 0.02))) do
        by_connection[connection]:go_on(counts)
      end
    end
    for _, client in ipairs(clients) do client.connection:close() end
    assert.same({}, counts.failed)
    assert.is_true(counts.answered > 200, counts.answered)
    assert.is_true(counts.closed <= 8 * RELOADS, counts.closed)
    assert.is_true(counts.refused <= 12 * RELOADS, counts.refused)
    assert.same({ 200, "closed" }, { endless:wait() })
    assert.is_true(socket.gettime() - first < 4, socket.gettime() - first)
    local last = socket.gettime()
    for _, pid in ipairs(server:workers()) do old[pid] = nil end
    nginx.eventually(function()
      for pid in pairs(old) do if not nginx.ended(pid) then return false end end
      return #server:workers() == 1
    end, 4)
    assert.is_true(socket.gettime() - last < 2, socket.gettime() - last)
    server:check_log()
  end)
end)
