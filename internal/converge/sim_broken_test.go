package converge

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"conductor/internal/engine"
	"conductor/internal/plan"
	"conductor/internal/spec"
)

// planner makes the planner of one simulation.
type planner func(s *sim) func(plan.Input) plan.Output

func soundPlanner(*sim) func(plan.Input) plan.Output { return plan.Next }

// seeing is a planner that is shown something else than what was observed.
func seeing(change func(s *sim, in *plan.Input)) planner {
	return func(s *sim) func(plan.Input) plan.Output {
		return func(in plan.Input) plan.Output {
			in.Instances = slices.Clone(in.Instances)
			change(s, &in)
			return plan.Next(in)
		}
	}
}

// saying is a planner whose decision is changed.
func saying(change func(in plan.Input, out *plan.Output)) planner {
	return func(*sim) func(plan.Input) plan.Output {
		return func(in plan.Input) plan.Output {
			out := plan.Next(in)
			change(in, &out)
			return out
		}
	}
}

// each changes every instance that a planner sees.
func each(change func(i *plan.Instance)) func(*sim, *plan.Input) {
	return func(_ *sim, in *plan.Input) {
		for n := range in.Instances {
			change(&in.Instances[n])
		}
	}
}

// onceMore is a planner that does something although the goal is reached, once
// in each process.
func onceMore(s *sim) func(plan.Input) plan.Output {
	done := map[int]bool{}
	return func(in plan.Input) plan.Output {
		out := plan.Next(in)
		s.mu.Lock()
		defer s.mu.Unlock()
		if n := len(s.procs); out.Settled(in) && in.Proxy.HTTP != nil && !done[n] {
			done[n] = true
			out.Steps = append(out.Steps, plan.Step{Do: plan.Route, HTTP: in.Proxy.HTTP, Targets: in.Proxy.Targets})
		}
		return out
	}
}

// TestSimulation_FindsBrokenPlanners breaks every invariant in the planner, on
// purpose, and sees that the simulation finds it, and by which one.
func TestSimulation_FindsBrokenPlanners(t *testing.T) {
	const enough = 400 // histories
	for _, c := range []struct {
		name      string
		next      planner
		invariant int
		text      string // of the violation
	}{
		{"all that runs is well", seeing(each(func(i *plan.Instance) {
			if i.State == engine.Running {
				i.Asked, i.Well, i.EverWell, i.Failures = true, true, true, 0
			}
		})), 1, "not known to be healthy"},
		{"the file's word is enough", seeing(each(func(i *plan.Instance) {
			if i.Route == plan.Unproved {
				i.Route = plan.In
			}
		})), 1, "not known to be healthy"},
		{"a stop needs no proof", seeing(func(s *sim, in *plan.Input) {
			if !in.Goal.Running {
				each(func(i *plan.Instance) { i.Route = plan.Out })(s, in)
				in.Proxy.HTTP = in.Goal.Policy.HTTP
			}
		}), 2, "which the proxy serves"},
		{"what is not proved is out", seeing(func(s *sim, in *plan.Input) {
			each(func(i *plan.Instance) {
				if i.Route == plan.Unproved {
					i.Route = plan.Out
				}
			})(s, in)
			in.Proxy.HTTP = in.Goal.Policy.HTTP
		}), 2, "which the proxy serves"},
		{"nothing is in flight", seeing(each(func(i *plan.Instance) {
			i.InFlight = 0
		})), 2, "requests in flight"},
		{"the drain began long ago", seeing(each(func(i *plan.Instance) {
			if !i.OutSince.IsZero() {
				i.OutSince = i.OutSince.Add(-time.Hour)
			}
		})), 2, "requests in flight"},
		{"the old release goes when the new one comes", saying(func(in plan.Input, out *plan.Output) {
			for n, st := range out.Steps {
				if st.Do == plan.Create && in.Goal.Changes() && in.Goal.Current != nil && in.Goal.Policy.HTTP != nil && len(in.Doing) == 0 {
					out.Steps[n] = plan.Step{Do: plan.Route, HTTP: in.Goal.Policy.HTTP, Cause: "haste"}
				}
			}
		}), 3, "by nobody now"},
		{"a candidate is committed before it is healthy", saying(func(in plan.Input, out *plan.Output) {
			if len(out.Steps) == 0 && len(in.Doing) == 0 && in.Goal.Changes() {
				out.Steps = []plan.Step{{Do: plan.Commit, Cause: "haste"}}
			}
		}), 3, "not healthy and proved"},
		{"stop-first is not known", seeing(func(_ *sim, in *plan.Input) {
			if in.Goal.Candidate != nil {
				c := *in.Goal.Candidate
				c.Policy.Upgrade.Order = spec.StartFirst
				in.Goal.Candidate = &c
			}
		}), 3, "stop-first, and"},
		{"no restart is remembered", seeing(each(func(i *plan.Instance) {
			if i.State == engine.Exited {
				i.Attempt, i.PreviousStart = 0, time.Time{}
			}
		})), 4, "the restart"},
		{"what is stopped is started", saying(func(in plan.Input, out *plan.Output) {
			for _, i := range in.Instances {
				if !in.Goal.Running && !in.Goal.Removing && i.State == engine.Exited && len(out.Steps)+len(in.Doing) == 0 {
					out.Steps = append(out.Steps, plan.Step{Do: plan.Start, Instance: i.Name, ID: i.ID})
				}
			}
		}), 4, "the service is stopped"},
		{"another installation's container is an instance", seeing(func(s *sim, in *plan.Input) {
			if c, err := s.eng.Inspect(context.Background(), "other.shop"); err == nil && in.Goal.Service == "shop" {
				in.Instances = append(in.Instances, plan.Instance{Name: c.Name, ID: c.ID, Release: "x", Slot: 1, N: 1, State: engine.Running})
			}
		}), 5, "somebody else's"},
		{"nothing is removed", saying(func(_ plan.Input, out *plan.Output) {
			kept := slices.DeleteFunc(out.Steps, func(s plan.Step) bool { return s.Do == plan.Remove })
			if len(kept) < len(out.Steps) && len(kept) == 0 {
				out.Waiting = nil
			}
			out.Steps = kept
		}), 6, "is left"},
		{"no crontab is installed", saying(func(_ plan.Input, out *plan.Output) {
			out.Steps = slices.DeleteFunc(out.Steps, func(s plan.Step) bool { return s.Do == plan.Cron })
		}), 6, "the crontab is"},
		{"each command switches once more", onceMore, 6, "it did something"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for n := range uint64(enough) {
				h := newHistory(n + 1)
				v, _ := play(t, h, c.next, false)
				if v == nil || v.invariant != c.invariant || !strings.Contains(v.text, c.text) {
					continue // what is broken may show in other ways too
				}
				t.Logf("found by seed %d: %v", h.seed, v)
				return
			}
			t.Fatalf("not found in %d histories", enough)
		})
	}
}

// TestSimulation_Replays plays histories twice: the same happens.
func TestSimulation_Replays(t *testing.T) {
	for seed := uint64(1); seed <= 100; seed++ {
		h := newHistory(seed)
		for n := range h.acts {
			// Of two news of one instant either may come first, and after one of
			// them the routes file is read once more: which reading a trouble
			// befalls is open.
			h.acts[n].trouble = slices.DeleteFunc(h.acts[n].trouble, func(t trouble) bool {
				op, _, _ := t.onRead()
				return op == "Routes"
			})
		}
		a, b := happened(t, h), happened(t, h)
		for n := range min(len(a), len(b)) {
			if a[n] != b[n] {
				t.Fatalf("seed %d, line %d:\n%s\n\n%s", seed, n+1, strings.Join(a[max(0, n-6):n+2], "\n"), strings.Join(b[max(0, n-6):n+2], "\n"))
			}
		}
		if len(a) != len(b) {
			t.Fatalf("seed %d: %d lines, then %d", seed, len(a), len(b))
		}
	}
}

// happened are the calls and troubles of a history. Events are not among them:
// of two steps that begin together, either may tell first.
func happened(t *testing.T, h history) []string {
	_, lines := play(t, h, nil, true)
	return slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, "     ") && l[14] == ' ' })
}
