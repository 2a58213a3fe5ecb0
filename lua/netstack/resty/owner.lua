--- Sockets end with the request that made them, as nginx's do, and so do its waits for stacks: nginx tells of the end
-- where no Lua code can run, so a function of the core notes it down and posts the driver's semaphore, and the driver
-- closes what is left.
-- @module netstack.resty.owner

local base = require "resty.core.base"
local core = require "netstack.core"
local declare = require "netstack.declare"
local ffi = require "ffi"

local C, cast, max, setmetatable, tonumber = ffi.C, ffi.cast, math.max, setmetatable, tonumber
local get_request = base.get_request
local address_type = ffi.typeof "uintptr_t"

-- The first as in src/lua_core.c; the others are nginx's.
declare("netstack_notice", [[
typedef struct netstack_notice {
  struct netstack_notice *next, **ended;
  int given;
  int wanted;
  int (*post)(void *semaphore, int count);
  void *semaphore;
  double request;
} netstack_notice;
typedef struct netstack_cleanup {
  void (*handler)(void *data);
  void *data;
  struct netstack_cleanup *next;
} netstack_cleanup;
netstack_cleanup *ngx_http_cleanup_add(void *request, size_t size);
]])

local M = {}

-- Types are made once: there can be 65,536 in a Lua state.
local notice_type = ffi.typeof "netstack_notice"
local records = {} -- of requests that have had a socket, by address
local ended = ffi.new("netstack_notice *[1]")
local give = cast("void (*)(void *)", core.notice())
local post = cast("int (*)(void *, int)", C.ngx_http_lua_ffi_sema_post)
local semaphore -- the driver's
local left = 0 -- objects that have an owner
-- Records to be used again: most requests have one socket, and making all this for it would be half of the work.
local spare, spares, SPARE = {}, 0, 256

--- Has a semaphore of nginx's posted when a request ends that leaves objects behind.
function M.tell(to) semaphore = to.sem end

-- Objects are in a list that holds them weakly: those that are collected leave holes. The notice's `wanted` is its
-- length.
local weak_values = { __mode = "v" }
local ROOM = 16

local function new()
  return { notice = notice_type(), objects = setmetatable({}, weak_values), room = ROOM }
end

-- Closes the holes.
local function compact(record)
  local objects, notice, last = record.objects, record.notice, 0
  for i = 1, notice.wanted do
    local object = objects[i]
    if object then
      last = last + 1
      objects[i] = nil
      objects[last], object.place = object, last
    end
  end
  left = left - (notice.wanted - last)
  notice.wanted, record.room = last, max(2 * last, ROOM)
end

local function new_record(request, key)
  local cleanup = C.ngx_http_cleanup_add(request, 0)
  if cleanup == nil then return nil end
  local record
  if spares > 0 then
    record, spare[spares], spares = spare[spares], nil, spares - 1
  else
    record = new()
  end
  local notice = record.notice
  notice.given, notice.wanted = 0, 0
  notice.ended, notice.request, notice.post, notice.semaphore = ended, key, post, semaphore
  cleanup.handler, cleanup.data = give, notice
  records[key] = record
  return record
end

--- The running request owns an object from now on, a socket or a wait; outside of requests nothing does.
-- @tparam table object with a method `abandon`, called when the request has ended, and fields for us: `owner`, false at
-- first, and `place`
function M.adopt(object)
  local request = get_request()
  if not request then return end
  local key = tonumber(cast(address_type, request))
  local record = records[key]
  if record and record.notice.given ~= 0 then -- one that has ended was at the same address
    M.reap()
    record = nil
  end
  record = record or new_record(request, key)
  if not record then return end
  local notice = record.notice
  if notice.wanted == record.room then compact(record) end
  local place = notice.wanted + 1
  record.objects[place], notice.wanted = object, place
  object.owner, object.place = record, place
  left = left + 1
end

--- Nobody owns an object any more.
function M.release(object)
  local record = object.owner
  if not record then return end
  object.owner = false
  left = left - 1
  -- The last one takes its place.
  local objects, notice = record.objects, record.notice
  local last = notice.wanted
  local other = objects[last]
  objects[last], notice.wanted = nil, last - 1
  if other == object then return end
  objects[object.place] = other
  if other then other.place = object.place end
end

--- Ends what requests that have ended have left behind.
function M.reap()
  while ended[0] ~= nil do
    local notice = ended[0]
    ended[0] = notice.next
    local key = tonumber(notice.request)
    local record = records[key]
    records[key] = nil
    while notice.wanted > 0 do
      local object = record.objects[notice.wanted]
      if object then object:abandon() end
      if object and object.owner == record then M.release(object) end
      if not object then compact(record) end
    end
    if spares < SPARE then
      spares = spares + 1
      spare[spares] = record
    end
  end
end

--- How many objects requests own.
-- @treturn integer
function M.count() return left end

return M
