-- How an nginx worker that drives stacks treats who has little to do with that: how long other requests take during a
-- bulk transfer between two stacks, what an idle worker costs, how soon a coroutine is woken, and whether a wake-up is
-- lost in a million. Needs nginx with ngx_lua, LuaSocket and luassert.
--   luajit bench/resty_delay.lua [seconds]

local root = arg[0]:gsub("[^/]*$", "") .. "../"
package.path = root .. "?.lua;" .. package.path

local nginx = require "spec.nginx"
local WORLD = require "spec.resty_world"
local seconds = tonumber(arg[1]) or 5

local LOCATIONS = [[
  location = /stack { content_by_lua_block {
    local socket = resty.tcp(a)
    assert(socket:connect("10.0.0.2", 80) and socket:send("hello\n") and socket:receive())
    socket:setkeepalive()
    ngx.status = 204
  } }
]]

local BULK = [[
  local socket = resty.tcp(a)
  socket:connect("10.0.0.2", 80)
  local moved, ends = 0, ngx.now() + SECONDS
  repeat
    socket:send("give 1000000\n")
    moved = moved + #assert(socket:receive(1000000))
    ngx.update_time()
  until ngx.now() > ends
  return moved
]]

local WAKE = [[
  local core, semaphores = require "netstack.core", require "ngx.semaphore"
  local peer, sent, told = b:udp(), nil, {}
  peer:setsockname("*", 99)
  local reader = ngx.thread.spawn(function()
    for i = 1, 500 do
      peer:receive()
      told[i] = core.monotonic() - sent
    end
  end)
  local socket = resty.udp(a)
  socket:setpeername("10.0.0.2", 99)
  for _ = 1, 500 do
    sent = core.monotonic()
    socket:send("x")
    ngx.sleep(0.002) -- all is asleep again
  end
  ngx.thread.wait(reader)
  peer:close()
  table.sort(told)
  return ("%.1f us, 99 %% within %.1f us"):format(told[250] * 1e6, told[495] * 1e6)
]]

local MILLION = [[
  local threads, done = {}, 0
  for i = 1, 10 do
    threads[i] = ngx.thread.spawn(function()
      local socket = resty.tcp(a)
      assert(socket:connect("10.0.0.2", 80))
      for j = 1, 100000 do
        local line = i .. " " .. j
        assert(socket:send(line .. "\n"))
        assert(socket:receive() == line)
        done = done + 1
      end
      socket:close()
    end)
  end
  for i = 1, 10 do ngx.thread.wait(threads[i]) end
  return done
]]

local function run()
  local why = nginx.missing()
  if why then error(why, 0) end
  local gettime = require("socket").gettime
  local server = nginx.start { http = WORLD, locations = LOCATIONS }

  local function delays(path, ends)
    local list = {}
    repeat
      local start = gettime()
      assert(server:request(path) == 204)
      list[#list + 1] = (gettime() - start) * 1e3
    until gettime() > ends
    table.sort(list)
    local function share(part) return list[math.ceil(#list * part)] end
    return ("%8d %10.2f %10.2f %10.2f"):format(#list, share(0.5), share(0.99), list[#list])
  end

  print(("%-46s %8s %10s %10s %10s"):format("requests, one after another, ms each", "count", "median", "99 %", "most"))
  for _, row in ipairs { { "/empty", "that need no Lua" }, { "/stack", "with a round trip over the stack" } } do
    print(("%-46s %s"):format(row[2], delays(row[1], gettime() + seconds)))
    local bulk = server:open("/run", (BULK:gsub("SECONDS", seconds + 1)))
    local text = delays(row[1], gettime() + seconds)
    local _, moved = bulk:wait()
    print(("%-46s %s"):format(("the same during a transfer of %.0f MB/s"):format(moved / 1e6 / (seconds + 1)), text))
  end

  require("socket").sleep(1)
  local before = server:cpu()
  require("socket").sleep(10)
  print(("processor time of the idle worker in 10 s: %d ms"):format((server:cpu() - before) * 1000))
  print("from a datagram that is sent to the coroutine that receives it: " .. server:run(WAKE))
  local start = gettime()
  local done = server:run(MILLION)
  print(("%d of 1000000 round trips by 10 light threads in %.1f s"):format(done, gettime() - start))
end

local ok, err = pcall(run)
nginx.finish()
if not ok then
  io.stderr:write("bench/resty_delay.lua: ", tostring(err), "\n")
  os.exit(1)
end
