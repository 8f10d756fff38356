package converge

import (
	"slices"
	"testing"
	"time"

	"conductor/internal/engine"
	"conductor/internal/plan"
)

// brokenPlanners each break one invariant on purpose.
var brokenPlanners = []struct {
	name      string
	invariant int
	next      func(plan.Input) plan.Output
}{
	{"routes what has not answered yet", 1, func(in plan.Input) plan.Output {
		return plan.Next(seen(in, func(i *plan.Instance) {
			if i.State == engine.Running {
				i.Asked, i.Well, i.EverWell, i.Failures = true, true, true, 0
			}
		}))
	}},
	{"takes what is in flight for nothing", 2, func(in plan.Input) plan.Output {
		return plan.Next(seen(in, func(i *plan.Instance) { i.InFlight = 0 }))
	}},
	{"takes what is routed for out", 2, func(in plan.Input) plan.Output {
		if !in.Goal.Running {
			in.Proxy.Has = false // as if nothing had to be let go first
			in = seen(in, func(i *plan.Instance) { i.Route = plan.Out })
		}
		return plan.Next(in)
	}},
	{"commits what only runs", 3, func(in plan.Input) plan.Output {
		out := plan.Next(in)
		runs := slices.ContainsFunc(in.Instances, func(i plan.Instance) bool {
			return in.Goal.Changes() && i.Release == in.Goal.Candidate.Digest && i.Running()
		})
		if runs && len(in.Doing) == 0 && in.Abort == "" {
			out.Steps = []plan.Step{{Do: plan.Commit, Revision: in.Goal.Candidate.Revision}}
		}
		return out
	}},
	{"restarts without a pause", 4, func(in plan.Input) plan.Output {
		return plan.Next(seen(in, func(i *plan.Instance) {
			if i.State == engine.Exited {
				i.Attempt, i.StartedAt, i.Created = 0, time.Time{}, time.Time{}
			}
		}))
	}},
	{"starts what is stopped", 4, func(in plan.Input) plan.Output {
		if in.Goal.Current != nil && !in.Goal.Removing {
			in.Goal.Running = true
		}
		return plan.Next(in)
	}},
	{"stops what is not its own", 5, func(in plan.Input) plan.Output {
		out := plan.Next(in)
		if len(out.Steps) > 0 && len(in.Doing) == 0 {
			out.Steps = append(out.Steps, plan.Step{Do: plan.Stop, Instance: "other.shop", ID: "other.shop"})
		}
		return out
	}},
	{"sees nothing but the goal's release", 6, func(in plan.Input) plan.Output {
		in.Instances = slices.DeleteFunc(slices.Clone(in.Instances), func(i plan.Instance) bool {
			return in.Goal.Current != nil && !in.Goal.Removing && i.Release != in.Goal.Current.Digest &&
				(in.Goal.Candidate == nil || i.Release != in.Goal.Candidate.Digest)
		})
		return plan.Next(in)
	}},
}

// seen changes what the planner is told of the instances.
func seen(in plan.Input, change func(*plan.Instance)) plan.Input {
	in.Instances = slices.Clone(in.Instances)
	for n := range in.Instances {
		change(&in.Instances[n])
	}
	return in
}

// TestSimulation_FindsBrokenPlanners: an invariant that nothing can break is
// not checked. Each broken planner has to be caught by its invariant.
func TestSimulation_FindsBrokenPlanners(t *testing.T) {
	const within = 2000 // histories
	for _, b := range brokenPlanners {
		t.Run(b.name, func(t *testing.T) {
			others := map[int]int{}
			for seed := uint64(1); seed <= within; seed++ {
				v, _ := play(t, newHistory(seed), b.next, false)
				if v == nil {
					continue
				}
				if v.invariant == b.invariant {
					t.Logf("caught by seed %d: %v", seed, v)
					return
				}
				others[v.invariant]++
			}
			t.Errorf("invariant %d did not catch it within %d histories; others: %v", b.invariant, within, others)
		})
	}
}
