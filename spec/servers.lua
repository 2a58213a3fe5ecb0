-- Servers of the system's, each in a namespace, on ports and files of the spec's own; each is ready when its function
-- returns. In a run: the stacks are driven meanwhile.
local netns = require "spec.netns"

local M = {}

local function listening(namespace, program, port)
  namespace:listens(port)
  return program
end

--- nginx, as one process, on port 80 of both families.
-- @param locations what is to be in the block "server"; FOLDER is the spec's folder
function M.nginx(namespace, locations)
  local path = netns.folder() .. "/nginx.conf"
  netns.write(path, (([[
    daemon off;
    master_process off;
    pid FOLDER/nginx.pid;
    error_log stderr warn;
    events {}
    http {
      access_log off;
      client_body_temp_path FOLDER/nginx-body;
      proxy_temp_path FOLDER/nginx-proxy;
      fastcgi_temp_path FOLDER/nginx-fastcgi;
      uwsgi_temp_path FOLDER/nginx-uwsgi;
      scgi_temp_path FOLDER/nginx-scgi;
      client_max_body_size 100m;
      server {
        listen 80;
        listen [::]:80;
        LOCATIONS
      }
    }
  ]]):gsub("LOCATIONS", (locations:gsub("%%", "%%%%"))):gsub("FOLDER", netns.folder())))
  return listening(namespace, namespace:start("nginx -c " .. path), 80)
end

--- What runs CGI scripts for nginx: a location for each, with `fastcgi_pass unix:FOLDER/cgi`.
function M.fcgiwrap(namespace)
  local path = netns.folder() .. "/cgi"
  local program = namespace:start("fcgiwrap -s unix:" .. path)
  netns.eventually(function() return namespace:exec("ss -Hlx"):find(path, 1, true) end)
  return program
end

-- Runs a text of Python's, which gets arguments.
local function python(namespace, name, text, arguments, port)
  local path = netns.folder() .. "/" .. name
  netns.write(path, text)
  return listening(namespace, namespace:start(("%s %s %s"):format(netns.PYTHON, path, arguments)), port)
end

--- aiosmtpd, on both families of the namespace with number `n`; mail goes to a maildir, FOLDER/mail. "user" may log in
-- with "secret".
function M.smtp(namespace, n, port)
  return python(namespace, "smtp.py", [[
import asyncio, sys
from aiosmtpd.handlers import Mailbox
from aiosmtpd.smtp import SMTP, AuthResult

def authenticate(server, session, envelope, mechanism, data):
    return AuthResult(success=data.login == b"user" and data.password == b"secret", handled=False)

async def main(folder, port, *hosts):
    mailbox = Mailbox(folder)
    def connection():
        return SMTP(mailbox, hostname="peer", authenticator=authenticate, auth_require_tls=False)
    server = await asyncio.get_running_loop().create_server(connection, hosts, int(port))
    await server.serve_forever()

asyncio.run(main(*sys.argv[1:]))
]], ("%s/mail %d 10.%d.0.1 fd0%d::1"):format(netns.folder(), port, n, n), port)
end

--- pyftpdlib, on port 21 of an address. "luasocket" logs in with "password", and anybody as LuaSocket does
-- when it is told no name; both folders are to be there.
function M.ftp(namespace, host, home, public)
  return python(namespace, "ftp.py", [[
import sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer

host, home, public = sys.argv[1:]
FTPHandler.authorizer = DummyAuthorizer()
FTPHandler.authorizer.add_user("luasocket", "password", home, perm="elradfmwMT")
FTPHandler.authorizer.add_user("ftp", "anonymous@anonymous.org", public) # LuaSocket's anonymous
FTPHandler.auth_failed_timeout = 0.1
FTPServer((host, 21), FTPHandler).serve_forever()
]], ("%s %s %s"):format(host, home, public), 21)
end

--- Redis, which keeps nothing.
function M.redis(namespace)
  return listening(namespace, namespace:start(("redis-server --port 6379 --protected-mode no --save '' --dir %s")
    :format(netns.folder())), 6379)
end

return M
