/*
** Several Lua states on several OS threads: each has stacks of its own and moves data between them while the others do
** the same, so that the one lock around lwIP's state is fought over at every step. Then fork(): parent and child go on
** with stacks they share by copy, and their random numbers part. Run by `make test-threads` under ThreadSanitizer.
*/
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#define THREADS 4

int luaopen_netstack_core(lua_State *L);

/* `round` sets the data apart, so that a byte of another thread's would be noticed. */
static const char exchange[] =
  "local netstack, thread, rounds = require 'netstack', ...\n"
  "for round = 1, rounds do\n"
  "  local a, b = netstack.pair { tcp_buffer_size = 16384 }\n"
  "  local other = netstack.new { loopback = true }\n"
  "  local data = (thread .. ' ' .. round .. ' '):rep(10000)\n"
  "  netstack.run(function()\n"
  "    local listener = assert(b:bind('*', 80))\n"
  "    netstack.spawn(function()\n"
  "      local server = listener:accept()\n"
  "      server:send(server:receive('*a'))\n"
  "      server:close()\n"
  "    end)\n"
  "    local client = assert(a:connect(round % 2 == 0 and '10.0.0.2' or 'fd00::2', 80))\n"
  "    netstack.spawn(function()\n"
  "      client:send(data)\n"
  "      client:shutdown('send')\n"
  "    end)\n"
  "    assert(client:receive('*a') == data)\n"
  "    client:close()\n"
  "    listener:close()\n"
  "    assert(other:ping('127.0.0.1'))\n"
  "  end)\n"
  "  if round % 3 == 0 then a:close() end\n"
  "  if round % 3 == 1 then collectgarbage() end\n"
  "  b:poll(1e6)\n"
  "  if round % 2 == 0 then b:close() end\n"
  "end\n";

/* The ports and initial sequence numbers that a seeded and an unseeded stack choose next. */
static const char draw[] =
  "local netstack = require 'netstack'\n"
  "if not seeded then\n"
  "  seeded, seeded_far = netstack.piped { seed = 7 }\n"
  "  unseeded, unseeded_far = netstack.piped()\n"
  "end\n"
  "local function numbers(stack, far)\n"
  "  local list = {}\n"
  "  for i = 1, 4 do\n"
  "    local udp = stack:udp()\n"
  "    udp:setsockname('10.0.0.1', 0)\n"
  "    list[#list + 1] = select(2, udp:getsockname())\n"
  "    udp:close()\n"
  "    local ticket = stack:channel():submit('tcp.connect', { host = '10.0.0.2', port = 80 })\n"
  "    stack:poll(0)\n"
  "    local syn = far:receive()\n"
  "    list[#list + 1] = table.concat({ syn:byte(21, 28) }, '.')\n" /* ports and sequence number */
  "    ticket:cancel()\n"
  "  end\n"
  "  return table.concat(list, ' ')\n"
  "end\n"
  "return numbers(seeded, seeded_far), numbers(unseeded, unseeded_far)\n";

static lua_State *new_state(void) {
  lua_State *L = luaL_newstate();
  if (L == NULL) abort();
  luaL_openlibs(L);
  /* The core is linked into this program; nothing is loaded, so every thread runs the same one. */
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "preload");
  lua_pushcfunction(L, luaopen_netstack_core);
  lua_setfield(L, -2, "netstack.core");
  lua_settop(L, 0);
  return L;
}

static void run(lua_State *L, const char *chunk, int arguments, int results) {
  if (luaL_loadstring(L, chunk) != LUA_OK) {
    fprintf(stderr, "threads: %s\n", lua_tostring(L, -1));
    exit(1);
  }
  lua_insert(L, -1 - arguments);
  if (lua_pcall(L, arguments, results, 0) != LUA_OK) {
    fprintf(stderr, "threads: %s\n", lua_tostring(L, -1));
    exit(1);
  }
}

static void *work(void *argument) {
  int number = *(int *)argument, round;
  for (round = 0; round < 8; round++) { /* states come and go, too */
    lua_State *L = new_state();
    lua_pushinteger(L, number);
    lua_pushinteger(L, 15);
    run(L, exchange, 2, 0);
    lua_close(L);
  }
  return NULL;
}

static void exchange_on_threads(void) {
  pthread_t threads[THREADS];
  int numbers[THREADS], i;
  for (i = 0; i < THREADS; i++) {
    numbers[i] = i + 1;
    if (pthread_create(&threads[i], NULL, work, &numbers[i]) != 0) abort();
  }
  for (i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
}

/* What two stacks draw: "seeded\nunseeded". */
static void draw_into(lua_State *L, char *text, size_t size) {
  run(L, draw, 0, 2);
  snprintf(text, size, "%s\n%s", lua_tostring(L, -2), lua_tostring(L, -1));
  lua_pop(L, 2);
}

/* The child goes on with the stacks that its parent had. */
static void part_by_fork(void) {
  lua_State *L = new_state();
  char before[512], parent[512], child[512];
  int ends[2], status;
  ssize_t length;
  pid_t pid;
  draw_into(L, before, sizeof before);
  if (pipe(ends) != 0) abort();
  pid = fork();
  if (pid < 0) abort();
  if (pid == 0) {
    draw_into(L, child, sizeof child);
    run(L, exchange, (lua_pushinteger(L, 9), lua_pushinteger(L, 2), 2), 0);
    lua_close(L);
    if (write(ends[1], child, sizeof child) != (ssize_t)sizeof child) _exit(2);
    _exit(0);
  }
  draw_into(L, parent, sizeof parent);
  length = read(ends[0], child, sizeof child);
  if (length != (ssize_t)sizeof child || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
      WEXITSTATUS(status) != 0) {
    fprintf(stderr, "threads: the child failed\n");
    exit(1);
  }
  lua_close(L);
  if (strcmp(parent, before) == 0) {
    fprintf(stderr, "threads: numbers repeat themselves\n");
    exit(1);
  }
  if (strncmp(parent, child, strcspn(parent, "\n") + 1) != 0) {
    fprintf(stderr, "threads: seeded stacks differ after fork\n%s\n%s\n", parent, child);
    exit(1);
  }
  if (strcmp(parent, child) == 0) {
    fprintf(stderr, "threads: unseeded stacks draw the same numbers after fork\n%s\n", parent);
    exit(1);
  }
}

int main(void) {
  exchange_on_threads();
  part_by_fork();
  puts("threads: ok");
  return 0;
}
