-- Captures: what is written is read back, by us and byte by byte; what others write is read; damaged files are told
-- from whole ones.
local helper = require "spec.helper"
local netns = require "spec.netns"
local netstack = require "netstack"
local packets = require "spec.packets"
local pcap = require "netstack.pcap"
local traffic = require "spec.traffic"

local char = string.char

-- A file in memory, as much of one as the modules ask for.
local function memory(content)
  local file = { content = content or "", at = 1 }
  function file:write(data)
    self.content = self.content .. data
    return self
  end
  function file:read(size)
    if self.at > #self.content then return nil end
    local data = self.content:sub(self.at, self.at + size - 1)
    self.at = self.at + #data
    return data
  end
  return file
end

local function list_of(reader)
  local list = {}
  for item in reader:packets() do list[#list + 1] = item end
  return list, reader:error()
end

local function read(content)
  local reader, err = pcap.reader(memory(content))
  if not reader then return nil, err end
  return list_of(reader)
end

-- Numbers in a byte order, and blocks in it, as others would write them.
local function order(big)
  local o = {}
  function o.number(size, value)
    local text = ""
    for _ = 1, size do
      text = text .. char(value % 256)
      value = math.floor(value / 256)
    end
    return big and text:reverse() or text
  end
  function o.u16(value) return o.number(2, value) end
  function o.u32(value) return o.number(4, value) end
  function o.option(code, value)
    return o.u16(code) .. o.u16(#value) .. value .. ("\0"):rep(-#value % 4)
  end
  function o.block(kind, body)
    return o.u32(kind) .. o.u32(#body + 12) .. body .. o.u32(#body + 12)
  end
  function o.section()
    return o.block(0x0a0d0d0a, o.u32(0x1a2b3c4d) .. o.u16(1) .. o.u16(0) .. ("\255"):rep(8) .. o.option(4, "somebody"))
  end
  function o.interface(link, snaplen, options)
    return o.block(1, o.u16(link) .. o.u16(0) .. o.u32(snaplen) .. (options or ""))
  end
  function o.packet(id, high, low, data, options)
    return o.block(6, o.u32(id) .. o.u32(high) .. o.u32(low) .. o.u32(#data) .. o.u32(#data + 1) .. data ..
      ("\0"):rep(-#data % 4) .. (options or ""))
  end
  return o
end

local function written(fn)
  local file = memory()
  local writer = assert(pcap.writer(file))
  fn(writer)
  assert.equal(1, writer:close())
  return file.content
end

describe("a capture", function()
  after_each(netns.finish)

  it("has these bytes, which name nobody", function()
    local content = written(function(writer)
      assert.equal(0, writer:interface { name = "a-b" })
      assert.equal(1, writer:packet(0, 5.000000001, "E234", { comment = "lost", original_length = 5 }))
    end)
    local o = order(false)
    assert.equal(o.block(0x0a0d0d0a, o.u32(0x1a2b3c4d) .. "\1\0\0\0" .. ("\255"):rep(8)) ..
      o.interface(101, 0, o.option(2, "a-b") .. o.option(9, "\9") .. o.option(0, "")) ..
      o.packet(0, 1, 705032705, "E234", o.option(1, "lost") .. o.option(0, "")), content)
  end)

  it("is read back as it was written, with its names, comments and times to the nanosecond", function()
    local path = netns.folder() .. "/all.pcapng"
    local writer = assert(pcap.writer(path))
    local ids = { ip = writer:interface { name = "a-b", description = "a link" },
      ethernet = writer:interface { name = "switch", link = "ethernet" } }
    local list, wanted = traffic.everything(), {}
    for i, item in ipairs(list) do
      local comment = item.dropped and "dropped: " .. item.dropped or nil
      assert.equal(1, writer:packet(ids[item.link], item.time, item.data, { comment = comment }))
      wanted[i] = { interface = ids[item.link], interface_name = item.link == "ip" and "a-b" or "switch",
        link = item.link, time = math.floor(item.time * 1e9 + 0.5) / 1e9, data = item.data,
        original_length = #item.data, comment = comment }
    end
    assert.equal(1, writer:close())
    assert.equal(1, writer:close())
    assert.same({ nil, "closed" }, { writer:packet(0, 1, "x") })
    local reader = assert(pcap.reader(path))
    local got = list_of(reader)
    assert.equal(#wanted, #got)
    for i, item in ipairs(got) do
      assert.is_true(wanted[i].data == item.data)
      wanted[i].data, item.data = nil, nil
      assert.same(wanted[i], item)
    end
    assert.is_nil(reader:error())
    assert.equal(1, reader:close())
    assert.equal(1, reader:close())
    assert.same({ nil, "closed" }, { reader:read() })
  end)

  it("has the times that it is given", function()
    local random, times = helper.random(3), { 0, 1e-9, 0.999999999, 4.294967295, 4.294967296, 86400 * 40 + 0.123456789,
      1764119999.5, 2 ^ 33 - 1 }
    for _ = 1, 500 do times[#times + 1] = (random(2 ^ 20) * 2 ^ 30 + random(2 ^ 30)) / 1e9 end
    local content = written(function(writer)
      writer:interface()
      for _, time in ipairs(times) do writer:packet(0, time, "") end
    end)
    for i, item in ipairs(read(content)) do
      assert.equal(times[i], item.time)
    end
  end)

  it("that cannot be written says so, once", function()
    local writer, err = pcap.writer(netns.folder() .. "/nowhere/x.pcapng")
    assert.is_nil(writer)
    assert.matches("nowhere/x.pcapng: No such file or directory$", err)
    -- A disk that is full: its file takes some, and then no more.
    local room, told = 200, {}
    writer = assert(pcap.writer { write = function(self, data)
      room = room - #data
      if room < 0 then return nil, "No space left on device", 28 end
      return self
    end })
    assert.equal(0, writer:interface())
    for _ = 1, 9 do told[#told + 1] = select(2, writer:packet(0, 0, ("x"):rep(40))) end
    assert.equal("No space left on device", told[1])
    assert.equal("closed", told[2])
    assert.equal(1, writer:close())
    if netns.has("test -c /dev/full") then
      writer = assert(pcap.writer("/dev/full"))
      writer:interface()
      assert.same({ nil, "No space left on device" }, { writer:close() })
      assert.equal(1, writer:close())
    end
  end)

  it("is not spoiled by what it cannot hold", function()
    local writer = assert(pcap.writer(memory()))
    assert.equal(0, writer:interface())
    for why, fn in pairs {
      ["bad argument #1 to 'packet' %(no such interface: 1%)"] = function() writer:packet(1, 0, "") end,
      ["bad argument #2 to 'packet' %(seconds, 0 or more, expected%)"] = function() writer:packet(0, -1, "") end,
      ["bad argument #3 to 'packet' %(string expected, got nil%)"] = function() writer:packet(0, 0) end,
      ["bad argument #4 to 'packet' %(option 'comment': 65535 bytes"] = function()
        writer:packet(0, 0, "", { comment = ("x"):rep(65536) })
      end,
      ["bad argument #1 to 'interface' %(option 'link'"] = function() writer:interface { link = "token ring" } end,
      ["bad argument #1 to 'writer' %(path or file expected, got nil%)"] = function() pcap.writer() end,
      ["bad argument #1 to 'reader' %(path or file expected, got number%)"] = function() pcap.reader(5) end,
    } do
      assert.matches(why, packets.failure(fn))
    end
    assert.same({ nil, netns.folder() .. "/no: No such file or directory" }, { pcap.reader(netns.folder() .. "/no") })
  end)
end)

describe("a capture of others", function()
  for name, big in pairs { ["little-endian"] = false, ["big-endian"] = true } do
    local o = order(big)

    it("is read: pcapng, " .. name, function()
      local list, err = read(o.section() ..
        o.interface(1, 4, o.option(2, "eth0")) .. -- microseconds
        o.block(0x0bad, "unknown!") ..
        o.packet(0, 1, 5, "abc", o.option(2, "\1\0\0\0") .. o.option(1, "well") .. o.option(0, "")) ..
        o.block(3, o.u32(9) .. "four") .. -- a simple packet, cut
        o.block(3, o.u32(2) .. "xy\0\0") ..
        o.block(5, ("\0"):rep(12)) ..
        o.interface(999, 0, o.option(9, "\138") .. -- 1024 in a second, from the 100th on
          o.option(14, big and o.u32(0) .. o.u32(100) or o.u32(100) .. o.u32(0))) ..
        o.packet(1, 0, 1536, "d") ..
        o.block(2, o.u16(0) .. o.u16(7) .. o.u32(0) .. o.u32(2000000) .. o.u32(1) .. o.u32(1) .. "o\0\0\0") ..
        order(not big).section() .. order(not big).interface(101, 0) .. order(not big).packet(0, 0, 0, "E"))
      assert.is_nil(err)
      assert.same({
        { interface = 0, interface_name = "eth0", link = "ethernet", time = 4294.967301, data = "abc",
          original_length = 4, comment = "well" },
        { interface = 0, interface_name = "eth0", link = "ethernet", data = "four", original_length = 9 },
        { interface = 0, interface_name = "eth0", link = "ethernet", data = "xy", original_length = 2 },
        { interface = 1, link = 999, time = 101.5, data = "d", original_length = 2 },
        { interface = 0, interface_name = "eth0", link = "ethernet", time = 2, data = "o", original_length = 1 },
        { interface = 0, link = "ip", time = 0, data = "E", original_length = 2 },
      }, list)
    end)

    it("is read: classic pcap, " .. name, function()
      for magic, units in pairs { [0xa1b2c3d4] = 1e6, [0xa1b23c4d] = 1e9 } do
        local list, err = read(o.u32(magic) .. o.u16(2) .. o.u16(4) .. ("\0"):rep(8) .. o.u32(65535) .. o.u32(101) ..
          o.u32(7) .. o.u32(500000) .. o.u32(3) .. o.u32(9) .. "abc" .. o.u32(8) .. o.u32(0) .. o.u32(0) .. o.u32(0))
        assert.is_nil(err)
        assert.same({ { interface = 0, link = "ip", time = 7 + 500000 / units, data = "abc", original_length = 9 },
          { interface = 0, link = "ip", time = 8, data = "", original_length = 0 } }, list)
      end
    end)
  end

  it("is none, or damaged: the offset is told", function()
    local o = order(false)
    local start = o.section() .. o.interface(1, 0)
    local at = #start
    local function told(text, ...)
      local _, err = read(text, ...)
      return err
    end
    local whole = o.packet(0, 0, 0, "abcd")
    assert.equal("offset 0: no capture", told(""))
    assert.equal("offset 0: no capture", told("GIF89a and more"))
    assert.equal("offset 8: no byte order", told("\10\13\13\10" .. o.u32(28) .. ("x"):rep(20)))
    assert.equal(("offset %d: a block of 7 bytes"):format(at + 4), told(start .. o.u32(6) .. o.u32(7)))
    assert.equal(("offset %d: a block of 4294967292 bytes"):format(at + 4),
      told(start .. o.u32(6) .. "\252\255\255\255" .. ("x"):rep(100)))
    assert.equal(("offset %d: the file ends within a block"):format(at + 30), told(start .. whole:sub(1, 30)))
    assert.equal(("offset %d: the file ends within a block"):format(at + 3), told(start .. "abc"))
    assert.equal(("offset %d: another length than where the block begins"):format(at + 32),
      told(start .. whole:sub(1, -5) .. o.u32(4)))
    assert.equal(("offset %d: no interface 1"):format(at + 8), told(start .. o.packet(1, 0, 0, "x")))
    assert.equal(("offset %d: a packet of 4026531840 bytes"):format(at + 8),
      told(start .. o.block(6, ("\0"):rep(12) .. o.u32(0xf0000000) .. o.u32(0))))
    assert.equal(("offset %d: an option of 99 bytes"):format(at + 32), told(start ..
      o.packet(0, 0, 0, "abcd", o.u16(1) .. o.u16(99) .. "four")))
    local classic = o.u32(0xa1b2c3d4) .. ("\0"):rep(20)
    assert.equal("offset 32: a packet of 4294967295 bytes", told(classic .. ("\0"):rep(8) .. ("\255"):rep(8)))
    assert.equal("offset 4: the file ends within a block", told(classic:sub(1, 4)))
    -- What is before the damage is had, and the error stays.
    local reader = assert(pcap.reader(memory(start .. whole .. "junk junk junk")))
    assert.equal("abcd", reader:read().data)
    local _, err = reader:read()
    assert.matches("^offset %d+: a block of %d+ bytes$", err)
    assert.same({ nil, err }, { reader:read() })
  end)

  it("can be damaged anywhere: nothing is raised, nothing goes on for ever", function()
    local random = helper.random(11)
    local contents = {}
    for i, big in ipairs { false, true } do
      local o = order(big)
      contents[i] = o.section() .. o.interface(1, 0, o.option(2, "eth0") .. o.option(9, "\9") .. o.option(0, "")) ..
        o.packet(0, 1, 5, "abcd", o.option(1, "well")) .. o.block(3, o.u32(4) .. "four") .. o.section() ..
        o.interface(101, 9) .. o.block(2, ("\0"):rep(8) .. o.u32(0) .. o.u32(1) .. o.u32(1) .. "o\0\0\0")
      contents[i + 2] = o.u32(0xa1b2c3d4) .. ("\0"):rep(20) ..
        (o.u32(7) .. o.u32(1) .. o.u32(3) .. o.u32(9) .. "abc"):rep(3)
    end
    local damaged = 0
    for _ = 1, 4000 do
      local content = contents[random(#contents) + 1]
      for _ = 0, random(3) do
        local at = random(#content) + 1
        local other = random(2) == 0 and random(256) or 255 * random(2)
        content = content:sub(1, at - 1) .. char(other) .. content:sub(at + 1)
      end
      if random(4) == 0 then content = content:sub(1, random(#content)) end
      local list, err = read(content)
      if err then
        damaged = damaged + 1
        assert.matches("^offset %d+: ", err)
      end
      assert.is_true(not list or #list <= #content / 12)
    end
    assert.is_true(damaged > 1000)
  end)
end)

describe("a capture made twice", function()
  it("is the same, byte for byte", function()
    local function once()
      return written(function(writer)
        writer:interface()
        writer:interface { link = "ethernet" }
        for _, item in ipairs(traffic.everything()) do
          writer:packet(item.link == "ip" and 0 or 1, item.time, item.data)
        end
      end)
    end
    local first = once()
    assert.is_true(#first > 100000)
    assert.is_true(first == once())
    assert.is_nil(first:find("Linux", 1, true))
    assert.is_nil(first:find("Lua", 1, true))
    assert.is_nil(netstack._VERSION:find(first, 1, true))
  end)
end)
