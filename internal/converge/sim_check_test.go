package converge

import (
	"context"
	"slices"
	"strings"
	"time"

	"conductor/internal/goal"
	"conductor/internal/plan"
	"conductor/internal/spec"
)

// Checks of what is about to be done.

// decided checks what the planner wants routed against what the process knows
// and what is true (invariant 1). What is true may have changed since the
// process looked; nothing else excuses it.
func (s *sim) decided(p *process, in plan.Input, out plan.Output) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.dead {
		return
	}
	for _, st := range out.Steps {
		if st.Do != plan.Route {
			continue
		}
		p.decided[in.Goal.Service] = s.beat
		// As it is now: the driver may not have looked since the switch before.
		old, _ := s.px.Table().Route(in.Goal.Service)
		if !in.Proxy.Known {
			// It may serve less than the file says, as one does that has lost its
			// own. Whom it does not answer cannot know, and brings it to the file.
			if r, err := s.store.Routes(); err == nil {
				old, _ = r.Table.Route(in.Goal.Service)
			}
		}
		for _, t := range st.Targets {
			if slices.Contains(old.Targets, t) {
				continue
			}
			i := s.byName[t.Instance]
			switch {
			case i == nil || i.service != in.Goal.Service || i.addr != t.Addr:
				s.violateLocked(1, "%s is to be routed at %s, and is no such instance", t.Instance, t.Addr)
			case !i.running && i.beat <= p.beat:
				s.violateLocked(1, "%s is to be routed, and does not run", t.Instance)
			case !i.running: // it ended since
			case i.stopped && i.disturbedAt.IsZero() && i.stoppedBy == p:
				s.violateLocked(1, "%s is to be routed, and is being stopped", t.Instance)
			default:
				k := i.heard[p]
				after := in.Goal.Policy.Health.UnhealthyAfter
				if c := in.Goal.Candidate; c != nil && c.Digest == i.release {
					after = c.Policy.Health.UnhealthyAfter
				}
				if (k.run != i.runs || !k.good || k.failures >= max(after, 1)) && i.beat <= p.beat {
					s.violateLocked(1, "%s is to be routed, and is not known to be healthy", t.Instance)
				}
			}
		}
	}
}

// allowed checks a call before it has its effect. s.mu is held.
func (s *sim) allowed(c *call) {
	s.look()
	switch c.op {
	case "Start":
		if i := s.mine(c); i != nil {
			s.mayStart(i, c)
		}
	case "Stop", "Kill":
		if i := s.mine(c); i != nil && i.running {
			s.mayStop(i, c)
		}
	case "Remove":
		if i := s.mine(c); i != nil {
			s.mayRemove(i, c)
		}
	case "Install", "Uninstall":
		s.mayInstall(c)
	case "PutGoal":
		s.mayCommit(c)
	}
}

// mine is the container of a call that changes it (invariant 5).
func (s *sim) mine(c *call) *inst {
	if i := s.find(c.arg); i != nil {
		return i
	}
	if x, err := s.eng.Inspect(context.Background(), c.arg); err == nil {
		s.violateLocked(5, "%s of %s, which is somebody else's", c.op, x.Name)
	}
	return nil
}

// slotID is what restarts are counted by.
type slotID struct {
	service, release string
	epoch, slot      int
}

func (i *inst) slotID() slotID { return slotID{i.service, i.release, i.epoch, i.slot} }

// mayStart is invariant 4.
func (s *sim) mayStart(i *inst, c *call) {
	g, ok := s.goals[i.service]
	if i.running || !ok {
		return
	}
	if !g.Running && c.seq > s.put[i.service] { // a start that was on its way is undone
		s.violateLocked(4, "start of %s, and the service is stopped", i.name)
	}
	s.alone(i, g, c)
	if i.kind != KindService || i.runs > 0 {
		return // a run, or an instance that serves again after a release was given up
	}
	key := i.slotID()
	t := s.starts[key]
	if n := len(t); n >= 2 && time.Since(t[n-1]) < plan.RestartInterval {
		s.violateLocked(4, "start of %s, the restart %d of its slot, %s after the one before", i.name, n, time.Since(t[n-1]))
	}
}

// beside: it was made to run beside one that is to be recycled, though that may
// have died meanwhile.
func (s *sim) beside(i *inst) bool {
	placed, ok := s.placed[i.name]
	return i.fresh && slices.ContainsFunc(s.instances(i.service), func(o *inst) bool {
		return o != i && o.slotID() == i.slotID() && (o.running || ok && !o.disturbedAt.Before(placed))
	})
}

// alone: stop-first lets no two releases run at once.
func (s *sim) alone(i *inst, g goal.Goal, c *call) {
	if i.kind != KindService || g.Candidate == nil || g.Candidate.Policy.Upgrade.Order != spec.StopFirst ||
		i.release != g.Candidate.Digest || c.seq <= s.put[i.service] {
		return
	}
	for _, o := range s.instances(i.service) {
		if o.running && o.release != i.release && o.disturbedAt.IsZero() {
			s.violateLocked(3, "start of %s, stop-first, and %s runs", i.name, o.name)
		}
	}
}

// mayStop is invariants 2 and 3. The instance runs.
func (s *sim) mayStop(i *inst, c *call) {
	if i.kind != KindService {
		return
	}
	if s.isServedLocked(i.name) {
		s.violateLocked(2, "stop of %s, which the proxy serves", i.name)
	}
	out := i.outAt
	if told := i.toldOutAt; !told.IsZero() && told.Before(out) {
		out = told
	}
	if n := s.inFlight[i.addr]; n > 0 && time.Since(out) < s.definitions[i.service].drain {
		s.violateLocked(2, "stop of %s with %d requests in flight, %s after it was out", i.name, n, time.Since(out))
	}
	g, ok := s.goals[i.service]
	if !ok || !g.Running || g.Current == nil || i.release != g.Current.Digest || !i.disturbedAt.IsZero() || !s.well(i) {
		return
	}
	if i.slot > slots(g) || s.stopFirst(g) || c.seq <= max(s.put[i.service], s.shaken) {
		return // or it was on its way when the goal or the proxy became what it is
	}
	if s.instead(i, g) {
		return
	}
	s.violateLocked(3, "stop of %s, which is well, and nothing serves in its place", i.name)
}

// slots are those that are to be filled under the goal's and its candidate's policy.
func slots(g goal.Goal) int {
	n := g.Count(g.Policy)
	if g.Candidate != nil {
		n = min(n, g.Count(g.Candidate.Policy))
	}
	return n
}

func (s *sim) stopFirst(g goal.Goal) bool {
	return g.Policy.Upgrade.Order == spec.StopFirst || !g.Resume.IsZero() || g.Candidate != nil && g.Candidate.Policy.Upgrade.Order == spec.StopFirst
}

// instead: another instance of the slot's release is well, and is served where
// there is a route.
func (s *sim) instead(i *inst, g goal.Goal) bool {
	for _, o := range s.instances(i.service) {
		if o == i || o.release != i.release || o.slot != i.slot || o.epoch != g.Epoch {
			continue
		}
		if (s.well(o) || !o.disturbedAt.IsZero()) && (g.Policy.HTTP == nil || !i.everIn || s.isServedLocked(o.name)) {
			return true
		}
	}
	return false
}

// later: a later instance of the slot is the one that would be started again:
// it was stopped too, and may have been started again by now; or could not be
// started yet; or it is well, and has only not been routed; or the world did
// something to it: if it has ended, it is what is replaced, and this one is
// started never again.
func (s *sim) later(i *inst) bool {
	return slices.ContainsFunc(s.instances(i.service), func(o *inst) bool {
		return o != i && o.slotID() == i.slotID() &&
			(o.started.After(i.started) && (o.stopped || o.runs > 1 || s.well(o) || !o.disturbedAt.IsZero()) || o.runs == 0)
	})
}

// unseen: somebody removed another instance of the slot after the process had looked.
func (s *sim) unseen(i *inst, c *call) bool {
	for _, o := range s.insts {
		if o != i && o.vanished && o.slotID() == i.slotID() && o.beat > min(c.p.beat, c.beat) {
			return true
		}
	}
	return false
}

func (s *sim) mayRemove(i *inst, c *call) {
	if i.kind != KindService {
		return
	}
	if s.isServedLocked(i.name) {
		s.violateLocked(2, "removal of %s, which the proxy serves", i.name)
	}
	g, ok := s.goals[i.service]
	if !ok || !g.Running || g.Current == nil || i.release != g.Current.Digest || i.epoch != g.Epoch || !i.disturbedAt.IsZero() || i.slot > slots(g) || c.seq <= s.put[i.service] {
		return
	}
	if i.stopped && i.wasWell && !s.instead(i, g) && !s.later(i) && !s.unseen(i, c) {
		s.violateLocked(3, "removal of %s, of the release that is current, and nothing serves in its place", i.name)
	}
}

// mayCommit is invariant 3 for the moment in which a candidate becomes current.
func (s *sim) mayCommit(c *call) {
	g := c.goal
	old, ok := s.goals[g.Service]
	if !ok || old.Candidate == nil || g.Candidate != nil || g.Current == nil || g.Current.Digest != old.Candidate.Digest {
		return
	}
	if old.Current != nil && old.Current.Digest == g.Current.Digest {
		return // another policy of the same release
	}
	for n := range g.Count(g.Policy) {
		found := false
		for _, i := range s.instances(g.Service) {
			if i.release != g.Current.Digest || i.slot != n+1 || i.epoch != g.Epoch {
				continue
			}
			if i.beat > min(c.p.beat, c.beat) {
				return // nobody can know
			}
			k := i.heard[c.p]
			if i.running && (k.good && k.run == i.runs || g.Policy.HTTP != nil && s.isServedLocked(i.name)) && (g.Policy.HTTP == nil || s.isServedLocked(i.name)) {
				found = true
			}
		}
		if !found && !s.hidden(g.Service) {
			s.violateLocked(3, "%s is committed, and slot %d is not healthy and proved", g.Current.Revision, n+1)
		}
	}
}

// hidden: something that nobody is told of befell the service of late.
func (s *sim) hidden(service string) bool {
	for _, i := range s.insts {
		if i.service == service && !i.disturbedAt.IsZero() && time.Since(i.disturbedAt) < 5*time.Second {
			return true
		}
	}
	return s.proxyTroubled()
}

// proxyTroubled: the proxy was restarted or told otherwise in this history, so
// that what it serves may differ from what it proved.
func (s *sim) proxyTroubled() bool {
	for _, a := range s.h.acts {
		for _, t := range a.trouble {
			if strings.HasPrefix(t.kind, "proxy") || t.kind == "reboot" {
				return true
			}
		}
	}
	return false
}
