--- Pools of idle connections, by stack and name. A pool that has a backlog also bounds how many connections there are,
-- idle ones included: those who want one more queue for it.
--
-- A *lease* stands for one connection of a pool. Whoever has the connection holds its lease, and gives it back. Who is
-- dropped by nginx cannot: leases are held weakly, and counted when the pool seems to be full.
-- @module netstack.resty.pool

local core = require "netstack.core"
local driver = require "netstack.driver"
local scheduler = require "netstack.scheduler"
local semaphores = require "ngx.semaphore"
local worker = require "netstack.resty.driver"

local try_receive = core.classes.tcp.try_receive
local pairs, setmetatable = pairs, setmetatable
local insert, remove = table.insert, table.remove

local M = {}

local Pool = {}
Pool.__index = Pool

local pools = setmetatable({}, { __mode = "k" }) -- stack -> name -> pool

--- The pool of that name, if there is one.
function M.find(stack, name)
  local named = pools[stack]
  return named and named[name]
end

--- The pool of that name; a new one has this size, and backlog.
-- @tparam stack stack
-- @tparam string name
-- @tparam integer size idle connections at most; with a backlog, connections
-- @tparam ?integer backlog how many may queue for a connection; nil: connections are not bounded
function M.open(stack, name, size, backlog)
  local named = pools[stack]
  if not named then
    named = {}
    pools[stack] = named
  end
  local pool = named[name]
  if not pool then
    pool = setmetatable({
      size = size,
      backlog = backlog,
      leases = setmetatable({}, { __mode = "k" }),
      count = 0, -- of leases
      idle = {}, -- the one used last is first
      queue = {}, -- who waits for a lease, in order
    }, Pool)
    named[name] = pool
    worker.at_exit(pool)
  end
  return pool
end

--- A lease, of a connection that is to be made or that was made outside the pool.
function Pool:lease()
  local lease = {}
  self.leases[lease] = true
  self.count = self.count + 1
  return lease
end

function Pool:recount()
  self.count = 0
  for _ in pairs(self.leases) do self.count = self.count + 1 end
end

-- Lets the first go on who still waits.
function Pool:admit()
  while self.queue[1] do
    local semaphore = remove(self.queue, 1).semaphore
    if semaphore:count() < 0 then return semaphore:post(1) end
  end
end

--- Gives a lease back: its connection is closed.
function Pool:give(lease)
  if not self.leases[lease] then return end
  self.leases[lease] = nil
  self.count = self.count - 1
  self:admit()
end

--- A lease once there is one.
-- @tparam number timeout seconds
-- @treturn table|nil
-- @treturn string "timeout", "too many waiting connect operations"
function Pool:enter(timeout)
  if not self.backlog then return self:lease() end
  if self.count >= self.size then self:recount() end
  if self.count < self.size then return self:lease() end
  if self.count >= self.size + self.backlog then return nil, "too many waiting connect operations" end
  local lease, entry = self:lease(), { semaphore = assert(semaphores.new(0)) }
  insert(self.queue, entry)
  local ok, err = entry.semaphore:wait(timeout)
  if ok then return lease end
  for i, other in ipairs(self.queue) do
    if other == entry then remove(self.queue, i) break end
  end
  self.leases[lease] = nil
  self.count = self.count - 1
  return nil, err
end

-- Whether nothing was said on a connection that nobody uses: neither data nor its end.
local function is_quiet(socket)
  local data, err = try_receive(socket.handle, 1)
  return not data and err == "wouldblock"
end

local function drop(pool, item)
  for i, other in ipairs(pool.idle) do
    if other == item then remove(pool.idle, i) break end
  end
  driver.unwatch(item.watcher)
  item.socket:close()
  pool:give(item.lease)
end

local function watch(pool, item)
  item.watcher = driver.watch(item.socket.read, item.ends, function(ok)
    if not ok or not is_quiet(item.socket) or not watch(pool, item) then drop(pool, item) end
  end)
  return item.watcher
end

--- An idle connection.
-- @treturn table|nil item: `socket`, `reused` (how often it was), `lease`
function Pool:take()
  while self.idle[1] do
    local item = self.idle[1]
    if is_quiet(item.socket) then
      driver.unwatch(item.watcher)
      return remove(self.idle, 1)
    end
    drop(self, item)
  end
end

--- Keeps a connection until it is taken, its time is over, or its peer says anything.
-- @tparam table item
-- @tparam ?number timeout seconds; nil: no limit
-- @treturn boolean false when the peer has said something already
function Pool:put(item, timeout)
  local socket = item.socket
  socket.read = socket.read or core.wait_ticket(socket.handle, "read")
  item.ends = scheduler.deadline(timeout)
  if not socket.read or not is_quiet(socket) or not watch(self, item) then return false end
  if #self.idle >= self.size then drop(self, self.idle[#self.idle]) end
  insert(self.idle, 1, item)
  self:admit()
  return true
end

--- Closes the idle connections.
function Pool:close()
  while self.idle[1] do drop(self, self.idle[1]) end
end

return M
