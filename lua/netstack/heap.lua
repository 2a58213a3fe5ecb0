--- A binary heap whose items know where they are in it, so that any of them can be taken out or moved at once.
-- The scheduler keeps the deadlines of waiting tasks here. Removal is immediate: a task that is woken leaves nothing
-- behind, so the heap is never larger than the number of waits that have a deadline.
--
-- Order is total: smaller key first, and among equal keys the one pushed first. Nothing depends on addresses or on
-- the order of `pairs`, so the same program always gives the same order.
--
-- An item is a table of the caller's; the heap owns three of its fields: `key`, `order` and `position` (0 or nil
-- when it is in no heap). An item can therefore be in one heap at a time.
-- @module netstack.heap

local floor = math.floor

local M = {}

--- An empty heap.
-- @treturn table heap
---@return table heap
function M.new()
  return { n = 0, pushed = 0 }
end

-- Whether `a` comes before the item with `key` and `order`.
local function before(a, key, order)
  local other = a.key
  return other < key or (other == key and a.order < order)
end

-- Puts `item` at `position` or above, moving what is later than it down.
local function sift_up(heap, item, position)
  local key, order = item.key, item.order
  while position > 1 do
    local above = floor(position / 2)
    local parent = heap[above]
    if before(parent, key, order) then break end
    heap[position], parent.position = parent, position
    position = above
  end
  heap[position], item.position = item, position
end

-- Puts `item` at `position` or below, moving what is earlier than it up.
local function sift_down(heap, item, position)
  local key, order, n = item.key, item.order, heap.n
  local below = position * 2
  while below <= n do
    local child = heap[below]
    if below < n then
      local right = heap[below + 1]
      if before(right, child.key, child.order) then below, child = below + 1, right end
    end
    if not before(child, key, order) then break end
    heap[position], child.position = child, position
    position, below = below, below * 2
  end
  heap[position], item.position = item, position
end

-- Puts `item` where it belongs, starting at a hole at `position`.
local function place(heap, item, position)
  local parent = heap[floor(position / 2)]
  if position > 1 and not before(parent, item.key, item.order) then
    sift_up(heap, item, position)
  else
    sift_down(heap, item, position)
  end
end

--- Adds an item.
-- @tparam table heap
-- @tparam table item in no heap yet
-- @tparam number key not NaN
---@param heap table
---@param item table
---@param key number
function M.push(heap, item, key)
  if (item.position or 0) ~= 0 then error("the item is in a heap already", 2) end
  if key ~= key then error("the key is not a number", 2) end
  local n, order = heap.n + 1, heap.pushed + 1
  heap.n, heap.pushed = n, order
  item.key, item.order = key, order
  local parent = heap[floor(n / 2)]
  if parent and not before(parent, key, order) then return sift_up(heap, item, n) end
  heap[n], item.position = item, n -- nearly always: most deadlines are later than those that were set before
end

--- The first item, which stays where it is.
-- @tparam table heap
-- @treturn ?table item nil when the heap is empty
---@param heap table
---@return table? item
function M.peek(heap)
  return heap[1]
end

--- Takes an item out, wherever it is.
-- @tparam table heap
-- @tparam table item
-- @treturn boolean whether it was in this heap
---@param heap table
---@param item table
---@return boolean removed
function M.remove(heap, item)
  local position, n = item.position or 0, heap.n
  if position == 0 or heap[position] ~= item then return false end
  local last = heap[n]
  heap[n], heap.n, item.position = nil, n - 1, 0
  if position < n then place(heap, last, position) end
  return true
end

--- Takes the first item out.
-- @tparam table heap
-- @treturn ?table item nil when the heap is empty
---@param heap table
---@return table? item
function M.pop(heap)
  local first = heap[1]
  if first then M.remove(heap, first) end
  return first
end

--- Gives an item another key; among equal keys it is then the last, as if it had been removed and pushed again.
-- @tparam table heap
-- @tparam table item
-- @tparam number key not NaN
-- @treturn boolean whether it was in this heap
---@param heap table
---@param item table
---@param key number
---@return boolean updated
function M.update(heap, item, key)
  if key ~= key then error("the key is not a number", 2) end
  local position = item.position or 0
  if position == 0 or heap[position] ~= item then return false end
  heap.pushed = heap.pushed + 1
  item.key, item.order = key, heap.pushed
  place(heap, item, position)
  return true
end

return M
