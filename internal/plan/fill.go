package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"conductor/internal/engine"
	"conductor/internal/proxy"
	"conductor/internal/spec"
)

// fill brings every slot of a group to one instance that serves. A trial is a
// candidate: its failures are judged by verdict, and nothing is restarted.
func (p *planner) fill(g group, trial bool) {
	if g.release == nil {
		return
	}
	for n := range g.slots {
		p.slot(g, n+1, trial)
	}
}

func (p *planner) slot(g group, slot int, trial bool) {
	is := g.slots[slot-1]
	if !trial {
		p.dead(is)
	}
	h := p.policy.Health
	best, ok := p.best(is)
	var starting, sick []Instance
	for _, i := range is {
		switch {
		case !i.Live() || ok && i.Name == best.Name:
		case p.leaving[i.Name]:
			p.wait(i.Name + " is on its way out")
		case ok && best.Route != In && i.N > best.N && i.Running() && !i.Asked:
			p.wait(i.Name + " has not answered its probe yet") // it may be what takes over
		case ok && best.Name == p.Recycle && i.State == engine.Created:
			p.start(i)
		case ok && best.Name == p.Recycle && !i.Late(h, p.Now) && !i.Sick(h):
			p.look(i.StartedAt.Add(h.StartTimeout.D()))
			p.wait(i.Name + " is not healthy yet")
		case ok && best.Name == p.Recycle:
			p.trouble(i, cmp.Or(p.failed(i), "sick: "+i.LastWord))
			p.retire(i, best.Name+" serves on", true)
		case ok:
			// The one that serves has won; but another goes only after the
			// winner is proved to serve: one that is out can come in again.
			if p.routed(is) {
				p.retire(i, best.Name+" serves in its place", true)
			}
		case i.State == engine.Created && i.N < is[len(is)-1].N:
			p.retire(i, "a later instance of the slot was made", true)
		case i.State == engine.Created:
			starting = append(starting, i)
			p.start(i)
		case i.Late(h, p.Now):
			p.trouble(i, p.failed(i))
			if !trial {
				p.retire(i, p.failed(i), true)
			}
		case i.Sick(h):
			p.trouble(i, "sick: "+i.LastWord)
			sick = append(sick, i)
		default:
			starting = append(starting, i)
			if t := i.StartedAt.Add(h.StartTimeout.D()); !i.EverWell && p.Now.Before(t) {
				p.look(t)
			}
		}
	}
	switch {
	case ok:
		if !best.Well {
			p.wait(best.Name + " has not answered its probe yet")
		}
		if best.Name == p.Recycle && !trial {
			p.recycle(g, slot, is)
		}
		return
	case len(starting) > 0:
		p.wait(starting[0].Name + " is not healthy yet")
	case p.creating(g, slot):
		p.wait(fmt.Sprintf("slot %d is being filled", slot))
	default:
		p.wait(fmt.Sprintf("slot %d has no healthy instance", slot))
		p.create(g, slot, is, len(sick) > 0, trial)
	}
}

// recycle puts a fresh instance beside one that has served for long enough.
func (p *planner) recycle(g group, slot int, is []Instance) {
	live := 0
	for _, i := range is {
		if i.Live() {
			live++
		}
	}
	p.wait(p.Recycle + " is to be replaced by a fresh one")
	if live > 1 || p.creating(g, slot) || !p.turn(slot) {
		return
	}
	n := p.number(g, slot)
	p.step(Step{
		Do: Create, Instance: p.name(g, slot, n), Revision: g.release.Revision, Release: g.release.Digest, Slot: slot, N: n,
		Cause: p.Recycle + " is old enough to be recycled",
	})
}

// number is the N of the next instance of a slot.
func (p *planner) number(g group, slot int) int {
	n := 1
	for _, i := range p.Instances {
		if i.Release == g.release.Digest && i.Slot == slot {
			n = max(n, i.N+1)
		}
	}
	for p.isTarget(p.name(g, slot, n)) {
		n++ // somebody removed it, and the proxy has its name yet
	}
	return n
}

func (p *planner) name(g group, slot, n int) string {
	return Name(p.Namespace, p.Goal.Service, g.release.Revision, g.release.Digest, slot, n)
}

func (p *planner) isTarget(instance string) bool {
	return slices.ContainsFunc(p.Proxy.Targets, func(t proxy.Target) bool { return t.Instance == instance })
}

// create fills an empty slot, or puts a replacement beside a sick instance.
func (p *planner) create(g group, slot int, is []Instance, sick, trial bool) {
	if len(is) > 0 && p.resume(is) {
		return
	}
	if p.crowded() {
		return
	}
	if sick && p.Goal.Changes() {
		return // the candidate is what comes next
	}
	for _, i := range is {
		if i.Running() && (p.leaving[i.Name] || !i.Sick(p.policy.Health)) {
			return // on its way out, and it has to be out first
		}
	}
	if !trial && (sick || p.predecessor(slot)) && !p.turn(slot) {
		return
	}
	if !trial && p.policy.Upgrade.Order == spec.StopFirst && p.predecessor(slot) {
		return // holds lets it be stopped first
	}
	if sick && p.policy.Upgrade.Order == spec.StopFirst {
		// Only one may run: the sick one makes way.
		for _, i := range is {
			if i.Running() {
				p.retire(i, "sick: "+i.LastWord, true)
			}
		}
		return
	}
	n, attempt, previous := p.number(g, slot), 0, time.Time{}
	var earliest time.Time
	for _, i := range is {
		start := i.StartedAt
		if start.IsZero() {
			start = i.Created
		}
		attempt = max(attempt, i.Attempt+1)
		if start.After(previous) {
			previous = start
		}
		if i.Attempt > 0 || i.Running() {
			if t := start.Add(RestartInterval); t.After(earliest) {
				earliest = t
			}
		}
	}
	for _, r := range p.Refused {
		if r.Release == g.release.Digest && r.Slot == slot {
			p.out.Trouble = append(p.out.Trouble, Trouble{Cause: r.Reason})
			if t := r.At.Add(RestartInterval); t.After(earliest) {
				earliest = t
			}
		}
	}
	if p.Now.Before(earliest) {
		p.look(earliest)
		return
	}
	p.step(Step{
		Do:       Create,
		Instance: p.name(g, slot, n),
		Revision: g.release.Revision, Release: g.release.Digest,
		Slot: slot, N: n, Attempt: attempt, PreviousStart: previous,
		Reason: p.reason(is, trial), Cause: p.why(slot, is, trial),
	})
}

func (p *planner) why(slot int, is []Instance, trial bool) string {
	switch {
	case trial:
		return fmt.Sprintf("slot %d of the new release is empty", slot)
	case len(is) > 0:
		last := is[len(is)-1]
		if last.Sick(p.policy.Health) {
			return last.Name + " is sick: " + last.LastWord
		}
		if cause := p.failed(last); cause != "" {
			return last.Name + " " + cause
		}
	case p.predecessor(slot):
		return fmt.Sprintf("slot %d is to be restarted", slot)
	}
	return fmt.Sprintf("slot %d is empty", slot)
}

// resume starts what a dropped stop-first candidate had made way for.
func (p *planner) resume(is []Instance) bool {
	i := is[len(is)-1]
	r := p.Goal.Resume
	if r.IsZero() || i.State != engine.Exited || i.Broken != "" || i.FinishedAt.Before(r) || !i.StartedAt.Before(p.Goal.Dropped) {
		return false
	}
	if !p.busy[i.Name] && !p.crowded() {
		p.step(Step{Do: Start, Instance: i.Name, ID: i.ID, Revision: i.Revision, Slot: i.Slot, Again: true,
			Cause: "it was stopped for a release that was given up"})
	}
	return true
}

// start starts a created container, not sooner than its slot allows.
func (p *planner) start(i Instance) {
	if p.busy[i.Name] || p.crowded() {
		return
	}
	if i.Attempt > 1 && !i.PreviousStart.IsZero() {
		if t := i.PreviousStart.Add(RestartInterval); p.Now.Before(t) {
			p.look(t)
			return
		}
	}
	p.step(Step{Do: Start, Instance: i.Name, ID: i.ID, Revision: i.Revision, Slot: i.Slot, Cause: "it is created and does not run"})
}

// crowded: stop-first lets no two releases run at once, and one that has been
// given up still runs.
func (p *planner) crowded() bool {
	if p.policy.Upgrade.Order != spec.StopFirst && p.Goal.Resume.IsZero() {
		return false
	}
	return slices.ContainsFunc(p.others, func(i Instance) bool {
		return (i.Running() || p.busy[i.Name]) && !p.ours(i)
	})
}

// creating: a create for the slot is in flight.
func (p *planner) creating(g group, slot int) bool {
	return slices.ContainsFunc(p.Doing, func(s Step) bool {
		return s.Do == Create && s.Slot == slot && s.Release == g.release.Digest
	})
}

// predecessor: an instance of an older epoch still runs in the slot.
func (p *planner) predecessor(slot int) bool {
	return slices.ContainsFunc(p.others, func(i Instance) bool {
		return i.Slot == slot && i.Running() && p.Goal.Current != nil && i.Release == p.Goal.Current.Digest
	})
}

// turn: of the slots that change hands while something serves in them, one at
// a time does: the first that is not done.
func (p *planner) turn(slot int) bool {
	for n := 1; n <= len(p.goal.slots); n++ {
		if n == slot {
			continue
		}
		is := p.goal.slots[n-1]
		live := 0
		for _, i := range is {
			if i.Live() {
				live++
			}
		}
		changing := live > 1 || p.creating(p.goal, n) || live == 1 && p.predecessor(n) ||
			slices.ContainsFunc(p.out.Steps, func(s Step) bool { return s.Do == Create && s.Slot == n && p.changes(n) })
		if changing {
			return false
		}
		if n < slot && p.policy.Upgrade.Order == spec.StopFirst && !p.routed(is) && p.pending(n) {
			return false
		}
	}
	return true
}

// changes: a create in the slot would stand beside something that runs.
func (p *planner) changes(slot int) bool {
	return p.predecessor(slot) || slices.ContainsFunc(p.goal.slots[slot-1], func(i Instance) bool { return i.Running() })
}

// pending: the slot still has an instance of an older epoch, in any state.
func (p *planner) pending(slot int) bool {
	return slices.ContainsFunc(p.others, func(i Instance) bool { return i.Slot == slot })
}

// dead keeps the newest dead instance of a slot, for its logs, and removes the
// ones before it.
func (p *planner) dead(is []Instance) {
	kept := false
	for _, i := range slices.Backward(is) {
		if i.State != engine.Exited && i.Broken == "" || i.Running() {
			continue
		}
		if slices.ContainsFunc(is, func(o Instance) bool { return o.N > i.N && o.Attempt == 0 && o.Running() && o.EverWell }) {
			p.retire(i, "a fresh one has taken its place", true) // it was recycled, and did not die
			continue
		}
		p.trouble(i, p.failed(i))
		if kept {
			p.retire(i, "a later instance of the slot has died", true)
		}
		kept = true
	}
}

func (p *planner) trouble(i Instance, cause string) {
	p.out.Trouble = append(p.out.Trouble, Trouble{Instance: i.Name, Cause: cause})
}

// retire takes an instance out of service, one step at a time: un-routed and
// proved, drained, stopped, removed. The route is not its business: targets
// leaves out what is to be retired.
func (p *planner) retire(i Instance, cause string, remove bool) {
	if !i.Running() && !remove {
		return
	}
	p.wait(i.Name + " is on its way out")
	if p.busy[i.Name] {
		return
	}
	if i.Route != Out || p.coming[i.Name] || i.Running() && !p.settledRoute() {
		return
	}
	step := Step{Do: Remove, Instance: i.Name, ID: i.ID, Revision: i.Revision, Slot: i.Slot, Cause: cause}
	if i.Running() {
		step.Do = Stop
		if i.InFlight > 0 {
			deadline := i.OutSince.Add(p.policy.Upgrade.DrainTimeout.D())
			if p.Now.Before(deadline) {
				p.look(p.poll(i.OutSince, deadline))
				return
			}
			step.Cause += fmt.Sprintf("; the drain deadline passed with %s in flight", count(i.InFlight, "request"))
		}
	}
	p.step(step)
}

// settledRoute: what is on disk is what the proxy serves, so that no restart of
// it can bring back a target that was let go.
func (p *planner) settledRoute() bool { return !p.Proxy.Has || p.Proxy.HTTP != nil }

// poll spaces the looks at requests in flight: close at first, wider the
// longer it lasts.
func (p *planner) poll(since, deadline time.Time) time.Time {
	gap := min(max(p.Now.Sub(since)/4, 10*time.Millisecond), 250*time.Millisecond)
	if t := p.Now.Add(gap); t.Before(deadline) {
		return t
	}
	return deadline
}

// route asks for the targets where the proxy does not prove them.
func (p *planner) route(want desired, cause string) {
	if want.http == nil {
		p.unroute("the service has no http")
		return
	}
	if p.Goal.Current == nil && len(want.targets) == 0 && !p.Proxy.Has && len(p.goal.slots) > 0 {
		return // the first release gets its route when it is healthy
	}
	if p.proves(want) {
		return
	}
	p.wait("the proxy is to take its targets")
	if want.unsure != "" {
		p.wait(want.unsure + " has not answered its probe yet")
		return
	}
	if p.doing[Route] {
		return
	}
	if cause == "" {
		cause = p.routeCause(want)
	}
	p.step(Step{Do: Route, Targets: want.targets, HTTP: want.http, Revision: p.goal.release.Revision, Cause: cause})
}

func (p *planner) routeCause(want desired) string {
	switch {
	case !p.Proxy.Known:
		return "the proxy did not say what it serves"
	case !p.Proxy.Has:
		return "the route is not served yet"
	}
	in, out := 0, 0
	for _, t := range want.targets {
		if !slices.Contains(p.Proxy.Targets, t) {
			in++
		}
	}
	for _, t := range p.Proxy.Targets {
		if !slices.Contains(want.targets, t) {
			out++
		}
	}
	switch {
	case in+out == 0 && p.Proxy.HTTP == nil:
		return "the proxy's file does not say what it serves"
	case in+out == 0:
		return "the route itself has changed"
	case in == 0:
		return fmt.Sprintf("%d to go out", out)
	case out == 0:
		return fmt.Sprintf("%d healthy to come in", in)
	}
	return fmt.Sprintf("%d healthy to come in, %d to go out", in, out)
}

func (p *planner) unroute(cause string) {
	if !p.Proxy.Has {
		return
	}
	p.wait("the proxy is to let the route go")
	if !p.doing[Route] {
		p.step(Step{Do: Route, Gone: true, Cause: cause})
	}
}

// proves: the proxy has proved just this route and these targets.
func (p *planner) proves(want desired) bool {
	return p.Proxy.Known && p.Proxy.Has && p.Proxy.HTTP != nil && SameRoute(*want.http, *p.Proxy.HTTP) &&
		slices.Equal(want.targets, p.Proxy.Targets)
}

// SameRoute: two ways of writing the same route are equal.
func SameRoute(a, b spec.HTTP) bool {
	tls := a.TLS == b.TLS || a.TLS != nil && b.TLS != nil && *a.TLS == *b.TLS
	return tls && slices.Equal(a.Hosts, b.Hosts) && a.Path == b.Path && a.Listen == b.Listen && a.GRPC == b.GRPC
}
