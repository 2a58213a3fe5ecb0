--- Whole, isolated TCP/IP stacks inside a Lua process: see the README for how to use them.
-- @module netstack

local core = require "netstack.core"
local device = require "netstack.device"
local scheduler = require "netstack.scheduler"
local stack = require "netstack.stack"

---@class netstack
local M = {
  _VERSION = "netstack " .. require "netstack.version",
  new = stack.new,
  pair = stack.pair,
  piped = stack.piped,
  pipe = device.pipe,
  device = device.device,
  tun = device.tun,
  run = scheduler.run,
  spawn = scheduler.spawn,
  daemon = scheduler.daemon,
  sleep = scheduler.sleep,
  now = scheduler.now,
  pcall = scheduler.pcall,
  xpcall = scheduler.xpcall,
  waiting = scheduler.waiting,
  --- What each error means and what to do about it: `netstack.errors["timeout"].meaning`, `.remedy`.
  errors = core.errors,
}

return M
