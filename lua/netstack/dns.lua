--- A stub resolver (RFC 1035, RFC 3596): asks a stack's servers for the addresses of a name, over its own sockets. Each
-- question goes from a random port with a random id, and only an answer to just that is heard (RFC 5452).
-- @module netstack.dns

local core = require "netstack.core"

local byte, char, lower, sub = string.byte, string.char, string.lower, string.sub
local concat, floor, ipairs, min = table.concat, math.floor, ipairs, math.min

local M = {}

local PORT = 53
local WAITS = { 2, 4 } -- seconds for each server, in each round
local ALIASES_AT_MOST = 8
local CACHED_AT_MOST = 256 -- names
local CACHED_FOR = 3600 -- seconds, at most
local IN, CNAME = 1, 5
local TYPES = { { number = 1, length = 4 }, { number = 28, length = 16 } } -- A, AAAA

local function u16(value)
  return char(floor(value / 256) % 256, value % 256)
end

local function at16(data, at)
  local a, b = byte(data, at, at + 1)
  if b then return a * 256 + b end
end

-- A name as it goes over the wire; nil when it cannot be one.
local function encode(name)
  name = name:gsub("%.$", "")
  local labels = {}
  for label in (name .. "."):gmatch("([^.]*)%.") do
    if #label == 0 or #label > 63 then return nil end
    labels[#labels + 1] = char(#label) .. label
  end
  local encoded = concat(labels) .. "\0"
  return #encoded <= 255 and encoded or nil
end

-- The name at a place of a message, and where it ends; nil when it makes no sense. A pointer leads back, and further
-- back each time, so that no message is read for ever.
local function decode(data, at)
  local labels, size, last, after = {}, 0, at, nil
  while true do
    local length = byte(data, at)
    if not length then return nil end
    if length == 0 then return lower(concat(labels, ".")), after or at + 1 end
    if length >= 192 then
      local to = at16(data, at)
      if not to then return nil end
      to = to - 0xc000 + 1
      if to >= last then return nil end
      after, at, last = after or at + 2, to, to
    elseif length < 64 then
      size = size + length + 1
      if size > 255 or at + length > #data then return nil end
      labels[#labels + 1] = sub(data, at + 1, at + length)
      at = at + length + 1
    else
      return nil
    end
  end
end

-- What a message answers: {name, code, cut, aliases = {name -> name}, addresses = {name -> {...}}, ttl}; nil when it is
-- no answer to this question, or makes no sense.
local function read(data, question, kind)
  if #data < 12 or sub(data, 1, 2) ~= sub(question, 1, 2) then return nil end
  local high, low = byte(data, 3, 4)
  if high < 128 or floor(high / 8) % 16 ~= 0 or at16(data, 5) ~= 1 then return nil end -- QR, OPCODE, QDCOUNT
  local asked, at = decode(data, 13)
  if not asked or asked ~= decode(question, 13) or sub(data, at, at + 3) ~= sub(question, -4) then return nil end
  local result = { code = low % 16, cut = floor(high / 2) % 2 == 1, name = asked, aliases = {}, addresses = {},
    ttl = CACHED_FOR }
  at = at + 4
  for _ = 1, at16(data, 7) do
    local owner, here = decode(data, at)
    local length = owner and at16(data, here + 8)
    if not length or here + 9 + length > #data then return result.cut and result or nil end
    local type, class, ttl = at16(data, here), at16(data, here + 2), at16(data, here + 4)
    ttl = ttl >= 32768 and 0 or ttl * 65536 + at16(data, here + 6) -- RFC 2181 §8
    if class == IN and type == CNAME then
      result.aliases[owner] = decode(data, here + 10)
      result.ttl = min(result.ttl, ttl)
    elseif class == IN and type == kind.number and length == kind.length then
      local list = result.addresses[owner] or {}
      result.addresses[owner] = list
      list[#list + 1] = core.format_address(sub(data, here + 10, here + 9 + length))
      result.ttl = min(result.ttl, ttl)
    end
    at = here + 10 + length
  end
  return result
end

local function ask_over_tcp(stack, server, question, kind, wait)
  local socket = stack:tcp()
  if not socket then return nil end
  socket:settimeout(wait, "t")
  local data
  if socket:connect(server, PORT) and socket:send(u16(#question) .. question) then
    local length = socket:receive(2)
    data = length and socket:receive(at16(length, 1))
  end
  socket:close()
  return data and read(data, question, kind) or nil
end

-- One question to one server; nil when it has not answered in time.
local function ask(stack, server, name, kind, wait)
  local socket, result = stack:udp(), nil
  if not socket then return nil end
  local id = u16(core.random(stack) % 65536)
  local question = id .. "\1\0\0\1\0\0\0\0\0\0" .. name .. u16(kind.number) .. u16(IN) -- recursion desired
  local ends = core.now(stack) + wait
  if socket:setpeername(server, PORT) and socket:send(question) then
    repeat -- what is no answer to this question is somebody's who guessed
      local left = ends - core.now(stack)
      socket:settimeout(left > 0 and left or 0)
      local data = socket:receive()
      result = data and read(data, question, kind)
    until result or not data
  end
  socket:close()
  if result and result.cut then result = ask_over_tcp(stack, server, question, kind, wait) end
  return result
end

-- Follows aliases within an answer; the addresses, or the name that is still to be asked for.
local function follow(result)
  local name = result.name
  for _ = 1, ALIASES_AT_MOST do
    if result.addresses[name] or not result.aliases[name] then break end
    name = result.aliases[name]
  end
  return result.addresses[name], name
end

local caches = setmetatable({}, { __mode = "k" }) -- stack -> { names = {name -> entry}, order = {names, oldest first} }

local function cache_of(stack)
  local cache = caches[stack]
  if not cache then
    cache = { names = {}, order = {} }
    caches[stack] = cache
  end
  return cache
end

-- Whether the stack has ended or crashed since it had this cache.
local function is_lost(stack, cache)
  return caches[stack] ~= cache or not core.is_open(stack) or stack:crashed()
end

-- The addresses of one kind; false when the name has none of it, nil when nobody said.
local function query(stack, servers, name, kind)
  local cache = cache_of(stack)
  local ttl = CACHED_FOR
  for _ = 1, ALIASES_AT_MOST do
    local encoded, result = encode(name), nil
    if not encoded then return false, ttl end
    for _, wait in ipairs(WAITS) do
      for _, server in ipairs(servers) do
        result = ask(stack, server, encoded, kind, wait)
        if is_lost(stack, cache) then return nil end
        if result and (result.code == 0 or result.code == 3) then break end -- others may know what this one does not
        result = nil
      end
      if result then break end
    end
    if not result then return nil end
    ttl = min(ttl, result.ttl)
    local addresses, last = follow(result)
    if addresses then return addresses, ttl end
    if last == result.name or result.code == 3 then return false, ttl end
    name = last
  end
  return false, ttl
end

local function remember(stack, name, addresses, ttl)
  local cache = cache_of(stack)
  if not cache.names[name] then
    cache.order[#cache.order + 1] = name
    if #cache.order > CACHED_AT_MOST then cache.names[table.remove(cache.order, 1)] = nil end
  end
  cache.names[name] = { addresses = addresses, ends = core.now(stack) + ttl }
end

--- The addresses of a name, IPv4 first, from a stack's cache or its servers.
-- @tparam stack stack
-- @tparam {string,...} servers addresses; asked in turn, each twice
-- @tparam string name
-- @treturn {string,...}|nil
-- @treturn string "host not found"; "closed": the stack has ended, or crashed meanwhile
function M.lookup(stack, servers, name)
  name = lower(name):gsub("%.$", "")
  local cache = cache_of(stack)
  local cached = cache.names[name]
  if cached and cached.ends > core.now(stack) then return cached.addresses end
  local all, least = {}, CACHED_FOR
  for _, kind in ipairs(TYPES) do
    local addresses, ttl = query(stack, servers, name, kind)
    if is_lost(stack, cache) then return nil, "closed" end
    if addresses == nil then break end -- nobody answers: asking for the other kind would only take longer
    least = min(least, ttl)
    for _, address in ipairs(addresses or {}) do all[#all + 1] = address end
  end
  if not all[1] then return nil, "host not found" end
  if least > 0 then remember(stack, name, all, least) end
  return all
end

--- Forgets what a stack has learned; lookups that are under way end.
-- @tparam stack stack
function M.forget(stack)
  caches[stack] = nil
end

return M
