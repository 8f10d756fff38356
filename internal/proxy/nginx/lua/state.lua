-- What all workers share: the peers of each service, and how many requests
-- each peer has in flight. The dictionary outlives a reload, not a restart.
--
-- Keys. Old workers keep running old Lua on the same dictionary after a
-- reload, so the form of a value never changes under its key: s1, not s.
--   boot             nonce of this dictionary
--   cycle            number of times a configuration was loaded
--   generation       of the peers, as Conductor numbers them
--   change           counts up after each change of peers
--   s1:SERVICE       its peers, "NAME@ADDR:PORT*WEIGHT NAME@…", or ""
--   f:PID:ADDR:PORT  requests that this worker has in flight there
--   w:PID            "CYCLE" of a worker that takes connections
--   r:NAME, e:NAME   requests that ended at the instance, and those of them
--                    with a 5xx; none@SERVICE: those that found no instance
--   d:PID            a worker that is gone, whose counts are being collected
local c = ...

local ngx, dict = ngx, ngx.shared[c.zone]
local ffi = require "ffi"

pcall(ffi.cdef, "int kill(int pid, int sig);")
pcall(ffi.cdef, "int getppid(void);")

c.dict = dict

-- nonce tells this dictionary from one of before a restart, or of a second
-- master. It runs in the master.
local function nonce()
    local f = assert(io.open("/dev/urandom", "rb"))
    local bytes = f:read(16)
    f:close()
    return (bytes:gsub(".", function(b) return string.format("%02x", b:byte()) end))
end

-- init runs in the master for each configuration that is loaded, also for one
-- that nginx gives up a moment later (a port is taken). So it only ever adds
-- what is newer, and deletes nothing.
function c.init(generation, peers)
    if not dict:get("boot") then
        dict:set("boot", nonce())
    end
    c.cycle = dict:incr("cycle", 1, 0)
    if generation > (dict:get("generation") or -1) then
        for service, value in pairs(peers) do
            assert(dict:safe_set("s1:" .. service, value))
        end
        dict:set("generation", generation)
        dict:incr("change", 1, 0)
    end
end

local function comm(pid)
    local f = io.open("/proc/" .. pid .. "/comm")
    if not f then
        return nil
    end
    local name = f:read("*l")
    f:close()
    return name
end

-- alive is false only for a process that surely is no worker any more: a
-- count that is thrown away in error would stop a container under a request.
local function alive(pid)
    if ffi.C.kill(tonumber(pid), 0) ~= 0 and ffi.errno() == 3 then -- ESRCH
        return false
    end
    local name, own = comm(pid), comm("self")
    return not name or not own or name == own
end
c.alive = alive

-- collect takes the counts of dead workers out. Each dead worker is collected
-- by one live one only.
function c.collect(keys)
    local dead = {}
    for _, key in ipairs(keys) do
        local pid = key:match("^f:(%d+):")
        if pid then
            if dead[pid] == nil then
                dead[pid] = not alive(pid) and (dict:safe_add("d:" .. pid, 1, 60) or false)
            end
            if dead[pid] then
                dict:delete(key)
            end
        else
            pid = key:match("^w:(%d+)$")
            if pid and not alive(pid) then
                dict:delete(key)
            end
        end
    end
end

function c.init_worker()
    local kind = require("ngx.process").type()
    if kind ~= "worker" and kind ~= "single" then
        return
    end
    -- Workers are forks of one master and would draw the same numbers.
    math.randomseed(ngx.now() * 1000 % 2 ^ 31 + ngx.worker.pid() * 7919)
    c.pid = ngx.worker.pid()

    -- A former worker of this number is gone, whatever it left.
    local own = "f:" .. c.pid .. ":"
    local keys = dict:get_keys(0)
    for _, key in ipairs(keys) do
        if key:sub(1, #own) == own then
            dict:delete(key)
        end
    end
    dict:delete("d:" .. c.pid)
    c.collect(keys)

    -- nginx ends pending timers early when a worker stops to take connections.
    dict:safe_set("w:" .. c.pid, c.cycle)
    local function watch(premature)
        if premature then
            dict:delete("w:" .. c.pid)
            c.leaving = true
            return
        end
        ngx.timer.at(86400, watch)
    end
    ngx.timer.at(86400, watch)
    ngx.timer.every(1, c.share)
end

-- load is what this worker has in flight at addr: n, as under its key; and what
-- has ended at the instance of that name since the others were told. There are
-- as many as the network of the containers has had addresses.
local loads = {}
function c.load(addr)
    local load = loads[addr]
    if not load then
        load = { key = "f:" .. c.pid .. ":" .. addr, n = 0, name = addr, requests = 0, errors = 0 }
        loads[addr] = load
    end
    return load
end

-- count adds by to a load. Only this worker writes the key. Nothing here may
-- evict.
function c.count(load, by)
    local n = dict:incr(load.key, by)
    if not n and by > 0 then
        local ok, err = dict:safe_add(load.key, by)
        if not ok then
            ngx.log(ngx.ERR, "conductor: count requests in flight: ", err)
            return false
        end
        n = by
    end
    load.n = n or 0
    return true
end

-- How many seconds the counts of an instance are kept after the last of them.
-- Whoever adds them up over time has to ask more often than that.
local KEPT_SECONDS = 3600

-- add adds to a count of all workers, of which another may be the first at the
-- same time. Nothing here may evict.
local function add(key, by)
    return (dict:incr(key, by) or dict:safe_add(key, by) or dict:incr(key, by))
        and dict:expire(key, KEPT_SECONDS)
end

-- tell has all workers know what ended at a load. What the dictionary has no
-- room for waits for the next time.
local function tell(load)
    if load.requests > 0 and add("r:" .. load.name, load.requests) then
        load.requests = 0
    end
    if load.errors > 0 and add("e:" .. load.name, load.errors) then
        load.errors = 0
    end
end

function c.share()
    for _, load in pairs(loads) do
        tell(load)
    end
end

-- ended counts a request that has ended at a load. A worker that leaves has no
-- timers any more.
function c.ended(load, status)
    load.requests = load.requests + 1
    if status >= 500 then
        load.errors = load.errors + 1
    end
    if c.leaving then
        tell(load)
    end
end

-- rename has what ends at a load from now on counted for another instance.
local function rename(load, name)
    if load.name ~= name then
        tell(load)
        load.name, load.requests, load.errors = name, 0, 0
    end
end

-- tidy deletes this worker's zeros; an address that is used again comes back.
local function tidy()
    for _, load in pairs(loads) do
        if load.n == 0 then
            dict:delete(load.key)
        end
    end
end

-- decode turns a service's value into peers, in classes of one weight each.
local function decode(raw)
    local set = { raw = raw, by_addr = {}, n = 0, total = 0, classes = {}, peers = {} }
    local by_weight = {}
    for name, addr, weight in raw:gmatch("([^%s@]+)@(%S+)%*(%d+)") do
        local host, port = addr:match("^%[?(.-)%]?:(%d+)$")
        weight = tonumber(weight)
        local class = by_weight[weight]
        if not class then
            class = { share = 0, peers = {} }
            by_weight[weight] = class
            table.insert(set.classes, class)
        end
        local peer = { addr = addr, host = host, port = tonumber(port), load = c.load(addr), bad = 0 }
        rename(peer.load, name)
        if host:find(":", 1, true) then
            peer.host = "[" .. host .. "]"
        end
        class.share = class.share + weight
        table.insert(class.peers, peer)
        table.insert(set.peers, peer)
        set.by_addr[addr] = peer
        set.n, set.total = set.n + 1, set.total + weight
    end
    set.turn = math.random(math.max(set.n, 1)) -- workers begin apart
    for _, class in ipairs(set.classes) do
        class.turn = math.random(#class.peers)
    end
    return set
end

local cache, seen = {}, nil

-- known returns them as this worker read them last.
function c.known(service)
    return cache[service] or c.peers(service)
end

-- peers returns the service's peers as the dictionary has them now. They are
-- read anew after each change; whoever changes them writes them first and the
-- counter then, so that an unchanged counter means unchanged peers.
function c.peers(service)
    local change = dict:get("change")
    if change ~= seen then
        seen = change
        for _, set in pairs(cache) do
            set.stale = true
        end
        tidy()
    end
    local set = cache[service]
    if set and not set.stale then
        return set
    end
    local raw = dict:get("s1:" .. service) or ""
    if set and set.raw == raw then
        set.stale = false
        return set
    end
    set = decode(raw)
    cache[service] = set
    return set
end
