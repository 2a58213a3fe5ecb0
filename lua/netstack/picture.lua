--- Pictures that another program draws: what it reads is written beside them, and it is run where it is installed.
-- @module netstack.picture

local output = require "netstack.output"

local concat, gsub, match = table.concat, string.gsub, string.match
local ipairs, popen = ipairs, io.popen

local M = {}

--- Writes a file as a whole.
-- @tparam string path
-- @tparam string text
-- @treturn integer|nil 1
-- @treturn string what the system says
function M.write(path, text)
  local file, err = output.new(path, "draw")
  if not file then return nil, err end
  local ok, why = file:write(text)
  if ok then ok, why = file:close() end
  return ok, why and path .. ": " .. why
end

--- Runs a program, and waits for it.
-- @tparam string program
-- @tparam {string,...} arguments
-- @treturn integer|nil 1
-- @treturn string "dot not found", "dot: " and what it says
function M.run(program, arguments)
  -- What is preloaded (a sanitizer's library) is meant for this process.
  local words = { "env -u LD_PRELOAD LC_ALL=C", program }
  for _, argument in ipairs(arguments) do words[#words + 1] = "'" .. gsub(argument, "'", "'\\''") .. "'" end
  local pipe, err = popen(concat(words, " ") .. " 2>&1 </dev/null; echo \"status $?\"")
  if not pipe then return nil, err end
  local text = pipe:read("*a")
  pipe:close()
  local said, status = match(text, "^(.-)%s*status (%d+)%s*$")
  if status == "127" then return nil, program .. " not found" end
  if status ~= "0" then return nil, program .. ": " .. (said or text) end
  return 1
end

return M
