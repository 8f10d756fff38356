//go:build e2e

package haproxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"conductor/internal/balancer"
	"conductor/internal/balancer/balancertest"
	"conductor/test/load"
)

func get(t *testing.T, addr string) string {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	res, err := c.Get("http://" + addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v", res.StatusCode, err)
	}
	return string(body)
}

// Under 1,000 requests a second hosts leave, are idle, come back and are
// swapped, and no request fails. Nobody in would be answered with 503.
func TestSet_UnderLoadLosesNothing(t *testing.T) {
	for name, cfg := range map[string]load.Config{
		"KeptAlive":      {},
		"NewConnections": {NewConnections: true},
		"POST":           {Method: "POST", Body: []byte("an order"), Echo: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t)
			b := r.open(t)
			cfg.Addr, cfg.Rate = r.addr(), 1000
			l := load.Start(t.Context(), cfg)
			for range 3 {
				change(t, r, b, l, balancer.Change{Drain: []string{"web1"}})
				change(t, r, b, l, balancer.Change{Admit: []string{"web1"}, Drain: []string{"second", "web3"}})
				change(t, r, b, l, balancer.Change{Admit: []string{"second"}, Drain: []string{"web1"}})
				change(t, r, b, l, balancer.Change{Admit: []string{"web1", "web3"}})
				change(t, r, b, l, balancer.Change{Away: []string{"web3"}})
				change(t, r, b, l, balancer.Change{Admit: []string{"web3"}})
			}
			res := l.Stop()
			t.Logf("18 changes: %s", res)
			if res.Failed > 0 || res.OK < 1000 {
				t.Error("requests failed, or were not sent")
			}
		})
	}
}

// change makes a change, and sees at the hosts themselves that those which are
// out are idle and get nothing, and those which are in get requests.
func change(t *testing.T, r *rig, b *Balancer, l *load.Running, c balancer.Change) {
	t.Helper()
	set(t, b, c)
	var in, out []*balancertest.Web
	s := state(t, b)
	for i, h := range []string{"web1", "second", "web3"} {
		if s[h].In {
			in = append(in, r.webs[i])
			continue
		}
		out = append(out, r.webs[i])
		balancertest.Wait(t, h+" is idle", func() bool { return state(t, b)[h].Sessions == 0 })
	}
	before := map[*balancertest.Web]int64{}
	for _, w := range r.webs {
		before[w] = w.Requests()
	}
	good := l.Good()
	balancertest.Wait(t, "100 more requests are answered", func() bool { return l.Good() >= good+100 })
	for _, w := range out {
		if n := w.Requests() - before[w]; n > 0 {
			t.Errorf("%s: %s is out and idle, and got %d requests", c, w.Name, n)
		}
	}
	for _, w := range in {
		balancertest.Wait(t, w.Name+" takes requests", func() bool { return w.Requests() > before[w] })
	}
	for h, now := range state(t, b) {
		if now.In && now.Requests <= s[h].Requests {
			balancertest.Wait(t, "HAProxy counts requests to "+h, func() bool { return state(t, b)[h].Requests > s[h].Requests })
		}
	}
}

func TestSessions_AreWhatIsInFlight(t *testing.T) {
	r := start(t)
	b := r.open(t)
	set(t, b, balancer.Change{Drain: []string{"second", "web3"}}) // all to web1
	sessions := func() int { return state(t, b)["web1"].Sessions }
	await := func(what string, n int) {
		t.Helper()
		balancertest.Wait(t, fmt.Sprintf("%s: %d in flight", what, n), func() bool { return sessions() == n })
	}

	kept := dial(t, r.addr())
	fmt.Fprint(kept, "GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
	answered(t, kept)
	await("a connection that is kept alive without a request", 0)

	slow := dial(t, r.addr())
	fmt.Fprint(slow, "GET /slow HTTP/1.1\r\nHost: shop\r\n\r\n")
	await("a request that is not answered yet", 1)
	ws := dial(t, r.addr())
	fmt.Fprint(ws, "GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	if res, err := http.ReadResponse(bufio.NewReader(ws), nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v, %v", res, err)
	}
	await("and a WebSocket", 2)

	set(t, b, balancer.Change{Admit: []string{"second"}, Drain: []string{"web1"}})
	await("both go on when their host is out", 2)
	fmt.Fprint(ws, "hello")
	if _, err := io.ReadFull(ws, make([]byte, 5)); err != nil {
		t.Errorf("the WebSocket was cut: %v", err)
	}
	r.webs[0].Release()
	answered(t, slow)
	await("the request was answered", 1)
	fmt.Fprint(kept, "GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
	if who := answered(t, kept); who != "web2" {
		t.Errorf("the connection that was kept alive is answered by %s, want web2", who)
	}
	ws.Close()
	await("the WebSocket was closed", 0)
}

// What the package says of clients that are bound to a server.
func TestDrain_LeavesBoundClientsWhereTheyAre(t *testing.T) {
	r := start(t)
	conf := balancertest.HAProxyConf(r.port, nil, "cookie SRV insert indirect")
	for _, w := range r.webs {
		conf += fmt.Sprintf("    server %s %s check inter 100ms cookie %s\n", w.Name, w.Addr, w.Name)
	}
	r.WriteConf(conf)
	r.Reload()
	b := r.open(t)
	bound := func() string {
		c := dial(t, r.addr())
		defer c.Close()
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: shop\r\nCookie: SRV=web1\r\n\r\n")
		return answered(t, c)
	}
	set(t, b, balancer.Change{Drain: []string{"web1"}})
	for range 5 {
		if who := get(t, r.addr()); who == "web1" {
			t.Error("a client that is not bound is sent to web1")
		}
		if who := bound(); who != "web1" {
			t.Errorf("a bound client is sent to %s", who)
		}
	}
	set(t, b, balancer.Change{Away: []string{"web1"}})
	if who := bound(); who == "web1" {
		t.Error("a bound client is sent to web1, which is away")
	}
}

// Clients that ask without a pause never find nobody in while halves are
// swapped, over new connections and over those that are kept alive.
func TestSwap_NobodyIsOutAtAnyInstant(t *testing.T) {
	for name, fresh := range map[string]bool{"KeptAlive": false, "NewConnections": true} {
		t.Run(name, func(t *testing.T) {
			r := start(t)
			b := r.open(t)
			set(t, b, balancer.Change{Drain: []string{"web1"}})
			l := load.Start(t.Context(), load.Config{Addr: r.addr(), Connections: 8, NewConnections: fresh})
			for range 30 {
				set(t, b, balancer.Change{Admit: []string{"web1"}, Drain: []string{"second", "web3"}})
				set(t, b, balancer.Change{Admit: []string{"second", "web3"}, Drain: []string{"web1"}})
			}
			if res := l.Stop(); res.Failed > 0 || res.OK < 100 {
				t.Errorf("60 swaps: %s", res)
			}
		})
	}
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

func answered(t *testing.T, c net.Conn) string {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v", res.StatusCode, err)
	}
	return string(body)
}
