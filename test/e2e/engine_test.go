//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
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

// The engine fails half-way in a removal: nobody is the worse for it, everybody is
// told, and once it can the next converge finishes it.
func TestEngine_RemovalFails(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1", "v2")
	addr := e.Web("shop", nil)
	e.Upgrade("shop", "v1").Want(0)
	stuck := e.Containers("shop")[0].Name()
	release := e.immovable(stuck)
	e.Upgrade("shop", "v2").Want(0, stuck, "takes up disk space", "operation not permitted")
	wantServes(t, addr, "v2")
	e.Conductor("service", "status", "--id", "shop").Want(0, "removing", "its removal failed")
	e.Conductor("converge").Want(0, stuck, "takes up disk space")
	e.Upgrade("shop", "v1").Want(0) // its name is not had twice
	wantServes(t, addr, "v1")
	e.WantInstances("shop", map[string]int{"v1": 2})
	release()
	e.Conductor("converge").Want(0, "removed", stuck)
	if n := len(e.Containers("shop")); n != 2 {
		t.Errorf("%d containers, want 2", n)
	}
	release = e.immovable(e.Containers("shop")[0].Name())
	e.Verb("remove", "shop").Want(1, "operation not permitted")
	release()
	e.Do("converge")
	if n := len(e.Containers("shop")); n != 0 {
		t.Errorf("%d containers, want none", n)
	}
}

// immovable puts a file into a container that nobody can delete, the engine no
// more than root, until release.
func (e *Env) immovable(container string) (release func()) {
	e.t.Helper()
	var c struct {
		GraphDriver struct{ Data struct{ UpperDir string } }
	}
	must(e.t, e.Engine.Do(e.ctx(), "GET", "/containers/"+container+"/json", nil, nil, &c))
	file := filepath.Join(c.GraphDriver.Data.UpperDir, "immovable")
	must(e.t, os.WriteFile(file, nil, 0o600))
	chattr := func(how string) {
		out, err := exec.Command("chattr", how, file).CombinedOutput()
		if err != nil {
			e.t.Errorf("chattr %s: %v: %s", how, err, out)
		}
	}
	chattr("+i")
	release = sync.OnceFunc(func() { chattr("-i") })
	e.t.Cleanup(release)
	return release
}
