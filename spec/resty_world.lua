-- For blocks "http" of nginx.conf.
-- Two stacks on a pipe; on the second one each light thread accepts and serves: lines come back, and some do more.
return [[
  lua_socket_log_errors off;
  lua_check_client_abort on;
  init_worker_by_lua_block {
    netstack, resty = require "netstack", require "netstack.resty"
    a, b = netstack.pair({ hosts = { server = "10.0.0.2" } })
    assert(resty.start(a) == 1 and resty.start(b) == 1 and resty.start(a) == 1)
    local listener = assert(resty.listen(b, "*", 80, 64))
    local function serve(peer)
      while true do
        local line, err = peer:receive()
        if not line then return peer:close() end
        if line == "close" then return peer:close() end
        local size, rest = line:match("^give (%d+)(.*)$")
        if size then
          peer:send(("x"):rep(tonumber(size)) .. rest)
        elseif line:match("^take ") then
          local left = tonumber(line:sub(6))
          while left > 0 do left = left - #assert(peer:receiveany(left)) end
          peer:send("taken\n")
        elseif line:match("^say ") then
          peer:send((line:sub(5):gsub("%%(%x%x)", function(x) return string.char(tonumber(x, 16)) end)))
        elseif line:match("^wait ") then
          ngx.sleep(tonumber(line:sub(6)))
          peer:send("waited\n")
        else
          peer:send({ line, "\n" })
        end
      end
    end
    ngx.timer.at(0, function()
      local threads = {}
      for i = 1, 16 do
        threads[i] = ngx.thread.spawn(function()
          while true do
            local peer, err = listener:accept()
            if not peer then
              ngx.log(ngx.NOTICE, "accept ended: ", err)
              return
            end
            serve(peer)
          end
        end)
      end
      for i = 1, 16 do ngx.thread.wait(threads[i]) end
      ngx.log(ngx.NOTICE, "the server ended")
    end)
  }
]]
