-- SPDX-License-Identifier: GPL-2.0-only
-- What the statements of an EasySIF module mean under Lmod. It starts no process and reads a few files:
-- the site file of the prefix and what the guards ask for.

local site = {}
local pushed, order = {}, {}
local binds, targets, forced = {}, {}, {}

local function env(name) return os.getenv(name) or "" end

-- A module that takes the place of another one of its family Lmod loads twice: while that one is still there, and when
-- it has unloaded both. The first time nothing is set, or it would be in the way of what the other one takes back, and
-- nothing is made or said.
local former = env("LMOD_FAMILY_EASYSIF_ENVIRONMENT")
local comes_again = mode() == "load" and former ~= "" and former ~= myModuleName() and isloaded(former)

local function exists(path) return path ~= "" and lfs.attributes(path, "mode") ~= nil end
local function is_directory(path) return lfs.attributes(path, "mode") == "directory" end
local function closed(path) return not (lfs.attributes(path, "permissions") or ""):match("^.......w") end
local function has_image(path, size)
    return lfs.attributes(path, "size") == size and closed(path) and closed(path:match("^.*/"))
end
local function filled(value) return value ~= "" end
local function bindable(path) return path ~= "" and not path:find("[:,^\n]") and not path:find("[\\%s]$") end
local function is_absolute(path) return path:sub(1, 1) == "/" end
local function is_same(first, second) return first == second end

local function record(name, value)
    return name .. "=" .. value:gsub("[%%;]", { ["%"] = "%25", [";"] = "%3B" })
end

-- What another module of ours has set counts as unset: Lmod takes that one away when this one is loaded.
local function is_unset(name)
    local value = os.getenv(name)
    return not value or (";" .. env("EASYSIF_SET") .. ";"):find(";" .. record(name, value) .. ";", 1, true) ~= nil
end

local function is_loading() return mode() == "load" end

local function readable(path)
    local file = io.open(is_directory(path) and path .. "/." or path)
    if file then file:close() end
    return file ~= nil
end

-- Written by a group, and not by everybody as directories for temporary files are.
local function shared(path) return (lfs.attributes(path, "permissions") or ""):match("^....w..[^w]") end

local function mine(path)
    local owner, group, status = lfs.attributes(path, "uid"), lfs.attributes(path, "gid"), io.open("/proc/self/status")
    if not status then return false end
    local text = status:read("*a")
    status:close()
    local user = tonumber(text:match("Uid:%s*%d+%s+(%d+)"))
    if not owner or user == owner then return owner ~= nil end
    local groups = text:match("Gid:%s*%d+%s+(%d+)") .. " " .. text:match("Groups:([^\n]*)") .. " "
    return user ~= 0 and shared(path) ~= nil and (" " .. groups):find("%s" .. group .. "%s") ~= nil
end

local function writable(path)
    local file = io.open(path, "r+")
    if file then file:close() end
    return file ~= nil
end

-- The site file is data that `easysif site apply` wrote; the installation's own copy serves where it cannot be read,
-- and while the installation is tested, before the prefix learns what the site says now.
local function read_site(prefix, root)
    local own = root .. "/easysif/site.lua"
    for _, path in ipairs({ prefix .. "/easysif/site.lua", own }) do
        if exists(root .. "/easysif/untested") then path = own end
        local chunk = loadfile(path)
        local fine, values = pcall(chunk or function() end)
        if fine and type(values) == "table" then
            site = values
            return
        end
    end
end

-- Only the place of overlays is a template: $USER, $HOME or any other variable; unset ones make it empty.
local function setting(name)
    local value, complete = (site.settings or {})[name] or "", true
    if name ~= "overlays" then return value end
    value = value:gsub("%$({?)([%a_][%w_]*)(}?)", function(open, variable, close)
        local found = os.getenv(variable)
        if not found and variable == "USER" then found = os.getenv("LOGNAME") or env("HOME"):match("[^/]+$") end
        complete = complete and found ~= nil and found ~= ""
        return (found or "") .. (open == "" and close or "")
    end)
    return complete and value or ""
end

-- Of the superblock: "hsqs", the compressor at offset 20, as 16-bit word, and the length in bytes_used, the 64-bit word
-- at offset 40; both little-endian.
local function look_at_squashfs(path)
    local kind = lfs.attributes(path, "mode")
    if not kind then return "" end
    local file = kind == "file" and io.open(path, "rb")
    if not file then return "damaged" end
    local head = file:read(48) or ""
    file:close()
    if #head < 48 or head:sub(1, 4) ~= "hsqs" then return "damaged" end
    local used = 0
    for position = 48, 41, -1 do used = used * 256 + head:byte(position) end
    if used < 96 or lfs.attributes(path, "size") < used then return "damaged" end
    local name = ({ "gzip", "lzma", "lzo", "xz", "lz4", "zstd" })[head:byte(21) + 256 * head:byte(22)]
    return name and (" " .. setting("refused_compressors") .. " "):find(" " .. name .. " ", 1, true) and name or "whole"
end

local function read_word(path, word)
    local file = lfs.attributes(path, "mode") == "file" and io.open(path)
    local text = file and file:read(4096) or ""
    if file then file:close() end
    return ("\n" .. text):match("\n" .. word .. " ([^\n]*)") or ""
end

local function values_of(need)
    if need == "" then return site end
    return (site.needs or {})[need] or {}
end

local function say(...) return table.concat({ ... }, "\n") end
local function fail(...) if mode() == "load" then LmodError(say(...)) end end
local function warn(...)
    if mode() ~= "load" or comes_again then return end
    if LmodMsgRaw then LmodMsgRaw(say("", ...), "\n") else LmodMessage(say(...)) end -- raw: does not fold long paths
end

local function tell(first, ...) warn("note: " .. first, ...) end

-- What a directory grants to its group and to others, as in its mode; of one that all may write, nobody may.
local function granted(path)
    local permissions, bits = lfs.attributes(path, "permissions") or "---------", 0
    if permissions:sub(8, 8) == "w" then permissions = permissions:gsub("w", "-") end
    for letter in permissions:sub(4):gmatch(".") do bits = 2 * bits + (letter:match("[-ST]") and 0 or 1) end
    return bits
end

local function make_directory(path, like)
    if mode() ~= "load" or comes_again or is_directory(path) then return end
    local above = path
    repeat above = above:match("^(.*)/") until above == "" or is_directory(above)
    local fine, posix = pcall(require, "posix.sys.stat")
    local users = fine and posix.umask(63 - granted(shared(above .. "/") and above .. "/" or like))
    local position = 1
    while position do
        position = path:find("/", position + 1, true)
        lfs.mkdir(position and path:sub(1, position - 1) or path)
    end
    if users then posix.umask(users) end
end

-- Lmod gives a newline to the shell as it is, which then runs what follows it: no such value is set, and a variable
-- in which the user has one is left alone, as Lmod could not give it back.
local function push(name, value)
    if (value .. env(name)):find("\n", 1, true) then return end
    if pushed[name] == nil then order[#order + 1] = name end
    pushed[name] = value
end

local function depend_on(module) depends_on(module) end
local function set(name, value) setenv(name, value) end

local function inside(name, value)
    push("SINGULARITYENV_" .. name, value)
    push("APPTAINERENV_" .. name, value)
end

local needed_path, needed_libraries = "", ""

local function joined(one, other)
    if not other then return one end
    return one == "" and other or one .. ":" .. other
end

-- What the user changes afterwards is theirs in this shell; wrappers set what is forced again.
local function inside_each(need)
    if need == "" then
        for switch in setting("isolation"):gmatch("%S+") do
            push("SINGULARITY_" .. switch, "1")
            push("APPTAINER_" .. switch, "1")
        end
    end
    needed_path = joined(needed_path, values_of(need).path)
    needed_libraries = joined(needed_libraries, values_of(need).library_path)
    for _, pair in ipairs(values_of(need).container_env or {}) do inside(pair[1], pair[2]) end
end

-- Adds the entries of a bind list to a table. The runtimes take a word after a comma for an option of the bind
-- before it if it looks like one; a backslash before the comma belongs to the path.
local function split_binds(list, entries)
    local open = false
    for word in list:gmatch("[^,]+") do
        local option = word == "ro" or word == "rw" or word:match("^image%-src=") or word:match("^id=")
        if #entries > 0 and (open or option) then
            entries[#entries] = entries[#entries] .. "," .. word
        else
            entries[#entries + 1] = word
        end
        open = word:sub(-1) == "\\"
    end
    return entries
end

-- A module may have hundreds of binds: what most of them are, a path alone, is told without patterns.
local function target_of(entry)
    if not entry:find(":", 1, true) and entry:byte(-1) ~= 47 then return entry end
    local source, target = entry:match("^([^:]*):?([^:]*)")
    return ((target ~= "" and target or source):gsub("(.)/+$", "%1"))
end

-- In EASYSIF_ADDED a ^, which no bind holds, stands for the directory of the entry before: Lmod, which looks at each
-- character of a value, takes 0.4 ms for 140 binds of 120 characters.
local function directory_of(entry) return entry:match("^[^:]*/") or "" end

local function shortened(entries)
    local short, former = {}, nil
    for position, entry in ipairs(entries) do
        local directory = directory_of(entry)
        short[position] = directory == former and "^" .. entry:sub(#directory + 1) or entry
        former = directory
    end
    return table.concat(short, ",")
end

local function users_binds()
    local ours, kept, directory = {}, {}, ""
    for _, entry in ipairs(split_binds(env("EASYSIF_ADDED"), {})) do
        if entry:sub(1, 1) == "^" then entry = directory .. entry:sub(2) end
        directory = directory_of(entry)
        ours[entry] = true
    end
    for _, name in ipairs({ "SINGULARITY_BINDPATH", "APPTAINER_BINDPATH" }) do
        for _, entry in ipairs(split_binds(env(name), {})) do
            if not ours[entry] then
                kept[#kept + 1] = entry
                ours[entry] = true
            end
        end
    end
    return kept
end

local function bind_entry(entry, is_forced)
    local colon = entry:find(":", 1, true)
    if not exists(colon and entry:sub(1, colon - 1) or entry) then return end
    local place = target_of(entry)
    if is_forced then forced[place] = true end
    if targets[place] then return end
    targets[place] = entry
    binds[#binds + 1] = place
end

local function bind(source, target, options)
    bind_entry(source .. (target ~= "" and ":" .. target or "") .. (options ~= "" and ":" .. options or ""))
end

local function bind_each(need)
    for _, entry in ipairs(values_of(need).binds or {}) do bind_entry(entry, need == "FORCE") end
end

local function push_binds()
    local all, taken = {}, {}
    for _, entry in ipairs(users_binds()) do
        if not forced[target_of(entry)] then
            all[#all + 1] = entry
            taken[target_of(entry)] = true
        end
    end
    local added = {}
    for _, place in ipairs(binds) do
        if not taken[place] then
            added[#added + 1] = targets[place]
            all[#all + 1] = targets[place]
        end
    end
    binds = added
    local list = table.concat(all, ",")
    push("SINGULARITY_BINDPATH", list)
    push("APPTAINER_BINDPATH", list)
end

-- EASYSIF_SET records what was set and EASYSIF_KEPT what the user had, as name=value;name=value, so that unloading
-- takes back exactly that, whatever has changed meanwhile, and wrappers of other modules can undo it.
-- The bind variables stand there by name only: EASYSIF_ADDED says what was added to them.
local function recorded(name, value)
    local is_bind = name == "SINGULARITY_BINDPATH" or name == "APPTAINER_BINDPATH"
    return record(name, is_bind and "" or value)
end

-- Where the user has nothing to give back, setenv does the same as pushenv and is spared Lmod's slow base64.
local function set_all(names, users)
    for _, name in ipairs(names) do
        local keeps = users[name] or mode() == "show"
        local assign = keeps and pushenv or setenv
        assign(name, pushed[name] or "")
    end
end

local function finish()
    if #order == 0 or comes_again or mode() == "unload" and not filled(env("EASYSIF_SET")) then return end
    local set, kept, users = {}, {}, {}
    for _, name in ipairs(order) do
        set[#set + 1] = recorded(name, pushed[name])
        users[name] = os.getenv(name) ~= nil
        if users[name] then kept[#kept + 1] = recorded(name, os.getenv(name)) end
    end
    if mode() == "unload" then
        order, users = {}, {}
        for name in (";" .. env("EASYSIF_SET")):gmatch(";([%a_][%w_]*)=") do order[#order + 1] = name end
        for name in (";" .. env("EASYSIF_KEPT")):gmatch(";([%a_][%w_]*)=") do users[name] = true end
    end
    set_all(order, users)
    setenv("EASYSIF_ADDED", shortened(binds))
    setenv("EASYSIF_KEPT", table.concat(kept, ";"))
    setenv("EASYSIF_SET", table.concat(set, ";"))
end
