-- Files that are written: a failure is told, once, however often it went well before.
local netns = require "spec.netns"
local output = require "netstack.output"

describe("an output", function()
  it("tells of a disk that is full, also after many that were not", function()
    if not netns.has "test -c /dev/full" then return pending "there is no /dev/full" end
    local good = netns.folder() .. "/x"
    for _, size in ipairs { 10, 900, 9000 } do
      for i = 1, 150 do
        local file, told = assert(output.new(i > 100 and "/dev/full" or good, "new")), nil
        for _ = 1, 3 do
          local ok, err = file:write(("x"):rep(size))
          told = told or not ok and err
        end
        local ok, err = file:close()
        told = told or not ok and err
        if told ~= (i > 100 and "No space left on device") then error(("%d: %s"):format(i, tostring(told))) end
      end
    end
    local file = assert(output.new(good, "new"))
    assert.equal(1, file:close())
    assert.equal(1, file:close())
    assert.same({ nil, "closed" }, { file:write "x" })
  end)
end)
