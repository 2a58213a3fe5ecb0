-- A downloader: LuaSocket's own socket.http, run on a stack, writes what a URL gives into a file.
--
--   local download = require "http_client"(stack)
--   local bytes = assert(download("http://10.0.0.2/COPYING", "/tmp/COPYING"))
local luasocket = require "netstack.luasocket"

return function(stack)
  local socket = luasocket(stack)
  local http, ltn12 = socket.load "socket.http", socket.load "ltn12"
  socket.BLOCKSIZE = 65536 -- LuaSocket's is 2048; how much a source reads at a time

  --- Downloads a URL.
  -- @tparam string url
  -- @tparam string|file target the path of a file, or a file that is open and stays so
  -- @tparam[opt] function progress called with the number of bytes that came since the last time
  -- @treturn integer|nil bytes
  -- @treturn string error
  return function(url, target, progress)
    local file, err = target, nil
    if type(target) == "string" then file, err = io.open(target, "wb") end
    if not file then return nil, err end
    local bytes = 0
    local function write(chunk)
      if not chunk then return 1 end -- the end
      bytes = bytes + #chunk
      if progress then progress(#chunk) end
      local ok, why = file:write(chunk)
      return ok and 1, why
    end
    local sink = ltn12.sink.chain(function(chunk) return chunk end, write) -- where a filter would go
    local ok, status = http.request { url = url, sink = sink }
    if file ~= target then file:close() end
    if not ok then return nil, status end
    if status ~= 200 then return nil, "HTTP status " .. status end
    return bytes
  end
end
