package converge

import (
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"conductor/internal/event"
	"conductor/internal/plan"
)

// recycling is the replacement of an instance that has got old. Over the host
// there is one at a time: who does it has the token of the feed.
type recycling struct {
	name  string    // the old instance; "": none is being replaced
	since time.Time // it has been
	after time.Time // no sooner is another one replaced
}

// recycle has the oldest instance that is due replaced. Nothing is recycled
// while the service is not at its goal in every other way.
func (t *tender) recycle(in *plan.Input) {
	g := t.goal
	if g.Policy.Recycle == nil || g.Current == nil || g.Candidate != nil || !g.Running || g.Paused {
		t.recycled()
		return
	}
	if t.recycling.name != "" {
		if !slices.ContainsFunc(in.Instances, func(i plan.Instance) bool { return i.Name == t.recycling.name && i.Running() }) {
			t.recycled()
		}
		in.Recycle = t.recycling.name
		return
	}
	oldest, ok := plan.Instance{}, false
	for _, i := range in.Instances {
		if i.Well && i.Release == g.Current.Digest && !in.Now.Before(t.ripe(i)) && (!ok || i.StartedAt.Before(oldest.StartedAt)) {
			oldest, ok = i, true
		}
	}
	if !ok || in.Now.Before(t.recycling.after) || !plan.Next(*in).Settled(*in) {
		return
	}
	select {
	case t.feed.Recycle <- struct{}{}:
		t.recycling.name, t.recycling.since, in.Recycle = oldest.Name, in.Now, oldest.Name
	default: // it is another service's turn
	}
}

// ripe is when an instance is old enough.
func (t *tender) ripe(i plan.Instance) time.Time {
	r := t.goal.Policy.Recycle
	at := i.StartedAt.Add(r.Every.D())
	if j := r.Jitter.D(); j > 0 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(i.ID)) // it never fails
		at = at.Add(time.Duration(h.Sum64() % uint64(j)))
	}
	return at
}

// recycled gives the turn back.
func (t *tender) recycled() {
	if t.recycling.name != "" {
		t.recycling.name = ""
		<-t.feed.Recycle
	}
}

// spoiled: the fresh instance did not work out, so the old one stays, and is
// tried again when it is as old again.
func (t *tender) spoiled(in plan.Input, out plan.Output) bool {
	n := slices.IndexFunc(in.Instances, func(i plan.Instance) bool { return i.Name == t.recycling.name })
	if t.recycling.name == "" || n < 0 {
		return false
	}
	old := in.Instances[n]
	why := t.inVain(in, out, old)
	if why == "" {
		return false
	}
	t.tell(event.Warning, old.Name, old.ID, old.Revision, "", old.Name+" was to be recycled and stays: "+why)
	t.recycling.after = in.Now.Add(t.goal.Policy.Recycle.Every.D())
	t.recycled()
	return true
}

// inVain says why there will be no fresh instance in the place of the old one;
// "": there may yet be.
func (t *tender) inVain(in plan.Input, out plan.Output, old plan.Instance) string {
	for _, r := range in.Refused {
		if r.Release == old.Release && r.Slot == old.Slot && !r.At.Before(t.recycling.since) {
			return "no fresh one can be made: " + r.Reason
		}
	}
	for _, tr := range out.Trouble {
		for _, i := range in.Instances {
			if i.Name == tr.Instance && i.Slot == old.Slot && i.N > old.N {
				return fmt.Sprintf("the fresh %s did not become healthy: %s", i.Name, tr.Cause)
			}
		}
	}
	return ""
}
