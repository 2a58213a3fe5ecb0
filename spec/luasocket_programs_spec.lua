-- LuaSocket's clients, and one of Redis, on a stack, against servers of the system's over TUN; and LTN12 over sockets.
local bound = require "netstack.luasocket"
local helper = require "spec.helper"
local netns = require "spec.netns"
local netstack = require "netstack"
local servers = require "spec.servers"

local run, spawn = netstack.run, netstack.spawn
local with = netns.specs(it, pending)
local unpack = table.unpack or unpack -- luacheck: ignore 143
local MIB = 1024 * 1024
local HOSTS = { "10.1.0.1", "[fd01::1]" }

if not pcall(require, "socket") then
  describe("LuaSocket's clients", function() pending("LuaSocket is not installed") end)
  return
end

-- The first `length` bytes of a stream as one string.
local function bytes(seed, length)
  local next_bytes, parts = helper.stream(seed), {}
  for at = 0, length - 1, 65536 do parts[#parts + 1] = next_bytes(math.min(65536, length - at)) end
  return table.concat(parts)
end

describe("socket.http", function()
  after_each(netns.finish)

  local function against_nginx(fn)
    local stack, namespace = netns.connected()
    local folder = netns.folder()
    netns.command("mkdir -p " .. folder .. "/www/dav")
    netns.write_stream(folder .. "/www/large", 1, 3 * MIB + 17)
    -- fcgiwrap wants its input read before it takes output.
    netns.write(folder .. "/cat.sh", ("#!/bin/sh\ncat >%s/$$\nprintf 'Content-Type: text/plain\\n\\n'\ncat %s/$$\n")
      :format(folder, folder))
    netns.command("chmod +x " .. folder .. "/cat.sh")
    run(function()
      servers.fcgiwrap(namespace)
      local nginx = servers.nginx(namespace, [[
        root FOLDER/www;
        absolute_redirect off; # LuaSocket names an IPv6 host without brackets
        location = /cat {
          include /etc/nginx/fastcgi_params;
          fastcgi_param SCRIPT_FILENAME FOLDER/cat.sh;
          fastcgi_pass unix:FOLDER/cgi;
        }
        location = /length { return 200 "$request_method $content_length $http_connection"; }
        location = /old { return 302 /new; }
        location = /new { return 200 "it is here"; }
        location = /loop { return 302 /loop; }
        location = /slow { alias FOLDER/www/large; limit_rate 200k; }
        location /dav/ { dav_methods PUT DELETE; }
      ]])
      local socket = bound(stack)
      fn(socket.load "socket.http", socket, nginx, stack)
    end, { timeout = 60 })
  end

  with({ "nginx", "fcgiwrap" }, "gets and posts megabytes, follows redirections, over both families", function()
    against_nginx(function(http, socket, _, stack)
      local ltn12 = socket.load "ltn12"
      local large, posted = bytes(1, 3 * MIB + 17), bytes(2, MIB + 5)
      for _, host in ipairs(HOSTS) do
        local url = "http://" .. host
        local body, status, headers, line = http.request(url .. "/large")
        assert.same({ 200, "HTTP/1.1 200 OK", tostring(#large) }, { status, line, headers["content-length"] })
        assert.is_true(body == large)
        assert.equal("close", headers.connection)

        body, status, headers = http.request(url .. "/cat", posted) -- comes back in chunks
        assert.same({ 200, "chunked" }, { status, headers["transfer-encoding"] })
        assert.is_true(body == posted)

        -- A request in chunks, of a length that is not told.
        local sent = 0
        local ok
        ok, status = http.request { url = url .. "/dav/file", method = "PUT", source = function()
          sent = sent + 1
          return sent <= 40 and posted:sub(sent * 1000, sent * 1000 + 999) or nil
        end }
        assert.equal(1, ok)
        assert.is_true(status == 201 or status == 204, status)
        assert.is_true(netns.read(netns.folder() .. "/www/dav/file") == posted:sub(1000, 40999))

        local parts = {}
        ok, status, headers = http.request { url = url .. "/large", headers = { Range = "bytes=1000-1999" },
          sink = ltn12.sink.table(parts) }
        assert.same({ 1, 206, "1000" }, { ok, status, headers["content-length"] })
        assert.equal(large:sub(1001, 2000), table.concat(parts))

        body, status = http.request(url .. "/old")
        assert.same({ "it is here", 200 }, { body, status })
        ok, status, headers = http.request { url = url .. "/old", redirect = false }
        assert.same({ 1, 302, "/new" }, { ok, status, headers.location })
        assert.equal(302, (select(2, http.request(url .. "/loop"))))
        assert.equal(404, (select(2, http.request(url .. "/nothing"))))
        assert.equal(405, (select(2, http.request { url = url .. "/large", method = "DELETE" })))
        ok, status, headers = http.request { url = url .. "/large", method = "HEAD" }
        assert.same({ 1, 200, tostring(#large) }, { ok, status, headers["content-length"] })
        assert.equal("POST 3 close, TE", (http.request(url .. "/length", "abc")))
        assert.same({ nil, "connection refused" }, { http.request(url .. ":81/") })
      end
      netstack.sleep(2.5)
      assert.equal(0, #stack:sockets()) -- one connection for each request, and none is left
    end)
  end)

  with({ "nginx", "fcgiwrap" }, "does many requests at once, and says when a server goes away", function()
    against_nginx(function(http, socket, nginx)
      local large, tasks = bytes(1, 3 * MIB + 17), {}
      for i = 1, 10 do
        tasks[i] = spawn(function()
          local text = bytes(i, 100000 + i)
          assert(large == http.request(("http://%s/large"):format(HOSTS[i % 2 + 1])))
          assert(text == http.request(("http://%s/cat"):format(HOSTS[i % 2 + 1]), text))
        end)
      end
      for i = 1, 10 do tasks[i]:join() end

      local received = 0
      local ok, err = http.request { url = "http://10.1.0.1/slow", sink = function(chunk)
        received = received + #(chunk or "")
        if received > 100000 then nginx:signal("KILL") end
        return 1
      end }
      assert.same({ nil, "closed" }, { ok, err })
      assert.is_true(received < #large)
      http.TIMEOUT = 0.2
      local silent = assert(socket.bind("10.1.0.2", 9)) -- accepts, and says nothing
      assert.same({ nil, "timeout" }, { http.request("http://10.1.0.2:9/") })
      silent:close()
    end)
  end)
end)

describe("socket.smtp", function()
  after_each(netns.finish)

  with({ "aiosmtpd" }, "sends mail in parts, byte for byte, logs in, and tells refusals", function()
    local stack, namespace = netns.connected(1, nil, { hosts = { mail = { "fd01::1", "10.1.0.1" } } })
    local socket = bound(stack)
    local smtp, mime, ltn12 = socket.load "socket.smtp", socket.load "mime", socket.load "ltn12"
    local image, found = bytes(1, MIB + 1), {}
    local dots = ".\r\n..a dot\r\nand more\r\n.\r\nthe end"
    run(function()
      servers.smtp(namespace, 1, 25)
      for i, server in ipairs { "10.1.0.1", "mail" } do
        assert.same({ 1 }, { smtp.send { server = server, from = "<a@x>", rcpt = { "<b@y>", "<c@z>" }, user = "user",
          password = "secret", source = smtp.message {
            headers = { subject = "Number " .. i, to = "b" },
            body = {
              { body = dots },
              { headers = { ["content-type"] = "image/png", ["content-transfer-encoding"] = "BASE64" },
                body = ltn12.source.chain(ltn12.source.string(image),
                  ltn12.filter.chain(mime.encode "base64", mime.wrap())) },
            },
          } } })
      end
      local function refused(about)
        about.from, about.source = about.from or "<a@x>", smtp.message { body = "text" }
        local ok, err = smtp.send(about)
        assert.is_nil(ok)
        return err
      end
      assert.matches("^535 ", refused { server = "mail", rcpt = "<b@y>", user = "user", password = "wrong" })
      assert.matches("^553 ", refused { server = "mail", from = "nonsense @ @", rcpt = "<b@y>" })
      assert.matches("^555 ", refused { server = "mail", from = "<a@x> OPTION", rcpt = "<b@y>" })
      assert.equal("connection refused", refused { server = "mail", port = 26, rcpt = "<b@y>" })
      assert.equal("host not found", refused { server = "nobody", rcpt = "<b@y>" })
    end, { timeout = 60 })
    local folder = netns.folder() .. "/mail/new/"
    for name in netns.command("ls " .. folder):gmatch("%S+") do
      local text = netns.read(folder .. name)
      found[#found + 1] = text:match("[Ss]ubject: (Number %d)")
      assert.is_truthy(text:find("X-RcptTo: b@y, c@z", 1, true))
      assert.is_truthy(text:find((dots:gsub("\r", "")), 1, true))
      assert.is_true(mime.unb64((text:match("BASE64.-\n\n(.-)\n%-%-"):gsub("%s", ""))) == image)
    end
    table.sort(found)
    assert.same({ "Number 1", "Number 2" }, found)
  end)
end)

describe("socket.ftp", function()
  after_each(netns.finish)

  for i, host in ipairs(HOSTS) do
    with({ "pyftpdlib" }, "puts, gets, lists and deletes, IPv" .. (i == 1 and 4 or 6), function()
      local stack, namespace = netns.connected()
      local socket = bound(stack)
      local ftp, ltn12 = socket.load "socket.ftp", socket.load "ltn12"
      local folder, data = netns.folder(), bytes(3, 2 * MIB + 3)
      netns.command(("mkdir %s/home %s/public"):format(folder, folder))
      netns.write(folder .. "/public/text", "hello\r\n")
      run(function()
        servers.ftp(namespace, (host:gsub("[][]", "")), folder .. "/home", folder .. "/public")
        local url = "ftp://luasocket:password@" .. host
        assert.equal(#data, (assert(ftp.put(url .. "/data;type=i", data))))
        assert.is_true(netns.read(folder .. "/home/data") == data)
        assert.is_true(ftp.get(url .. "/data;type=i") == data)
        assert.equal("hello\r\n", (ftp.get("ftp://" .. host .. "/text;type=i")))
        local listing = {}
        assert(ftp.get { host = (host:gsub("[][]", "")), user = "luasocket", password = "password", command = "nlst",
          sink = ltn12.sink.table(listing) })
        assert.equal("data\r\n", table.concat(listing))

        -- Active: the server connects to the stack.
        if i == 1 then
          local parts, f = {}, ftp.open(host)
          f:greet()
          f:login("luasocket", "password")
          f:type("i")
          f.server = assert(socket.bind("10.1.0.2", 0))
          f:eprt(1, f.server:getsockname())
          f:receive { path = "data", sink = ltn12.sink.table(parts) }
          f:quit()
          f:close()
          assert.is_true(table.concat(parts) == data)
        end

        local command = { host = (host:gsub("[][]", "")), user = "luasocket", password = "password", command = "dele",
          argument = "data", check = 250 }
        assert.equal(1, (ftp.command(command)))
        assert.is_nil(netns.read(folder .. "/home/data"))
        local ok, err = ftp.command(command)
        assert.is_nil(ok)
        assert.matches("^550 ", err)
        assert.matches("^550 ", (select(2, ftp.get(url .. "/data;type=i"))))
        assert.matches("^530 ", (select(2, ftp.get("ftp://luasocket:wrong@" .. host .. "/data"))))
        assert.matches("^550 ", (select(2, ftp.put("ftp://" .. host .. "/denied", "x"))))
      end, { timeout = 60 })
      stack:close() -- the server lets the connections of refused commands stand
    end)
  end
end)

describe("ltn12", function()
  after_each(helper.nothing_left)

  it("pumps through filters from socket to socket", function()
    local a, b = helper.pair()
    local client, server = bound(a), bound(b)
    local ltn12, mime = client.load "ltn12", client.load "mime"
    local data = bytes(4, MIB)
    for _, host in ipairs { "10.0.0.2", "fd00::2" } do
      run(function()
        local listener = assert(server.bind("*", 80))
        spawn(function() -- decodes what comes and sends it back
          local peer = assert(listener:accept())
          local ended
          local source = ltn12.source.chain(server.source("by-length", peer, tonumber(peer:receive())),
            ltn12.filter.chain(mime.decode "base64", function(chunk)
              ended = ended or chunk == nil
              return chunk
            end))
          assert(ltn12.pump.all(source, server.sink("close-when-done", peer)))
          assert.is_true(ended)
        end)
        local connection, parts = assert(client.connect(host, 80)), {}
        local encode = ltn12.filter.chain(mime.encode "base64", mime.wrap())
        spawn(function()
          local length = 0
          assert(ltn12.pump.all(ltn12.source.chain(ltn12.source.string(data), encode), function(chunk)
            length = length + #(chunk or "")
            return 1
          end))
          connection:send(length .. "\n")
          encode = ltn12.filter.chain(mime.encode "base64", mime.wrap())
          assert(ltn12.pump.all(ltn12.source.chain(ltn12.source.string(data), encode),
            client.sink("keep-open", connection)))
        end)
        assert(ltn12.pump.all(client.source("until-closed", connection), (ltn12.sink.table(parts))))
        assert.is_true(table.concat(parts) == data)
        listener:close()
      end)
    end
  end)
end)

describe("redis", function()
  local path = package.path
  local folder = io.popen("ls -d /usr/share/lua/*/redis.lua 2>/dev/null"):read("*l")
  local available = pcall(require, "redis")

  before_each(function()
    -- It is Lua alone, and packaged for some versions.
    if not available and folder then package.path = path .. ";" .. folder:gsub("redis.lua$", "?.lua") end
  end)
  after_each(function()
    package.path = path
    netns.finish()
  end)
  if not available and not folder then return pending("lua-redis is not installed") end

  local function against_redis(fn)
    local stack, namespace = netns.connected()
    run(function()
      local socket = bound(stack)
      fn(socket.load "redis", servers.redis(namespace), namespace)
    end, { timeout = 60 })
    stack:close()
  end

  with({ "redis-server" }, "keeps values, also binary ones, in pipelines and transactions", function()
    against_redis(function(redis)
      for _, host in ipairs { "10.1.0.1", "fd01::1" } do
        local client = redis.connect(host, 6379)
        assert.is_true(client:ping())
        assert.is_true(client:set("name", "value"))
        assert.equal("value", client:get("name"))
        assert.is_nil(client:get("nothing"))
        local large = bytes(5, MIB) .. "\r\n\0"
        assert.is_true(client:set("large", large))
        assert.is_true(client:get("large") == large)
        assert.equal(#large, client:strlen("large"))
        assert.equal(2, client:rpush("list" .. host, "a", "b"))
        assert.same({ "a", "b" }, client:lrange("list" .. host, 0, -1))

        -- Of what has an answer of its own: lua-redis cannot count others on Lua 5.2 and later, on any socket.
        local replies, count = client:pipeline(function(pipe)
          for i = 1, 1000 do pipe:exists(i % 2 == 0 and "name" or "nothing") end
        end)
        assert.same({ 1000, false, true }, { count, replies[999], replies[1000] })

        client:set("count", 0)
        replies, count = client:transaction(function(transaction)
          transaction:incr("count")
          transaction:incrby("count", 10)
        end)
        assert.same({ { 1, 11 }, 2 }, { replies, count })

        local ok, err = netstack.pcall(client.incr, client, "name")
        assert.is_false(ok)
        assert.matches("redis error: ERR value is not an integer", err)
        assert.is_true(client:ping()) -- it goes on
        assert.is_true(client:quit())
      end
    end)
  end)

  with({ "redis-server" }, "publishes to a subscriber, and connects again to a server that was restarted", function()
    against_redis(function(redis, server, namespace)
      local subscriber, client = redis.connect("10.1.0.1", 6379), redis.connect("10.1.0.1", 6379)
      local heard = {}
      local task = spawn(function()
        for message, abort in subscriber:pubsub { subscribe = { "news" }, psubscribe = "odd*" } do
          heard[#heard + 1] = message.kind .. " " .. tostring(message.payload)
          if message.payload == "stop" then abort() end
        end
      end)
      netns.eventually(function() return #heard == 2 end)
      assert.equal(1, client:publish("news", "hello"))
      assert.equal(1, client:publish("oddity", "strange"))
      assert.equal(0, client:publish("nobody", "listens"))
      assert.equal(1, client:publish("news", "stop"))
      task:join(10)
      assert.same({ "subscribe 1", "psubscribe 2", "message hello", "pmessage strange", "message stop" },
        { unpack(heard, 1, 5) })

      server:signal("KILL")
      server:wait()
      local ok, err = netstack.pcall(client.get, client, "name")
      assert.is_false(ok)
      assert.matches("closed$", err)
      ok, err = netstack.pcall(redis.connect, "10.1.0.1", 6379)
      assert.is_false(ok)
      assert.matches("connection refused", err)
      servers.redis(namespace)
      client = redis.connect { host = "10.1.0.1", port = 6379, timeout = 10 }
      assert.is_true(client:set("name", "again"))
      assert.equal("again", client:get("name"))
      client:quit()
    end)
  end)
end)
