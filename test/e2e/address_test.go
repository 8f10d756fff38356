//go:build e2e

package e2e

import (
	"testing"

	"conductor/test/load"
)

// A's container is dead and B is upgraded: Docker would give B the address that
// nginx still knows as A's. No request of A may reach B.
func TestAddress_FreedIsNotGivenToAnother(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1", "v2")
	a := e.Web("a", Def{"replicas": "1"})
	b := e.Web("b", Def{"replicas": "3"})
	e.Upgrade("a", "v1").Want(0)
	e.Upgrade("b", "v1").Want(0)

	answered := func(int) bool { return true } // A is dead: 502 and 503 are honest
	la := e.Load(load.Config{Addr: a, Rate: 200, Connections: 64, NewConnections: true, RevisionHeader: "X-Service", Good: answered})
	lb := e.Load(load.Config{Addr: b, Rate: 200, RevisionHeader: "X-Service"})
	id := e.IDs("a")[0]
	e.Kill(id)
	for i := range repeat(4, 20) {
		e.Upgrade("b", []string{"v2", "v1"}[i%2]).Want(0)
		if i == 0 {
			e.Engine.RemoveContainer(e.ctx(), id) // the address is free at last
		}
	}
	e.Do("converge", "--id", "a")
	rb := e.NoFailures(lb)
	ra := la.Stop()
	if v, ok := ra.Revision("b"); ok {
		t.Errorf("%d requests of a reached b:\n%s", v.Answers, ra)
	}
	if v, ok := rb.Revision("a"); ok {
		t.Errorf("%d requests of b reached a:\n%s", v.Answers, rb)
	}
	if x := get(a, "/"); x.Status != 200 || x.Header.Get("X-Service") != "a" {
		t.Errorf("a after converge: %s", x)
	}
}
