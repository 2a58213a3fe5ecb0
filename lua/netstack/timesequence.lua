--- What TCP connections sent and acknowledged when, as a table in a file (CSV), for time-sequence graphs.
--
-- The table has a line for each thing that a packet says: `time`; `event`; `cause` (why the packet did not arrive;
-- empty where it did, or where that is not known); `from`, `to` (sequence numbers, counted from the flow's SYN); `flow`
-- ("10.0.0.2:80 > 10.0.0.1:1024": data that goes this way, and what the other side says of it). Events:
--
-- - `data`, `retransmission`: bytes `from` up to `to`, SYN and FIN counting one; a retransmission has bytes that were
--   sent before
-- - `ack`: what is before `from` is acknowledged, what is before `to` may be sent (empty where the window's scale is
--   not known); only where that is news
-- - `duplicate_ack`: acknowledges what was acknowledged before, and tells nothing else (RFC 5681)
-- - `sack`: a block of selective acknowledgement
-- - `rst`: at `from`
-- @module netstack.timesequence

local check = require "netstack.check"
local csv = require "netstack.csv"
local packet = require "netstack.packet"
local pcap = require "netstack.pcap"

local format, match, max = string.format, string.match, math.max
local ipairs, setmetatable, type = ipairs, setmetatable, type

---@class netstack.timesequence
local Record = {}
Record.__index = Record
Record.__name = "netstack.timesequence"

local M = {}

local WRAP, HALF = 4294967296, 2147483648

local function endpoint(address, port)
  return format(match(address, ":") and "[%s]:%d" or "%s:%d", address, port)
end

-- A sequence number as a count from the flow's first, the one nearest to the highest so far: the numbers wrap around.
local function unwrap(flow, seq)
  local ahead = (seq - flow.base - flow.highest) % WRAP
  return flow.highest + (ahead < HALF and ahead or ahead - WRAP)
end

-- Both flows of a connection, which is followed on the interface on which it was seen first.
local function connect(self, name, reverse, interface, before)
  local count = before and before.count + 1 or 1
  local suffix = before and format(" (%d)", count) or ""
  local one = { name = name .. suffix, interface = interface, count = count, highest = 0 }
  local other = { name = reverse .. suffix, interface = interface, count = count, highest = 0 }
  one.back, other.back = other, one
  self.flows[name], self.flows[reverse] = one, other
  return one
end

-- The flow that a segment is of.
local function flow_of(self, ip, tcp, interface)
  local here, there = endpoint(ip.source, tcp.source_port), endpoint(ip.destination, tcp.destination_port)
  local name = here .. " > " .. there
  local flow = self.flows[name]
  -- The same ports begin again, unless it is the same SYN once more.
  local again = flow and interface == flow.interface and tcp.flags.syn and not tcp.flags.ack and flow.base and
    flow.base ~= tcp.seq
  if not flow or again then flow = connect(self, name, there .. " > " .. here, interface, flow) end
  if flow.interface ~= interface then return nil end
  if not flow.base then flow.base = tcp.seq end
  -- Where an answer comes first, what it acknowledges is where the other side begins.
  if tcp.flags.ack and not flow.back.base then flow.back.base = tcp.ack end
  return flow
end

local function sent(self, time, flow, tcp, length, cause)
  local flags = tcp.flags
  local from = unwrap(flow, tcp.seq)
  local to = from + length + (flags.syn and 1 or 0) + (flags.fin and 1 or 0)
  if flags.rst then self:tell(time, "rst", cause, from, nil, flow) end
  if to == from then return end
  self:tell(time, from < (flow.sent or from) and "retransmission" or "data", cause, from, to, flow)
  flow.sent = max(flow.sent or to, to)
  flow.highest = flow.sent
end

-- What a segment says of the data of the other side: `flow` is that data's. `plain`: the segment does nothing else.
local function acknowledged(self, time, flow, tcp, plain, cause)
  local ack, known = unwrap(flow, tcp.ack), flow.acknowledged
  local shift = tcp.flags.syn and 0 or flow.back.shift
  local edge = shift and ack + tcp.window * 2 ^ shift or nil
  if not known or ack > known or ack == known and edge ~= flow.edge then
    self:tell(time, "ack", cause, ack, edge, flow)
  elseif ack == known and plain and ack < flow.highest then
    self:tell(time, "duplicate_ack", cause, ack, nil, flow)
  end
  for _, block in ipairs(tcp.options and tcp.options.sack or {}) do
    self:tell(time, "sack", cause, unwrap(flow, block.left), unwrap(flow, block.right), flow)
  end
  if cause then return end
  if not known or ack >= known then flow.acknowledged, flow.edge = ack, edge end
  flow.highest = max(flow.highest, ack)
end

-- Takes note of the scale of windows that a SYN offers: both sides', or none (RFC 7323).
local function offered(flow, tcp)
  local back = flow.back
  flow.offer = tcp.options and tcp.options.window_scale or false
  if back.offer == nil then return end
  local both = flow.offer and back.offer
  flow.shift, back.shift = both and flow.offer or 0, both and back.offer or 0
end

-- Writes a line. Its last cell is never empty: gnuplot takes that for the one of the line before.
function Record:tell(time, event, cause, from, to, flow)
  self.table:row { time, event, cause, from, to, flow.name }
end

--- Adds a packet, in the order in which packets pass; one that is no TCP segment of a known form is passed over.
-- @tparam table item what the function given to `link:trace` is called with, or what `read` of a `netstack.pcap` reader
-- returns: `time`, `packet` or `data`; `link` ("ip" without it), `interface`, `original_length`; why it did not arrive
-- from `cause`, `corrupted` or a `comment` "dropped: <cause>". Of an acknowledgement, `arrival` is taken for its
-- time: when its sender sees it
-- @treturn integer|nil 1
-- @treturn string what the system says
---@param item table
---@return integer|nil
---@return string|nil err
function Record:add(item)
  if type(item) ~= "table" then check.bad(1, "add", "table expected, got " .. type(item)) end
  local data, time = item.packet or item.data, item.time
  if type(data) ~= "string" then check.bad(1, "add", "'packet': string expected, got " .. type(data)) end
  if type(time) ~= "number" then check.bad(1, "add", "'time': number expected, got " .. type(time)) end
  if self.table.failure then return nil, self.table.failure end
  if not self.open then return nil, "closed" end
  local parts = packet.dissect(data, { link = item.link == "ethernet" and "ethernet" or nil })
  local tcp = parts and not parts.malformed and parts.tcp
  if not tcp then return 1 end
  local flow = flow_of(self, parts.ipv4 or parts.ipv6, tcp, item.interface)
  if not flow then return 1 end
  local cause = item.cause or match(item.comment or "", "^dropped: (.*)") or item.corrupted and "corrupted" or nil
  local length = #parts.payload + max(0, (item.original_length or 0) - #data)
  if tcp.flags.syn then offered(flow, tcp) end
  sent(self, time, flow, tcp, length, cause)
  if tcp.flags.ack then
    local plain = length == 0 and not tcp.flags.syn and not tcp.flags.fin
    acknowledged(self, item.arrival or time, flow.back, tcp, plain, cause)
  end
  if self.table.failure then return nil, self.table.failure end
  return 1
end

--- Ends the table.
-- @treturn integer|nil 1, also the second time
-- @treturn string the first failure: "No space left on device"
---@return integer|nil
---@return string|nil err
function Record:close()
  self.open = false
  return self.table:close()
end

Record.__close = Record.close
Record.__tostring = function(self) return self.open and "time-sequence record" or "time-sequence record (closed)" end

--- Begins a table.
-- @tparam string|file target a path, or an open file, which `close` leaves open
-- @treturn record|nil
-- @treturn string what the system says: "x/y.csv: No such file or directory"
---@param target string|file*
---@return netstack.timesequence|nil
---@return string|nil err
function M.new(target)
  local out, err = csv.new(target, { "time", "event", "cause", "from", "to", "flow" }, "new")
  if not out then return nil, err end
  return setmetatable({ table = out, flows = {}, open = true }, Record)
end

--- Makes a table from a capture, pcapng or pcap.
-- @tparam string|file capture
-- @tparam string|file target
-- @treturn integer|nil 1
-- @treturn string what is wrong: what the system says, or where the capture is damaged; the table has what came before
---@param capture string|file*
---@param target string|file*
---@return integer|nil
---@return string|nil err
function M.read(capture, target)
  local reader, err = pcap.reader(capture)
  if not reader then return nil, err end
  local record
  record, err = M.new(target)
  if record then
    for item in reader:packets() do
      if item.time and not record:add(item) then break end
    end
    local _, failure = record:close()
    err = reader:error() or failure
  end
  reader:close()
  if err then return nil, err end
  return 1
end

return M
