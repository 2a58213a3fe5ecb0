--- `lab_it` in every spec: a helper for busted, `busted --helper=netstack.busted.global`, or in `.busted`.
-- @module netstack.busted.global

local M = require "netstack.busted"

rawset(_G, "lab_it", M.lab_it)

return M
