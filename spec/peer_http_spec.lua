-- curl in a namespace against the HTTP server of the examples on a stack, over TUN.
local netns = require "spec.netns"
local netstack = require "netstack"

local with = netns.specs(it, pending)
local serve = assert(loadfile "examples/http_server.lua")()

local MIB = 1024 * 1024
local HOSTS = { "10.1.0.2", "[fd01::2]" }

-- Gives `fn` a function that runs curl with arguments to its end, and what it prints; the server has `files`.
local function serving(files, fn)
  local stack, namespace = netns.connected()
  netstack.run(function()
    netstack.daemon(serve, stack, 80, files)
    fn(function(arguments, ...)
      local command = "curl -sS --max-time 60 " .. arguments:format(...)
      return namespace:start("sh -c " .. netns.quote(command)):wait(60)
    end, stack)
  end, { timeout = 120 })
  collectgarbage() -- the listener is its daemon's, which is over
  collectgarbage()
end

describe("curl", function()
  after_each(netns.finish)

  for i, host in ipairs(HOSTS) do
    local name = i == 1 and "IPv4" or "IPv6"
    with({ "curl", "cmp" }, "downloads 100 MiB, byte for byte, " .. name, function()
      local path = netns.folder() .. "/large"
      netns.write_stream(path, 1, 100 * MIB)
      serving({ ["/large"] = { path = path } }, function(curl, stack)
        local status, text = curl("http://%s/large | cmp - %s && echo same", host, path)
        assert.same({ 0, "same\n" }, { status, text })
        local bytes = stack:stats().memory.bytes
        assert.is_true(bytes < 2 * MIB, bytes)
      end)
    end)

    with({ "curl" }, "keeps a connection for what it asks one after the other, " .. name, function()
      serving({ ["/a"] = "text a\n", ["/b"] = ("b"):rep(20000) .. "\n" }, function(curl, stack)
        local urls = ("http://%s/a http://%s/b "):rep(3):gsub("%%s", host)
        local status, text = curl("-w '%%{http_code} %%{num_connects}\\n' %s", urls)
        assert.equal(0, status, text)
        local one, two = "text a\n200 %d\n", ("b"):rep(20000) .. "\n200 0\n"
        assert.equal(one:format(1) .. two .. (one:format(0) .. two):rep(2), text)
        assert.equal(1, stack:stats().tcp.accepted)
      end)
    end)
  end

  with({ "curl", "sha256sum" }, "fetches 50 files at once, each whole", function()
    local folder, files = netns.folder(), {}
    for i = 1, 50 do
      files["/" .. i] = { path = ("%s/%d.sent"):format(folder, i) }
      netns.write_stream(files["/" .. i].path, i, 100000 + 3001 * i)
    end
    serving(files, function(curl, stack)
      -- Without `--parallel-immediate` curl waits whether it might share one connection.
      local hosts = {}
      for i = 1, 50 do
        hosts[i] = ("-o %s/%d.got http://%s/%d"):format(folder, i, HOSTS[i % 2 + 1], i)
      end
      local status, text = curl("--parallel --parallel-immediate --parallel-max 50 -w '%%{http_code} ' %s",
        table.concat(hosts, " "))
      assert.same({ 0, ("200 "):rep(50) }, { status, text:match("[^\n]*$") }) -- below a table of its progress
      assert.equal(50, stack:stats().tcp.accepted)
    end)
    for i = 1, 50 do netns.assert_stream(("%s/%d.got"):format(folder, i), i, 100000 + 3001 * i) end
  end)

  with({ "curl", "cmp" }, "uploads what comes back the same, asking before it sends much (RFC 9110 10.1.1)", function()
    local path, requests = netns.folder() .. "/upload", {}
    netns.write_stream(path, 3, 5 * MIB + 1)
    serving({ ["/echo"] = function(request)
      requests[#requests + 1] = request
      return request.body
    end }, function(curl)
      for _, host in ipairs(HOSTS) do
        for _, how in ipairs { "-T", "--data-binary @" } do
          local status, text = curl("--expect100-timeout 30 %s%s http://%s/echo | cmp - %s && echo same", how, path,
            host, path)
          assert.same({ 0, "same\n" }, { status, text })
        end
      end
      local _, text = curl("-d 'a short one' http://%s/echo", HOSTS[1])
      assert.equal("a short one", text)
    end)
    local kinds = {}
    for i, request in ipairs(requests) do
      kinds[i] = ("%s %s"):format(request.method, request.headers.expect or "-")
    end
    assert.same({ "PUT 100-continue", "POST 100-continue", "PUT 100-continue", "POST 100-continue", "POST -" }, kinds)
  end)

  with({ "curl" }, "asks for heads, for what is not there, and for what cannot be", function()
    serving({ ["/text"] = ("x"):rep(300000) }, function(curl, stack)
      for _, host in ipairs(HOSTS) do
        local status, text = curl("-I http://%s/text", host)
        assert.equal(0, status, text)
        assert.equal("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\nConnection: keep-alive\r\n\r\n", text)
        -- The head of one and the body of another on one connection: nothing is left between them.
        status, text = curl("-w '%%{num_connects}' -I http://%s/text --next -sS -w '%%{num_connects}' http://%s/text",
          host, host)
        assert.equal(0, status, text)
        assert.is_truthy(text:find("\r\n\r\n1" .. ("x"):rep(300000) .. "0", 1, true))
        status, text = curl("-w '%%{http_code}' http://%s/nothing", host)
        assert.same({ 0, "not found\n404" }, { status, text })
        assert.equal(22, (curl("-f http://%s/nothing", host))) -- curl's for a status of 400 and more
        _, text = curl("-X DELETE -w '%%{http_code}' http://%s/text", host)
        assert.equal("501", text)
        _, text = curl("-H 'Transfer-Encoding: chunked' -d x -w '%%{http_code}' http://%s/text", host)
        assert.equal("501", text)
        assert.equal(7, (curl("http://%s:81/", host))) -- refused
      end
      -- A client that goes away in the midst of a body is no harm to the next one.
      assert.equal(23, (curl("http://%s/text | head -c 10 >/dev/null; exit 23", HOSTS[1])))
      assert.equal(0, (curl("http://%s/text", HOSTS[1])))
      assert.equal(1, #stack:sockets()) -- the listener
    end)
  end)
end)
