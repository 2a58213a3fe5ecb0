--- Sinks and sources over sockets, as LTN12 wants them. They have the socket's `getfd` and `dirty`, so that `select`
-- takes them in place of it.
-- @module netstack.luasocket.ltn12

local error, min, setmetatable, tostring, type = error, math.min, setmetatable, tostring, type

local M = {}

--- Makes a function that calls one of a table's functions, by name; the name "default" may be left out.
-- @tparam table functions
-- @treturn function `(name, ...)` or `(...)`
---@param functions table<string, function>
---@return fun(...): any ...
function M.choose(functions)
  return function(name, first, second)
    if type(name) ~= "string" then name, first, second = "default", name, first end
    local chosen = functions[name]
    if not chosen then error("unknown key (" .. tostring(name) .. ")", 3) end
    return chosen(first, second)
  end
end

-- A callable that stands for the socket.
local function over(socket, call)
  return setmetatable({
    getfd = function() return socket:getfd() end,
    dirty = function() return socket:dirty() end,
  }, { __call = call })
end

local function keep_open(socket)
  return over(socket, function(_, chunk)
    if chunk then return socket:send(chunk) end
    return 1
  end)
end

local function close_when_done(socket)
  return over(socket, function(_, chunk)
    if chunk then return socket:send(chunk) end
    socket:close()
    return 1
  end)
end

--- Adds `sink`, `sinkt`, `source` and `sourcet` to a bound table; sources read `module.BLOCKSIZE` bytes at a time.
-- @tparam table module
function M.add(module)
  local function by_length(socket, length)
    return over(socket, function()
      if length <= 0 then return nil end
      local chunk, err = socket:receive(min(module.BLOCKSIZE, length))
      if err then return nil, err end
      length = length - #chunk
      return chunk
    end)
  end

  local function until_closed(socket)
    local ended = false
    return over(socket, function()
      if ended then return nil end
      local chunk, err, partial = socket:receive(module.BLOCKSIZE)
      if not err then return chunk end
      if err ~= "closed" then return nil, err end
      ended = true
      socket:close()
      return partial
    end)
  end

  module.sinkt = { ["keep-open"] = keep_open, ["close-when-done"] = close_when_done, default = keep_open }
  module.sourcet = { ["by-length"] = by_length, ["until-closed"] = until_closed, default = until_closed }
  module.sink = M.choose(module.sinkt)
  module.source = M.choose(module.sourcet)
end

return M
