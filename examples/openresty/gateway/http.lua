-- The client's side of HTTP/1.1 (RFC 9112) over a connected cosocket, whosever it is: as much as a gateway needs.
local BLOCK = 16384 -- bytes of a body at a time, at most
local HEAD_AT_MOST = 32768 -- bytes
local LINE_AT_MOST = 1024 -- in chunked bodies

local M = {}

-- All before a delimiter, which is at most so far away.
local function read_until(socket, delimiter, most)
  local read = socket:receiveuntil(delimiter)
  local text, err = read(most)
  if not text then return nil, err end
  local more
  more, err = read(1)
  if more then return nil, "header too large" end
  if err then return nil, err end
  return text
end

-- How many bytes the body has; "chunked", or "close": it ends with the connection. nil: none of these.
local function length_of(method, response)
  local coding, length = response.first["transfer-encoding"], response.first["content-length"]
  local status = response.status
  if method == "HEAD" or status == 204 or status == 304 then return 0 end
  if coding then return coding:lower() == "chunked" and "chunked" or nil end
  if not length then return "close" end
  return length:find "^%d+$" and #length < 16 and tonumber(length) or nil
end

local function parse(text)
  local minor, status, rest = text:match "^HTTP/1%.(%d) (%d%d%d)[^\r\n]*(.*)$"
  if not minor then return nil end
  local response = { minor = minor, status = tonumber(status), headers = {}, first = {} }
  for line in rest:gmatch "\r\n([^\r\n]*)" do
    local name, value = line:match "^([^%s:]+):%s*(.-)%s*$"
    if not name then return nil end
    local key = name:lower()
    if key == "content-length" and (response.first[key] or value) ~= value then return nil end -- which one?
    response.headers[#response.headers + 1] = { name = name, value = value }
    response.first[key] = response.first[key] or value
  end
  return response
end

--- Sends a request.
-- @param request method, target, headers (a list of { name, value }), body (a text, or nil)
-- @return 1; nil and an error
function M.send(socket, request)
  local parts = { request.method, " ", request.target, " HTTP/1.1\r\n" }
  for _, header in ipairs(request.headers) do
    parts[#parts + 1] = { header.name, ": ", header.value, "\r\n" }
  end
  if request.body then parts[#parts + 1] = { "Content-Length: ", #request.body, "\r\n" } end
  local sent, err = socket:send { parts, "\r\n", request.body }
  return sent and 1, err
end

--- Receives the head of the answer.
-- @return a table: status, headers (a list of { name, value }), first (values by name in lower case), length (of the
-- body, "chunked", or "close"), keep (whether the connection can be used again after the body); nil and an error
function M.receive(socket, request)
  local text, err, response
  repeat
    text, err = read_until(socket, "\r\n\r\n", HEAD_AT_MOST)
    if not text then return nil, err end
    response = parse(text)
    if not response then return nil, "not HTTP" end
  until response.status >= 200 -- 100 Continue, 103 Early Hints
  response.length = length_of(request.method, response)
  if not response.length then return nil, "a body of unknown length" end
  response.keep = response.minor ~= "0" and response.length ~= "close" and
    not (response.first.connection or ""):lower():find "close"
  return response
end

-- A function that receives so many bytes, block by block; it returns "" after the last one.
local function counted(socket, left)
  return function()
    if left == 0 then return "" end
    local data, err = socket:receiveany(math.min(left, BLOCK))
    if data then left = left - #data end
    return data, err
  end
end

local function chunked(socket)
  local block = counted(socket, 0)
  local first, ended = true, false
  local function next_chunk()
    local line, err = read_until(socket, "\r\n", LINE_AT_MOST)
    if line == "" and not first then line, err = read_until(socket, "\r\n", LINE_AT_MOST) end -- after the one before
    if not line then return nil, err end
    first = false
    local size = line:match "^%x+"
    if not size or #size > 8 then return nil, "not a chunk" end
    return tonumber(size, 16)
  end
  return function()
    if ended then return "" end
    local data, err = block()
    if data ~= "" then return data, err end
    local size
    size, err = next_chunk()
    if not size then return nil, err end
    block = counted(socket, size)
    if size > 0 then return block() end
    repeat -- trailers
      data, err = read_until(socket, "\r\n", LINE_AT_MOST)
    until not data or data == ""
    ended = data == ""
    return data, err
  end
end

local function to_the_end(socket)
  return function()
    local data, err = socket:receiveany(BLOCK)
    if err == "closed" then return "" end
    return data, err
  end
end

--- The body of an answer.
-- @return a function that returns the next block, "" when there is no more, nil and an error when it breaks off
function M.blocks(socket, response)
  if response.length == "chunked" then return chunked(socket) end
  if response.length == "close" then return to_the_end(socket) end
  return counted(socket, response.length)
end

return M
