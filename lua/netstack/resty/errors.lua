--- Error strings as cosockets give them: the system's, in lower case.
-- @module netstack.resty.errors

local TEXTS = {
  ["address not available"] = "cannot assign requested address",
  ["connection aborted"] = "software caused connection abort",
  ["connection reset"] = "connection reset by peer",
  ["host unreachable"] = "no route to host",
  ["invalid address"] = "bad address",
  ["no memory"] = "no memory",
  ["no route"] = "network is unreachable",
  ["not connected"] = "closed",
  ["permission denied"] = "permission denied",
  ["port unreachable"] = "connection refused",
}

local M = {}

--- The text of an error of ours.
-- @tparam string err
-- @tparam ?string host the name that was looked for
-- @treturn string
function M.text(err, host)
  if err == "host not found" then return tostring(host) .. " could not be resolved (3: Host not found)" end
  return TEXTS[err] or err
end

return M
