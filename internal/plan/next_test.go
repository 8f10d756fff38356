package plan

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"conductor/internal/engine"
	"conductor/internal/goal"
	"conductor/internal/proxy"
	"conductor/internal/spec"
)

var update = flag.Bool("update", false, "write testdata/decisions.txt anew")

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// digest is a release's digest that reads well in a test: v1 → 1111….
func digest(revision string) string { return strings.Repeat(revision[1:], 64) }

func policy(replicas int, change ...func(*spec.Policy)) spec.Policy {
	p := spec.Policy{Kind: spec.Web, Replicas: replicas, Retain: 3, HTTP: &spec.HTTP{Path: "/", Listen: spec.Listen{Port: 80}},
		Health:  spec.Health{UnhealthyAfter: 3, StartTimeout: spec.Duration(time.Minute)},
		Upgrade: spec.Upgrade{Order: spec.StartFirst, DrainTimeout: spec.Duration(30 * time.Second)}}
	for _, c := range change {
		c(&p)
	}
	return p
}

func worker(p *spec.Policy)    { p.Kind, p.HTTP = spec.Worker, nil }
func stopFirst(p *spec.Policy) { p.Upgrade.Order = spec.StopFirst }
func migrate(p *spec.Policy)   { p.Upgrade.Before = []string{"bin/migrate"} }

// world is an input in the making.
type world struct{ Input }

// running is a service whose current release serves with all its replicas.
func running(revision string, p spec.Policy) *world {
	w := &world{Input{Namespace: "conductor", Now: noon, Goal: goal.Goal{Service: "shop", Running: true, Policy: p,
		Current: &goal.Release{Digest: digest(revision), Revision: revision}}, Proxy: Proxy{Known: true}}}
	for slot := range p.Replicas {
		w.instance(revision, slot+1, 1)
	}
	return w.serve(revision)
}

// upgrading has a candidate beside what runs.
func (w *world) upgrading(revision string, p spec.Policy) *world {
	w.Goal.Candidate = &goal.Candidate{Release: goal.Release{Digest: digest(revision), Revision: revision}, Since: noon.Add(-time.Second), Policy: p}
	w.Goal.Running = true
	return w
}

// instance adds a well one that started a while ago.
func (w *world) instance(revision string, slot, n int, change ...func(*Instance)) *world {
	name := Name("conductor", "shop", revision, digest(revision), slot, n)
	i := Instance{Name: name, ID: "id-" + name, Release: digest(revision), Revision: revision, Slot: slot, N: n, Epoch: w.Goal.Epoch,
		State: engine.Running, Created: noon.Add(-time.Hour), StartedAt: noon.Add(-time.Hour), Asked: true, Well: true, EverWell: true,
		Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, revision[1] - '0', byte(10*slot + n)}), 3000)}
	for _, c := range change {
		c(&i)
	}
	w.Instances = append(w.Instances, i)
	slices.SortFunc(w.Instances, func(a, b Instance) int { return strings.Compare(a.Name, b.Name) })
	return w
}

// serve proves that the proxy sends requests to all instances of the revision.
func (w *world) serve(revision string) *world {
	if w.Goal.Policy.HTTP == nil {
		return w
	}
	w.Proxy = Proxy{Known: true, Has: true, HTTP: w.Goal.Policy.HTTP}
	for n := range w.Instances {
		i := &w.Instances[n]
		if i.Route = Out; i.Revision == revision && i.State == engine.Running {
			i.Route = In
			w.Proxy.Targets = append(w.Proxy.Targets, proxy.Target{Instance: i.Name, Addr: i.Addr, Weight: 1})
		}
	}
	return w
}

func (w *world) with(change func(*world)) *world { change(w); return w }

// dropped is a service whose stop-first candidate came a minute ago and has just
// been given up.
func (w *world) dropped() *world {
	w.Goal.Resume, w.Goal.Dropped = noon.Add(-time.Minute), noon.Add(-900*time.Millisecond)
	return w
}

func created(i *Instance) {
	i.State, i.StartedAt, i.Asked, i.Well, i.EverWell = engine.Created, time.Time{}, false, false, false
}
func starting(i *Instance) {
	i.StartedAt, i.Asked, i.Well, i.EverWell = noon.Add(-time.Second), false, false, false
}
func dead(i *Instance) {
	i.State, i.ExitCode, i.FinishedAt, i.Well = engine.Exited, 1, noon.Add(-time.Second), false
}
func sick(i *Instance) { i.Well, i.Failures, i.LastWord = false, 3, "GET /: 500" }
func late(i *Instance) {
	i.StartedAt, i.Well, i.EverWell, i.Failures = noon.Add(-time.Minute), false, false, 9
}
func restarted(i *Instance) { i.Attempt, i.StartedAt = 1, noon.Add(-2*time.Second) }

func (w *world) each(change func(*Instance)) *world {
	for n := range w.Instances {
		change(&w.Instances[n])
	}
	return w
}

var decisions = []struct {
	name string
	in   *world
}{
	{"all is well", running("v1", policy(2))},
	{"a first release", (&world{Input{Namespace: "conductor", Now: noon, Goal: goal.Goal{Service: "shop"}, Proxy: Proxy{Known: true}}}).upgrading("v1", policy(2))},
	{"start-first: the new one starts beside the old one", running("v1", policy(2)).upgrading("v2", policy(2))},
	{"start-first: created, so started", running("v1", policy(1)).upgrading("v2", policy(1)).instance("v2", 1, 1, created)},
	{"start-first: not healthy yet", running("v1", policy(1)).upgrading("v2", policy(1)).instance("v2", 1, 1, starting)},
	{"start-first: one of two healthy switches nothing", running("v1", policy(2)).upgrading("v2", policy(2)).instance("v2", 1, 1).instance("v2", 2, 1, starting)},
	{"start-first: all healthy, one switch", running("v1", policy(2)).upgrading("v2", policy(2)).instance("v2", 1, 1).instance("v2", 2, 1)},
	{"start-first: proved, so committed", running("v1", policy(1)).upgrading("v2", policy(1)).instance("v2", 1, 1).serve("v2")},
	{"committed: nothing in flight, so stopped", running("v2", policy(1)).instance("v1", 1, 1, func(i *Instance) { i.OutSince = noon })},
	{"committed: what is in flight is waited for", running("v2", policy(1)).instance("v1", 1, 1, func(i *Instance) { i.OutSince, i.InFlight = noon, 2 })},
	{"committed: the drain deadline has passed", running("v2", policy(1)).instance("v1", 1, 1, func(i *Instance) { i.OutSince, i.InFlight = noon.Add(-30*time.Second), 2 })},
	{"committed: neither proved in nor out, so not stopped", running("v2", policy(1)).instance("v1", 1, 1, func(i *Instance) { i.Route = Unproved })},
	{"committed: stopped, so removed", running("v2", policy(1)).instance("v1", 1, 1, dead)},
	{"a candidate that exits is given up", running("v1", policy(1)).upgrading("v2", policy(1)).instance("v2", 1, 1, dead)},
	{"a candidate that is late is given up", running("v1", policy(1)).upgrading("v2", policy(1)).instance("v2", 1, 1, late)},
	{"an interrupted candidate is given up", running("v1", policy(1)).upgrading("v2", policy(1)).instance("v2", 1, 1, starting).with(func(w *world) { w.Abort = "interrupted" })},
	{"an interrupt comes too late", running("v1", policy(1)).upgrading("v2", policy(1)).instance("v2", 1, 1).serve("v2").with(func(w *world) { w.Abort = "interrupted" })},
	{"given up: its instance goes", running("v1", policy(1)).instance("v2", 1, 1, starting)},
	{"upgrade.before comes first", running("v1", policy(1)).upgrading("v2", policy(1, migrate))},
	{"stop-first: un-routed before it is stopped", running("v1", policy(1, stopFirst)).upgrading("v2", policy(1, stopFirst))},
	{"stop-first: out, so stopped", running("v1", policy(1, stopFirst)).serve("none").upgrading("v2", policy(1, stopFirst))},
	{"stop-first: stopped and kept, so the new one starts", running("v1", policy(1, stopFirst)).serve("none").each(dead).upgrading("v2", policy(1, stopFirst))},
	{"stop-first given up: the old one waits for the new one's end", running("v1", policy(1, stopFirst)).serve("none").each(dead).instance("v2", 1, 1, starting).dropped()},
	{"stop-first given up: the old one starts again", running("v1", policy(1, stopFirst)).serve("none").each(dead).dropped()},
	{"stop-first given up: one that was started while upgrade.before ran starts again", running("v1", policy(1, stopFirst)).serve("none").each(dead).each(restarted).dropped()},
	{"stop-first given up: one that died after it had started again is replaced", running("v1", policy(1, stopFirst)).serve("none").each(dead).each(func(i *Instance) { i.StartedAt = noon.Add(-500 * time.Millisecond) }).dropped()},
	{"recycled: the fresh one serves, so it is removed", running("v1", policy(1)).each(dead).instance("v1", 1, 2).serve("v1")},
	{"two of one slot, neither routed: the older one stays until the newer one is", running("v1", policy(1)).instance("v1", 1, 2).serve("none")},
	{"recycled: the fresh one was not well yet, so it is kept", running("v1", policy(1)).serve("none").each(dead).instance("v1", 1, 2, starting)},
	{"a worker is committed when it is healthy", running("v1", policy(1, worker)).upgrading("v2", policy(1, worker)).instance("v2", 1, 1)},
	{"restart: one slot at a time", running("v1", policy(2)).each(func(i *Instance) {}).with(func(w *world) { w.Goal.Epoch++ })},
	{"restart: the fresh one takes over its slot", running("v1", policy(1)).with(func(w *world) { w.Goal.Epoch++ }).instance("v1", 1, 2)},
	{"scaled up", running("v1", policy(1)).with(func(w *world) { n := 3; w.Goal.Replicas = &n })},
	{"scaled down: let go first", running("v1", policy(2)).with(func(w *world) { n := 1; w.Goal.Replicas = &n })},
	{"died: replaced at once", running("v1", policy(2)).with(func(w *world) { dead(&w.Instances[1]) }).with(func(w *world) { w.Instances[1].Route = Out; w.Proxy.Targets = w.Proxy.Targets[:1] })},
	{"died again: replaced after a pause", running("v1", policy(1, worker)).each(restarted).each(dead)},
	{"one sick of two: replaced, and gets no requests", running("v1", policy(2)).with(func(w *world) { sick(&w.Instances[1]) })},
	{"all sick: one is tried, the others stay routed", running("v1", policy(3)).each(sick)},
	{"stopped: let go first", running("v1", policy(1)).with(func(w *world) { w.Goal.Running = false })},
	{"stopped: out, so stopped, and kept for its logs", running("v1", policy(1)).serve("none").with(func(w *world) { w.Goal.Running = false })},
	{"removed: the route goes", running("v1", policy(1)).with(func(w *world) { w.Goal.Running, w.Goal.Removing = false, true })},
	{"it has run for long and is not asked yet: it is not late", running("v1", policy(1, worker)).each(func(i *Instance) { i.Asked, i.Well, i.EverWell = false, false, false })},
	{"stop-first: the last one is sick and makes way", running("v1", policy(1, stopFirst)).each(sick)},
	{"stop-first: one that was never started holds nothing up", running("v1", policy(1, stopFirst)).serve("none").each(created).upgrading("v2", policy(1, stopFirst))},
	{"being stopped: it serves no more", running("v1", policy(1)).serve("none").with(func(w *world) { w.Doing = []Step{{Do: Stop, Instance: w.Instances[0].Name}} })},
	{"coming in by a switch in flight: not stopped", running("v1", policy(1)).serve("none").with(func(w *world) {
		w.Goal.Running, w.Doing = false, []Step{{Do: Route, Targets: []proxy.Target{{Instance: w.Instances[0].Name}}}}
	})},
	{"routed by the file alone: asked first", running("v1", policy(1)).serve("none").each(func(i *Instance) { i.Route, i.Asked, i.Well, i.EverWell = Unproved, false, false, false })},
	{"given up, and the last that serves: it stays", running("v2", policy(1)).with(func(w *world) {
		w.Goal.Current = &goal.Release{Digest: digest("v1"), Revision: "v1"}
	})},
	{"starting while the proxy is silent: not sick", running("v1", policy(1)).upgrading("v2", policy(1)).instance("v2", 1, 1, starting, func(i *Instance) { i.Asked, i.Failures, i.Route = true, 5, Unproved }).with(func(w *world) {
		w.Proxy = Proxy{Has: true}
	})},
	{"the proxy does not answer: nothing is stopped", running("v2", policy(1)).instance("v1", 1, 1, func(i *Instance) { i.Route = Unproved }).with(func(w *world) { w.Proxy = Proxy{Has: true}; w.Instances[1].Route = Unproved })},
}

// TestNext_Decides holds every decision against its text, causes included:
// what --plan prints and the history keeps.
func TestNext_Decides(t *testing.T) {
	var b strings.Builder
	for _, d := range decisions {
		fmt.Fprintf(&b, "# %s\n", d.name)
		out := Next(d.in.Input)
		for _, s := range out.Steps {
			fmt.Fprintf(&b, "%s\n", s)
		}
		for _, w := range out.Waiting {
			fmt.Fprintf(&b, "  waits: %s\n", w)
		}
		if !out.LookAt.IsZero() {
			fmt.Fprintf(&b, "  looks again in %s\n", out.LookAt.Sub(noon))
		}
		b.WriteByte('\n')
	}
	const file = "testdata/decisions.txt"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(b.String(), "\n")); diff != "" {
		t.Errorf("decisions changed (-want +got), -update writes them anew:\n%s", diff)
	}
}

// TestNext_IsAFunction: the same input gives the same decision, and asking
// changes nothing of it.
func TestNext_IsAFunction(t *testing.T) {
	for _, d := range decisions {
		before := fmt.Sprintf("%+v", d.in.Input)
		if diff := cmp.Diff(fmt.Sprintf("%+v", Next(d.in.Input)), fmt.Sprintf("%+v", Next(d.in.Input))); diff != "" {
			t.Errorf("%s: asked twice:\n%s", d.name, diff)
		}
		if after := fmt.Sprintf("%+v", d.in.Input); after != before {
			t.Errorf("%s: the input has changed", d.name)
		}
	}
}

// TestForesee_EndsAtTheGoal: with all going well, the steps lead to a goal
// that asks for no more.
func TestForesee_EndsAtTheGoal(t *testing.T) {
	for _, c := range []struct {
		name string
		in   *world
		want []string
	}{
		{"upgrade", running("v1", policy(1)).upgrading("v2", policy(1)), []string{
			"create shop.v2.2222-1-1", "start shop.v2.2222-1-1", "route to shop.v2.2222-1-1", "commit v2",
			"stop shop.v1.1111-1-1", "remove shop.v1.1111-1-1"}},
		{"stop-first with migration", running("v1", policy(1, stopFirst)).upgrading("v2", policy(1, stopFirst, migrate)), []string{
			"run before v2", "route to none", "stop shop.v1.1111-1-1", "create shop.v2.2222-1-1", "start shop.v2.2222-1-1",
			"route to shop.v2.2222-1-1", "commit v2", "remove shop.v1.1111-1-1"}},
		{"nothing to do", running("v1", policy(2)), nil},
	} {
		var got []string
		for _, s := range Foresee(c.in.Input, 100) {
			got = append(got, s.Name())
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}
