-- `make demo`: two TCP/IP stacks inside this process, joined by a pipe. LuaSocket's own socket.http runs on one, a
-- small HTTP server on the other. Files of this machine go across, over IPv4 and IPv6 at once, and the system's
-- sha256sum says whether they arrived whole. Its argument is how many MiB to move in all, at least (64).
local here = (arg and arg[0] or "examples/demo.lua"):match("^(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path

local netstack = require "netstack"
local serve, downloader = require "http_server", require "http_client"

local MIB = 1024 * 1024
local wanted = (tonumber(arg and arg[1]) or 64) * MIB

local function size_of(path)
  local file = path and io.open(path, "rb")
  if not file then return nil end
  local size = file:read(1) and file:seek("end") -- the first read fails for a directory
  file:close()
  return size
end

-- The first of the paths that is a file.
local function pick(paths, what)
  for _, path in ipairs(paths) do
    local size = size_of(path)
    if size then return { path = path, size = size, name = path:match("[^/]*$") } end
  end
  error("this machine has no " .. what, 0)
end

local function output_of(command)
  local pipe = io.popen(command)
  local text = pipe and pipe:read("*a") or ""
  if pipe then pipe:close() end
  return text
end

-- The shared library of this Lua, or else any that is mapped into this process.
local function library()
  local name = jit and "/libluajit[^/]*%.so" or "/liblua%-?" .. _VERSION:match("[%d.]+"):gsub("%.", "%%.?") .. "%.so"
  local paths, n = {}, 0
  for line in output_of("PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null; cat /proc/self/maps"):gmatch("[^\n]+") do
    local path = line:match("(/%S+)$")
    if path and path:find(name) then
      n = n + 1
      table.insert(paths, n, path)
    elseif path and path:find("%.so[%d.]*$") then
      paths[#paths + 1] = path
    end
  end
  return pick(paths, "shared library")
end

local function licence()
  local path = "/usr/share/common-licenses/GPL-3" -- Debian's
  return pick({ path, here .. "../LICENSE" }, "licence text")
end

-- `sha256sum` of a file, read `times` times over.
local function sha256(path, times)
  local quoted = "'" .. path:gsub("'", "'\\''") .. "'"
  return output_of(("n=0; while [ $n -lt %d ]; do cat %s; n=$((n + 1)); done | sha256sum"):format(times, quoted)):
    match("^(%x+)")
end

-- On a terminal one line that changes; else a line for each quarter.
local function progress_of(total)
  local ok = os.execute("test -t 1")
  local terminal, done, shown = ok == true or ok == 0, 0, 0
  return function(bytes)
    done = done + bytes
    local step = math.floor(done / total * (terminal and 100 or 4))
    if step <= shown then return end
    shown = step
    io.write(("%s  %3.0f %% of %.1f MiB%s"):format(terminal and "\r" or "", done / total * 100, total / MIB,
      (not terminal or done >= total) and "\n" or ""))
    io.flush()
  end
end

local client, server = netstack.pair()
local sources = { library(), licence() }
local jobs, files, total = {}, {}, 0
for _, source in ipairs(sources) do
  files["/" .. source.name] = { path = source.path }
  for _, host in ipairs { "10.0.0.2", "[fd00::2]" } do
    -- The licence is small: three quarters of the bytes are the library.
    local share = wanted * (source == sources[1] and 0.375 or 0.125)
    local job = { source = source, host = host, times = math.ceil(share / source.size) }
    jobs[#jobs + 1] = job
    total = total + job.times * source.size
  end
end

local function transfer()
  print(("%s on %s: LuaSocket's socket.http on one stack, a server on the other"):format(netstack._VERSION,
    jit and jit.version or _VERSION))
  local progress, download = progress_of(total), downloader(client)
  local began = netstack.now()
  netstack.run(function()
    netstack.daemon(serve, server, 80, files)
    for _, job in ipairs(jobs) do
      netstack.spawn(function()
        job.path = os.tmpname()
        local file = assert(io.open(job.path, "wb"))
        local url = "http://" .. job.host .. "/" .. job.source.name
        for _ = 1, job.times do assert(download(url, file, progress)) end
        file:close()
      end)
    end
  end)
  local seconds = netstack.now() - began
  local sent, came = server:stats(), client:stats()
  print(("  %.1f MiB in %.2f s: %.0f MiB/s, with %d connections"):format(total / MIB, seconds, total / MIB / seconds,
    sent.tcp.accepted))
  print(("  %d packets one way, %d the other, %d retransmissions"):format(sent.out_packets, came.out_packets,
    sent.tcp.retransmits + came.tcp.retransmits))
  local equal = true
  for _, job in ipairs(jobs) do
    local before, after = sha256(job.source.path, job.times), sha256(job.path, 1)
    local same = before ~= nil and before == after
    equal = equal and same
    print(("  %-9s %5d x %s\n    sha256 sent     %s\n    sha256 received %s  %s"):format(
      job.host:find(":", 1, true) and "IPv6" or "IPv4", job.times, job.source.path, before, after,
      same and "agree" or "DIFFER"))
  end
  return equal
end

local ok, result = xpcall(transfer, debug.traceback)
for _, job in ipairs(jobs) do os.remove(job.path or "") end
client:close()
server:close()
if not ok then io.stderr:write(result, "\n") end
os.exit(ok and result and 0 or 1)
