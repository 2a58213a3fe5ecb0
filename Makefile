# netstack: `make help` lists what can be made.
#
# Two passes. The first one sees that tools, headers and lwIP's sources are there and may install or fetch them,
# so what it finds is not known when this file is read. It then calls make again with what it found (LWIP_TREE,
# LUA_INCDIR), and that second pass compiles. Only the second has rules for files.

LUA ?= lua5.4
LUAS := lua5.1 lua5.2 lua5.3 lua5.4 luajit
ifeq ($(origin CC),default)
  CC := gcc
endif
CFLAGS ?= -O2 -g
PREFIX ?= /usr/local
# Sanitizers, as the compiler names them: SAN=address,undefined or SAN=thread.
SAN ?=
# WERROR=1 makes warnings errors; V=1 shows whole commands; SETUP=no never installs a package.
WERROR ?=
V ?=
# What runs the interpreter in `make test`, valgrind for example, and what busted is told.
RUNNER ?=
BUSTED_ARGS ?=
# GUARD=off runs the specs on a core without what guards lwIP, to see what that is there for: all that are tagged
# #guarded must fail. Never installed.
GUARD ?= on
# Where `make plots` writes.
PLOTS ?= build/plots
# What specs set up networks with, the programs that stacks talk to there, and the Lua modules that run on stacks or
# beside them; without one its specs are pending.
peers := ip ss ping nc setpriv unshare curl wrk nginx ngx_lua fcgiwrap iperf3 dnsmasq radvd traceroute tshark redis-server memcached \
  gnuplot dot aiosmtpd pyftpdlib socket cqueues luv cjson redis copas
# What `make fuzz` feeds a stack with, and how long each, in seconds.
FUZZERS := packets frames
FUZZ_TIME ?= 60
# More for libFuzzer: `-seed=1 -runs=N` makes it do the same each time.
FUZZ_ARGS ?=

MAKEFLAGS += --no-print-directory
SHELL := /bin/sh
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

VERSION := $(shell sed -n 's/^return "\(.*\)"$$/\1/p' lua/netstack/version.lua)
# A path or another name (luarocks gives both) is asked what it is.
LUA_NAME := $(or $(filter $(LUAS),$(notdir $(LUA))),$(shell $(LUA) -e \
  'print(jit and "luajit" or "lua" .. _VERSION:match("%d%.%d"))' 2>/dev/null),$(notdir $(LUA)))
ifeq ($(filter $(LUAS),$(LUA_NAME)),)
  $(error LUA=$(LUA) is none of $(LUAS), and cannot be run to tell which it is)
endif
LUA_VERSION := $(if $(filter luajit,$(LUA_NAME)),5.1,$(LUA_NAME:lua%=%))

# Another compiler or sanitizer has a folder of its own, so that changing to and fro compiles nothing twice.
# Whatever else changes is noticed by the stamps of the second pass.
comma := ,
cc_name := $(notdir $(firstword $(CC)))
variant := $(addprefix -,$(filter-out cc gcc,$(cc_name)) $(subst $(comma),-,$(SAN)))
variant := $(subst $() ,,$(variant))
BUILD := build/$(LUA_NAME)$(variant)$(if $(WERROR),-werror)
LWIP_BUILD := build/lwip$(variant)
CORE := $(BUILD)/netstack/core.so
TUND := $(BUILD)/netstack-tund
UNGUARDED := $(BUILD)/unguarded/netstack/core.so

san_flags := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)

ifndef LWIP_TREE
# ---------------------------------------------------------------------------------------------- the first pass

# Whoever names the headers (luarocks) has set up the machine and wants nothing installed.
need := $(if $(LUA_INCDIR),SETUP=no) LUA="$(LUA)" LD="$(LD)" .build/need
# Read in a recipe: only there does MAKEFLAGS tell whether -j was given.
jobs = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc 2>/dev/null || echo 1))

# $(call compile,NEEDED,FILES[,VARIABLES]): the second pass. The lock is for two makes at once in one tree, which share
# lwIP's objects.
compile = $(need) ld $(1) && mkdir -p build && tree=$$(.build/fetch-lwip) && incdir=$$($(need) -I $(LUA_NAME)) && \
  flock $(LWIP_BUILD).lock $(MAKE) $(jobs) LWIP_TREE="$$tree" LUA_INCDIR="$$incdir" $(2) $(3)

lua_path := $(CURDIR)/lua/?.lua;$(CURDIR)/lua/?/init.lua;;
lua_cpath := $(CURDIR)/$(BUILD)/$(if $(filter off,$(GUARD)),unguarded/)?.so;;
environment = LUA_PATH='$(lua_path)' LUA_CPATH='$(lua_cpath)'
# The interpreter is not instrumented, so the sanitizer's library has to be there before it.
asan_library = $(if $(findstring clang,$(CC)),libclang_rt.asan-$(shell uname -m).so,libasan.so)
preload = $(if $(findstring address,$(SAN)),LD_PRELOAD="$$($(CC) -print-file-name=$(asan_library))")

.PHONY: all demo plots test test-all test-threads lint docs bench fuzz fuzz-coverage dist install env clean help
.NOTPARALLEL:

all: ## build for LUA=lua5.1|lua5.2|lua5.3|lua5.4|luajit (default lua5.4) under build/<lua>/
	@+$(call compile,$(firstword $(CC)) $(LUA_NAME),$(CORE) $(TUND))

demo: all ## two stacks in one process move files over a pipe with LuaSocket's socket.http
	@$(need) socket
	$(environment) $(preload) $(LUA) examples/demo.lua

plots: all ## a download over a lossy link, drawn: samples, each packet, and charts in build/plots (PLOTS=folder)
	@$(need) gnuplot || echo "netstack: without it the charts are left as scripts"
	$(environment) $(preload) $(LUA) examples/lossy_download.lua '$(subst ','\'',$(PLOTS))'

.PHONY: test-needs
test-needs:
	@$(need) $(firstword $(CC)) $(LUA_NAME) busted
	@$(need) $(peers) || for one in $(peers); do \
	  $(need) $$one || echo "netstack: specs that need $$one will be pending"; \
	done

busted = $(environment) NETSTACK_UNGUARDED='$(CURDIR)/$(BUILD)/unguarded/?.so' \
  NETSTACK_TUND='$(CURDIR)/$(TUND)' $(preload) $(RUNNER) $(LUA) "$$(command -v busted)"

# Specs that collect again and again have a process of their own: each collection costs what the others hold.
collector_specs = $(shell grep -l '\#collector' spec/*_spec.lua)

test: test-needs all ## run the specs with LUA; BUSTED_ARGS=... goes to busted
	@$(MAKE) unguarded
	$(busted) $(or $(BUSTED_ARGS),--exclude-tags=collector)
	$(if $(BUSTED_ARGS),,$(busted) --tags=collector $(collector_specs))
	@$(if $(and $(wildcard spec/threads.c),$(filter lua5.4,$(LUA_NAME)),$(filter gcc cc,$(cc_name)), \
	  $(if $(SAN)$(RUNNER)$(BUSTED_ARGS),,yes)),$(MAKE) test-threads)

test-threads: ## run spec/threads.c under ThreadSanitizer, where that works (lua5.4; part of `test`)
	@$(need) $(firstword $(CC))
	@probe='$(CC) -fsanitize=thread -x c - -o build/tsan-probe'; mkdir -p build; \
	if ! echo 'int main(void) { return 0; }' | $$probe; then \
	  echo 'test-threads: skipped, $(CC) has no ThreadSanitizer'; exit 0; \
	elif build/tsan-probe 2>/dev/null; then runner=; \
	elif setarch -R build/tsan-probe 2>/dev/null; then runner='setarch -R'; \
	else echo 'test-threads: skipped, ThreadSanitizer does not run on this machine'; exit 0; fi; \
	$(MAKE) SAN=thread LUA=lua5.4 RUNNER="$$runner" run-threads

.PHONY: run-threads
run-threads:
	@+$(call compile,$(firstword $(CC)) $(LUA_NAME),$(BUILD)/threads,LUA_LIBS="$$(.build/need -l $(LUA_NAME))")
	$(environment) $(RUNNER) $(BUILD)/threads

test-all: ## run the specs with all five interpreters; says which it skipped and why
	@failed=; report=; for lua in $(LUAS); do \
	  echo "== $$lua"; \
	  if ! why=$$(LUA=$$lua .build/need $(firstword $(CC)) ld $$lua busted 2>&1); then \
	    echo "$$why"; report="$$report$$lua: skipped, it or what its tests need is missing (see above)\n"; \
	  elif $(MAKE) test LUA=$$lua; then report="$$report$$lua: passed\n"; \
	  else report="$$report$$lua: FAILED\n"; failed=1; fi; \
	done; printf "\n$$report"; test -z "$$failed"

lint: ## luacheck, warnings as errors with gcc and clang, nothing writable outside the image, scripts parse
	@for script in $(filter-out %.lua %.awk %.supp,$(wildcard .build/*)); do sh -n "$$script" || exit 1; done; bash -n .ci/run
	@$(need) luacheck gcc clang $(LUA_NAME)
	luacheck $(if $(CI),--no-color) $(wildcard lua spec examples bench .build/*.lua) $(wildcard rockspec/*.rockspec)
	@for cc in gcc clang; do $(MAKE) lint-compile LUA="$(LUA)" CC=$$cc WERROR=1 || exit 1; done
	@for lua in $(filter-out $(LUA_NAME),$(LUAS)); do \
	  if LUA=$$lua SETUP=no .build/need $$lua 2>/dev/null; then $(MAKE) lint-compile LUA=$$lua CC=gcc WERROR=1 || exit 1; \
	  else echo "lint: $$lua skipped, it or its headers are missing"; fi; \
	done
	@.build/check-image build/lwip/lwip.o build/lwip-clang/lwip.o

# The threads' test and the bench driver, which know one Lua or none, count as ours: their warnings are errors, too.
programs := $(if $(filter lua5.4,$(LUA_NAME)),$(wildcard spec/*.c bench/*.c))
.PHONY: lint-compile
lint-compile:
	@+$(call compile,$(firstword $(CC)) $(LUA_NAME),$(CORE) $(TUND) $(programs:%.c=$(BUILD)/%.o))
	@exported=$$(readelf --dyn-syms -W $(CORE) | \
	    awk '$$5 ~ /GLOBAL|WEAK|UNIQUE/ && $$6 == "DEFAULT" && $$7 != "UND" && $$8 !~ /^luaopen_/ { print $$8 }'); \
	  test -z "$$exported" || { echo "$(CORE) exports more than luaopen_*:" $$exported >&2; exit 1; }

fuzz: ## feed packets and frames made by libFuzzer to a stack, each for FUZZ_TIME seconds (clang, ASan, UBSan)
	@$(need) clang && $(need) libfuzzer
	@$(MAKE) CC=clang SAN=address,undefined,fuzzer-no-link run-fuzz

.PHONY: run-fuzz
run-fuzz:
	@+$(call compile,$(firstword $(CC)) $(LUA_NAME),$(FUZZERS:%=$(BUILD)/fuzz_%))
	@for name in $(FUZZERS); do \
	  mkdir -p build/fuzz/$$name && cd build/fuzz/$$name && mkdir -p corpus || exit 1; \
	  echo "fuzzing $$name"; \
	  "$(CURDIR)/$(BUILD)/fuzz_$$name" -max_total_time=$(FUZZ_TIME) -max_len=2048 -print_final_stats=1 $(FUZZ_ARGS) \
	    corpus "$(CURDIR)/spec/fuzz_seeds/$$name" || exit 1; \
	  cd "$(CURDIR)"; \
	done

fuzz-coverage: ## how much of each file on the way in the packets and frames found so far reach
	@$(need) clang && $(need) libfuzzer
	@$(MAKE) CC=clang SAN=fuzzer-no-link run-fuzz-coverage

.PHONY: run-fuzz-coverage
run-fuzz-coverage:
	@+$(call compile,$(firstword $(CC)) $(LUA_NAME),$(FUZZERS:%=$(BUILD)/fuzz_%))
	@for name in $(FUZZERS); do \
	  mkdir -p build/fuzz/$$name/corpus && $(BUILD)/fuzz_$$name -runs=0 -print_coverage=1 build/fuzz/$$name/corpus \
	    spec/fuzz_seeds/$$name 2>&1; \
	done | awk -f .build/fuzz-coverage.awk

docs: ## the reference of C and Lua, as HTML, in build/docs; renews lua/netstack/meta/core.lua
	@$(need) ldoc $(LUA_NAME)
	@$(LUA) .build/core-meta.lua lua/netstack/meta/core.lua $(wildcard src/lua_*.c)
	@rm -rf build/docs build/docs-source && mkdir -p build/docs-source
	@$(LUA) .build/ldoc-source.lua build/docs-source $$(find lua -name '*.lua') $(wildcard src/*.c)
	ldoc --fatalwarnings -c .ldoc.lua .

bench: ## measure netstack, lwIP from C, LuaSocket, TUN and veth, iperf3, how a lab grows, nginx
	@$(MAKE) all unguarded LUA=luajit
	@$(MAKE) run-bench LUA=lua5.4
	@$(MAKE) run-bench-nginx LUA=luajit

.PHONY: unguarded run-bench run-bench-nginx
unguarded:
	@+$(call compile,$(firstword $(CC)) $(LUA_NAME),$(UNGUARDED))

run-bench: all
	@$(need) socket
	@+$(call compile,$(firstword $(CC)) $(LUA_NAME),build/bench/driver build/bench/guard)
	$(environment) $(LUA) bench/run.lua
	@$(need) ip ethtool iperf3 || true
	$(LUA) bench/tun.lua
	$(LUA) bench/iperf3.lua
	$(LUA) bench/resty_network.lua
	$(environment) $(LUA) bench/scale.lua

run-bench-nginx: all
	@$(need) socket busted ngx_lua wrk redis-server memcached
	$(environment) $(LUA) bench/resty.lua
	$(environment) $(LUA) bench/resty_delay.lua

dist: ## release archive and build/dist/netstack-<version>-1.src.rock, both with lwIP inside
	@$(need) zip
	@tree=$$(.build/fetch-lwip) && .build/dist "$(VERSION)" "$$tree"

# luarocks gives the four INST_ folders; by hand, PREFIX (and DESTDIR, for packagers) is enough.
INST_LUADIR ?= $(PREFIX)/share/lua/$(LUA_VERSION)
INST_LIBDIR ?= $(PREFIX)/lib/lua/$(LUA_VERSION)
INST_DOCDIR ?= $(PREFIX)/share/doc/netstack
INST_SBINDIR ?= $(PREFIX)/sbin

install: all ## install for LUA under PREFIX (/usr/local), behind DESTDIR if given
	@mkdir -p "$(DESTDIR)$(INST_LUADIR)" "$(DESTDIR)$(INST_LIBDIR)/netstack" "$(DESTDIR)$(INST_DOCDIR)" \
	  "$(DESTDIR)$(INST_SBINDIR)"
	@cd lua && find netstack -name '*.lua' -exec install -D -m 644 {} "$(DESTDIR)$(INST_LUADIR)/{}" \;
	@install -m 755 $(CORE) "$(DESTDIR)$(INST_LIBDIR)/netstack/core.so"
	@install -m 755 $(TUND) "$(DESTDIR)$(INST_SBINDIR)/"
	@install -m 644 LICENSE $(wildcard README.md CHANGELOG.md SECURITY.md) "$(DESTDIR)$(INST_DOCDIR)/"
	@tree=$$(.build/fetch-lwip) && install -m 644 "$$tree/COPYING" "$(DESTDIR)$(INST_DOCDIR)/LICENSE.lwip"
	@echo "installed for $(LUA_NAME): $(DESTDIR)$(INST_LUADIR)/netstack, $(DESTDIR)$(INST_LIBDIR)/netstack/core.so"
	@echo "and $(DESTDIR)$(INST_SBINDIR)/netstack-tund, for OpenResty"

env: ## print LUA_PATH and LUA_CPATH of the build tree: eval "$(make env LUA=luajit)"
	@$(MAKE) all >&2
	@printf "export LUA_PATH='%s'\nexport LUA_CPATH='%s'\n" '$(lua_path)' '$(lua_cpath)'

clean: ## remove build/
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | awk -F'\t' '{ printf "  make %-13s %s\n", $$1, $$2 }'

else
# --------------------------------------------------------------------------------------------- the second pass

quiet := $(if $(V),,@)
say = $(if $(V),,@printf '  %-4s %s\n' $(1) $(2))

# $(stamp): rewrites its target when the text differs from last time; what depends on it is then made anew.
define stamp
	@mkdir -p $(@D)
	@printf '%s\n' '$(strip $(text))' | cmp -s - $@ || printf '%s\n' '$(strip $(text))' > $@
endef
.PHONY: FORCE

# lwIP: one relocatable object. The linker script gathers what is writable, --wrap redirects the calls we look at.
LWIPDIR := $(LWIP_TREE)/src
include $(LWIPDIR)/Filelists.mk
LWIP_O := $(LWIP_BUILD)/lwip.o
lwip_sources := $(COREFILES) $(CORE4FILES) $(CORE6FILES)
lwip_objects := $(lwip_sources:$(LWIPDIR)/%.c=$(LWIP_BUILD)/%.o) $(LWIP_BUILD)/port.o

pic := -fPIC -fvisibility=hidden -fno-common
includes := -Isrc/lwip -isystem $(LWIPDIR)/include
# An instrumented global is padded and registered by address, and would not survive being saved and loaded.
# The undefined-behaviour checks are for our code: lwIP's own findings are nothing we can edit away.
lwip_san := $(filter-out undefined,$(subst $(comma), ,$(SAN)))
lwip_san_flags := $(if $(lwip_san),-fsanitize=$(subst $() ,$(comma),$(lwip_san)) -fno-omit-frame-pointer) \
  $(if $(filter address,$(lwip_san)),$(if $(findstring clang,$(cc_name)),-mllvm -asan-globals=0,--param asan-globals=0))
# -MD: our settings are included by headers that count as the system's, which -MMD leaves out.
lwip_cc := $(CC) $(CFLAGS) $(pic) $(lwip_san_flags) $(includes) -MD -MP -w
wrapped := tcp_input tcp_rst_netif udp_input raw_input nd6_get_destination_mtu icmp_dest_unreach \
  icmp6_dest_unreach icmp6_param_problem

$(LWIP_BUILD)/flags: text = $(lwip_cc) $(lwip_objects)
$(LWIP_BUILD)/flags: FORCE
	$(stamp)

$(LWIP_BUILD)/port.o: src/lwip/port.c $(LWIP_BUILD)/flags
	$(call say,CC,$<)
	$(quiet)$(lwip_cc) -c $< -o $@

$(LWIP_BUILD)/%.o: $(LWIPDIR)/%.c $(LWIP_BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,lwip/$*.c)
	$(quiet)$(lwip_cc) -c $< -o $@

$(LWIP_O): $(lwip_objects) src/lwip/image.ld .build/check-image $(MAKEFILE_LIST)
	$(call say,LD,$@)
	$(quiet)$(LD) -r -T src/lwip/image.ld $(wrapped:%=--wrap=%) $(lwip_objects) -o $@
	@.build/check-image $@

# Ours.
core_objects := $(patsubst src/%.c,$(BUILD)/src/%.o,$(sort $(wildcard src/*.c)))
warnings := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes $(if $(WERROR),-Werror)
core_cc := $(CC) -std=c99 -D_GNU_SOURCE $(CFLAGS) $(pic) $(warnings) $(san_flags) -pthread \
  -Isrc $(includes) -isystem $(LUA_INCDIR) -MD -MP
# Under a sanitizer the library stays mapped after lua_close, or its reports would have no names.
nodelete := -Wl,-z,nodelete
link := $(CC) $(CFLAGS) $(san_flags) -pthread -Wl,-z,start-stop-visibility=hidden $(if $(SAN),$(nodelete)) $(LDFLAGS)

$(BUILD)/flags: text = $(core_cc)
$(BUILD)/flags: FORCE
	$(stamp)

$(BUILD)/objects: text = $(link) $(core_objects)
$(BUILD)/objects: FORCE
	$(stamp)

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(quiet)$(core_cc) -c $< -o $@

# Ciphers branch on nothing that a packet says: watching them would take a third of the fuzzers' time.
ifneq ($(findstring fuzzer,$(SAN)),)
$(BUILD)/src/random.o: core_cc += -fno-sanitize=undefined,fuzzer-no-link
endif

# Undefined symbols are allowed: Lua's come from the interpreter.
$(CORE): $(core_objects) $(LWIP_O) $(BUILD)/objects
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(quiet)$(link) -shared $(core_objects) $(LWIP_O) -o $@

# The program that brings packets into nginx's workers: no Lua, no lwIP.
tund_objects := $(patsubst %.c,$(BUILD)/%.o,$(sort $(wildcard src/tund/*.c))) $(BUILD)/src/tun_open.o
$(BUILD)/src/tund/main.o: core_cc += -DNST_TUND_VERSION='"$(VERSION)"'

$(TUND): $(tund_objects) $(BUILD)/objects
	$(call say,LD,$@)
	$(quiet)$(link) $(tund_objects) -o $@

# The same sources without what guards lwIP, for specs that show what it is for.
unguarded_objects := $(core_objects:$(BUILD)/%=$(BUILD)/unguarded/%)
$(BUILD)/unguarded/src/%.o: src/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(quiet)$(core_cc) -DNST_UNGUARDED -c $< -o $@

$(UNGUARDED): $(unguarded_objects) $(LWIP_O) $(BUILD)/objects
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(quiet)$(link) -shared $(unguarded_objects) $(LWIP_O) -o $@

# A program of its own, for a sanitizer that must be there from the start. It has the core twice over: linked in,
# and as a library for whoever asks package.cpath.
$(BUILD)/threads: $(BUILD)/spec/threads.o $(core_objects) $(LWIP_O) $(BUILD)/objects $(CORE)
	$(call say,LD,$@)
	$(quiet)$(link) $< $(core_objects) $(LWIP_O) $(LUA_LIBS) -lm -ldl -o $@

# The core without what Lua sees of it.
$(BUILD)/fuzz_%: $(BUILD)/spec/fuzz_%.o $(core_objects) $(LWIP_O) $(BUILD)/objects
	$(call say,LD,$@)
	$(quiet)$(link) -fsanitize=fuzzer $< $(filter-out %/binding.o $(BUILD)/src/lua_%,$(core_objects)) $(LWIP_O) -lm -o $@

# lwIP alone: what the core looks at goes straight on to lwIP's own.
build/bench/driver: $(BUILD)/bench/driver.o $(LWIP_O)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(quiet)$(link) $^ $(foreach name,$(wrapped),-Wl,--defsym=__wrap_$(name)=$(name)) -o $@

# What the guard takes for a packet.
build/bench/guard: $(BUILD)/bench/guard.o $(filter-out %/binding.o $(BUILD)/src/lua_%,$(core_objects)) $(LWIP_O)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(quiet)$(link) $^ -lm -o $@

-include $(shell find $(BUILD) $(LWIP_BUILD) -name '*.d' 2>/dev/null)
endif
