//go:build e2e

package e2e

import (
	"os"
	"slices"
	"strings"
	"testing"

	"conductor/test/load"
)

// The verbs, with an id as GoCardless writes them, under load where the
// service is meant to serve throughout.
func TestVerbs(t *testing.T) {
	t.Parallel()
	const id = "gocardless_app_production"
	e := New(t)
	e.Images("v1", "v2", "v3")
	addr := e.Web(id, nil)

	plan := e.Conductor("service", "upgrade", "--id", id, "--revision", "v1", "--plan").Want(0, "create", "route", "commit")
	if len(e.Containers("")) != 0 {
		t.Errorf("--plan did something: %s", plan)
	}
	e.Upgrade(id, "v1").Want(0)
	wantServes(t, addr, "v1")

	l := e.Load(load.Config{Addr: addr, Rate: 300})
	v1 := e.IDs(id)

	// Nothing to do: says so, does nothing.
	again := e.Upgrade(id, "v1").Want(0)
	if !slices.Equal(e.IDs(id), v1) || again.Find("created") != nil {
		t.Errorf("an upgrade to what is there replaced something: %s", again)
	}
	e.Conductor("service", "upgrade", "--id", id, "--revision", "v1").Want(0, "nothing")

	// A restart rolls: other containers, the same revision.
	e.Verb("restart", id).Want(0)
	if now := e.IDs(id); slices.ContainsFunc(now, func(i string) bool { return slices.Contains(v1, i) }) {
		t.Errorf("restart kept containers: %v → %v", v1, now)
	}
	e.WantInstances(id, map[string]int{"v1": 2})

	// Scale up and down, and back to the definition.
	e.Verb("scale", id, "--replicas", "4").Want(0)
	e.WantInstances(id, map[string]int{"v1": 4})
	e.Verb("scale", id, "--replicas", "1").Want(0)
	e.WantInstances(id, map[string]int{"v1": 1})
	e.Upgrade(id, "v2").Want(0) // the override outlives an upgrade
	e.WantInstances(id, map[string]int{"v2": 1})
	e.Verb("scale", id, "--replicas", "definition").Want(0)
	e.WantInstances(id, map[string]int{"v2": 2})

	// Roll back: one release, then one further.
	e.Upgrade(id, "v3").Want(0)
	e.Verb("rollback", id).Want(0)
	wantServes(t, addr, "v2")
	e.Verb("rollback", id).Want(0)
	wantServes(t, addr, "v1")
	e.Verb("rollback", id, "--revision", "v3").Want(0)
	wantServes(t, addr, "v3")

	// Changed policy is applied in place, a changed container part replaces.
	v3 := e.IDs(id)
	def := e.read("services/" + id + ".yml")
	e.Service(id, strings.Replace(def, "drain_timeout: 5s", "drain_timeout: 6s", 1))
	e.Upgrade(id, "v3").Want(0)
	if now := e.IDs(id); !slices.Equal(now, v3) {
		t.Errorf("a changed drain_timeout replaced containers: %v → %v", v3, now)
	}
	e.Service(id, strings.Replace(def, "{SERVICE:", "{MODE: '010', SERVICE:", 1))
	e.Conductor("service", "status", "--id", id).Want(0, "definition changed, not applied")
	e.Upgrade(id, "v3").Want(0)
	if now := e.IDs(id); slices.ContainsFunc(now, func(i string) bool { return slices.Contains(v3, i) }) {
		t.Errorf("a changed environment kept containers: %v → %v", v3, now)
	}
	e.NoFailures(l)

	// Stop: 503, and it stays stopped; start takes that back.
	e.Verb("stop", id).Want(0)
	e.WantInstances(id, map[string]int{})
	if a := get(addr, "/"); a.Status != 503 {
		t.Errorf("stopped, it answers %s, want 503", a)
	}
	e.Do("converge")
	e.WantInstances(id, map[string]int{})
	e.Verb("start", id).Want(0)
	wantServes(t, addr, "v3")
	e.WantInstances(id, map[string]int{"v3": 2})
	e.Verb("stop", id).Want(0)
	e.Upgrade(id, "v1").Want(0) // an upgrade starts a stopped service
	wantServes(t, addr, "v1")

	// A crashed instance is replaced by converge.
	e.Kill(e.IDs(id)[0])
	e.Do("converge", "--id", id)
	e.WantInstances(id, map[string]int{"v1": 2})

	e.Conductor("service", "list").Want(0, id, "v1", "2/2")
	e.Conductor("service", "status").Want(0, id, "v1", "healthy")
	e.Conductor("service", "history", "--id", id).Want(0, "upgrade", "rollback", "restart", "scale", "stop", "start")

	e.Verb("remove", id).Want(0)
	if cs := e.Containers(""); len(cs) != 0 {
		t.Errorf("remove left %d containers", len(cs))
	}
	if a := get(addr, "/"); a.Err == nil && a.Status == 200 {
		t.Errorf("removed, it answers %s", a)
	}
	e.Verb("remove", id).Want(0) // safe to run again
}

// A worker has no route; it is committed when it is healthy.
func TestVerbs_Worker(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1", "v2")
	e.Image("v3", "EXIT_AT_START=7")
	e.Service("worker", flow(Def{
		"image": e.Repo(), "command": "[/app, sleep]", "replicas": "2", "stop_grace_period": "2s",
		"health": "{command: [/app, fail], start_timeout: 2s}",
	}))
	e.Upgrade("worker", "v1").Want(5, "told to fail")
	e.Service("worker", flow(Def{
		"image": e.Repo(), "command": "[/app, sleep]", "replicas": "2", "stop_grace_period": "2s",
	}))
	e.Upgrade("worker", "v1").Want(0)
	e.WantInstances("worker", map[string]int{"v1": 2})
	e.Upgrade("worker", "v2").Want(0)
	e.WantInstances("worker", map[string]int{"v2": 2})
	e.Service("worker", flow(Def{"image": e.Repo(), "replicas": "2", "stop_grace_period": "2s"}))
	e.Upgrade("worker", "v3").Want(5, "exited 7")
	e.WantInstances("worker", map[string]int{"v2": 2})
}

// A definition that is gone makes an orphan: shown, never removed by itself.
func TestVerbs_Orphan(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, nil)
	must(t, os.Remove(e.Path("services/shop.yml")))
	e.Conductor("service", "status").Want(0, "orphan")
	e.Do("converge")
	wantServes(t, addr, "v1")
	e.Verb("remove", "shop").Want(0)
	e.WantInstances("shop", map[string]int{})
}
