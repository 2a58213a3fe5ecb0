--- What IGMPv3 (RFC 3376) and MLDv2 (RFC 3810) have in common: lists of sources, and records of groups.
-- @module netstack.packet.membership

local struct = require "netstack.packet.struct"

local sub, rep, concat = string.sub, string.rep, table.concat
local field, u8, u16 = struct.field, struct.u8, struct.u16
local ipairs, pairs, type = ipairs, pairs, type
local fail = struct.fail

local M = {}

local function read_addresses(kind, data, at, count)
  local list = {}
  for i = 1, count do list[i] = kind.read(data, at + (i - 1) * kind.size) end
  return list
end

local function write_addresses(kind, list, where)
  if type(list) ~= "table" then fail(where, "table expected, got " .. type(list)) end
  local parts = {}
  for i, address in ipairs(list) do
    local raw, why = kind.write(address)
    if not raw then fail(where .. "[" .. i .. "]", why) end
    parts[i] = raw
  end
  return concat(parts)
end
M.read_addresses, M.write_addresses = read_addresses, write_addresses

--- The reader and the writer of what a query has behind its group.
-- @tparam string where
-- @tparam table kind of address
function M.query(where, kind)
  local layout = struct.layout(where, {
    struct.bits(1, { "reserved_bits", 4, quiet = true }, { "suppress", 1 }, { "robustness", 3 }),
    field("query_interval", u8, 0), field("source_count", u16),
  })
  local query = { names = layout.names }

  -- Where it ends, plus one; nil when there is no such thing, or not all of it.
  function query.read(data, at, last, fields)
    local found = {}
    local next_at = layout.read(data, at, last, found)
    if not next_at or next_at + found.source_count * kind.size - 1 > last then return nil end
    for name, value in pairs(found) do fields[name] = value end
    fields.sources = read_addresses(kind, data, next_at, found.source_count)
    return next_at + found.source_count * kind.size
  end

  function query.write(fields, fill)
    if not fields.sources then return "" end
    local sources = write_addresses(kind, fields.sources, where .. ".sources")
    return layout.write(fields, { source_count = #sources / kind.size }, fill) .. sources
  end

  return query
end

--- The reader and the writer of a report's records.
function M.records(where, kind)
  local layout = struct.layout(where .. ".records", {
    field("type", u8), field("auxiliary_length", u8), field("source_count", u16), field("group", kind),
  }, { "sources", "auxiliary" })
  local records = {}

  -- The records, and where they end, plus one: before the first that is not all there.
  function records.read(data, at, last, count)
    local list = {}
    for i = 1, count do
      local record = {}
      local next_at = layout.read(data, at, last, record)
      local auxiliary = next_at and next_at + record.source_count * kind.size
      if not auxiliary or auxiliary + record.auxiliary_length * 4 - 1 > last then break end
      record.sources = read_addresses(kind, data, next_at, record.source_count)
      at = auxiliary + record.auxiliary_length * 4
      if at > auxiliary then record.auxiliary = sub(data, auxiliary, at - 1) end
      list[i] = record
    end
    return list, at
  end

  function records.write(list, fill)
    if type(list) ~= "table" then fail(where .. ".records", "table expected, got " .. type(list)) end
    local parts = {}
    for i, record in ipairs(list) do
      local place = where .. ".records[" .. i .. "]"
      struct.check_names(record, layout.names, place)
      local sources = write_addresses(kind, record.sources or {}, place .. ".sources")
      local auxiliary = struct.text(record.auxiliary, place .. ".auxiliary")
      auxiliary = auxiliary .. rep("\0", -#auxiliary % 4)
      parts[i] = layout.write(record, { auxiliary_length = #auxiliary / 4, source_count = #sources / kind.size },
        fill) .. sources .. auxiliary
    end
    return concat(parts)
  end

  return records
end

return M
