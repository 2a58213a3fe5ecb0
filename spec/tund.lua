-- netstack-tund in a namespace, and clients of it that speak by hand.
local assert = require "luassert"
local netns = require "spec.netns"
local packets = require "spec.packets"
local socket_ok, socket = pcall(require, "socket")
local unix_ok, unix = pcall(require, "socket.unix")

local M = { eventually = netns.eventually }

--- The program of this build.
M.PROGRAM = os.getenv("NETSTACK_TUND") or "netstack-tund"

--- Why it cannot be tried here; nil when it can. `...`: programs that are needed, too.
function M.missing(...)
  if not socket_ok or not unix_ok then return "LuaSocket is missing" end
  if not netns.has(M.PROGRAM) then return M.PROGRAM .. " is missing" end
  return netns.missing(...)
end

--- Runs it to its end: exit status and what it printed.
function M.run(options)
  local output = netns.capture(("%s%s %s; echo \"=$?\""):format(netns.CLEAN, M.PROGRAM, options))
  local text, status = output:match("^(.*)=(%d+)\n$")
  return tonumber(status), text
end

M.NETWORK = "--address 10.7.0.1/24 --address fd07::1/64"

--- Starts it in a namespace, with a socket of its own.
-- @param more options beside `--socket`; without, M.NETWORK
-- @return the program, with `path` of the socket
function M.start(namespace, more, path)
  path = path or netns.folder() .. "/tund" .. #namespace.name .. socket.gettime() .. ".sock"
  local program = namespace:start(("%s --socket %s %s"):format(M.PROGRAM, path, more or M.NETWORK))
  program.path = path
  M.eventually(function()
    if program:status() then error("netstack-tund: " .. program:output(), 2) end
    local probe = M.connect(path)
    if probe then probe:close() end
    return probe
  end)
  return program
end

--- Its counters, as it prints them now.
function M.counters(program)
  local before = #program:output()
  program:signal("USR1")
  local text = M.eventually(function() return program:output():sub(before + 1):match("(.*)\n") end)
  local counters = {}
  for name, value in text:gmatch("(%l+)=(%d+)") do counters[name] = tonumber(value) end
  return counters
end

local Client = {}
Client.__index = Client

--- Connects, and says nothing; nil when nobody listens.
function M.connect(path)
  local one = unix.stream()
  one:settimeout(5)
  if one:connect(path) then return setmetatable({ socket = one }, Client) end
  one:close()
end

--- Connects and asks for addresses; the client and its first answer.
function M.client(path, addresses)
  local client = assert(M.connect(path))
  client:write("netstack 1" .. (addresses and " " .. addresses or "") .. "\n")
  return client, client:line()
end

--- The same when they are to be granted.
function M.granted(path, addresses)
  local client, answer = M.client(path, addresses)
  assert.matches("^granted ", answer)
  client.addresses = {}
  for address in answer:gmatch("address=([^/ ]*)") do table.insert(client.addresses, address) end
  return client
end

function Client:write(data) return (self.socket:send(data)) end

function Client:line() return self.socket:receive("*l") end

function Client:close() self.socket:close() end

--- Sends a packet.
function Client:send(packet) return self:write(packets.u16(#packet) .. packet) end

--- The next packet; nil and an error when there is none in time.
function Client:receive(timeout)
  self.socket:settimeout(timeout or 5)
  local head, err = self.socket:receive(2)
  if not head then return nil, err end
  self.socket:settimeout(5)
  return self.socket:receive((packets.get16(head, 1)))
end

--- Has the host answer a ping.
function Client:ping(from, to)
  local v6 = from:find(":", 1, true)
  self:send(packets.icmp(from, to, v6 and 128 or 8, 0, "\0\1\0\1abcd"))
  local answer = self:receive()
  return answer and answer:byte(v6 and 41 or 21) == (v6 and 129 or 0)
end

return M
