--- A lab as a graph for Graphviz.
-- @module netstack.lab.drawing

local pictures = require "netstack.picture"
local watch = require "netstack.watch"

local concat, format, ipairs = table.concat, string.format, ipairs

local M = {}

local shapes = { host = "box", router = "ellipse", nat = "house", switch = "diamond" }

local function quoted(text)
  return '"' .. text:gsub('[\\"]', "\\%0"):gsub("\n", "\\n") .. '"'
end

local function bits(rate)
  for _, unit in ipairs { { 1e9, "Gbit/s" }, { 1e6, "Mbit/s" }, { 1e3, "kbit/s" } } do
    if rate >= unit[1] then return format("%.4g %s", rate / unit[1], unit[2]) end
  end
  return format("%.4g bit/s", rate)
end

-- What a link does to packets, in a line.
local function weather(rules)
  local words = {}
  if rules.rate then words[#words + 1] = bits(rules.rate) end
  if rules.delay > 0 then words[#words + 1] = format("%.4g ms", rules.delay * 1000) end
  if rules.jitter > 0 then words[#words + 1] = format("± %.4g ms", rules.jitter * 1000) end
  for _, name in ipairs { "loss", "duplicate", "reorder", "corrupt" } do
    if rules[name] > 0 then words[#words + 1] = format("%s %.4g %%", name, rules[name] * 100) end
  end
  if rules.loss_model then words[#words + 1] = "bursts of loss" end
  if rules.down then words[#words + 1] = "down" end
  return concat(words, ", ")
end

local function label(link)
  local there, back = link:get("a->b"), link:get("b->a")
  if not there then return "closed" end
  local a, b = weather(there), weather(back)
  if a == b then return a end
  return format("→ %s\n← %s", a == "" and "-" or a, b == "" and "-" or b)
end

local function addresses(port)
  return concat(port.interface and port.interface:addresses() or {}, "\n")
end

--- The graph, in the DOT language.
-- @tparam {table,...} nodes
-- @tparam {table,...} edges
-- @treturn string
function M.text(nodes, edges)
  local lines = { "graph lab {", "  graph [overlap=false, splines=true];", "  node [fontname=\"sans-serif\"];",
    "  edge [fontname=\"sans-serif\", fontsize=9];" }
  for _, node in ipairs(nodes) do
    lines[#lines + 1] = format("  %s [shape=%s%s];", quoted(node.name), shapes[node.kind],
      node.crashed and ", style=dashed" or "")
  end
  for _, edge in ipairs(edges) do
    local a, b = watch.names(edge.link)
    lines[#lines + 1] = format("  %s -- %s [label=%s, taillabel=%s, headlabel=%s];", quoted(a), quoted(b),
      quoted(label(edge.link)), quoted(addresses(edge.ports[1])), quoted(addresses(edge.ports[2])))
  end
  lines[#lines + 1] = "}"
  return concat(lines, "\n") .. "\n"
end

--- Writes the graph to `path`, and the picture beside it, `path` with the end ".svg", where `dot` is installed.
-- @tparam string path of the DOT file, or of the picture: then the graph is what stands beside it
-- @tparam string text
-- @treturn string|nil path of the graph
-- @treturn string|nil path of the picture; nil without `dot`, or what went wrong
function M.write(path, text)
  local base = path:match("^(.*)%.svg$")
  local graph = base and base .. ".dot" or path
  local picture = base and path or (path:match("^(.+)%.[^./]+$") or path) .. ".svg"
  local ok, err = pictures.write(graph, text)
  if not ok then return nil, err end
  ok, err = pictures.run("dot", { "-Tsvg", "-o", picture, graph })
  if ok then return graph, picture end
  if err == "dot not found" and not base then return graph, nil end
  return nil, err
end

return M
