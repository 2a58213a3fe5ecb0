-- usage: lua ldoc-source.lua OUT FILE...
--
-- Writes into OUT what LDoc is to read: each Lua file with its LuaLS annotations turned into LDoc's tags, and the C
-- files that have anything to say as one. Two descriptions of each function, one per tool, would not stay the same.

local out = arg[1]

-- A LuaLS type may hold spaces, within brackets, after a colon or around a bar; LDoc's ends at the first space, knows
-- nothing inside of tables and functions, and has the question mark in front.
local function split_type(text)
  local depth, i = 0, 1
  while i <= #text do
    local c = text:sub(i, i)
    if c:find("[%(%[{<]") then
      depth = depth + 1
    elseif c:find("[%)%]}>]") then
      depth = depth - 1
    elseif c == " " and depth == 0 and not text:sub(1, i - 1):find("[:|,]%s*$") and not text:find("^%s*|", i) then
      break
    end
    i = i + 1
  end
  local kind = text:sub(1, i - 1):gsub("%s", "")
  kind = kind:gsub("fun%b():[%w_%.|%?]+", "function"):gsub("fun%b()", "function")
  kind = kind:gsub("%b{}", "table"):gsub("table%b<>", "table"):gsub("[%(%)]", ""):gsub("([%w_%.]+)%[%]", "{%1,...}")
  if kind:find("%?") then kind = "?" .. kind:gsub("%?", "") end
  return kind, (text:sub(i):gsub("^%s+", ""))
end

local tags = {}

function tags.param(text)
  local name, optional, rest = text:match("^([%w_%.]+)(%??)%s*(.*)$")
  if not name then return end
  local kind, description = split_type(rest)
  if kind == "..." then kind = "any" end
  return ("@tparam%s %s %s %s"):format(optional == "?" and "[opt]" or "", kind, name, description)
end

tags["return"] = function(text)
  local kind, description = split_type(text)
  return ("@treturn %s %s"):format(kind, (description:gsub("^#%s*", "")))
end

function tags.field(text)
  for _, access in ipairs {"public", "protected", "private", "package"} do
    text = text:gsub("^" .. access .. "%s+(%S+%s)", "%1")
  end
  local name, rest = text:match("^(%S+)%s*(.*)$")
  local kind, description = split_type(rest)
  return ("<br>`%s` (`%s`) %s"):format(name, kind, description)
end

function tags.class(text)
  return "@type " .. text:gsub("^%b()%s*", ""):match("([%w_]+)%f[^%w_%.]")
end

for _, name in ipairs {"see", "usage", "module", "submodule", "classmod", "script", "function", "local", "section",
  "tparam", "treturn", "raise", "within", "type", "table", "tfield"} do
  tags[name] = tags[name] or function(text) return "@" .. name .. " " .. text end
end
tags.type = nil -- LuaLS's, of a local variable; a class is said with @class
tags.private = function() return "@local" end

-- "-- @tag" is LDoc's own and stays, "---@tag" is LuaLS's.
local function is_ldoc(line) return line:find("^%s*%-%-%s+@") end

-- What a comment tells LDoc itself counts more than what it tells LuaLS, and is not said twice.
local function said_twice(block)
  local twice = {}
  for _, line in ipairs(block) do
    if is_ldoc(line) then
      local name = line:match("@t?(%w+)")
      if name == "param" or name == "return" or name == "field" then twice[name] = true end
      if line:find("@type%s") then twice.class, twice.field = true, true end
    end
  end
  return twice
end

-- One comment of several lines. Nothing comes back when none of it is for the reader.
local function convert(block)
  local text, tagged, module = {}, {}, false
  local twice = said_twice(block)
  for _, line in ipairs(block) do
    local body = line:match("^%s*%-%-%-*%s?(.*)$")
    local name, rest = body:match("^%s*@([%w_]+)[%[%]%w]*%s*(.*)$")
    if name then
      local tag = tags[name]
      local converted
      if is_ldoc(line) then
        converted = body:match("^%s*(.*)$")
      elseif not twice[name] then
        converted = tag and tag(rest)
      end
      if converted and converted:sub(1, 1) ~= "@" then
        text[#text + 1] = converted
      elseif converted then
        tagged[#tagged + 1] = converted
        module = module or converted:find("^@module") or converted:find("^@submodule") or converted:find("^@classmod")
      end
    elseif not body:find("^|") then
      local list = #tagged > 0 and tagged or text
      list[#list + 1] = body
    end
  end
  if #text == 0 and #tagged == 0 then return {}, module end
  local lines = {"--- " .. (text[1] or "")}
  for i = 2, #text do lines[#lines + 1] = "-- " .. text[i] end
  for _, line in ipairs(tagged) do lines[#lines + 1] = "-- " .. line end
  return lines, module
end

local function read(path)
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end

local function write(path, text)
  local file = assert(io.open(out .. "/" .. path:gsub("/", "."), "w"))
  file:write(text)
  file:close()
end

local function convert_lua(path)
  local source = read(path)
  if source:find("%-%-%-@meta") then return end -- it describes C, whose own comments are read
  local lines, block, has_module = {}, nil, false
  local class, class_table -- whose methods LDoc takes the next functions for, and the table they have to be in
  local function flush(code)
    if not block then return code end
    local converted, module = convert(block)
    has_module = has_module or module
    local described = table.concat(converted, "\n"):match("%-%- @type ([%w_]+)")
    if described then
      class, class_table = described, code and code:match("^%s*local%s+([%w_]+)%s*=")
      -- LDoc would take the class and its table for one thing.
      converted[#converted + 1] = ""
    elseif class and code and code:find("function") then
      local owner = code:match("function%s+([%w_]+)[%.:]") or code:match("^%s*([%w_]+)%.[%w_]+%s*=")
      if owner ~= class and owner ~= class_table then
        class = nil
        table.insert(converted, 1, "--- @section end\n")
      end
    end
    for _, line in ipairs(converted) do lines[#lines + 1] = line end
    -- LDoc does not look up a function that is assigned by its name.
    local target = code and code:match("^(%s*[%w_]+[%.][%w_]+)%s*=%s*[%a_][%w_%.]*%s*$")
    if target and #converted > 0 then
      local names = {}
      for _, line in ipairs(converted) do names[#names + 1] = line:match("^%-%- @tparam%S* %S+ (%S+)") end
      if #names > 0 then code = ("function %s(%s) end"):format(target, table.concat(names, ", ")) end
    end
    block = nil
    return code
  end
  for line in (source:gsub("\n?$", "\n")):gmatch("(.-)\n") do
    if line:find("^%s*%-%-%-[^%-]") or line:find("^%s*%-%-%-$") or (block and line:find("^%s*%-%-")) then
      block = block or {}
      block[#block + 1] = line
    else
      local code = flush(line)
      lines[#lines + 1] = code
    end
  end
  flush()
  if not has_module then
    local name = path:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", ".")
    -- The plain comment that opens the file says what it is for.
    local opening = {}
    for line in source:gmatch("([^\n]*)\n") do
      local body = line:match("^%-%-%s?([^%-].*)$")
      if not body then break end
      opening[#opening + 1] = "-- " .. body
    end
    if #opening > 0 then
      opening[1] = "-" .. opening[1]
    else
      opening[1] = "--- " .. name
    end
    lines[1] = table.concat(opening, "\n") .. "\n-- @module " .. name .. "\n\n" .. (lines[1] or "")
  end
  write(path, table.concat(lines, "\n") .. "\n")
end

-- LDoc finds no master of a @submodule that comes before it, so the file with the @module goes first; the others are
-- sections of it.
local c_files = {}

local function add_c(path)
  local source = read(path)
  if not source:find("/%*%*%*%s") then return end
  if source:find("^/%*%*%*[^/]-@module%s") then
    table.insert(c_files, 1, source)
  else
    local section = path:match("([%w_]+)%.c$"):gsub("^lua_", "")
    c_files[#c_files + 1] = source:gsub("^(/%*%*%*[^/]-)@submodule%s+%S+", "%1@section " .. section)
  end
end

for i = 2, #arg do
  if arg[i]:find("%.lua$") then convert_lua(arg[i]) else add_c(arg[i]) end
end
write("core.c", table.concat(c_files))
