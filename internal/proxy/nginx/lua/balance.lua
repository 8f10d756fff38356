-- The choice of a peer for each request, and the count of what is in flight.
--
-- The peer that a request is counted at is kept in an nginx variable and not
-- in ngx.ctx, which an error_page clears.
local c = ...

local ngx, balancer = ngx, require "ngx.balancer"
local service_var, peer_var = c.service_var, c.peer_var
local random = math.random

-- What stands for a peer where a service has none.
local NONE = "none"

-- How long a peer that refused a connection is passed over while others are
-- there; its supervisor takes it out of the set much sooner.
local BAD_SECONDS = 5
-- How long a connection to the last peer that is tried may take. A packet that
-- the kernel drops (a full backlog) is sent again after 1 s, so the others have
-- as long, in the configuration.
local LAST_CONNECT_SECONDS = 4

-- least returns the peer of a group at which this worker has the fewest
-- requests in flight. Each search begins one peer further, so that they take
-- turns where several have as few.
local function least(group, tried, now)
    local peers, best, low = group.peers, nil, nil
    local n, at = #peers, group.turn
    group.turn = at % math.max(n, 1) + 1
    for _ = 1, n do
        at = at % n + 1
        local peer = peers[at]
        if peer.bad <= now and not (tried and tried[peer.addr]) then
            local load = peer.load.n
            if not best or load < low then
                best, low = peer, load
            end
        end
    end
    return best
end

-- pick draws a weight by its share of all and takes its least busy peer, so
-- that a canary gets its share whatever is in flight.
local function pick(set, tried)
    local now = ngx.now()
    if #set.classes > 1 then
        local at = random(set.total)
        for _, class in ipairs(set.classes) do
            at = at - class.share
            if at <= 0 then
                local peer = least(class, tried, now)
                if peer then
                    return peer
                end
                break
            end
        end
    end
    return least(set, tried, now)
        or least(set, tried, math.huge)
        or least(set, nil, math.huge)
end

-- connected tells whether the attempt before this one got a connection. This
-- one has no place in the variable yet.
local function connected()
    local last
    for time in (ngx.var.upstream_connect_time or ""):gmatch("[^,: ]+") do
        last = time
    end
    return last ~= "-"
end

-- again prepares another attempt at a request: what was counted at its former
-- peer is taken back, and that peer is passed over.
local function again(var, former, set)
    var[peer_var] = ""
    c.count(c.load(former), -1)
    local ctx = ngx.ctx
    local attempt = ctx[c]
    if not attempt then
        attempt = { tried = {}, n = 1 }
        ctx[c] = attempt
    end
    attempt.n, attempt.tried[former] = attempt.n + 1, true
    local peer = set.by_addr[former]
    if peer and not connected() then
        peer.bad = ngx.now() + BAD_SECONDS
    end
    return attempt
end

-- choose counts the request at one of the service's peers and returns that
-- peer and the set that it is of; no peer where the set is empty. Whoever takes
-- a peer out writes the set first and reads the counts then. So this counts
-- first and looks at the set then: if it is still the same, the count was seen.
local function choose(service, tried)
    local set = c.known(service)
    for _ = 1, 10 do
        local peer = pick(set, tried)
        if peer and not c.count(peer.load, 1) then
            return nil, set
        end
        local now = c.peers(service)
        if now == set then
            return peer, set
        end
        if peer then
            c.count(peer.load, -1)
        end
        set = now
    end
    return nil, set
end

function c.balance()
    local var = ngx.var
    local service, former = var[service_var], var[peer_var]
    local tried, n = nil, 1
    if former and former ~= "" then
        local attempt = again(var, former, c.known(service))
        tried, n = attempt.tried, attempt.n
    end
    local peer, set = choose(service, tried)
    if not peer then
        if set.n == 0 then
            var[peer_var] = NONE
        end
        return ngx.exit(ngx.ERROR) -- 500, for which there is an error_page
    end
    var[peer_var] = peer.addr

    if n == 1 and set.n > 1 then
        balancer.set_more_tries(math.min(set.n - 1, 2))
    end
    if n >= math.min(set.n, 3) then
        balancer.set_timeouts(LAST_CONNECT_SECONDS, nil, nil)
    end
    local ok, err = balancer.set_current_peer(peer.host, peer.port)
    if not ok then
        ngx.log(ngx.ERR, "conductor: set peer ", peer.addr, ": ", err)
        return ngx.exit(ngx.ERROR)
    end
end

-- log runs once for each request that ends, however it ends.
function c.log()
    local peer = ngx.var[peer_var]
    if not peer or peer == "" then
        return
    end
    local load
    if peer == NONE then
        load = c.load(NONE .. "@" .. ngx.var[service_var])
    else
        load = c.load(peer)
        c.count(load, -1)
    end
    c.ended(load, ngx.status)
end
