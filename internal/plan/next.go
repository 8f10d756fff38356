package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"conductor/internal/engine"
	"conductor/internal/goal"
	"conductor/internal/spec"
)

// Next decides what may be done now.
func Next(in Input) Output {
	if !in.Goal.Running && in.Goal.Changes() {
		in.Goal.Candidate = nil
	}
	p := &planner{Input: in, policy: in.Goal.Policy, busy: map[string]bool{}, leaving: map[string]bool{}, coming: map[string]bool{}, doing: map[Kind]bool{}}
	if c := in.Goal.Candidate; c != nil {
		p.policy = c.Policy
	}
	for _, s := range in.Doing {
		p.doing[s.Do] = true
		p.comes(s)
		if s.Instance != "" {
			p.busy[s.Instance] = true
			p.leaving[s.Instance] = s.Do == Stop || s.Do == Remove
		}
	}
	p.sort()
	switch {
	case in.Goal.Changes():
		p.candidate()
	case in.Goal.Candidate != nil:
		p.policyChange()
	case !in.Goal.Running:
		p.stopped()
	case in.Goal.Current != nil:
		p.running()
	default:
		p.stopped()
	}
	p.crontab()
	return p.out
}

// planner is one decision in the making.
type planner struct {
	Input
	policy spec.Policy     // the candidate's while there is one
	busy   map[string]bool // instances with a step in flight
	// leaving are those that are being stopped or removed: they may run for a
	// while yet, and serve no more.
	leaving map[string]bool
	// coming are the targets of a switch in flight: they are about to be
	// routed, although the last look says that they are out.
	coming map[string]bool
	doing  map[Kind]bool
	out    Output

	goal    group      // instances of the release and epoch that should run
	serving group      // with a candidate: those of the current release
	others  []Instance // to be retired: other releases, older epochs, surplus slots
}

// group is the instances of one release, by slot.
type group struct {
	release *goal.Release
	slots   [][]Instance // slots[0] is slot 1; within a slot by N
}

func (p *planner) sort() {
	g := p.Goal
	p.goal = group{release: g.Current, slots: make([][]Instance, g.Count(p.policy))}
	if g.Candidate != nil {
		p.goal.release = &g.Candidate.Release
		p.serving = group{release: g.Current, slots: make([][]Instance, g.Count(g.Policy))}
	}
	of := func(gr *group, i Instance) bool {
		return gr.release != nil && i.Release == gr.release.Digest && i.Epoch == g.Epoch && i.Slot >= 1 && i.Slot <= len(gr.slots)
	}
	for _, i := range p.Instances {
		switch {
		case i.State == engine.Removing:
		case of(&p.goal, i):
			p.goal.slots[i.Slot-1] = append(p.goal.slots[i.Slot-1], i)
		case of(&p.serving, i):
			p.serving.slots[i.Slot-1] = append(p.serving.slots[i.Slot-1], i)
		default:
			p.others = append(p.others, i)
		}
	}
	for _, gr := range []group{p.goal, p.serving} {
		for _, s := range gr.slots {
			slices.SortFunc(s, func(a, b Instance) int { return cmp.Compare(a.N, b.N) })
		}
	}
}

// stopped: no requests, no process. The last dead instance of each slot stays
// for its logs.
func (p *planner) stopped() {
	if p.Goal.Removing {
		p.unroute("the service is removed")
		for _, i := range p.Instances {
			p.retire(i, "the service is removed", true)
		}
		return
	}
	if p.policy.HTTP != nil && p.Goal.Current != nil {
		p.route(desired{http: p.policy.HTTP}, "the service is stopped")
	} else {
		p.unroute("the service has no release to send requests to")
	}
	for _, s := range p.goal.slots {
		p.dead(s)
		for _, i := range s {
			if i.Live() {
				p.retire(i, "the service is stopped", i.State == engine.Created)
			}
		}
	}
	for _, i := range p.others {
		p.retire(i, "the service is stopped", true)
	}
}

// running: the current release, and nothing else.
func (p *planner) running() {
	p.route(p.targets(), "")
	p.fill(p.goal, false)
	for _, i := range p.others {
		if p.holds(i) {
			continue
		}
		p.retire(i, p.superseded(i), true)
	}
}

// holds: an instance of an older epoch serves until its slot has a better one.
func (p *planner) holds(i Instance) bool {
	if i.Release != p.Goal.Current.Digest || i.Slot > len(p.goal.slots) || i.Slot < 1 || i.Epoch == p.Goal.Epoch {
		return false
	}
	if p.routed(p.goal.slots[i.Slot-1]) {
		return false
	}
	if p.policy.Upgrade.Order == spec.StopFirst && i.Running() && p.turn(i.Slot) {
		return false
	}
	return true
}

func (p *planner) superseded(i Instance) string {
	switch {
	case i.Release != p.Goal.Current.Digest:
		return fmt.Sprintf("the current release is %s (%.4s)", p.Goal.Current.Revision, p.Goal.Current.Digest)
	case i.Slot > len(p.goal.slots):
		return fmt.Sprintf("%s should run", count(len(p.goal.slots), "replica"))
	case i.Epoch != p.Goal.Epoch && i.Slot > 0 && p.routed(p.goal.slots[i.Slot-1]):
		return fmt.Sprintf("slot %d has a fresh instance", i.Slot)
	case i.Epoch != p.Goal.Epoch:
		return fmt.Sprintf("stop-first: a fresh instance of slot %d needs its place", i.Slot)
	}
	return fmt.Sprintf("%s should run", count(len(p.goal.slots), "replica"))
}

// policyChange: the release stays, and the proxy is to take another way to it.
// It is on trial as a release is: a route that the proxy refuses is given up.
func (p *planner) policyChange() {
	want, rest := p.targets(), p.running
	if !p.Goal.Running {
		want, rest = desired{http: p.policy.HTTP}, p.stopped
	}
	switch {
	case p.doing[Commit] || p.doing[Drop] || p.doing[Route]:
		p.wait("the goal and the route change")
	case p.policy.HTTP == nil && !p.Proxy.Has || p.policy.HTTP != nil && p.proves(want):
		p.commit("the proxy proved the route as it is defined now")
		return
	case p.Abort != "":
		p.step(Step{Do: Drop, Revision: p.Goal.Candidate.Revision, Cause: p.Abort})
		return
	}
	rest()
}

// candidate: the next release comes in beside the current one, or after it.
func (p *planner) candidate() {
	c := p.Goal.Candidate
	for _, i := range p.others {
		if p.Goal.Current == nil || i.Release != p.Goal.Current.Digest {
			p.retire(i, "its release was given up", true)
		}
	}
	ready := p.ready()
	proved := ready && p.prepared() && (p.policy.HTTP == nil || p.proves(p.targets()))
	if !proved && !p.doing[Commit] && !p.doing[Drop] {
		// A switch in flight is awaited: its proof decides between commit and
		// drop. So is upgrade.before, which the abort ends.
		if step, bad := p.verdict(); bad {
			if !p.doing[Route] && !p.doing[Before] {
				p.step(step)
			}
			p.wait("the candidate is given up: " + step.Cause)
			return
		}
	}
	if p.doing[Drop] || p.doing[Commit] {
		p.wait("the goal is being written")
		return
	}
	if proved {
		p.commit(p.inWords())
		return
	}
	if !p.prepared() {
		p.route(p.targets(), "")
		p.fill(p.serving, false)
		if !p.doing[Before] {
			p.step(Step{Do: Before, Revision: c.Revision, Cause: "upgrade.before, once, before any instance of " + c.Revision})
		}
		p.wait("upgrade.before runs")
		return
	}
	if p.policy.Upgrade.Order == spec.StopFirst {
		cause := ""
		if !ready {
			cause = "stop-first: " + c.Revision + " starts when the one before has stopped"
		}
		p.route(p.targets(), cause)
		if !p.stopServing() {
			return
		}
	} else {
		p.route(p.targets(), "")
		p.fill(p.serving, false)
	}
	p.fill(p.goal, true)
}

// stopServing stops what serves, for stop-first, and keeps the containers. It
// returns true when none runs any more.
func (p *planner) stopServing() bool {
	done := true
	for _, i := range append(slices.Concat(p.serving.slots...), p.others...) {
		if !i.Running() && !p.busy[i.Name] {
			continue
		}
		done = false // also one of a release that was given up: only one may run
		if p.Goal.Current != nil && i.Release == p.Goal.Current.Digest {
			p.retire(i, "stop-first: "+p.Goal.Candidate.Revision+" needs its place", false)
		}
	}
	return done
}

// verdict tells whether the candidate has to be given up.
func (p *planner) verdict() (Step, bool) {
	c := p.Goal.Candidate
	drop := Step{Do: Drop, Revision: c.Revision}
	for _, r := range p.Refused {
		if r.Release == c.Digest {
			drop.Failed, drop.Cause = true, r.Reason
			return drop, true
		}
	}
	for _, i := range slices.Concat(p.goal.slots...) {
		if cause := p.failed(i); cause != "" {
			drop.Failed, drop.Instance, drop.ID, drop.Cause = true, i.Name, i.ID, cause
			return drop, true
		}
	}
	if p.Abort != "" {
		drop.Cause = p.Abort
		return drop, true
	}
	return Step{}, false
}

// failed says in words why an instance did not work out; empty: it may still.
func (p *planner) failed(i Instance) string {
	switch {
	case i.Broken != "":
		return i.Broken
	case i.State == engine.Exited && i.OOMKilled:
		return "killed: out of memory"
	case i.State == engine.Exited:
		return fmt.Sprintf("exited %d", i.ExitCode)
	case i.Late(p.policy.Health, p.Now):
		return fmt.Sprintf("not healthy %s after its start", p.policy.Health.StartTimeout)
	case p.Goal.Changes() && i.Sick(p.policy.Health):
		return "turned sick: " + i.LastWord
	}
	return ""
}

// ready: every slot of the goal has an instance that may serve.
func (p *planner) ready() bool {
	for _, s := range p.goal.slots {
		if _, ok := p.best(s); !ok {
			return false
		}
	}
	return true
}

// best is the instance of a slot that should serve: one that is routed before
// one that is not, then the newest.
func (p *planner) best(slot []Instance) (b Instance, ok bool) {
	if p.Recycle != "" {
		fresh := slices.DeleteFunc(slices.Clone(slot), func(i Instance) bool { return i.Name == p.Recycle || !i.Well })
		if b, ok = p.bestOf(fresh); ok {
			return b, ok
		}
	}
	return p.bestOf(slot)
}

func (p *planner) bestOf(slot []Instance) (b Instance, ok bool) {
	for _, i := range slot {
		if i.Serves(p.policy.Health) && !p.leaving[i.Name] && (!ok || i.Route == In || b.Route != In) {
			b, ok = i, true
		}
	}
	return b, ok
}

// routed: the slot has an instance that serves, proved; without a route: is well.
func (p *planner) routed(slot []Instance) bool {
	b, ok := p.best(slot)
	return ok && (p.policy.HTTP == nil || b.Route == In)
}

// commit makes the candidate current. A crontab that is just being installed is
// that of the release before, so it has to be there first.
func (p *planner) commit(cause string) {
	if p.doing[Cron] {
		p.wait("the crontab is being installed")
		return
	}
	p.step(Step{Do: Commit, Revision: p.Goal.Candidate.Revision, Cause: cause})
}

// prepared: all that comes before the first instance of the candidate is done.
func (p *planner) prepared() bool {
	return p.Goal.Candidate.Before || len(p.policy.Upgrade.Before) == 0
}

// ours: of a release that the goal names.
func (p *planner) ours(i Instance) bool {
	return p.Goal.Current != nil && i.Release == p.Goal.Current.Digest ||
		p.Goal.Candidate != nil && i.Release == p.Goal.Candidate.Digest
}

func (p *planner) inWords() string {
	n := count(len(p.goal.slots), "instance")
	switch {
	case p.policy.Kind == spec.Job:
		return "a job has nothing long-running"
	case p.policy.HTTP == nil:
		return n + " healthy"
	}
	return n + " healthy and proved to serve"
}

// look asks to look again at that time. One that has passed would be asked for
// over and over: what was due then is known, or is on its way.
func (p *planner) look(t time.Time) {
	if !t.After(p.Now) {
		return
	}
	if p.out.LookAt.IsZero() || t.Before(p.out.LookAt) {
		p.out.LookAt = t
	}
}

func (p *planner) wait(why string) { p.out.Waiting = append(p.out.Waiting, why) }

func (p *planner) step(s Step) {
	if s.Instance != "" && s.Do != Drop {
		p.busy[s.Instance] = true
	}
	p.doing[s.Do] = true
	p.comes(s)
	p.out.Steps = append(p.out.Steps, s)
}

func (p *planner) comes(s Step) {
	for _, t := range s.Targets {
		p.coming[t.Instance] = true
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
