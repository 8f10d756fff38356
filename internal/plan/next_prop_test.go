package plan

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"conductor/internal/engine"
	"conductor/internal/proxy"
	"conductor/internal/spec"
)

// TestNext_HoldsForAnyInput: whatever is observed, sensible or not, a decision
// is a function of it, repeats no step in flight, and keeps what must hold of
// every single step.
func TestNext_HoldsForAnyInput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := anyInput(t)
		out := Next(in)
		other := in
		other.Doing = slices.Clone(in.Doing)
		slices.Reverse(other.Doing)
		if diff := cmp.Diff(fmt.Sprintf("%+v", out), fmt.Sprintf("%+v", Next(other))); diff != "" {
			t.Fatalf("asked twice, the steps in flight in another order:\n%s", diff)
		}
		byName := map[string]Instance{}
		for _, i := range in.Instances {
			byName[i.Name] = i
		}
		keys, changing := map[string]bool{}, map[string]bool{}
		for _, s := range in.Doing {
			keys[s.Key()], changing[s.Instance] = true, true
		}
		for _, s := range out.Steps {
			i, exists := byName[s.Instance]
			switch {
			case keys[s.Key()]:
				t.Fatalf("%s is in flight already", s)
			case s.Instance != "" && s.Do != Drop && changing[s.Instance]:
				t.Fatalf("%s, and another step of it is in flight", s)
			case (s.Do == Start || s.Do == Stop || s.Do == Remove) && !exists:
				t.Fatalf("%s, and there is no such instance", s)
			case s.Do == Create && exists:
				t.Fatalf("%s, and it exists", s)
			case (s.Do == Stop || s.Do == Remove) && i.Route != Out:
				t.Fatalf("%s, and it is not proved out", s)
			case s.Do == Remove && i.Running():
				t.Fatalf("%s, and it runs", s)
			case (s.Do == Create || s.Do == Start) && !in.Goal.Running:
				t.Fatalf("%s, and the service is stopped", s)
			case s.Do == Start && i.Attempt > 1 && !s.Again && in.Now.Before(i.PreviousStart.Add(RestartInterval)):
				t.Fatalf("%s, %s after the start before", s, in.Now.Sub(i.PreviousStart))
			case s.Cause == "":
				t.Fatalf("%s has no cause", s.Name())
			}
			keys[s.Key()] = true
			if s.Do == Route {
				routable(t, s, byName)
			}
		}
		in.Doing = append(slices.Clone(in.Doing), out.Steps...)
		for _, s := range Next(in).Steps {
			if keys[s.Key()] {
				t.Fatalf("%s begins again while it is in flight", s)
			}
		}
	})
}

// routable: what comes in is well, where it is, and is not being stopped.
func routable(t *rapid.T, s Step, byName map[string]Instance) {
	for _, target := range s.Targets {
		i, exists := byName[target.Instance]
		switch {
		case !exists || i.Addr != target.Addr:
			t.Fatalf("%s: there is no %s at %s", s, target.Instance, target.Addr)
		case i.State != engine.Running:
			t.Fatalf("%s: %s does not run", s, i.Name)
		case !i.Well && !i.Routed():
			t.Fatalf("%s: %s is not well", s, i.Name)
		}
	}
}

func anyInput(t *rapid.T) Input {
	flip := func(what string) bool { return rapid.Bool().Draw(t, what) }
	order := func() spec.Order {
		return rapid.SampledFrom([]spec.Order{spec.StartFirst, spec.StopFirst}).Draw(t, "order")
	}
	p := policy(rapid.IntRange(0, 3).Draw(t, "replicas"))
	p.Upgrade.Order = order()
	if flip("worker") {
		worker(&p)
	}
	w := running("v1", p)
	w.Instances, w.Proxy = nil, Proxy{Known: flip("known"), Has: p.HTTP != nil && flip("has")}
	w.Goal.Epoch, w.Goal.Running = 1, rapid.IntRange(0, 4).Draw(t, "running") > 0
	if flip("candidate") {
		c := p
		c.Upgrade.Order, c.Replicas = order(), rapid.IntRange(0, 3).Draw(t, "candidate's replicas")
		w.upgrading("v2", c)
	}
	if flip("resume") {
		w.Goal.Resume, w.Goal.Dropped = noon.Add(-3*time.Second), noon.Add(-time.Second)
	}
	ago := func(what string) time.Time {
		return noon.Add(-time.Duration(rapid.IntRange(0, 90).Draw(t, what)) * time.Second)
	}
	for _, rev := range []string{"v1", "v2", "v3"} {
		for slot := 1; slot <= 3; slot++ {
			for n := 1; n <= rapid.IntRange(0, 2).Draw(t, "instances"); n++ {
				w.instance(rev, slot, n, func(i *Instance) {
					i.Epoch = rapid.IntRange(0, 1).Draw(t, "epoch")
					i.State = rapid.SampledFrom([]engine.State{engine.Created, engine.Running, engine.Running, engine.Exited, engine.Removing}).Draw(t, "state")
					i.StartedAt, i.FinishedAt, i.Created, i.PreviousStart = ago("started"), ago("finished"), ago("created"), ago("previous")
					i.Asked, i.EverWell, i.Failures = flip("asked"), flip("ever well"), rapid.IntRange(0, 4).Draw(t, "failures")
					i.Well = i.Asked && i.EverWell && i.Failures < 3
					i.Attempt = rapid.IntRange(0, 3).Draw(t, "attempt")
					i.Route = rapid.SampledFrom([]RouteState{Out, Out, In, Unproved}).Draw(t, "route")
					i.Served = flip("served")
					i.InFlight, i.OutSince = rapid.IntRange(0, 1).Draw(t, "in flight"), ago("out")
				})
			}
		}
	}
	for _, i := range w.Instances {
		if i.Route == In {
			w.Proxy.Targets = append(w.Proxy.Targets, proxy.Target{Instance: i.Name, Addr: i.Addr, Weight: 1})
		}
	}
	if w.Proxy.Known && w.Proxy.Has && flip("proved") {
		w.Proxy.HTTP = p.HTTP
	}
	// What is in flight was decided before, on what was seen then.
	for _, s := range Next(w.Input).Steps {
		if flip("in flight already") {
			w.Doing = append(w.Doing, s)
		}
	}
	return w.Input
}
