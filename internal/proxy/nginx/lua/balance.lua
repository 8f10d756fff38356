-- The choice of a peer for each request, and the count of what is in flight.
--
-- The peer that a request is counted at is kept in an nginx variable and not
-- in ngx.ctx, which an error_page clears.
local c = ...

local ngx, balancer = ngx, require "ngx.balancer"
local dict = c.dict
local service_var, peer_var = c.service_var, c.peer_var
local random = math.random

-- How long a peer that refused a connection is passed over while others are
-- there; its supervisor takes it out of the set much sooner.
local BAD_SECONDS = 5
-- How long a connection may take, while another peer can be tried and at last.
-- A packet that the kernel drops (a full backlog) is sent again after 1 s.
local CONNECT_SECONDS, LAST_CONNECT_SECONDS = 1, 4

-- access answers for a service without peers, and sends a request with a body
-- on to the location that streams it.
function c.access(service, stream)
    if c.peers(service).n == 0 then
        ngx.status = 503
        ngx.header["Content-Type"] = "text/plain; charset=utf-8"
        ngx.header["Retry-After"] = "1"
        ngx.header["Cache-Control"] = "no-store"
        ngx.print("503: no instance of this service is running at the moment.\n")
        return ngx.exit(ngx.HTTP_OK)
    end
    if not stream then
        return
    end
    -- nginx does not try another peer once it has begun to send a request
    -- whose body is not buffered. A request without a body stays where it can
    -- be tried again.
    local method = ngx.req.get_method()
    if method == "GET" or method == "HEAD" then
        return
    end
    if method == "DELETE" or method == "OPTIONS" then
        local length = ngx.var.http_content_length
        if (not length or length == "0") and not ngx.var.http_transfer_encoding then
            return
        end
    end
    return ngx.exec(stream)
end

-- least returns the peer with the fewest requests in flight, a random one of
-- them where several have as few.
local function least(peers, tried, now)
    local best, low, ties = nil, nil, 0
    for i = 1, #peers do
        local peer = peers[i]
        if peer.bad <= now and not (tried and tried[peer.addr]) then
            local n = dict:get(peer.hint) or 0
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
    c.count(former, -1)
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

function c.balance()
    local var = ngx.var
    local service, former = var[service_var], var[peer_var]
    local set, tried, n = c.peers(service), nil, 1
    if former and former ~= "" then
        local attempt = again(var, former, set)
        tried, n = attempt.tried, attempt.n
    elseif set.n > 1 then
        balancer.set_more_tries(math.min(set.n - 1, 2))
    end

    -- Whoever takes a peer out writes the set first and reads the counts then.
    -- So count first and read the set then: if it is still the same, the count
    -- was seen.
    local peer
    for _ = 1, 10 do
        peer = pick(set, tried)
        if not peer or not c.count(peer.addr, 1) then
            return ngx.exit(502)
        end
        local now = c.peers(service)
        if now == set then
            break
        end
        c.count(peer.addr, -1)
        set, peer = now, nil
    end
    if not peer then
        return ngx.exit(502)
    end
    var[peer_var] = peer.addr

    if n < math.min(set.n, 3) then
        balancer.set_timeouts(CONNECT_SECONDS, nil, nil)
    elseif n > 1 then
        balancer.set_timeouts(LAST_CONNECT_SECONDS, nil, nil)
    end
    local ok, err = balancer.set_current_peer(peer.host, peer.port)
    if not ok then
        ngx.log(ngx.ERR, "conductor: set peer ", peer.addr, ": ", err)
        return ngx.exit(502)
    end
end

-- log runs once for each request that ends, however it ends.
function c.log()
    local peer = ngx.var[peer_var]
    if peer and peer ~= "" then
        c.count(peer, -1)
        ngx.var[peer_var] = ""
    end
end
