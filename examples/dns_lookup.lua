-- Asks name servers for the addresses of a name, from a stack on a TUN interface.
package.path = (arg[0]:match "^.*/" or "./") .. "?.lua;" .. package.path

local luasocket = require "netstack.luasocket"
local netstack = require "netstack"
local program = require "stack_on_tun"

local USAGE = "dns_lookup.lua [options] NAME [@SERVER ...]"

program.run(function()
  local options, words = program.options(USAGE, {}, 1, 9)
  for i = 2, #words do
    options.dns = options.dns or {}
    table.insert(options.dns, words[i]:match "^@(.+)" or program.wrong(words[i] .. " is no @SERVER"))
  end
  if not options.dns and not options.dhcp then program.wrong("whom to ask? An @SERVER is missing, or --dhcp") end

  local name, stack = words[1], program.stack(options)
  local began = netstack.now()
  local address, err = stack:resolve(name)
  if not address then
    local silent = netstack.now() - began >= 6 -- each server is given 2 s, then 4 s
    local servers = options.dns and table.concat(options.dns, ", ") or "the servers that DHCP named"
    program.fail(("%s: %s (%s %s)"):format(name, err, silent and "no answer from" or "asked", servers))
  end
  -- `resolve` gives the first address, which suffices to connect to; LuaSocket's function tells all.
  local _, host = luasocket(stack).dns.toip(name)
  for _, each in ipairs(host.ip) do
    print(("%s has %s address %s"):format(name, each:find(":", 1, true) and "IPv6" or "IPv4", each))
  end
  stack:close()
  return 0
end)
