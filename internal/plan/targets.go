package plan

import (
	"cmp"
	"slices"

	"conductor/internal/engine"
	"conductor/internal/proxy"
	"conductor/internal/spec"
)

// desired is the route as it should be: nil http means no route.
type desired struct {
	http    *spec.HTTP
	targets []proxy.Target
	// unsure names an instance whose first answer decides: it may be all that
	// there is to route, or would come in although it is not well.
	unsure string
}

// targets are the instances that should get requests, and the route to them.
func (p *planner) targets() desired {
	var is []Instance
	take := func(slots [][]Instance) {
		for n, s := range slots {
			if b, ok := p.best(s); ok {
				is = append(is, b)
				continue
			}
			older := slices.DeleteFunc(slices.Clone(p.others), func(i Instance) bool {
				return i.Slot != n+1 || p.Goal.Current == nil || i.Release != p.Goal.Current.Digest || p.makesWay(i)
			})
			if b, ok := p.best(older); ok {
				is = append(is, b)
			}
		}
	}
	want := desired{http: p.policy.HTTP}
	stopFirst := p.policy.Upgrade.Order == spec.StopFirst
	switch {
	case !p.Goal.Changes() || p.ready():
		take(p.goal.slots)
	case stopFirst && p.prepared():
		want.http = p.Goal.Policy.HTTP
		return want
	default:
		want.http = p.Goal.Policy.HTTP
		take(p.serving.slots)
	}
	if len(is) == 0 && p.Goal.Count(p.policy) > 0 {
		// The last ones that are routed stay, sick as they are, until
		// something better is there: a bad answer can be better than none.
		for _, i := range p.Instances {
			if i.Routed() && i.State == engine.Running && !p.leaving[i.Name] && !p.makesWay(i) && p.mayStay(i) {
				is = append(is, i)
			}
		}
	}
	for _, i := range p.Instances {
		if len(is) == 0 && i.unasked(p.policy.Health, p.Now) && p.ours(i) && !p.makesWay(i) {
			want.unsure = i.Name
		}
	}
	for _, i := range is {
		if !p.Proxy.Known && i.unasked(p.policy.Health, p.Now) {
			want.unsure = i.Name
		}
		want.targets = append(want.targets, proxy.Target{Instance: i.Name, Addr: i.Addr, Weight: 1})
	}
	slices.SortFunc(want.targets, func(a, b proxy.Target) int { return cmp.Compare(a.Instance, b.Instance) })
	return want
}

// makesWay: stop-first takes the slot's older instance, or its sick one, out
// before there is a new one.
func (p *planner) makesWay(i Instance) bool {
	return !p.Goal.Changes() && p.policy.Upgrade.Order == spec.StopFirst && i.Release == p.Goal.Current.Digest &&
		(i.Epoch != p.Goal.Epoch || i.Sick(p.policy.Health)) && p.turn(i.Slot)
}

// mayStay: an instance of a release that was given up stays routed too while it
// is the last one, unless what takes its place cannot start beside it.
func (p *planner) mayStay(i Instance) bool {
	return p.ours(i) || p.policy.Upgrade.Order != spec.StopFirst && p.Goal.Resume.IsZero()
}
