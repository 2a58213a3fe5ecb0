-- Every Lua at once: what differs between them is asked for at run time.
std = "max"
max_line_length = 120
-- A method keeps its signature, used or not.
self = false
unused_secondaries = false
files["spec"] = { std = "+busted" }
files["examples/openresty"] = { globals = { "ngx" } }
-- Describes functions; it is never run.
files["lua/netstack/meta"] = { ignore = { "212", "241", "432" }, max_line_length = false }
