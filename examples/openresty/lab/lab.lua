-- GET or POST /lab and /lab.pcapng: see nginx.conf.
local cjson = require "cjson"
local semaphores = require "ngx.semaphore"

-- Name, what it is when it is not given, and its limits; whole numbers only where they say so.
local PARAMETERS = {
  { "loss", 0, 0, 1 }, -- share of packets, each way
  { "delay", 0.02, 0, 10 }, { "jitter", 0, 0, 10 }, -- seconds, each way
  { "rate", nil, 1e4, 1e10 }, -- bit/s; any
  { "size", 1000, 1, 1000000, "integer" }, -- bytes that the server answers
  { "timeout", 1, 0.001, 60 }, -- seconds, for one attempt
  { "retries", 3, 0, 10, "integer" },
  { "pause", 0.1, 0, 60 }, -- seconds before the first retry
  { "backoff", 2, 1, 10 }, -- how much longer each further pause is
  { "trials", 100, 1, 1000, "integer" },
  { "seed", 1, 0, 2 ^ 31, "integer" },
  { "survive", 1, 0, 1 }, -- share of trials that have to succeed
}
local BYTES_AT_MOST = 16e6 -- that a lab may send, should all attempts be made

local THREADS, PATIENCE = 2, 15 -- as in nginx.conf; seconds that a request waits for one of them

local M = {}

local threads -- a semaphore of this worker's: who finds none free waits here, and not in nginx's queue

-- The end of a request: it does not return.
local function respond(status, kind, body)
  ngx.status = status
  ngx.header.content_type = kind
  ngx.header.content_length = #body
  ngx.print(body)
  return ngx.exit(ngx.OK)
end

local function refuse(status, why) return respond(status, "text/plain", why .. "\n") end

local function check(known, text)
  local name, _, least, most, kind = unpack(known)
  local value = type(text) == "string" and tonumber(text)
  if not (value and value >= least and value <= most) or kind and value % 1 ~= 0 then
    return nil, ("%s: %s from %.14g to %.14g expected"):format(name, kind or "number", least, most)
  end
  return value
end

-- The parameters of a request, all of them; nil and what is wrong.
local function read()
  local args, err
  local method = ngx.req.get_method()
  if method == "POST" then
    ngx.req.read_body()
    args, err = ngx.req.get_post_args()
  elseif method == "GET" or method == "HEAD" then
    args, err = ngx.req.get_uri_args()
  else
    return refuse(405, "GET or POST")
  end
  if not args or err then return nil, "parameters: " .. (err or "none") end
  local given = {}
  for _, known in ipairs(PARAMETERS) do
    local name, default = known[1], known[2]
    local value = default
    if args[name] ~= nil then
      value, err = check(known, args[name])
      if not value then return nil, err end
    end
    given[name], args[name] = value, nil
  end
  local unknown = next(args)
  if unknown then return nil, ("unknown parameter: %s"):format(unknown) end
  if given.size * given.trials * (given.retries + 1) > BYTES_AT_MOST then
    return nil, ("too much to send: size * trials * (retries + 1) may be %.0f"):format(BYTES_AT_MOST)
  end
  return given
end

-- What a function of policy.lua returns, called in another thread.
local function in_thread(name, given)
  threads = threads or semaphores.new(THREADS)
  if not threads:wait(PATIENCE) then return refuse(503, "all threads are busy") end
  -- A worker that is told to quit does so once it has no timer left, whatever its threads do: here is one.
  local timer = ngx.thread.spawn(function() ngx.sleep(60) end)
  local ran, result, err = ngx.run_worker_thread("labs", "policy", name, given)
  ngx.thread.kill(timer)
  threads:post(1)
  if ran and result then return result end
  err = ran and err or result
  if err == "too slow" then return refuse(504, "this takes too long: fewer trials, or less to send") end
  ngx.log(ngx.ERR, "the lab failed: ", err)
  return refuse(500, "the lab failed: " .. tostring(err))
end

-- The latency that this share of the successes had at most.
local function quantile(latencies, share) return latencies[math.ceil(#latencies * share)] end

local function sum_up(given, results)
  local latencies, attempts = {}, 0
  for _, result in ipairs(results) do
    latencies[#latencies + 1] = result.latency
    attempts = attempts + result.attempts
  end
  table.sort(latencies)
  return {
    survived = #latencies >= given.survive * #results,
    trials = #results,
    successes = #latencies,
    attempts = attempts,
    latency = latencies[1] and { -- seconds of virtual time
      least = latencies[1], median = quantile(latencies, 0.5), p99 = quantile(latencies, 0.99),
      most = latencies[#latencies],
    },
    parameters = given,
    results = results,
    capture = "/lab.pcapng?" .. ngx.encode_args(given),
  }
end

--- /lab: how the policy did, in JSON.
function M.answer()
  local given, err = read()
  if not given then return refuse(400, err) end
  local summary = sum_up(given, in_thread("try", given))
  return respond(summary.survived and 200 or 422, "application/json", cjson.encode(summary) .. "\n")
end

--- /lab.pcapng: the packets of the same trials.
function M.capture()
  local given, err = read()
  if not given then return refuse(400, err) end
  local text = in_thread("capture", given)
  ngx.header.content_disposition = 'attachment; filename="lab.pcapng"'
  return respond(200, "application/vnd.tcpdump.pcap", text)
end

return M
