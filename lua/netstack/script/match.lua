--- Whether a packet is what was expected, and how it differs.
-- @module netstack.script.match

local concat, format, sort = table.concat, string.format, table.sort
local ipairs, pairs, tostring, type = ipairs, pairs, tostring, type

local M = {}

local FLAGS = { "syn", "fin", "rst", "psh", "ack", "urg", "ece", "cwr", "ns" }
local LETTERS = { syn = "S", fin = "F", rst = "R", psh = "P", ack = "A", urg = "U", ece = "E", cwr = "C", ns = "N" }
local SUMMED = { "ipv4", "tcp", "udp", "icmp", "icmpv6", "igmp" }

-- The keys of a table in an order of its own: numbers first.
local function keys_of(value)
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  sort(keys, function(a, b)
    if type(a) == type(b) and type(a) == "number" then return a < b end
    if type(a) == "number" or type(b) == "number" then return type(a) == "number" end
    return tostring(a) < tostring(b)
  end)
  return keys
end

local function letters_of(flags)
  local letters = {}
  for _, name in ipairs(FLAGS) do
    if flags[name] then letters[#letters + 1] = LETTERS[name] end
  end
  return concat(letters)
end

--- A value as text.
local function show(value, name)
  if value == nil then return "none" end
  if type(value) == "string" then
    if #value > 40 then return format("%d bytes %q...", #value, value:sub(1, 30)) end
    return format("%q", value)
  end
  if type(value) == "number" then return format("%.14g", value) end
  if type(value) == "function" then return "(a function)" end
  if type(value) ~= "table" then return tostring(value) end
  local parts, list = {}, 0
  for _, key in ipairs(keys_of(value)) do
    if key == list + 1 then
      list = key
      parts[#parts + 1] = show(value[key])
    else
      parts[#parts + 1] = tostring(key) .. " = " .. show(value[key], key)
    end
  end
  if name == "flags" then return format("%q", letters_of(value)) end
  return parts[1] and "{ " .. concat(parts, ", ") .. " }" or "{}"
end
M.show = show

-- Letters name all flags that are set.
local function flags_of(expected)
  if type(expected) ~= "string" then return expected end
  local flags = {}
  for _, name in ipairs(FLAGS) do
    flags[name] = expected:find(name == "ack" and "[A.]" or name == "cwr" and "[CW]" or LETTERS[name]) ~= nil
  end
  return flags
end

local function compare(expected, actual, where, name, found)
  local function differs(why)
    found[#found + 1] = format("%s: %s", where, why)
  end
  if type(expected) == "function" then
    local fits, why = expected(actual)
    if not fits then differs("got " .. show(actual, name) .. ", " .. (why or "which will not do")) end
  elseif name == "flags" and type(actual) == "table" then
    for flag, set in pairs(flags_of(expected)) do
      if (actual[flag] or false) ~= (set or false) then
        return differs(format("expected %s, got %s", show(expected), show(actual, name)))
      end
    end
  elseif type(expected) == "table" and (actual == nil or type(actual) == "table") then
    if #expected > 0 and #expected ~= #(actual or "") then
      return differs(format("expected %s, got %s", show(expected), show(actual)))
    end
    for _, key in ipairs(keys_of(expected)) do
      local inner = type(key) == "number" and format("%s[%d]", where, key) or where .. "." .. tostring(key)
      compare(expected[key], actual and actual[key], where == "" and tostring(key) or inner, key, found)
    end
  elseif expected ~= actual and not (expected == false and actual == nil) then
    differs(format("expected %s, got %s", show(expected, name), show(actual, name)))
  end
end

--- How a packet differs from what was expected. A field that is not named may be anything; false: it is not there;
-- functions are asked. Checksums have to be right, unless `checksum_ok` says what they have to be.
-- @tparam table expected
-- @tparam table actual
-- @treturn table list of texts, empty when it is what was expected
function M.differences(expected, actual)
  local found = {}
  compare(expected, actual, "", nil, found)
  for _, name in ipairs(SUMMED) do
    local fields = actual[name]
    if fields and fields.checksum_ok == false and (expected[name] or {}).checksum_ok == nil then
      found[#found + 1] = name .. ".checksum: wrong"
    end
  end
  if actual.malformed and expected.malformed == nil then found[#found + 1] = "malformed: " .. actual.malformed end
  return found
end

return M
