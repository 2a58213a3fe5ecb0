--- LuaSocket's words for the errors whose names are others in netstack: what LuaSocket 3.0 says on Linux, where most of
-- them are strerror's. One is not followed: a name that is not known is "host not found" everywhere, as LuaSocket's
-- documentation and `dns.toip` have it, and not getaddrinfo's "host or service not provided, or not known".
-- @module netstack.luasocket.errors

local select = select

local TEXT = {
  ["connection reset"] = "closed",
  ["connection aborted"] = "closed",
  ["in progress"] = "Operation already in progress",
  ["not connected"] = "Transport endpoint is not connected",
  ["no route"] = "Network is unreachable",
  ["host unreachable"] = "No route to host",
  ["port unreachable"] = "connection refused",
  ["address not available"] = "Cannot assign requested address",
  ["invalid address"] = "host not found",
  ["wrong ip version"] = "Address family for hostname not supported",
  ["message too long"] = "Message too long",
  ["no memory"] = "Cannot allocate memory",
  ["not supported"] = "Operation not supported",
}

local M = { text = TEXT }

--- Results of a method of netstack as LuaSocket would give them.
function M.translate(ok, err, ...)
  if ok ~= nil then return ok, err, ... end
  if select("#", ...) == 0 then return nil, TEXT[err] or err end
  return nil, TEXT[err] or err, ...
end

return M
