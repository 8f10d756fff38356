-- What Conductor asks and tells the running nginx, over loopback.
--
-- GET answers what this nginx serves; POST sets the peers first. Both are
-- lines of words, so that neither side needs a parser:
--   POST: boot NONCE, generation N, service ID [PEERS], …, end
local c = ...

local ngx, dict = ngx, c.dict
local ffi = require "ffi"

local function fail(status, ...)
    ngx.status = status
    ngx.say(...)
    return ngx.exit(ngx.HTTP_OK)
end

-- authorized compares digests: what a guess has in common with the token is
-- not to be had from the time this takes.
local function authorized()
    local token = ngx.var.http_x_conductor_token
    return token ~= nil and ngx.encode_base64(ngx.sha1_bin(token)) == c.token
end

local function report()
    local keys = dict:get_keys(0)
    c.collect(keys)
    local out = {
        "boot " .. tostring(dict:get("boot")),
        "structure " .. c.structure,
        "generation " .. string.format("%d", dict:get("generation") or 0),
        "cycle " .. c.cycle,
        "master " .. ffi.C.getppid(),
    }
    local flight = {}
    for _, key in ipairs(dict:get_keys(0)) do
        local service = key:match("^s1:(.+)$")
        local addr = key:match("^f:%d+:(.+)$")
        local pid = key:match("^w:(%d+)$")
        local name = key:match("^r:(.+)$")
        if service then
            table.insert(out, "service " .. service .. " " .. (dict:get(key) or ""))
        elseif addr then
            flight[addr] = (flight[addr] or 0) + math.max(dict:get(key) or 0, 0)
        elseif pid then
            table.insert(out, "worker " .. pid .. " " .. tostring(dict:get(key)))
        elseif name then
            local requests, errors = dict:get(key) or 0, dict:get("e:" .. name) or 0
            table.insert(out, string.format("requests %s %d,%d", name, requests, errors))
        end
    end
    for addr, n in pairs(flight) do
        if n > 0 then
            table.insert(out, "flight " .. addr .. " " .. n)
        end
    end
    table.insert(out, "end")
    ngx.say(table.concat(out, "\n"))
end

local function set()
    ngx.req.read_body()
    local body = ngx.req.get_body_data() or ""
    local boot, generation = body:match("^boot (%x+)\ngeneration (%d+)\n")
    generation = tonumber(generation)
    if not boot or body:sub(-4) ~= "end\n" then
        return fail(400, "not understood")
    end
    if boot ~= dict:get("boot") then
        return fail(409, "nginx was restarted")
    end
    if generation < (dict:get("generation") or 0) then
        return fail(409, "a newer generation is set")
    end
    local wanted = {}
    for service, peers in body:gmatch("service (%S+) ([^\n]*)\n") do
        wanted["s1:" .. service] = peers
        local ok, err = dict:safe_set("s1:" .. service, peers)
        if not ok then
            return fail(507, err)
        end
    end
    for _, key in ipairs(dict:get_keys(0)) do
        if key:sub(1, 3) == "s1:" and not wanted[key] then
            dict:delete(key)
        end
    end
    dict:set("generation", generation)
    dict:incr("change", 1, 0)
end

function c.admin()
    if not authorized() then
        return fail(403, "no")
    end
    ngx.header["Content-Type"] = "text/plain"
    local method = ngx.req.get_method()
    if method == "POST" then
        set()
    elseif method ~= "GET" then
        return fail(405, "GET or POST")
    end
    report()
end
