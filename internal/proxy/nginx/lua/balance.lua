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
-- How long a connection may take, while another peer can be tried and at last.
-- A packet that the kernel drops (a full backlog) is sent again after 1 s.
local CONNECT_SECONDS, LAST_CONNECT_SECONDS = 1, 4

-- least returns the peer at which this worker has the fewest requests in
-- flight, a random one of them where several have as few.
local function least(peers, tried, now)
    local best, low, ties = nil, nil, 0
    for i = 1, #peers do
        local peer = peers[i]
        if peer.bad <= now and not (tried and tried[peer.addr]) then
            local n = peer.load.n
            if not best or n < low then
                best, low, ties = peer, n, 1
            elseif n == low then
                ties = ties + 1
                if random(ties) == 1 then
                    best = peer
                end
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
                local peer = least(class.peers, tried, now)
                if peer then
                    return peer
                end
                break
            end
        end
    end
    return least(set.peers, tried, now)
        or least(set.peers, tried, math.huge)
        or least(set.peers, nil, math.huge)
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
    if n < math.min(set.n, 3) then
        balancer.set_timeouts(CONNECT_SECONDS, nil, nil)
    elseif n > 1 then
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
    if peer and peer ~= "" and peer ~= NONE then
        c.count(c.load(peer), -1)
    end
end
