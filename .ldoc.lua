-- The sources as .build/ldoc-source.lua prepared them: their types are LuaLS annotations, which LDoc cannot read.
project = "netstack"
title = "netstack reference"
description = "Isolated TCP/IP stacks inside a Lua process"
format = "backtick"
file = { "build/docs-source" }
dir = "build/docs"
no_space_before_args = true
not_luadoc = true
