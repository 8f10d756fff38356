//go:build e2e

package nginx

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"conductor/internal/balancer"
	"conductor/internal/balancer/balancertest"
	"conductor/test/load"
)

// Under 1,000 requests a second hosts leave, are idle, come back and are
// swapped. Of requests on new connections none fails. One on a connection that
// is kept alive may meet its end, as nginx closes idle ones at a reload.
func TestSet_UnderLoad(t *testing.T) {
	for name, cfg := range map[string]load.Config{
		"NewConnections": {NewConnections: true},
		"POST":           {NewConnections: true, Method: "POST", Body: []byte("an order"), Echo: true},
		"KeptAlive":      {},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t)
			b := r.open(t)
			cfg.Addr, cfg.Rate = r.addr(), 1000
			l := load.Start(t.Context(), cfg)
			changes := 0
			for range 3 {
				for _, c := range []balancer.Change{
					{Drain: []string{"web1"}},
					{Admit: []string{"web1"}, Drain: []string{"web2", "web3"}},
					{Admit: []string{"web2"}, Drain: []string{"web1"}},
					{Admit: []string{"web1", "web3"}},
				} {
					change(t, r, b, l, c)
					changes++
				}
			}
			res := l.Stop()
			t.Logf("%d changes: %s", changes, res)
			// A change ends each of the 32 connections at most once.
			if res.OK < 1000 || cfg.NewConnections && res.Failed > 0 || res.Failed > int64(32*changes) {
				t.Errorf("%d of %d requests failed", res.Failed, res.Sent)
			}
			for why := range res.Reasons {
				if !strings.HasSuffix(why, ": reset") && !strings.HasSuffix(why, ": connection closed") {
					t.Errorf("requests failed otherwise than by the end of their connection: %s", why)
				}
			}
		})
	}
}

// change makes a change, and sees at the hosts themselves that those which are
// out are idle and get nothing, and those which are in get requests.
func change(t *testing.T, r *rig, b *Balancer, l *load.Running, c balancer.Change) {
	t.Helper()
	set(t, b, c)
	s := state(t, b)
	for h := range s {
		if !s[h].In {
			balancertest.Wait(t, h+" is idle", func() bool { return state(t, b)[h].Sessions == 0 })
		}
	}
	before := map[string]int64{}
	for _, w := range r.webs {
		before[w.Name] = w.Requests()
	}
	good := l.Good()
	balancertest.Wait(t, "100 more requests are answered", func() bool { return l.Good() >= good+100 })
	for _, w := range r.webs {
		if s[w.Name].In {
			balancertest.Wait(t, w.Name+" takes requests", func() bool { return w.Requests() > before[w.Name] })
		} else if n := w.Requests() - before[w.Name]; n > 0 {
			t.Errorf("%s: %s is out and idle, and got %d requests", c, w.Name, n)
		}
	}
}

// nginx does not count by host. But when no process runs that ever sent
// requests to a host, none are in flight there.
func TestSessions_AreNoneWhenNoProcessIsLeftThatSentAny(t *testing.T) {
	r := start(t)
	b := r.open(t)
	if s := state(t, b)["web1"]; s.Sessions != -1 || s.Requests != -1 {
		t.Errorf("web1 is %+v, want that it cannot tell", s)
	}
	set(t, b, balancer.Change{Drain: []string{"web2", "web3"}})
	ws, err := net.Dial("tcp", r.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	ws.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprint(ws, "GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	buf := bufio.NewReader(ws)
	if res, err := http.ReadResponse(buf, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v, %v", res, err)
	}
	set(t, b, balancer.Change{Admit: []string{"web2"}, Drain: []string{"web1"}})
	if s := state(t, b)["web1"]; s.In || s.Sessions != -1 {
		t.Errorf("web1, at which a WebSocket is, is %+v", s)
	}
	fmt.Fprint(ws, "hello")
	if _, err := io.ReadFull(buf, make([]byte, 5)); err != nil {
		t.Errorf("the WebSocket was cut: %v", err)
	}
	ws.Close()
	balancertest.Wait(t, "web1 is idle", func() bool { return state(t, b)["web1"].Sessions == 0 })
}
