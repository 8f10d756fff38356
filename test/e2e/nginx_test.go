//go:build e2e

package e2e

import (
	"testing"
	"time"

	"conductor/test/load"
)

// A restarted nginx serves the proved set by itself: nobody tells it.
func TestNginx_RestartedServesTheProvedSet(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, nil)
	e.Upgrade("shop", "v2").Want(0) // since then the running nginx has another set than at its last reload
	for name, restart := range map[string]func(){
		"kill -9":  e.Nginx.Kill,
		"stop":     e.Nginx.Stop,
		"no event": func() {},
	} {
		restart()
		if name != "no event" {
			e.Nginx.Start()
		}
		if a := get(addr, "/"); a.Status != 200 || a.Revision != "v2" {
			t.Errorf("after %s and a start: %s", name, a)
		}
	}
	l := e.Load(load.Config{Addr: addr, Rate: 200, NewConnections: true})
	e.Nginx.Reload()
	e.Upgrade("shop", "v1").Want(0)
	e.NoFailures(l)
	wantServes(t, addr, "v1")
}

// nginx goes while an upgrade is at each of its steps.
func TestNginx_DiesDuringAnUpgrade(t *testing.T) {
	t.Parallel()
	for _, event := range []string{"created", "started", "healthy", "configured", "routed", "unrouted", "drained", "stopped"} {
		t.Run(event, func(t *testing.T) {
			t.Parallel()
			e, addr := serving(t, nil)
			up := e.Start("service", "upgrade", "--id", "shop", "--revision", "v2")
			up.Until(event, 1)
			e.Nginx.Kill()
			e.Nginx.Start()
			r := up.Wait()
			want := "v1"
			switch r.Code {
			case 0:
				want = "v2"
			case 6, 8:
				r.WantOneOf("nginx", "proxy")
			default:
				t.Errorf("neither the end nor a clear failure: %s", r)
			}
			wantServes(t, addr, want)
			if t.Failed() {
				t.Logf("%s", r)
			}
			// Whatever came of it, the next command ends well.
			e.Upgrade("shop", "v2").Want(0)
			wantServes(t, addr, "v2")
			e.WantInstances("shop", map[string]int{"v2": 2})
		})
	}
}

// A reload by hand in the middle of an upgrade loses nothing.
func TestNginx_ReloadedDuringAnUpgrade(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, nil)
	l := e.Load(load.Config{Addr: addr, Rate: 300, NewConnections: true})
	for i, event := range []string{"created", "healthy", "routed", "unrouted", "stopped"} {
		to := []string{"v2", "v1"}[i%2]
		up := e.Start("service", "upgrade", "--id", "shop", "--revision", to)
		up.Until(event, 1)
		e.Nginx.Reload()
		up.Wait().Want(0)
		wantServes(t, addr, to)
	}
	e.NoFailures(l)
}

// The machine's nginx configuration is changed by hand in between: conductor's
// part stays as it is.
func TestNginx_OwnFileDamaged(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, nil)
	l := e.Load(load.Config{Addr: addr, Rate: 200, NewConnections: true})
	e.write("nginx/conf.d/conductor.conf", "# emptied by mistake\n")
	e.Upgrade("shop", "v2").Want(0)
	e.NoFailures(l)
	wantServes(t, addr, "v2")
	e.Nginx.Stop()
	e.Nginx.Start()
	eventually(t, 5*time.Second, "nginx serves v2 from its file", func() bool { return get(addr, "/").Revision == "v2" })
}
