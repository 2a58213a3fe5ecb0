local netstack = require "netstack"

local has_luasocket = pcall(require, "socket")

-- An example is loaded from its file: busted runs in the project's folder.
local function example(name)
  return assert(loadfile("examples/" .. name .. ".lua"))
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

describe("the HTTP server", function()
  local serve = example "http_server"()

  -- Gives fn a function that sends text to a server of those files, and returns all that comes back.
  local function with(files, fn)
    local client, server = netstack.pair()
    netstack.run(function()
      netstack.daemon(serve, server, 80, files)
      fn(function(text, host)
        local c = assert(client:connect(host or "fd00::2", 80))
        c:settimeout(10)
        assert(c:send(text))
        local answer, err, partial = c:receive("*a")
        c:close()
        return answer or partial, err
      end, client)
    end)
    client:close()
    server:close()
  end

  it("answers GET and HEAD, and keeps the connection as it is asked to", function()
    with({ ["/hello"] = "Hello!\n" }, function(ask)
      local body = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nHello!\n"
      assert.equal(body, (ask("GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")))
      assert.equal(body, (ask("GET /hello?x=1 HTTP/1.0\r\n\r\n", "10.0.0.2")))
      assert.equal("HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n",
        (ask("HEAD /hello HTTP/1.1\r\nconnection: TE, close\r\n\r\n")))
      local kept = body:gsub("close", "keep-alive")
      local text, err = ask("GET /hello HTTP/1.1\r\n\r\nGET /hello HTTP/1.1\r\nX: y\r\n\r\n")
      assert.same({ kept .. kept, "timeout" }, { text, err })
      assert.equal(kept .. body,
        (ask("GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /hello HTTP/1.0\r\n\r\n")))
    end)
  end)

  it("refuses the rest", function()
    with({ ["/hello"] = "Hello!\n" }, function(ask)
      assert.matches("^HTTP/1.1 404 Not Found\r\n", (ask("GET /nothing HTTP/1.0\r\n\r\n")))
      assert.matches("^HTTP/1.1 400 Bad Request\r\n", (ask("\1\2\3 garbage\r\n")))
      assert.matches("^HTTP/1.1 400 Bad Request\r\n", (ask("\r\n")))
      assert.matches("^HTTP/1.1 400 Bad Request\r\n", (ask("GET /hello HTTP/1.1\r\nnonsense\r\n\r\n")))
      assert.matches("^HTTP/1.1 501 Not Implemented\r\n", (ask("POST /hello HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc")))
    end)
  end)

  it("serves files and folders", function()
    with({ ["/licence"] = { path = "LICENSE" } }, function(ask)
      assert.equal(read("LICENSE"), (ask("GET /licence HTTP/1.0\r\n\r\n"):gsub("^.-\r\n\r\n", "")))
    end)
    with("examples", function(ask)
      assert.equal(read("examples/demo.lua"), (ask("GET /demo.lua HTTP/1.0\r\n\r\n"):gsub("^.-\r\n\r\n", "")))
      assert.matches("404", (ask("GET /../LICENSE HTTP/1.0\r\n\r\n")))
      assert.matches("404", (ask("GET /nothing HTTP/1.0\r\n\r\n")))
    end)
  end)

  it("downloads with the client", function()
    if not has_luasocket then return pending("LuaSocket is not installed") end
    local text = ("0123456789"):rep(100000)
    with({ ["/data"] = text }, function(_, client)
      local download = example "http_client"(client)(client)
      local path, told = os.tmpname(), 0
      assert.equal(#text, download("http://10.0.0.2/data", path, function(bytes) told = told + bytes end))
      assert.equal(#text, told)
      assert.is_true(read(path) == text)
      assert.same({ nil, "HTTP status 404" }, { download("http://[fd00::2]/nothing", path) })
      assert.same({ nil, "connection refused" }, { download("http://10.0.0.2:81/", path) })
      assert.is_nil((download("http://10.0.0.2/data", "/nowhere/at/all")))
      os.remove(path)
    end)
  end)
end)

describe("the demo", function()
  -- This interpreter, as a shell can call it.
  local lua = arg and arg[-1]
  for i = -1, -20, -1 do
    if not (arg and arg[i]) then break end
    lua = arg[i]
  end

  it("runs twice, without a terminal, says that all is well and leaves nothing behind", function()
    if not has_luasocket then return pending("LuaSocket is not installed") end
    local folder = os.tmpname()
    os.remove(folder)
    os.execute("mkdir " .. folder)
    -- Its temporary files come to lie where nobody else's do.
    local init = ("n = 0 os.tmpname = function() n = n + 1 return [[%s/]] .. n end"):format(folder)
    for _ = 1, 2 do
      local command = "LUA_INIT='%s' %s examples/demo.lua 2 </dev/null 2>&1; echo status $?"
      local pipe = io.popen(command:format(init, lua))
      local text = pipe:read("*a")
      pipe:close()
      assert.matches("\nstatus 0\n$", text)
      assert.matches("  100 %% of ", text)
      assert.is_nil(text:find("\r", 1, true))
      assert.matches("MiB/s", text)
      assert.matches(" packets one way, %d+ the other, 0 retransmissions", text)
      local _, agree = text:gsub("  agree\n", "")
      assert.equal(4, agree)
    end
    assert.is_truthy(os.remove(folder)) -- which works for an empty one only
  end)

  it("fails when what arrives is not what was sent", function()
    if not has_luasocket then return pending("LuaSocket is not installed") end
    -- A sha256sum that never says the same twice.
    local folder = os.tmpname()
    os.remove(folder)
    os.execute("mkdir " .. folder)
    local file = assert(io.open(folder .. "/sha256sum", "w"))
    file:write("#!/bin/sh\ncat >/dev/null\nod -An -N8 -tx8 /dev/urandom | tr -d ' '\n")
    file:close()
    os.execute("chmod +x " .. folder .. "/sha256sum")
    local pipe = io.popen(("PATH=%s:$PATH %s examples/demo.lua 1 </dev/null 2>&1; echo status $?"):format(folder, lua))
    local text = pipe:read("*a")
    pipe:close()
    os.execute("rm -r " .. folder)
    assert.matches("  DIFFER\n", text)
    assert.matches("\nstatus 1\n$", text)
  end)
end)
