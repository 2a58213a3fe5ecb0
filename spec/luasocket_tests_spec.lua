-- LuaSocket's own tests on stacks: every script of the folder test/ of LuaSocket 3.1.0, unedited but for one word. What
-- each needs is set around it: the globals it reads, names, servers; in virtual time, unless a server is a program of
-- the system's.
local bound = require "netstack.luasocket"
local netns = require "spec.netns"
local netstack = require "netstack"
local scripts = require "spec.luasocket_script"
local servers = require "spec.servers"

local run, spawn = netstack.run, netstack.spawn
local script = scripts.script

local stacks = {} -- which are closed after each script: few of them close all that they opened

local function kept(stack)
  stacks[#stacks + 1] = stack
  return stack
end

-- As netns.connected(1), its stack with a configuration.
local function connected(config)
  local stack, namespace = netns.connected(1, nil, config)
  return kept(stack), namespace
end

local function text_of(lines) return table.concat(lines) end

local function shell(text, ...)
  return netns.command("sh -c " .. netns.quote(text:format(...)))
end

-- Runs a script alone on a stack; what it prints.
local function alone(name)
  local stack = kept(netstack.new { loopback = true })
  local main, lines = script(name, bound(stack))
  run(main)
  return text_of(lines)
end

-- Two stacks on a pipe: the client's bound table and the server's, whose address is 10.7.0.2.
local function two(hosts)
  local left, right = netstack.pipe()
  local client = kept(netstack.new { loopback = true, hosts = hosts })
  local server = kept(netstack.new { loopback = true })
  assert(client:attach(left, { addresses = { "10.7.0.1/24" } }))
  assert(server:attach(right, { addresses = { "10.7.0.2/24" } }))
  return bound(client), bound(server)
end

-- What LuaSocket does when it was compiled with LUASOCKET_DEBUG, as testclnt.lua demands: `send` and `receive` of what
-- `connect` returns tell fourth how long they took.
local function debugging(socket)
  local connect = socket.connect
  socket._DEBUG = true
  function socket.connect(...)
    local object, err = connect(...)
    if not object then return nil, err end
    for _, name in ipairs { "send", "receive" } do
      local method = object[name]
      object[name] = function(...)
        local began = socket.gettime()
        local first, second, third = method(...)
        return first, second, third, socket.gettime() - began
      end
    end
    return object
  end
  return socket
end

local function client_and_server()
  local a, b = two()
  local server = script("testsrvr.lua", b, { host = "10.7.0.2" })
  local client, lines = script("testclnt.lua", debugging(a), { host = "10.7.0.2" })
  run(function()
    local task = spawn(server)
    client()
    assert.equal(true, (netstack.pcall(task.join, task, 10))) -- the last command ends it
  end)
  return text_of(lines)
end

local function udp_connect()
  local socket = bound(kept(netstack.new { loopback = true }))
  local server, lines = script("udpconnectsrvr.lua", socket)
  run(function()
    local task = spawn(server)
    netstack.sleep(0)
    local port = text_of(lines):match("\ngetsockname\t127%.0%.0%.1\t(%d+)")
    script("udpconnectclnt.lua", socket, { arg = { port } })()
    assert.equal(true, (netstack.pcall(task.join, task, 10)))
  end)
  return text_of(lines)
end

-- The server lets so many in and then listens no more.
local function connect_limit()
  local a, b = two { ["google.com"] = "10.7.0.2" }
  local main, lines = script("find-connect-limit", a, { arg = {} })
  local accepted = {}
  run(function()
    local listener = assert(b.bind("*", 80, 300))
    netstack.daemon(function()
      for i = 1, 1000 do accepted[i] = listener:accept() end
      listener:close()
    end)
    local ok, err = netstack.pcall(main)
    assert.is_false(ok)
    assert.matches("connection refused", err)
  end)
  assert.equal(1000, #accepted)
  return text_of(lines)
end

-- RFC 2229, for the two questions that the script asks.
local function dict()
  local a, b = two { ["localhost"] = "10.7.0.2" }
  local main, lines = script("dicttest.lua", a)
  local asked = {}
  run(function()
    local listener = assert(b.bind("*", 2628))
    netstack.daemon(function()
      while true do
        local peer = listener:accept()
        peer:send("220 hello\r\n")
        repeat
          local line = peer:receive()
          if line and line:find("^DEFINE") then
            asked[#asked + 1] = line
            peer:send("150 1 definitions\r\n151 \"teste\" x \"X\"\r\nan exam\r\n.\r\n250 ok\r\n")
          elseif line then
            peer:send("221 bye\r\n")
          end
        until not line
        peer:close()
      end
    end)
    main()
  end)
  assert.same({ "DEFINE teste teste", "DEFINE teste teste" }, asked)
  return text_of(lines)
end

-- dnsmasq's TFTP server.
local function tftp()
  local stack, namespace = connected()
  local main, lines = script("tftptest.lua", bound(stack), { host = "10.1.0.1" })
  shell("cd %s/test && mkdir test && cp index.html test", netns.folder())
  run(function()
    namespace:dnsmasq { "port=0", "enable-tftp", "user=root", "tftp-root=" .. netns.folder() .. "/test" }
    main()
  end)
  return text_of(lines)
end

-- nginx, and fcgiwrap for its CGI scripts, of which a copy of "cat" keeps its file where nobody else does.
local function http()
  local stack, namespace = connected { hosts = { localhost = "10.1.0.1", ["www.tecgraf.puc-rio.br"] = "10.1.0.1" } }
  -- LuaSocket 3.1.0 itself says "invalid host 'nil'" where its test wants another word: the one edit of a script.
  local main, lines = script("httptest.lua", bound(stack), nil, { ["invalid host ''"] = "invalid host 'nil'" })
  local folder = netns.folder()
  local cat = folder .. "/test/cgi/cat"
  netns.write(cat, (netns.read(cat):gsub("/tmp/", folder .. "/")))
  netns.command("chmod -R +x " .. folder .. "/test/cgi")
  run(function()
    servers.fcgiwrap(namespace)
    servers.nginx(namespace, [[
      location /luasocket-test { alias FOLDER/test; }
      location /luasocket-test/auth/ {
        alias FOLDER/test/auth/;
        auth_basic test-auth;
        auth_basic_user_file FOLDER/test/auth/.htpasswd;
      }
      location ~ ^/luasocket-test-cgi(/.*) {
        include /etc/nginx/fastcgi_params;
        fastcgi_param SCRIPT_FILENAME FOLDER/test/cgi$1;
        fastcgi_pass unix:FOLDER/cgi;
      }
      location /~diego/ { alias FOLDER/test/; }
    ]])
    main()
  end)
  return text_of(lines)
end

local function ftp()
  local stack, namespace = connected()
  local main, lines = script("ftptest.lua", bound(stack), { host = "10.1.0.1" })
  local folder = netns.folder()
  shell("cd %s && mkdir -p home public/pub && for to in home home/#? public/pub; do cp test/index.html $to; done",
    folder)
  run(function()
    servers.ftp(namespace, "10.1.0.1", folder .. "/home", folder .. "/public")
    main()
  end)
  return text_of(lines)
end

local function mail()
  local stack, namespace = connected { hosts = { localhost = "10.1.0.1" } }
  local main, lines = script("testmesg.lua", bound(stack))
  run(function()
    servers.smtp(namespace, 1, 2525)
    main()
  end)
  local messages = shell("cat %s/mail/new/*", netns.folder())
  assert.equal(2, select(2, messages:gsub("X%-RcptTo: diego@tecgraf.puc%-rio.br, diego@princeton.edu", "")))
  local image = messages:match("filename=\"luasocket.png\".-\n\n(.-)\n%-%-"):gsub("%s", "")
  assert.is_true(bound(stack).load("mime").unb64(image) == netns.read(netns.folder() .. "/test/luasocket.png"))
  return text_of(lines)
end

-- ---------------------------------------------------------------------------------------------- the scripts

local UNIX = "sockets of Unix are not TCP/IP"

-- Each with how it is run (`needs` a program of the system's) and what it prints at last, or with which other one it is
-- run, or why it cannot be.
local SCRIPTS = {
  { "dicttest.lua", dict, prints = "\nan exam%s$" }, -- with etc/dict.lua
  { "excepttest.lua", alone, prints = "^OK\n$" },
  { "find-connect-limit", connect_limit, prints = "\nconnection #\t1000\ttcp{client}: 0x%x+\tfd\t%d+\n$" },
  { "ftptest.lua", ftp, needs = "pyftpdlib", prints = "\npassed all tests\ndone in [%d.]+s\n$" },
  { "hello.lua", alone, prints = "^Hello from LuaSocket .* and MIME" },
  { "httptest.lua", http, needs = "fcgiwrap", prints = "\npassed all tests\ndone in [%d.]+s\n$" },
  { "ltn12test.lua", alone, prints = "testing filter.chain %(and source.chain, a bunch%): ok\n$" },
  { "mimetest.lua", alone, prints = "testing qp encoding and wrap: ok\ndone in [%d.]+s\n$" },
  { "smtptest.lua", why = "of LuaSocket 1: neither socket.time nor socket.smtp.mail has been there since" },
  { "stufftest.lua", alone, prints = "^" .. ("ok\n"):rep(7) .. "$" },
  { "tcp-getoptions", alone, prints = "\noptions for\ttcp{client}: .-\noptions for\ttcp{client}: .*\tlinger\t" },
  { "test_bind.lua", alone, prints = "^done!\n$" },
  { "test_getaddrinfo.lua", alone, prints = "^done!\n$" },
  { "test_socket_error.lua", alone, prints = "^Passed! Error is 'connection refused'.\n$" },
  { "testclnt.lua", client_and_server, prints = "\ntesting: done in [%d.]+s\n%-*\n$" },
  { "testmesg.lua", mail, needs = "aiosmtpd", prints = "\n1\tnil\n.*\n1\tnil\n$" },
  { "testsrvr.lua", with = "testclnt.lua" },
  { "testsupport.lua", why = "what others of these load" },
  { "tftptest.lua", tftp, needs = "dnsmasq", prints = "^passed\n$" }, -- with etc/tftp.lua
  { "udp-zero-length-send", alone, prints = "^OK\t" },
  { "udp-zero-length-send-recv", alone, prints = "^ok\n$" },
  { "udpconnectclnt.lua", with = "udpconnectsrvr.lua" },
  { "udpconnectsrvr.lua", udp_connect,
    prints = "\nthis is a test from sc\n.*\nthis is a test from se\t127.0.0.1\t5062\n" },
  { "unixdgramclnt.lua", why = UNIX },
  { "unixdgramsrvr.lua", why = UNIX },
  { "unixstreamclnt.lua", why = UNIX },
  { "unixstreamsrvr.lua", why = UNIX },
  { "urltest.lua", alone, prints = "\nthe library passed all tests\n$" },
  { "utestclnt.lua", why = UNIX },
  { "utestsrvr.lua", why = UNIX },
}

describe("LuaSocket's own", function()
  local reason = scripts.missing()
  after_each(function()
    for _, stack in ipairs(stacks) do stack:close() end
    stacks = {}
    netns.finish()
  end)

  for _, about in ipairs(SCRIPTS) do
    local name, runs = about[1], about[2]
    if runs then
      local why = reason or about.needs and netns.missing(about.needs)
      if why then
        pending(("%s (%s)"):format(name, why))
      else
        it(name .. " passes", function()
          local text = runs(name)
          assert.is_truthy(text:find(about.prints), text:sub(-500))
        end)
      end
    end
  end

  if reason then return end
  it("scripts are these", function()
    local known = {}
    for i, about in ipairs(SCRIPTS) do known[i] = about[1] end
    local found = shell("cd %s/test && LC_ALL=C ls -p | grep -Ev '/$|README|[.](html|png)$'", scripts.source())
    assert.equal(found, table.concat(known, "\n") .. "\n")
  end)
end)
