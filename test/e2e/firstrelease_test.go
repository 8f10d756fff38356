//go:build e2e

package e2e

import (
	"slices"
	"testing"
)

// A refused release is not tried again by converge, and a good one goes
// through after it.
func TestBadRelease_IsNotTriedAgain(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, nil)
	e.Image("bad", "EXIT_AT_START=1")
	before := e.IDs("shop")
	e.Upgrade("shop", "bad").Want(5)
	e.Conductor("service", "history", "--id", "shop").Want(0, "bad", "failed")
	e.Do("converge", "--id", "shop")
	if after := e.IDs("shop"); !slices.Equal(after, before) {
		t.Errorf("after converge, running containers were %v and are %v", before, after)
	}
	e.Upgrade("shop", "v2").Want(0)
	wantServes(t, addr, "v2")
}

// The first release of a service is bad: nothing serves, nothing is left.
func TestBadRelease_First(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Image("v1", "EXIT_AT_START=1")
	addr := e.Web("shop", nil)
	e.Upgrade("shop", "v1").Want(5, "exited 1")
	e.WantInstances("shop", map[string]int{})
	if a := get(addr, "/"); a.Err == nil && a.Status == 200 {
		t.Errorf("answers %s", a)
	}
	e.Images("v2")
	e.Upgrade("shop", "v2").Want(0)
	wantServes(t, addr, "v2")
}

// A migration that fails ends the upgrade before any instance of the new
// release is made; one that works runs once.
func TestBadRelease_Migration(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Image("v1")
	e.Image("v2", "MIGRATE_EXIT=4")
	e.Image("v3")
	addr := e.Web("shop", Def{"upgrade": "{drain_timeout: 2s, before: [/app, migrate]}"})
	e.Upgrade("shop", "v1").Want(0)
	before := e.IDs("shop")
	r := e.Upgrade("shop", "v2").Want(5, "migrating to v2")
	if r.Find("healthy") != nil {
		t.Errorf("an instance was started after the failed migration: %s", r)
	}
	if after := e.IDs("shop"); !slices.Equal(after, before) {
		t.Errorf("running containers were %v and are %v", before, after)
	}
	e.Upgrade("shop", "v3").Want(0)
	wantServes(t, addr, "v3")
}
