//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"conductor/test/load"
)

// Not one request may fail while a service goes back and forth between two
// revisions: at a fixed rate and at saturation, GET and POST, over kept and new
// connections. These run alone: load that tests compete for says nothing.
func TestSwitch_DropsNothing(t *testing.T) {
	e := New(t)
	e.Images("v1", "v2")
	addr := e.Web("shop", nil)
	e.Do("service", "upgrade", "--id", "shop", "--revision", "v1")
	body := bytes.Repeat([]byte("0123456789abcdef"), 256)
	for _, rate := range []float64{2000, 0} {
		for _, method := range []string{"GET", "POST"} {
			for _, fresh := range []bool{false, true} {
				name := fmt.Sprintf("rate=%v/%s/new=%v", rate, method, fresh)
				t.Run(name, func(t *testing.T) {
					e := e.With(t)
					cfg := load.Config{Addr: addr, Rate: rate, Method: method, NewConnections: fresh, Duration: time.Hour}
					if method == "POST" {
						cfg.Path, cfg.Body, cfg.Echo = "/echo", body, true
					}
					l := e.Load(cfg)
					for i := range repeat(4, 50) {
						to := []string{"v2", "v1"}[i%2]
						e.Upgrade("shop", to).Want(0)
					}
					n := l.Good()
					eventually(t, 10*time.Second, "answers after the last switch", func() bool { return l.Good() > n+50 })
					r := e.NoFailures(l)
					if len(r.Revisions) != 2 {
						t.Errorf("revisions that answered: %+v", r.Revisions)
					}
					t.Logf("%s", r)
				})
			}
		}
	}
}

// The old release gets no request once the new one is proved to be routed.
func TestSwitch_OldReleaseGetsNothingAfterProof(t *testing.T) {
	e := New(t)
	e.Images("v1", "v2")
	addr := e.Web("shop", nil)
	e.Do("service", "upgrade", "--id", "shop", "--revision", "v1")
	l := e.Load(load.Config{Addr: addr, Rate: 1000, NewConnections: true})
	up := e.Upgrade("shop", "v2").Want(0)
	r := e.NoFailures(l)
	v1, _ := r.Revision("v1")
	v2, ok := r.Revision("v2")
	if !ok {
		t.Fatalf("v2 never answered:\n%s", r)
	}
	unrouted := up.Find("unrouted")
	// What was in flight at the proof may be answered after it.
	if after := v1.Last.Sub(unrouted.Time); after > 50*time.Millisecond {
		t.Errorf("v1 answered %s after it was proved out", after)
	}
	t.Logf("first answer of v2 %s before the proof", unrouted.Time.Sub(v2.First))
}
