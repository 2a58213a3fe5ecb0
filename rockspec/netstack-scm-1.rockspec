rockspec_format = "3.0"
package = "netstack"
version = "scm-1"
-- The clone one stands in; `make dist` puts a release's archive here.
source = { url = "git+file://." }
description = {
  summary = "Isolated TCP/IP stacks inside a Lua process",
  detailed = [[
Any number of independent TCP/IP stacks (lwIP, embedded) in one process, with LuaSocket's methods, a scheduler with
virtual time, and pipes and devices in Lua to connect them.]],
  license = "MIT",
  labels = { "network", "tcp", "testing" },
}
supported_platforms = { "linux" }
dependencies = {
  "lua >= 5.1, < 5.5",
}
build = {
  type = "make",
  variables = {
    LUA = "$(LUA)",
    LUA_INCDIR = "$(LUA_INCDIR)",
    CC = "$(CC)",
    CFLAGS = "$(CFLAGS)",
  },
  install_variables = {
    INST_LUADIR = "$(LUADIR)",
    INST_LIBDIR = "$(LIBDIR)",
    INST_DOCDIR = "$(PREFIX)/doc",
    INST_SBINDIR = "$(BINDIR)",
  },
}
test = {
  type = "command",
  command = "make test",
}
