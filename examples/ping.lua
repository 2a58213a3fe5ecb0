-- Pings a host from a stack on a TUN interface until Ctrl-C, or as often as -c says.
package.path = (arg[0]:match "^.*/" or "./") .. "?.lua;" .. package.path

local netstack = require "netstack"
local program = require "stack_on_tun"

local USAGE = [[ping.lua [options] HOST
  -c COUNT      how often
  -i SECONDS    from one to the next (1)
  -s BYTES      of data (56)
  -t HOPS       time to live (64)
  -W SECONDS    to wait for an answer (1)]]
local NUMBERS = { c = { 1, 2 ^ 31 }, i = { 0.002, 86400 }, s = { 0, 65000 }, t = { 1, 255 }, W = { 0.001, 86400 } }

local function summary(host, times, sent, seconds)
  print(("\n--- %s ping statistics ---"):format(host))
  print(("%d packets transmitted, %d received, %.0f%% packet loss, time %.0f ms"):format(sent, #times,
    (1 - #times / math.max(sent, 1)) * 100, seconds * 1000))
  if #times == 0 then return end
  table.sort(times)
  local sum = 0
  for _, time in ipairs(times) do sum = sum + time end
  print(("rtt min/avg/max = %.3f/%.3f/%.3f ms"):format(times[1] * 1e3, sum / #times * 1e3, times[#times] * 1e3))
end

program.run(function()
  local options, words = program.options(USAGE, NUMBERS, 1)
  local host, size, interval = words[1], options.s or 56, options.i or 1
  local stack = program.stack(options)
  local address, unknown = stack:resolve(host)
  if not address then
    program.fail(host .. ": " .. unknown .. ((options.dns or options.dhcp) and "" or " without --dns"))
  end

  print(("PING %s (%s) %d bytes of data"):format(host, address, size))
  local times, sent, began = {}, 0, netstack.now()
  local ok, err = pcall(function()
    while true do
      sent = sent + 1
      local rtt, why = stack:ping(address, { timeout = options.W, size = size, ttl = options.t })
      times[#times + 1] = rtt
      print(rtt and ("%d bytes from %s: icmp_seq=%d time=%.3f ms"):format(size + 8, address, sent, rtt * 1000)
        or ("no answer from %s: icmp_seq=%d %s"):format(address, sent, why))
      if sent == options.c then break end
      netstack.sleep(math.max(began + sent * interval - netstack.now(), 0))
    end
  end)
  if not ok and not program.interrupted(err) then error(err, 0) end
  summary(host, times, sent, netstack.now() - began)
  stack:close()
  return times[1] and 0 or 1
end)
