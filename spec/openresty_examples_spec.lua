-- The examples for OpenResty, each from its own folder, as a user starts them; asked by curl, and under load by wrk.
local netns = require "spec.netns"
local nginx = require "spec.nginx"

local capture = netns.capture

describe("The examples for OpenResty:", function()
  local missing = nginx.missing()
  local has_cjson, cjson = pcall(require, "cjson")
  if not missing and not has_cjson then missing = "lua-cjson is missing" end
  if not missing and not select(2, capture("curl --version")) then missing = "curl is missing" end
  if missing then
    it("need nginx with ngx_lua", function() pending(missing) end)
    return
  end
  local has_wrk = select(2, capture("command -v wrk"))
  local socket = require "socket"
  local server

  local function start(name) server = nginx.start { copy = "examples/openresty/" .. name } end

  -- Its body, and what `-w` adds: the status.
  local function curl(path, options)
    return capture(("curl -s -w '%%{http_code}' %s 'http://127.0.0.1:%d%s'"):format(options or "", server.port, path))
  end

  -- What nginx has logged since, at [error] or above.
  local function complaint(before)
    local log = server:log():sub(before + 1)
    for _, level in ipairs { "error", "crit", "alert", "emerg" } do
      local line = log:match("[^\n]*%[" .. level .. "%][^\n]*")
      if line then return line end
    end
  end

  local function load_with_wrk(path, seconds)
    if not has_wrk then return pending("wrk is missing") end
    local before = #server:log()
    local output, ok = capture(("wrk -t2 -c8 -d%ds 'http://127.0.0.1:%d%s'"):format(seconds, server.port, path))
    assert.is_true(ok, output)
    assert.is_true(tonumber(output:match("(%d+) requests in")) > 20, output)
    assert.is_nil(output:match("Non%-2xx[^\n]*") or output:match("Socket errors[^\n]*") or complaint(before))
  end

  -- Whatever it is doing, it ends, and has nothing to complain of.
  local function quit()
    local began, before = socket.gettime(), #server:log()
    server:signal("QUIT")
    nginx.eventually(function() return server:ended() end)
    assert.is_true(socket.gettime() - began < 1.5)
    assert.is_nil(complaint(before))
  end

  describe("the gateway", function()
    setup(function() start "gateway" end)
    teardown(nginx.finish)

    it("asks the upstreams in turn, over connections that it keeps", function()
      local said = {}
      for i = 1, 6 do said[i] = curl("/app/hello") end
      local turn = { "hello from app1\n200", "hello from app2\n200", "hello from app3\n200" }
      assert.same({ turn[1], turn[2], turn[3], turn[1], turn[2], turn[3] }, said)
      local head = curl("/app/hello", "-I")
      assert.matches("\r\nX%-Request: 3\r\n", head) -- on that connection
      assert.matches("\r\nContent%-Length: 16\r\n.*200$", head)
      assert.equal("no such page\n404", (curl("/app/nothing")))
      assert.equal("404: no route\n404", (curl("/nothing")))
    end)

    it("passes bodies on, with a length and in chunks", function()
      assert.equal("text200", (curl("/app/echo", "-d text")))
      assert.equal("200", (curl("/app/echo", "-X POST")))
      local path = server.folder .. "/body"
      local file = assert(io.open(path, "wb"))
      file:write(("0123456789"):rep(100000))
      file:close()
      for _, option in ipairs { "--data-binary @", "-X POST -H 'Transfer-Encoding: chunked' --data-binary @" } do
        assert.is_true(("0123456789"):rep(100000) .. "200" == curl("/app/echo", option .. path))
      end
      assert.matches("413$", (curl("/app/echo", ("--data-binary @%s --data-binary @%s"):format(path, path))))
    end)

    it("passes answers on as they come", function()
      local connection = assert(socket.connect("127.0.0.1", server.port))
      connection:settimeout(5)
      connection:send("GET /app/count?to=3 HTTP/1.0\r\n\r\n")
      local times = {}
      for line in function() return (connection:receive()) end do
        if line:find "^%d from app%d$" then times[#times + 1] = socket.gettime() end
      end
      connection:close()
      assert.equal(3, #times)
      assert.is_true(times[2] - times[1] > 0.05 and times[3] - times[2] > 0.05)
      -- One that breaks off does so for the client.
      local text, ok = curl("/app/broken")
      assert.same({ "but\n200", false }, { text, ok })
    end)

    it("asks another upstream for one that is down, and says when there is none", function()
      local turns = {}
      for i = 1, 4 do turns[i] = curl("/beta/hello") end
      local hello = "hello from app2\n200"
      assert.same({ hello, hello, hello, hello }, turns)
      assert.matches("app1:8080 did not answer: connection refused", server:log(), 1, true)
      assert.matches("app4:80 did not answer: timeout", server:log(), 1, true)
      assert.equal("502: no upstream answered: connection refused\n502", (curl("/gone/hello")))
      assert.equal("504: no upstream answered in time\n504", (curl("/app/slow?ms=1200", "-d once"))) -- and not thrice
      assert.matches("%[error%][^\n]*no upstream of /gone/ answered; the last one: connection refused", server:log())
    end)

    it("has no errors under load", function() load_with_wrk("/app/hello", 2) end)

    it("ends with nginx, and has forgotten who went away", function()
      local text = capture(("timeout 0.3 curl -sN http://127.0.0.1:%d/app/count?to=1000"):format(server.port))
      assert.matches("^1 from app%d\n2 ", text)
      quit()
    end)
  end)

  describe("the lab", function()
    setup(function() start "lab" end)
    teardown(nginx.finish)

    local QUERY = "?loss=0.05&timeout=0.5&retries=2&trials=50"

    it("says how a retry policy does", function()
      local text = curl("/lab" .. QUERY)
      local answer = cjson.decode((text:match "^(.*)\n200$"))
      assert.same({ true, 50, 50, 50 }, { answer.survived, answer.successes, answer.trials, #answer.results })
      assert.is_true(answer.attempts > 50 and answer.latency.least == 0.08 and answer.latency.most > 0.5)
      assert.equal(answer.results[1].latency, answer.results[2].at)
      text = curl("/lab", "-d '" .. QUERY:sub(2) .. "'")
      assert.same(answer.results, cjson.decode((text:match "^(.*)\n200$")).results)
      -- One that gives up at once does not survive, unless less is asked of it.
      text = curl("/lab?loss=0.2&retries=0&timeout=0.1&trials=20", "--fail-with-body")
      answer = cjson.decode((text:match "^(.*)\n422$"))
      assert.is_false(answer.survived)
      assert.is_true(answer.successes < 20)
      assert.matches("200$", (curl("/lab?loss=0.2&retries=0&timeout=0.1&trials=20&survive=0.2")))
    end)

    it("gives the capture of the same trials, always the same", function()
      local answer = cjson.decode((curl("/lab" .. QUERY):match "^(.*)\n200$"))
      local first, second = server.folder .. "/1.pcapng", server.folder .. "/2.pcapng"
      assert.matches("Content%-Type: application/vnd.tcpdump.pcap", (curl("/lab.pcapng" .. QUERY, "-D - -o " .. first)))
      curl(answer.capture, "-o " .. second)
      assert.is_true(#nginx.read(first) > 10000 and nginx.read(first) == nginx.read(second))
      curl(answer.capture .. "&trials=50", "-o " .. second) -- which of the two?
      assert.equal("trials: integer from 1 to 1000 expected\n", nginx.read(second))
      if select(2, capture("tshark --version")) then
        local _, connections = capture(("tshark -r %s -Y 'tcp.flags.syn == 1 && tcp.flags.ack == 0' -T fields " ..
          "-e tcp.srcport 2>/dev/null | sort -u"):format(first)):gsub("\n", "")
        assert.equal(answer.attempts, connections)
      end
    end)

    it("refuses what makes no sense, or would take too long", function()
      for query, why in pairs {
        ["loss=2"] = "loss: number from 0 to 1 expected", ["loss=nan"] = "loss: number from 0 to 1 expected",
        ["loss"] = "loss: number from 0 to 1 expected", ["trials=1.5"] = "trials: integer from 1 to 1000 expected",
        ["los=0.1"] = "unknown parameter: los", ["rate=1"] = "rate: number from 10000 to 10000000000 expected",
        ["size=1000000"] = "too much to send: size * trials * (retries + 1) may be 16000000",
      } do
        assert.equal(why .. "\n400", (curl("/lab?" .. query)))
        assert.equal(why .. "\n400", (curl("/lab.pcapng?" .. query)))
      end
      assert.equal("GET or POST\n405", (curl("/lab", "-X PUT")))
      local began = socket.gettime()
      curl("/lab?trials=1000&loss=0.6&timeout=60&retries=10&size=1000&delay=1&pause=60")
      assert.is_true(socket.gettime() - began < 5)
      local policy = assert(loadfile("examples/openresty/lab/policy.lua"))()
      local nothing, err = policy.try { loss = 7, trials = 1, seed = 1, size = 1 }
      assert.is_nil(nothing)
      assert.matches("'loss': out of range: 0 to 1", err, 1, true)
      assert.is_nil((policy.capture { loss = 7, trials = 1, seed = 1, size = 1 }))
    end)

    it("has no errors under load, and grows no further", function()
      load_with_wrk("/lab?loss=0.05&trials=10", 1)
      local before = server:resident()
      load_with_wrk("/lab?loss=0.05&trials=10", 2)
      assert.is_true(server:resident() < before + 2000)
    end)

    it("ends with nginx, which waits for trials", function()
      local request = server:open("/lab?trials=1000&loss=0.6&timeout=60&retries=10&size=1000")
      socket.sleep(0.05)
      quit()
      assert.equal(200, (request:wait()))
    end)
  end)

  describe("the state of a connection", function()
    setup(function() start "state" end)
    teardown(nginx.finish)

    it("is told from both of its ends", function()
      local answers = {}
      for i = 1, 2 do answers[i] = cjson.decode((curl("/state?bytes=50000"):match "^(.*)\n200$")) end
      assert.same({ 0, 1 }, { answers[1].reused, answers[2].reused })
      local client, service = answers[2].client, answers[2].server
      assert.same({ "ESTABLISHED", "ESTABLISHED" }, { client.connection.state, service.connection.state })
      assert.is_true(service.connection.cwnd > 14600 and client.connection.cwnd < 14600) -- who sent much
      assert.is_true(service.connection.rtt >= 0.01 and service.connection.rtt < 1)
      assert.equal(1, #client.sockets)
      assert.equal(client.sockets[1].addresses.local_port, service.sockets[2].addresses.remote_port)
      assert.same({ 1, 1 }, { client.tcp.opened, service.tcp.accepted })
      for _, wrong in ipairs { "x", "-1", "1.5", "1e9" } do
        assert.equal('{"error":"bytes: 0 to 1000000"}\n400', (curl("/state?bytes=" .. wrong)))
      end
    end)

    it("has no errors under load", function() load_with_wrk("/state", 2) end)

    it("ends with nginx", quit)
  end)
end)
