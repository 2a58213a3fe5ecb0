local netstack = require "netstack"

-- Those of the contract, and none else.
local known = {
  "closed", "connection reset", "connection aborted", "connection refused", "timeout", "in progress",
  "already connected", "not connected", "no route", "host unreachable", "port unreachable", "address already in use",
  "address not available", "invalid address", "wrong ip version", "host not found", "message too long", "no memory",
  "full", "empty", "permission denied", "not supported", "cancelled", "wouldblock",
}

describe("netstack.errors", function()
  it("lists every error with its meaning and its remedy", function()
    for _, name in ipairs(known) do
      local entry = netstack.errors[name]
      assert.is_table(entry, name)
      for _, key in ipairs { "meaning", "remedy" } do
        assert.is_string(entry[key])
        assert.is_true(#entry[key] > 10, name)
      end
    end
  end)

  it("lists no others, all lowercase", function()
    local count = 0
    for name in pairs(netstack.errors) do
      count = count + 1
      assert.equal(name:lower(), name)
    end
    assert.equal(#known, count)
  end)
end)
