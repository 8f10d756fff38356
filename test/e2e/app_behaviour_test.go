//go:build e2e

package e2e

import (
	"testing"
	"time"

	"conductor/test/load"
)

// Applications end as they like; no request is lost over it.
func TestApp_HowItEnds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, onTerm string
		grace        time.Duration
		least, most  time.Duration // from drained to stopped
	}{
		{"exits at once on SIGTERM", "exit", 5 * time.Second, 0, 3 * time.Second},
		{"ends gracefully", "graceful", 5 * time.Second, 0, 4 * time.Second},
		{"ignores SIGTERM and is killed after its grace", "ignore", 2 * time.Second, 2 * time.Second, 5 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := New(t)
			e.Image("v1", "ON_TERM="+tt.onTerm)
			e.Image("v2", "ON_TERM="+tt.onTerm)
			addr := e.Web("shop", Def{"stop_grace_period": tt.grace.String()})
			e.Upgrade("shop", "v1").Want(0)
			l := e.Load(load.Config{Addr: addr, Rate: 300})
			for _, to := range []string{"v2", "v1"} {
				r := e.Upgrade("shop", to).Want(0)
				took := r.Find("stopped").Time.Sub(r.Find("drained").Time)
				if took < tt.least-100*time.Millisecond || took > tt.most {
					t.Errorf("stopping took %s, want %s to %s", took, tt.least, tt.most)
				}
			}
			e.NoFailures(l)
			e.WantInstances("shop", map[string]int{"v1": 2})
		})
	}
}

// A slow start is waited for; the old release serves meanwhile.
func TestApp_StartsSlowly(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Image("v1")
	e.Image("v2", "START_DELAY=20s")
	addr := e.Web("shop", Def{"health": "{path: /health, start_timeout: 60s}"})
	e.Upgrade("shop", "v1").Want(0)
	l := e.Load(load.Config{Addr: addr, Rate: 200})
	r := e.Upgrade("shop", "v2").Want(0)
	if r.Took < 20*time.Second || r.Took > 20*time.Second+e.allow(6*time.Second) {
		t.Errorf("the upgrade to a release that needs 20 s took %s", r.Took)
	}
	e.NoFailures(l)
	wantServes(t, addr, "v2")
}

// It listens and answers /health with 503 for a while: nothing is sent to it
// until it is well.
func TestApp_HealthComesLate(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Image("v1")
	e.Image("v2", "HEALTH_DELAY=2s")
	addr := e.Web("shop", nil)
	e.Upgrade("shop", "v1").Want(0)
	l := e.Load(load.Config{Addr: addr, Rate: 300})
	r := e.Upgrade("shop", "v2").Want(0)
	res := e.NoFailures(l)
	healthy := r.Find("healthy")
	if v2, _ := res.Revision("v2"); v2.First.Before(healthy.Time) {
		t.Errorf("v2 answered a request %s before it was healthy", healthy.Time.Sub(v2.First))
	}
}
