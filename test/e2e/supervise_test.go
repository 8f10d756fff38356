//go:build e2e

package e2e

import (
	"syscall"
	"testing"
	"time"

	"conductor/test/load"
)

// Supervise starts the supervisor, and waits until it looks after everything.
func (e *Env) Supervise() *Proc {
	e.t.Helper()
	return e.Start("supervise")
}

// kill kills the process of the n-th live instance of the service, and returns
// its container.
func (e *Env) killOne(id string) string {
	e.t.Helper()
	for _, c := range e.Containers(id) {
		if c.State == "running" {
			pid := e.pid(c.ID)
			must(e.t, syscall.Kill(pid, syscall.SIGKILL))
			return c.ID
		}
	}
	e.t.Fatalf("%s has no live instance", id)
	return ""
}

// pid is the process that a container's init is.
func (e *Env) pid(container string) int {
	e.t.Helper()
	var c struct{ State struct{ Pid int } }
	must(e.t, e.Engine.Do(e.ctx(), "GET", "/containers/"+container+"/json", nil, nil, &c))
	return c.State.Pid
}

// One of two replicas is killed under load: it is replaced at once, and nothing
// fails but what the killed process had in hand.
func TestSupervise_ReplacesWhatDies(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, Def{"replicas": "2"})
	p := e.Supervise()
	l := e.Load(load.Config{Addr: addr, Rate: 1000})
	for n := range 3 {
		began := time.Now()
		dead := e.killOne("shop")
		eventually(t, 20*time.Second, "2 replicas serve again", func() bool {
			live := 0
			for _, c := range e.Containers("shop") {
				if c.State == "running" && c.ID != dead {
					live++
				}
			}
			return live == 2
		})
		t.Logf("kill %d: 2 replicas run again after %s", n+1, time.Since(began).Round(time.Millisecond))
	}
	r := l.Stop()
	t.Logf("%s", r)
	if r.Failed > 3*32 {
		t.Errorf("%d requests failed", r.Failed)
	}
	e.Conductor("service", "history", "--id", "shop").Want(0, "supervisor", "killed by SIGKILL")
	p.Signal(syscall.SIGTERM)
	began := time.Now()
	p.Wait().Want(0)
	within(t, time.Second, time.Since(began), "its end")
	e.WantInstances("shop", map[string]int{"v1": 2})
}
