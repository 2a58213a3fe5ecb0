--- Lists that hold objects weakly, in the order in which they came.
-- @module netstack.resty.weak_list

local ipairs, pairs, setmetatable, sort = ipairs, pairs, setmetatable, table.sort

local M = {}

--- An empty list.
function M.new()
  return { count = 0, numbers = setmetatable({}, { __mode = "k" }) }
end

--- Appends an object that is not in it.
function M.add(list, object)
  if list.numbers[object] then return end
  list.count = list.count + 1
  list.numbers[object] = list.count
end

--- Calls a function with each object that is in it now.
function M.each(list, fn)
  local objects = {}
  for object, number in pairs(list.numbers) do objects[#objects + 1] = { object, number } end
  sort(objects, function(a, b) return a[2] < b[2] end)
  for _, one in ipairs(objects) do fn(one[1]) end
end

return M
