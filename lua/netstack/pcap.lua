--- Captures in files: pcapng (draft-ietf-opsawg-pcapng) is written, and read as others write it, as is classic pcap.
-- What is written names no machine, date, system or Lua version: the same packets at the same times are the same bytes.
-- @module netstack.pcap

local check = require "netstack.check"
local reader = require "netstack.pcap.reader"
local writer = require "netstack.pcap.writer"

local M = {}

local function opened(target, mode, method, name)
  if type(target) == "string" then
    local file, err = io.open(target, mode)
    return file, err, true
  end
  -- Files are userdata; tables with these methods will do.
  local ok, found = pcall(function() return target[method] end)
  if ok and found then return target, nil, false end
  check.bad(1, name, "path or file expected, got " .. type(target))
end

--- Begins a capture.
-- @tparam string|file target a path, or an open file, which `writer:close` leaves open
-- @treturn writer|nil
-- @treturn string what the system says: "x/y.pcapng: No such file or directory"
---@param target string|file*
---@return netstack.pcap.writer|nil
---@return string|nil err
function M.writer(target)
  local file, err, own = opened(target, "wb", "write", "writer")
  if not file then return nil, err end
  return writer.new(file, own)
end

--- Opens a capture.
-- @tparam string|file target a path, or an open file, which `reader:close` leaves open
-- @treturn reader|nil
-- @treturn string what the system says, or "offset 0: no capture"
---@param target string|file*
---@return netstack.pcap.reader|nil
---@return string|nil err
function M.reader(target)
  local file, err, own = opened(target, "rb", "read", "reader")
  if not file then return nil, err end
  return reader.new(file, own)
end

return M
