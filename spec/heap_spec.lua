local heap = require "netstack.heap"

-- Names of the items in the order in which they come out.
local function drain(h)
  local names = {}
  local item = heap.pop(h)
  while item do
    names[#names + 1] = item.name
    item = heap.pop(h)
  end
  return table.concat(names, " ")
end

local function filled(...)
  local h, items = heap.new(), {}
  for i, key in ipairs { ... } do
    items[i] = { name = tostring(i) }
    heap.push(h, items[i], key)
  end
  return h, items
end

-- Every item knows its place and none comes before the one above it.
local function check(h)
  for i = 1, h.n do
    assert.equal(i, h[i].position)
    if i > 1 then
      local above = h[math.floor(i / 2)]
      assert.is_true(above.key < h[i].key or (above.key == h[i].key and above.order < h[i].order))
    end
  end
  assert.is_nil(h[h.n + 1])
end

describe("heap", function()
  it("gives the smallest key first", function()
    assert.equal("2 4 1 3", drain(filled(3, 1, 4, 2)))
  end)

  it("gives equal keys in the order in which they were pushed", function()
    assert.equal("2 4 6 1 3 5 7", drain(filled(5, 1, 5, 1, 5, 1, 5)))
  end)

  it("peeks without taking, and at nothing", function()
    local h, items = filled(2, 1)
    assert.equal(items[2], heap.peek(h))
    assert.equal(2, h.n)
    assert.is_nil(heap.peek(heap.new()))
    assert.is_nil(heap.pop(heap.new()))
  end)

  it("removes any item, once", function()
    local h, items = filled(1, 2, 3, 4, 5, 6)
    assert.is_true(heap.remove(h, items[3]))
    assert.is_false(heap.remove(h, items[3]))
    assert.is_true(heap.remove(h, items[1]))
    assert.is_true(heap.remove(h, items[6]))
    check(h)
    assert.equal("2 4 5", drain(h))
    assert.equal(0, items[2].position)
  end)

  it("does not remove what is elsewhere or nowhere", function()
    local h, items = filled(1, 2)
    assert.is_false(heap.remove(heap.new(), items[1]))
    assert.is_false(heap.remove(h, {}))
    assert.equal("1 2", drain(h))
  end)

  it("moves an item to another key, behind its equals", function()
    local h, items = filled(1, 2, 3, 2)
    assert.is_true(heap.update(h, items[1], 2))
    assert.is_true(heap.update(h, items[3], 0))
    check(h)
    assert.equal("3 2 4 1", drain(h))
    assert.is_false(heap.update(h, items[1], 1))
  end)

  it("raises for an item that is in a heap, and for NaN", function()
    local h, items = filled(1)
    assert.has_error(function() heap.push(h, items[1], 2) end, "the item is in a heap already")
    assert.has_error(function() heap.push(h, {}, 0 / 0) end, "the key is not a number")
    assert.has_error(function() heap.update(h, items[1], 0 / 0) end, "the key is not a number")
  end)

  it("takes an item again after it was taken out", function()
    local h, items = filled(1, 2)
    heap.push(h, heap.pop(h), 3)
    assert.equal(items[2], heap.peek(h))
    assert.equal("2 1", drain(h))
  end)

  it("agrees with sorting, whatever is done to it", function()
    local state = 7
    local function random(n) -- the same on every Lua
      state = state * 16807 % 2147483647
      return state % n
    end
    local h, live = heap.new(), {}
    for i = 1, 3000 do
      local what = random(5)
      if what <= 2 or #live == 0 then
        local item = { name = i }
        heap.push(h, item, random(50))
        live[#live + 1] = item
      elseif what == 3 then
        assert.is_true(heap.remove(h, table.remove(live, random(#live) + 1)))
      else
        heap.update(h, live[random(#live) + 1], random(50))
      end
      if i % 100 == 0 then check(h) end
    end
    table.sort(live, function(a, b) return a.key < b.key or (a.key == b.key and a.order < b.order) end)
    for _, item in ipairs(live) do assert.equal(item, heap.pop(h)) end
    assert.equal(0, h.n)
  end)
end)
