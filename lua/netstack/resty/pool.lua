--- Pools of idle connections, by stack and name. A pool that has a backlog also bounds how many connections there are,
-- idle ones included: those who want one more queue for it.
--
-- A *lease* stands for one connection of a pool, be it one that is queued for. Whoever has the connection holds its
-- lease, and gives it back. Sockets that are forgotten do not: leases are held weakly, and counted when the pool seems
-- to be full.
-- @module netstack.resty.pool

local core = require "netstack.core"
local driver = require "netstack.driver"
local scheduler = require "netstack.scheduler"
local semaphores = require "ngx.semaphore"
local worker = require "netstack.resty.driver"

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
      idle = {}, -- the one used last is last, and taken first
      queue = {}, -- who waits for a lease, in order
    }, Pool)
    named[name] = pool
    worker.at_exit(pool)
  end
  return pool
end

--- A lease, of a connection that was made outside the pool.
function Pool:lease()
  local lease = { pool = self, entry = false } -- in the queue
  self.leases[lease] = true
  self.count = self.count + 1
  return lease
end

--- A lease of a connection that is to be made, after a `wait`.
-- @treturn table|nil
-- @treturn string "too many waiting connect operations"
function Pool:apply()
  if self.backlog and self.count >= self.size then
    self.count = 0
    for _ in pairs(self.leases) do self.count = self.count + 1 end
    if self.count >= self.size + self.backlog then return nil, "too many waiting connect operations" end
  end
  return self:lease()
end

local function forget(self, lease)
  self.leases[lease] = nil
  self.count = self.count - 1
end

--- Waits until the connection may be made, or there is one that somebody else has kept: then the lease is gone.
-- @tparam table lease just applied for; who fails gives it back
-- @tparam number timeout seconds
-- @treturn boolean|nil true
-- @treturn table|nil|string item, as of `take`; "timeout"
function Pool:wait(lease, timeout)
  if not self.backlog or self.count <= self.size then return true end
  local entry = { semaphore = assert(semaphores.new(0)), admitted = false, item = nil }
  lease.entry = entry
  insert(self.queue, entry)
  local ok, err = entry.semaphore:wait(timeout)
  if not ok and not entry.admitted then return nil, err end
  lease.entry = false
  if entry.item then forget(self, lease) end
  return true, entry.item
end

-- Lets the first go on who still waits: with a connection, which has a lease, or without, to make one. Returns whether
-- somebody did; nobody else can take the connection then.
function Pool:admit(item)
  while self.queue[1] do
    local entry = remove(self.queue, 1)
    if entry.semaphore:count() < 0 then
      entry.admitted, entry.item = true, item
      entry.semaphore:post(1)
      return true
    end
  end
  return false
end

--- The connection of an item is not kept again.
function M.forget(item) driver.forget(item.watcher) end

local drop

--- Gives a lease back: its connection is closed, or will not be made.
function Pool:give(lease)
  if not self.leases[lease] then return end
  forget(self, lease)
  local entry = lease.entry
  if not entry then
    self:admit()
  elseif entry.item then -- nginx has dropped who was to go on with it
    drop(self, entry.item)
  elseif entry.admitted then
    self:admit()
  else
    for i, other in ipairs(self.queue) do
      if other == entry then remove(self.queue, i) break end
    end
  end
end

function drop(pool, item)
  for i, other in ipairs(pool.idle) do
    if other == item then remove(pool.idle, i) break end
  end
  M.forget(item)
  item.socket:close()
  pool:give(item.lease)
end

-- Not when its peer has said something, be it the end.
local function watch(item)
  return driver.watch(item.watcher, item.socket.read, item.ends)
end

--- A connection that may be kept.
-- @tparam table socket
-- @treturn table|nil item: `socket`, `reused` (how often it was kept), `lease`
function M.item(socket)
  socket.read = socket.read or core.wait_ticket(socket.handle, "read")
  if not socket.read then return nil end
  local item = { socket = socket, reused = 0, lease = false, pool = false, ends = nil, watcher = false }
  item.watcher = driver.watcher(function(ok)
    if not ok or not watch(item) then drop(item.pool, item) end
  end)
  return item
end

--- An idle connection.
-- @treturn table|nil item
function Pool:take()
  local idle = self.idle
  local last = #idle
  local item = idle[last]
  while item and not driver.unwatch(item.watcher) do
    drop(self, item)
    last = #idle
    item = idle[last]
  end
  if item then idle[last] = nil end
  return item
end

--- Keeps a connection until it is taken, its time is over, or its peer says anything. Who waits for one gets it.
-- @tparam table item
-- @tparam table lease
-- @tparam ?number timeout seconds; nil: no limit
-- @treturn boolean false when the peer has said something already
function Pool:put(item, lease, timeout)
  item.pool, item.lease, item.ends = self, lease, scheduler.deadline(timeout)
  if not watch(item) then return false end
  item.reused = item.reused + 1
  if self.queue[1] and self:admit(item) then
    driver.unwatch(item.watcher)
    return true
  end
  local idle = self.idle
  local count = #idle
  if count >= self.size then
    drop(self, idle[1])
    count = #idle
  end
  idle[count + 1] = item
  return true
end

--- Closes the idle connections.
function Pool:close()
  while self.idle[1] do drop(self, self.idle[1]) end
end

return M
