//go:build e2e

package e2e

import (
	"os"
	"slices"
	"testing"

	"conductor/test/load"
)

// serving is an installation whose shop runs v1, with v2 at hand.
func serving(t testing.TB, def Def) (e *Env, addr string) {
	t.Helper()
	e = New(t)
	e.Images("v1", "v2")
	addr = e.Web("shop", def)
	e.Upgrade("shop", "v1").Want(0)
	return e, addr
}

// unchanged runs f under load and fails the test if a request failed, or other
// containers run, or the goal is another afterwards.
func unchanged(e *Env, addr string, f func()) {
	e.t.Helper()
	ids, goal := e.IDs("shop"), e.read("state/goals/shop.json")
	l := e.Load(load.Config{Addr: addr, Rate: 200, NewConnections: true})
	f()
	e.NoFailures(l)
	wantServes(e.t, addr, "v1")
	if now := e.IDs("shop"); !slices.Equal(now, ids) {
		e.t.Errorf("running containers were %v and are %v", ids, now)
	}
	if now := e.read("state/goals/shop.json"); now != goal {
		e.t.Errorf("the goal changed:\n%s\nto:\n%s", goal, now)
	}
}

func (e *Env) read(name string) string {
	e.t.Helper()
	b, err := os.ReadFile(e.Path(name))
	must(e.t, err)
	return string(b)
}
