--- Captures in files: pcapng (draft-ietf-opsawg-pcapng) is written, and read as others write it, as is classic pcap.
-- What is written names no machine, date, system or Lua version: the same packets at the same times are the same bytes.
-- @module netstack.pcap

local output = require "netstack.output"
local reader = require "netstack.pcap.reader"
local writer = require "netstack.pcap.writer"

local M = {}

--- Begins a capture.
-- @tparam string|file target a path, or an open file, which `writer:close` leaves open
-- @treturn writer|nil
-- @treturn string what the system says: "x/y.pcapng: No such file or directory"
---@param target string|file*
---@return netstack.pcap.writer|nil
---@return string|nil err
function M.writer(target)
  local out, err = output.new(target, "writer")
  if not out then return nil, err end
  return writer.new(out)
end

--- Opens a capture.
-- @tparam string|file target a path, or an open file, which `reader:close` leaves open
-- @treturn reader|nil
-- @treturn string what the system says, or "offset 0: no capture"
---@param target string|file*
---@return netstack.pcap.reader|nil
---@return string|nil err
function M.reader(target)
  local file, err, own = output.opened(target, "rb", "read", "reader")
  if not file then return nil, err end
  return reader.new(file, own)
end

return M
