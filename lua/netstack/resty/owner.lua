--- Sockets end with the request that made them, as nginx's do, and so do its waits for stacks: nginx tells of the end
-- where no Lua code can run, so a function of the core notes it down and posts the driver's semaphore, and the driver
-- closes what is left.
-- @module netstack.resty.owner

local base = require "resty.core.base"
local core = require "netstack.core"
local ffi = require "ffi"
local weak_list = require "netstack.resty.weak_list"

local C, cast, tonumber = ffi.C, ffi.cast, tonumber
local get_request = base.get_request
local address_type = ffi.typeof "uintptr_t"

-- The first as in src/lua_core.c; the others are nginx's.
ffi.cdef [[
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
]]

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
local spare, SPARE = {}, 256

--- Has a semaphore of nginx's posted when a request ends that leaves objects behind.
function M.tell(to) semaphore = to.sem end

local function new_record(request, key)
  local cleanup = C.ngx_http_cleanup_add(request, 0)
  if cleanup == nil then return nil end
  local record = spare[#spare]
  if record then spare[#spare] = nil else record = { notice = notice_type(), objects = weak_list.new() } end
  local notice = record.notice
  notice.given, notice.wanted = 0, 0
  notice.ended, notice.request, notice.post, notice.semaphore = ended, key, post, semaphore
  cleanup.handler, cleanup.data = give, notice
  records[key] = record
  return record
end

--- The running request owns an object from now on, a socket or a wait; outside of requests nothing does.
-- @tparam table object with a method `abandon`, called when the request has ended, and a field `owner` for us
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
  object.owner = record
  record.notice.wanted = record.notice.wanted + 1
  left = left + 1
  weak_list.add(record.objects, object)
end

--- Nobody owns an object any more.
function M.release(object)
  local record = object.owner
  if not record then return end
  object.owner = false
  record.notice.wanted = record.notice.wanted - 1
  left = left - 1
  weak_list.remove(record.objects, object)
end

local function abandon(object) object:abandon() end

--- Ends what requests that have ended have left behind.
function M.reap()
  while ended[0] ~= nil do
    local notice = ended[0]
    ended[0] = notice.next
    local key = tonumber(notice.request)
    local record = records[key]
    records[key] = nil
    if notice.wanted > 0 then
      weak_list.each(record.objects, abandon)
      left = left - notice.wanted -- those that were collected
    end
    if #spare < SPARE then spare[#spare + 1] = record end
  end
end

--- How many objects requests own.
-- @treturn integer
function M.count() return left end

return M
