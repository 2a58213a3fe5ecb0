-- usage: lua core-meta.lua OUT FILE...
--
-- Makes of the LDoc comments of the C files what the Lua language server wants to know about netstack.core: an OUT that
-- is a `---@meta` file. A spec calls this too, to see that the file in the tree is what the comments say now.

local out = ...
local files = { select(2, ...) }

-- Objects that users see; handles are seen by the Lua layer alone.
local class_names = { stack = "netstack.stack", interface = "netstack.interface", device = "netstack.device",
  channel = "netstack.channel", ticket = "netstack.ticket", tcp = "netstack.core.tcp", udp = "netstack.core.udp",
  raw = "netstack.core.raw", link = "netstack.link", switch = "netstack.switch" }
local class_order = { "stack", "interface", "device", "channel", "ticket", "tcp", "udp", "raw", "link", "switch" }

-- LDoc's type in the language server's words.
local function type_of(text)
  return (text:gsub("[^|]+", function(name)
    local element = name:match("^{([%w_]+),%.%.%.}$")
    if element then return element .. "[]" end
    return class_names[name] or name
  end))
end

-- One comment: what it says before its tags, and the tags, each with the lines that follow it.
local function parse(comment)
  local entry = { text = {}, params = {}, returns = {} }
  local list = entry.text
  for line in (comment .. "\n"):gmatch("([^\n]*)\n") do
    line = line:gsub("^%s+", ""):gsub("%s+$", "")
    local tag, rest = line:match("^@(%S+)%s*(.*)$")
    if not tag then
      if line ~= "" then list[#list + 1] = line end
    elseif tag == "function" then
      entry.name = rest
    elseif tag:find("^tparam") then
      local kind, name, about = rest:match("^(%S+)%s+(%S+)%s*(.*)$")
      local param = { name = name, kind = type_of(kind), optional = tag:find("opt"), about = { about } }
      entry.params[#entry.params + 1] = param
      list = param.about
    elseif tag == "treturn" then
      local kind, about = rest:match("^(%S+)%s*(.*)$")
      local result = { kind = type_of(kind), about = { about } }
      entry.returns[#entry.returns + 1] = result
      list = result.about
    end
  end
  return entry
end

local function annotate(lines, entry, owner)
  lines[#lines + 1] = "---" .. table.concat(entry.text, " ")
  local names = {}
  for i, param in ipairs(entry.params) do
    names[i] = param.name
    local about = table.concat(param.about, " ")
    lines[#lines + 1] = ("---@param %s%s %s%s"):format(param.name, param.optional and "?" or "", param.kind,
      about == "" and "" or " " .. about)
  end
  local failing = false
  for _, result in ipairs(entry.returns) do
    local about = table.concat(result.about, " ")
    -- After a nil comes the error; what succeeded mostly has none.
    if failing and not result.kind:find("nil") and result.kind ~= "boolean" then result.kind = result.kind .. "|nil" end
    failing = failing or result.kind:find("|nil", 1, true) ~= nil
    lines[#lines + 1] = ("---@return %s%s"):format(result.kind, about == "" and "" or " # " .. about)
  end
  lines[#lines + 1] = ("function %s(%s) end"):format(owner, table.concat(names, ", "))
  lines[#lines + 1] = ""
end

local functions, methods = {}, {}
for _, path in ipairs(files) do
  local file = assert(io.open(path))
  local source = file:read("*a")
  file:close()
  for comment in source:gmatch("/%*%*%*%s(.-)%*/") do
    local entry = parse(comment)
    if entry.name then
      local class, method = entry.name:match("^(%w+):([%w_]+)$")
      if class then
        methods[class] = methods[class] or {}
        table.insert(methods[class], entry)
        entry.method = method
      else
        functions[#functions + 1] = entry
      end
    end
  end
end

local lines = {
  "---@meta netstack.core",
  "-- Made by `make docs` from the comments in src/lua_*.c: change those.",
  "",
  "---@alias netstack.core.handle netstack.core.tcp|netstack.core.udp|netstack.core.raw",
  "",
  "---The methods of each class; the Lua layer adds its own to them.",
  "---@class netstack.core.classes",
}
for _, class in ipairs(class_order) do
  lines[#lines + 1] = ("---@field %s %s"):format(class, class_names[class])
end
for _, line in ipairs {
  "",
  '---What the Lua layer is built on. No function waits. Of a closed object all but close answer nil, "closed".',
  "---@class netstack.core",
  "---@field classes netstack.core.classes",
  "---@field errors table<string, { meaning: string, remedy: string }> each error string",
  "local core = {}",
  "",
} do lines[#lines + 1] = line end
for _, entry in ipairs(functions) do annotate(lines, entry, "core." .. entry.name) end
for _, class in ipairs(class_order) do
  lines[#lines + 1] = "---@class " .. class_names[class]
  lines[#lines + 1] = "local " .. class .. " = {}"
  lines[#lines + 1] = ""
  for _, entry in ipairs(methods[class] or {}) do annotate(lines, entry, class .. ":" .. entry.method) end
end
lines[#lines + 1] = "return core"
local text = table.concat(lines, "\n") .. "\n"

if out then
  local file = assert(io.open(out, "w"))
  file:write(text)
  file:close()
end
return text
