//go:build e2e

package e2e

import (
	"testing"
)

// dockerd is restarted in the middle of an upgrade: it ends, or fails clearly,
// and the next run converges.
func TestEngine_RestartedDuringAnUpgrade(t *testing.T) {
	t.Parallel()
	e, d := newWithEngine(t)
	e.Images("v1", "v2")
	addr := e.Web("shop", nil)
	e.Upgrade("shop", "v1").Want(0)

	at := "v1"
	for _, event := range []string{"created", "started", "healthy", "routed", "drained", "stopped"} {
		to := map[string]string{"v1": "v2", "v2": "v1"}[at]
		up := e.Start("service", "upgrade", "--id", "shop", "--revision", to)
		up.Until(event, 1)
		d.Stop()
		d.Start()
		switch r := up.Wait(); r.Code {
		case 0:
		case 5, 8:
			if r.Result == nil || r.Result.Error == "" {
				t.Errorf("restarted after %s: it does not tell: %s", event, r)
			}
		default:
			t.Errorf("restarted after %s: neither the end nor a clear error: %s", event, r)
		}
		e.Do("converge")
		e.Upgrade("shop", to).Want(0)
		at = to
		wantServes(t, addr, at)
		e.WantInstances("shop", map[string]int{at: 2})
		if t.Failed() {
			t.Fatalf("at the restart after %s", event)
		}
	}
}

// The engine is gone for a while and comes back: nothing that conductor keeps
// says otherwise, and converge brings all back.
func TestEngine_Gone(t *testing.T) {
	t.Parallel()
	e, d := newWithEngine(t)
	e.Images("v1", "v2")
	addr := e.Web("shop", nil)
	e.Upgrade("shop", "v1").Want(0)
	d.Stop()
	e.Upgrade("shop", "v2").Want(8, d.Engine.Socket)
	e.Conductor("service", "status").WantOneOf(d.Engine.Socket)
	d.Start()
	e.Do("converge")
	wantServes(t, addr, "v1")
	e.WantInstances("shop", map[string]int{"v1": 2})
}
