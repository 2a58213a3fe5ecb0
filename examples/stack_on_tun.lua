-- What the programs beside this file share: a command line, and a stack on a TUN or TAP interface that it describes.
--
--   program.run(function()
--     local options, words = program.options("ping.lua HOST", {}, 1)
--     print(program.stack(options):ping(words[1]))
--     return 0
--   end)
local netstack = require "netstack"

local M = {}

local HELP = [[

Where the stack is:
  --address PREFIX    the stack's own, 10.9.0.2/24 if none is given; once for each
  --gateway ADDRESS   the other side's, through which everything else is reached: as --address, but ending in 1
  --gateway6 ADDRESS  the same for IPv6
  --dns ADDRESS       a name server; once for each
  --tun NAME          the interface; without it the kernel chooses a name
  --tap NAME          the same, as an Ethernet
  --dhcp              ask on an Ethernet for all of the above instead
  --netns NAME        the network namespace where the interface is to be
  --setup             give the kernel its side of the interface, rather than print how to
]]
local KINDS = { address = "list", gateway = "text", gateway6 = "text", dns = "list", tun = "text", tap = "text",
  dhcp = "flag", netns = "text", setup = "flag", h = "flag", help = "flag" }

local name = arg and arg[0]:match "[^/]*$"
local usage

local function say(...)
  io.stderr:write(...)
  io.stderr:write("\n")
end

--- Ends the program: what the user asked for cannot be had.
function M.fail(why)
  say(name, ": ", why)
  os.exit(1)
end

--- Ends the program: the user did not ask for anything that makes sense.
function M.wrong(why)
  say(name, ": ", why, "\nusage: ", usage:match "^[^\n]*", "\n       ", name, " --help")
  os.exit(2)
end

-- A number within bounds, a whole one unless they are fractions.
local function number(option, text, bounds)
  local value = tonumber(text)
  if not value or value < bounds[1] or value > bounds[2] or (bounds[1] % 1 == 0 and value % 1 ~= 0) then
    M.wrong(("%s: %s is no number from %.10g to %.10g"):format(option, text, bounds[1], bounds[2]))
  end
  return value
end

-- "--name value", "--name=value", "-n value", "-nvalue"
local function option_of(word)
  local key, value = word:match "^%-%-(%w+)=?(.*)$"
  if not key then key, value = word:match "^%-(%a)(.*)$" end
  return key, value
end

--- The command line.
-- @tparam string synopsis its first line, and what help is to say of the program's own options
-- @tparam table numbers the program's own options, each with its bounds: `{ c = { 1, 100 } }`
-- @tparam integer least how many words there have to be
-- @tparam[opt=least] integer most
-- @treturn table option -> text, number, list or true
-- @treturn {string,...} the words
function M.options(synopsis, numbers, least, most)
  usage = synopsis
  local options, words, i = {}, {}, 0
  while i < #arg do
    i = i + 1
    local key, value = option_of(arg[i])
    local kind = key and (numbers[key] or KINDS[key])
    if arg[i]:sub(1, 1) ~= "-" then
      words[#words + 1] = arg[i]
    elseif not kind then
      M.wrong("there is no option " .. arg[i])
    elseif kind == "flag" then
      options[key] = true
    else
      if value == "" then
        i = i + 1
        value = arg[i] or M.wrong(arg[i - 1] .. " needs a value")
      end
      if kind == "list" then
        options[key] = options[key] or {}
        table.insert(options[key], value)
      else
        options[key] = kind == "text" and value or number("-" .. key, value, kind)
      end
    end
  end
  if options.h or options.help then
    print("usage: " .. usage .. "\n" .. HELP)
    os.exit(0)
  end
  if #words < least or #words > (most or least) then
    M.wrong(#words < least and "an argument is missing" or words[#words] .. " is one argument too many")
  end
  return options, words
end

-- What the library raises as a mistake of its caller's is one of the user's here.
local function checked(fn, ...)
  local ok, result, err, why = pcall(fn, ...)
  if not ok then M.wrong(result:match "bad argument .-%((.*)%)$" or result) end
  return result, err, why
end

-- How the stack is to be attached, and what gives the kernel its side.
local function both_sides(options, device)
  local sides = { dhcp = options.dhcp, addresses = not options.dhcp and (options.address or { "10.9.0.2/24" }) or {} }
  local ip = options.netns and "ip -n " .. options.netns or "ip"
  local commands = {}
  for _, prefix in ipairs(sides.addresses) do
    local own, length = prefix:match "^(.*)(/%d+)$"
    if not own then M.wrong("--address " .. prefix .. ": the length of the prefix is missing, as in 10.9.0.2/24") end
    local ipv6 = own:find(":", 1, true)
    local key = ipv6 and "gateway6" or "gateway"
    local kernel = options[key] or own:gsub("[^.:]+$", own:find "[.:]1$" and "2" or "1")
    sides[key] = sides[key] or kernel
    commands[#commands + 1] = ("%s addr replace %s%s dev %s%s"):format(ip, kernel, length, device:name(),
      ipv6 and " nodad" or "")
  end
  commands[#commands + 1] = ("%s link set %s up"):format(ip, device:name())
  return sides, commands
end

--- The stack that the options describe.
-- @tparam table options
-- @treturn stack
function M.stack(options)
  local stack = checked(netstack.new, { dns = options.dns })
  local mode = (options.tap or options.dhcp) and "tap" or "tun"
  local device, _, why = checked(netstack.tun,
    { name = options.tap or options.tun, mode = mode, netns = options.netns })
  if not device then M.fail(why) end
  local sides, commands = both_sides(options, device)
  local interface, err = checked(stack.attach, stack, device, sides)
  if not interface then
    M.wrong(("%s: --address %s --gateway %s"):format(err, table.concat(sides.addresses, " --address "),
      options.gateway6 or sides.gateway or sides.gateway6))
  end
  if not options.setup then
    say("The kernel's side of ", device:name(), ", unless it is there already:\n  ", table.concat(commands, "\n  "))
  end
  for _, command in ipairs(options.setup and commands or {}) do
    local ok = os.execute(command)
    if ok ~= true and ok ~= 0 then M.fail(command .. " failed") end
  end
  if options.dhcp then
    local limit = netstack.now() + 60
    while interface:lease().state ~= "BOUND" do
      if netstack.now() > limit then M.fail("no DHCP server has answered on " .. device:name() .. " for 60 s") end
      netstack.sleep(0.05)
    end
    say(device:name(), ": ", table.concat(interface:addresses(), " "), " by DHCP")
  end
  return stack
end

--- Whether an error is the user's Ctrl-C.
function M.interrupted(err)
  return type(err) == "string" and err:find "interrupted!" ~= nil
end

--- Runs the program: fn returns its exit status.
function M.run(fn)
  io.stdout:setvbuf "line" -- also into a pipe
  local ok, result = xpcall(fn, function(err) return M.interrupted(err) and err or debug.traceback(err) end)
  if not ok and M.interrupted(result) then os.exit(130) end -- as a shell counts SIGINT
  if not ok then M.fail(result) end
  os.exit(result)
end

return M
