//go:build e2e

package e2e

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"conductor/test/load"
)

// shop writes shop's definition with the address that it has, and def over it.
func (e *Env) shop(addr string, def Def) {
	e.t.Helper()
	d := Def{"http": "{port: 8080, listen: '" + addr + "'}"}
	maps.Copy(d, def)
	e.Web("shop", d)
}

// environment is what a container was made with.
func (e *Env) environment(id string) string {
	e.t.Helper()
	var c struct{ Config struct{ Env []string } }
	must(e.t, e.Engine.Do(e.ctx(), "GET", "/containers/"+id+"/json", nil, nil, &c))
	return strings.Join(c.Config.Env, "\n")
}

// status is what `service status` tells programs of one service.
func (e *Env) status(id string) (s struct {
	State, Revision, Candidate string
	Replicas, Healthy          int
	Override                   bool
	Kept, Notes                []string
	Instances                  []struct{ Name, Health, State, Route string }
}) {
	e.t.Helper()
	r := e.Conductor("--output", "json", "service", "status", "--id", id).Want(0)
	all := []any{&s}
	must(e.t, json.Unmarshal([]byte(r.Stdout), &all))
	return s
}

// Policy is applied in place, by upgrade and by converge; a candidate that
// fails leaves the one before.
func TestGoal_PolicyIsAppliedInPlace(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, nil)
	e.Image("bad", "EXIT_AT_START=1")
	ids := e.IDs("shop")
	l := e.Load(load.Config{Addr: addr, Rate: 200})

	e.shop(addr, Def{"replicas": "3", "retain": "2", "health": "{path: /, interval: 1s}"})
	if s := e.status("shop"); !strings.Contains(strings.Join(s.Notes, "\n"), "definition changed, not applied: health, replicas, retain") {
		t.Errorf("status does not tell what has changed: %q", s.Notes)
	}
	before := e.Snapshot()
	e.Upgrade("shop", "bad").Want(5)
	e.Unchanged(before)

	e.Do("converge", "--id", "shop")
	e.wantKept("shop", ids)
	e.WantInstances("shop", map[string]int{"v1": 3})
	if s := e.status("shop"); len(s.Notes) > 0 || s.Replicas != 3 {
		t.Errorf("status after converge: %+v", s)
	}
	e.shop(addr, Def{"replicas": "1", "upgrade": "{drain_timeout: 1s}"})
	r := e.Upgrade("shop", "v1").Want(0)
	if r.Find("created") != nil {
		t.Errorf("a changed policy made an instance: %s", r)
	}
	e.WantInstances("shop", map[string]int{"v1": 1})
	e.NoFailures(l)
}

// wantKept fails the test unless the containers still run.
func (e *Env) wantKept(service string, ids []string) {
	e.t.Helper()
	now := e.IDs(service)
	for _, id := range ids {
		if !slices.Contains(now, id) {
			e.t.Errorf("container %.12s was replaced: %v", id, e.Snapshot().Containers)
		}
	}
}

// The container part replaces, at the same revision, without a failed request.
func TestGoal_ChangedContainerPartReplacesAtTheSameRevision(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, nil)
	ids := e.IDs("shop")
	l := e.Load(load.Config{Addr: addr, Rate: 200})
	e.shop(addr, Def{"environment": "{SERVICE: shop, MODE: '010'}"})
	if s := e.status("shop"); !strings.Contains(strings.Join(s.Notes, "\n"), "definition changed, not applied: environment (upgrade applies it)") {
		t.Errorf("status does not tell what has changed: %q", s.Notes)
	}
	// converge is no upgrade: it leaves instances as they are.
	e.Do("converge")
	e.wantKept("shop", ids)
	e.Upgrade("shop", "v1").Want(0)
	for _, id := range e.IDs("shop") {
		if slices.Contains(ids, id) || !strings.Contains(e.environment(id), "MODE=010") {
			t.Errorf("container %.12s does not have the new environment", id)
		}
	}
	e.NoFailures(l)
}

// A rollback takes the release as it was, with its own container part, and
// today's policy; again: one further back.
func TestGoal_Rollback(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1", "v2", "v3", "v4")
	e.Image("bad", "EXIT_AT_START=1")
	addr := e.Web("shop", nil)
	if r := e.Verb("rollback", "shop").Want(2, "never deployed"); r.Result.Hint == "" {
		t.Errorf("no hint: %s", r)
	}
	for _, v := range []string{"v1", "v2", "v3"} {
		e.shop(addr, Def{"environment": "{SERVICE: shop, SETTING: of-" + v + "}"})
		e.Upgrade("shop", v).Want(0)
	}
	e.Upgrade("shop", "bad").Want(5) // was never committed: no rollback goes there
	e.shop(addr, Def{"environment": "{SERVICE: shop, SETTING: of-today}", "replicas": "1"})
	if s := e.status("shop"); !slices.Equal(s.Kept, []string{"v2", "v1"}) {
		t.Errorf("kept %v", s.Kept)
	}
	l := e.Load(load.Config{Addr: addr, Rate: 200})
	for _, want := range []string{"v2", "v1"} {
		e.Verb("rollback", "shop").Want(0)
		wantServes(t, addr, want)
		ids := e.IDs("shop")
		if len(ids) != 1 {
			t.Errorf("%d instances, want today's 1 replica", len(ids))
		}
		if env := e.environment(ids[0]); !strings.Contains(env, "SETTING=of-"+want) {
			t.Errorf("the environment is not the release's own: %s", env)
		}
	}
	before := e.Snapshot()
	r := e.Verb("rollback", "shop").Want(2, "no release before v1 is kept")
	if r.Result.Hint == "" {
		t.Errorf("no hint: %s", r)
	}
	e.Verb("rollback", "shop", "--revision", "v9").Want(2, "v9", "service status --id shop")
	e.Unchanged(before)
	e.Verb("rollback", "shop", "--revision", "v3").Want(0)
	wantServes(t, addr, "v3")
	before = e.Snapshot()
	e.Verb("rollback", "shop", "--revision", "v3").Want(0) // again: it is there already
	e.Unchanged(before)
	e.Upgrade("shop", "v4").Want(0)
	// v2 was left by a rollback that stands: it is no place to go back to. v1
	// was left for a release that a rollback had left before.
	if s := e.status("shop"); !slices.Equal(s.Kept, []string{"v3", "v1"}) {
		t.Errorf("kept %v, want v3 and v1", s.Kept)
	}
	e.NoFailures(l)

	// The image of a kept release was taken away by hand: nothing is changed.
	before = e.Snapshot()
	var images []string
	for _, tag := range before.Tags {
		if strings.HasSuffix(tag, ":v3") {
			images = append(images, tag)
		}
	}
	if len(images) != 1 {
		t.Fatalf("images %v", before.Tags)
	}
	must(t, e.Engine.RemoveImage(e.ctx(), images[0]))
	e.Verb("rollback", "shop").Want(0) // its own tag keeps it
	wantServes(t, addr, "v3")
}

// A scale outlives upgrades and converge until it is taken back; to none is a
// scale too.
func TestGoal_Scale(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, nil)
	ids := e.IDs("shop")
	l := e.Load(load.Config{Addr: addr, Rate: 200})
	e.Verb("scale", "shop", "--replicas", "4").Want(0)
	e.wantKept("shop", ids)
	e.Do("converge")
	e.WantInstances("shop", map[string]int{"v1": 4})
	e.Upgrade("shop", "v2").Want(0)
	e.WantInstances("shop", map[string]int{"v2": 4})
	if s := e.status("shop"); !s.Override || s.Replicas != 4 || s.Healthy != 4 {
		t.Errorf("status: %+v", s)
	}
	e.Verb("scale", "shop", "--replicas", "definition").Want(0)
	e.WantInstances("shop", map[string]int{"v2": 2})
	e.NoFailures(l)

	e.Verb("scale", "shop", "--replicas", "0").Want(0)
	e.WantInstances("shop", map[string]int{})
	if a := get(addr, "/"); a.Status != 503 {
		t.Errorf("scaled to none, it answers %s, want 503", a)
	}
	e.Do("converge")
	e.WantInstances("shop", map[string]int{})
	e.Verb("scale", "shop", "--replicas", "-1").Want(2, "--replicas")
	e.Verb("scale", "shop", "--replicas", "definition").Want(0)
	e.WantInstances("shop", map[string]int{"v2": 2})
	wantServes(t, addr, "v2")
	if s := e.status("shop"); s.Override {
		t.Errorf("status: %+v", s)
	}
}

// converge brings back what somebody took away, and nothing else.
func TestGoal_Converge(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, nil)
	other := e.Web("other", nil)
	e.Upgrade("other", "v1").Want(0)
	twice := func() {
		t.Helper()
		e.Do("converge")
		before := e.Snapshot()
		if r := e.Do("converge"); len(r.Events) != 1 {
			t.Errorf("the second converge did something: %s", r)
		}
		e.Unchanged(before)
		e.WantInstances("shop", map[string]int{"v1": 2})
		wantServes(t, addr, "v1")
	}
	twice()
	kept := e.IDs("other")

	e.Kill(e.IDs("shop")[0])
	twice()
	must(t, e.Engine.RemoveContainer(e.ctx(), e.IDs("shop")[1]))
	twice()
	for _, c := range e.Containers("shop") {
		must(t, e.Engine.RemoveContainer(e.ctx(), c.ID))
	}
	twice()
	for _, id := range e.IDs("shop") {
		must(t, e.Engine.Do(e.ctx(), "POST", "/containers/"+id+"/stop", nil, nil, nil))
	}
	twice()

	// The proxy's file: by hand, by accident.
	conf := e.Nginx.ConfD() + "/conductor.conf"
	must(t, os.Remove(conf))
	twice()
	must(t, os.WriteFile(conf, []byte("# edited\n"), 0o644))
	e.Nginx.Reload()
	eventually(t, 5*time.Second, "nginx has read the file", func() bool { return get(addr, "/").Err != nil })
	twice()
	wantServes(t, other, "v1")
	e.wantKept("other", kept)

	// A first deploy that failed is nothing to converge to.
	e.Image("bad", "EXIT_AT_START=1")
	e.Web("late", nil)
	e.Upgrade("late", "bad").Want(5)
	twice()
	e.Conductor("converge", "--id", "late").Want(2, "never deployed")
	e.Conductor("converge", "--id", "nobody").Want(3, "nobody")
}

// The command before an upgrade runs once for a release: not for each replica,
// not again when the upgrade was killed after it, nor for the same release.
func TestGoal_BeforeRunsOnce(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1", "v2")
	e.Image("v3", "MIGRATE_EXIT=4")
	addr := e.Web("shop", Def{"upgrade": "{drain_timeout: 2s, before: [/app, migrate]}", "replicas": "3"})
	befores := func(r Run) (n int) {
		for _, ev := range r.Events {
			if ev.Event == "created" && strings.HasSuffix(ev.Instance, "-before") {
				n++
			}
		}
		return n
	}
	first := e.Upgrade("shop", "v1").Want(0)
	if n := befores(first); n != 1 || first.Events[0].Event != "created" || !strings.HasSuffix(first.Events[0].Instance, "-before") {
		t.Errorf("upgrade.before ran %d times, or not first: %s", n, first)
	}
	if n := befores(e.Upgrade("shop", "v1").Want(0)); n != 0 {
		t.Errorf("it ran again for the same release")
	}
	l := e.Load(load.Config{Addr: addr, Rate: 200})
	note := slices.Index(first.Names(), "note")
	killed := e.StartKilled(note+1, "service", "upgrade", "--id", "shop", "--revision", "v2").Wait()
	if killed.Code != -1 || befores(killed) != 1 {
		t.Fatalf("not killed after upgrade.before: %s", killed)
	}
	if n := befores(e.Upgrade("shop", "v2").Want(0)); n != 0 {
		t.Errorf("it ran again after the process was killed")
	}
	wantServes(t, addr, "v2")
	before := e.Snapshot()
	e.Upgrade("shop", "v3").Want(5, "exited 4", "migrating to v3")
	e.Unchanged(before)
	if r := e.NoFailures(l); len(r.Revisions) != 2 {
		t.Errorf("answers came from %+v", r.Revisions)
	}
}

// A job has nothing long-running: its release is committed, and that is all.
func TestGoal_Job(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.jobs("v1", "v2")
	e.Service("report", flow(Def{"kind": "job", "image": e.Repo()}))
	for _, v := range []string{"v1", "v2"} {
		r := e.Upgrade("report", v).Want(0)
		if r.Find("created") != nil || r.Find("committed") == nil {
			t.Errorf("want its release committed and nothing created: %s", r)
		}
		if s := e.status("report"); s.State != "job" || s.Revision != v {
			t.Errorf("status: %+v", s)
		}
	}
	e.Verb("scale", "report", "--replicas", "2").Want(2, "a job has no replicas")
	e.Verb("rollback", "report").Want(0)
	if s := e.status("report"); s.Revision != "v1" || len(e.Containers("")) != 0 {
		t.Errorf("status: %+v", s)
	}
	e.Verb("remove", "report").Want(0)
}

// remove leaves nothing: no container, no image name, no route, no file but
// the history and empty locks.
func TestGoal_RemoveLeavesNothing(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1", "v2")
	e.Image("bad", "EXIT_AT_START=1")
	e.write("token", "x")
	empty := e.Snapshot()
	addr := e.Web("shop", Def{"secrets": "{TOKEN: {file: " + e.Path("token") + ", as: file}}"})
	e.Upgrade("shop", "v1").Want(0)
	e.Upgrade("shop", "v2").Want(0)
	e.Upgrade("shop", "bad").Want(5)
	e.Kill(e.IDs("shop")[0])
	e.Do("converge") // which keeps the dead one for its logs
	e.Verb("remove", "shop").Want(0)
	after := e.Snapshot()
	if !slices.Equal(after.Containers, empty.Containers) || !slices.Equal(after.Tags, empty.Tags) {
		t.Errorf("left over: %v %v", after.Containers, after.Tags)
	}
	for name, text := range after.Files {
		if strings.Contains(text, "shop") || strings.Contains(name, "shop") {
			t.Errorf("left over in %s:\n%s", name, indent(text))
		}
	}
	if a := get(addr, "/"); a.Err == nil {
		t.Errorf("removed, %s answers %s", addr, a)
	}
	e.Conductor("service", "history", "--id", "shop").Want(0, "remove", "upgrade")
	if s := e.status("shop"); s.State != "not deployed" {
		t.Errorf("status: %+v", s)
	}
	e.Upgrade("shop", "v1").Want(0)
	wantServes(t, addr, "v1")
}

// Two installations on one engine and one nginx do not see each other.
func TestGoal_NamespacesDoNotSeeEachOther(t *testing.T) {
	t.Parallel()
	a, addrA := serving(t, nil)
	b, addrB := serving(t, nil)
	before := b.Snapshot()
	l := b.Load(load.Config{Addr: addrB, Rate: 100})
	if n := len(a.status("shop").Instances); n != 2 {
		t.Errorf("status tells of %d instances, want 2", n)
	}
	a.Upgrade("shop", "v2").Want(0)
	a.Do("converge")
	a.Do("prune")
	a.Verb("remove", "shop").Want(0)
	b.Unchanged(before)
	b.NoFailures(l)
	wantServes(t, addrB, "v1")
	if ans := get(addrA, "/"); ans.Err == nil {
		t.Errorf("removed, it answers %s", ans)
	}
}
