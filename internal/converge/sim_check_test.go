package converge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"conductor/internal/fault"
	"conductor/internal/goal"
	"conductor/internal/plan"
	"conductor/internal/proxy"
	"conductor/internal/spec"
)

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
	if n := s.inFlight[i.addr]; n > 0 && time.Since(i.outAt) < s.definitions[i.service].drain {
		s.violateLocked(2, "stop of %s with %d requests in flight, %s after it was out", i.name, n, time.Since(i.outAt))
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

// effected takes note of a call that has had its effect. s.mu is held.
func (s *sim) effected(c *call) {
	switch c.op {
	case "Apply", "PutRoutes", "Create", "Start", "Stop", "Remove", "PutGoal", "DeleteGoal":
		s.changes++
	}
	switch c.op {
	case "Start":
		if i := s.find(c.arg); i != nil && i.kind == KindService && i.runs <= 1 && i.started.Equal(time.Now()) {
			if s.beside(i) {
				s.starts[i.slotID()] = nil // it is no restart: what was there was old, and ran on
			}
			s.starts[i.slotID()] = append(s.starts[i.slotID()], i.started)
		}
	case "PutGoal":
		g := *c.goal
		old := s.goals[g.Service]
		anew := g.Candidate != nil && (old.Candidate == nil || old.Candidate.Digest != g.Candidate.Digest || !old.Candidate.Since.Equal(g.Candidate.Since))
		for k := range s.starts { // somebody asks for it anew, or for less
			if k.service == g.Service && (anew && k.release == g.Candidate.Digest || k.slot > g.Count(g.Policy) && g.Candidate == nil) {
				delete(s.starts, k)
			}
		}
		s.goals[g.Service], s.put[g.Service] = g, s.seq
	case "DeleteGoal":
		delete(s.goals, c.arg)
	}
}

func (s *sim) isServed(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.isServedLocked(name)
}

func (s *sim) isServedLocked(name string) bool {
	for _, r := range s.served.Routes {
		for _, t := range r.Targets {
			if t.Instance == name && s.at(t) != nil {
				return true
			}
		}
	}
	return false
}

// at is the container that a target means: the next one of its name has another
// address.
func (s *sim) at(t proxy.Target) *inst {
	if i := s.byName[t.Instance]; i != nil && i.addr == t.Addr {
		return i
	}
	return nil
}

// sync takes note of what the proxy serves now, and checks it (invariants 1 and
// 3). by is the call that changed it; nil: nobody's. s.mu is held.
func (s *sim) sync(by *call) {
	now := s.px.Table()
	for _, r := range now.Routes {
		old, _ := s.served.Route(r.Service)
		for _, t := range r.Targets {
			if !slices.Contains(old.Targets, t) {
				if i := s.at(t); i != nil {
					i.everIn, i.outAt = true, time.Time{}
				}
			}
		}
	}
	for _, old := range s.served.Routes {
		r, _ := now.Route(old.Service)
		for _, t := range old.Targets {
			if !slices.Contains(r.Targets, t) {
				if i := s.at(t); i != nil {
					i.outAt = time.Now()
				}
			}
		}
	}
	was := s.served
	s.served = now
	if by != nil && by.op == "Apply" {
		for _, old := range was.Routes {
			if by.p.decided[old.Service] >= s.shakenAt { // else it could not know what it changes
				s.noGap(old, now)
			}
		}
	}
	s.addresses()
}

// busy: an instance that goes out often has requests in flight, some of which
// last longer than they may. s.mu is held.
func (s *sim) busy(next proxy.Table) {
	if s.calm {
		return
	}
	for _, r := range s.px.Table().Routes {
		to, _ := next.Route(r.Service)
		for _, t := range r.Targets {
			i := s.at(t)
			if i == nil || !i.running || slices.Contains(to.Targets, t) {
				continue
			}
			switch x := s.jitter("busy", i.name, time.Since(s.began).String()); {
			case x%8 == 0:
				s.ask(i, 1, 0)
			case x%2 == 0:
				s.ask(i, 1+int(x%3), time.Duration(x%7)*x)
			}
		}
	}
}

// noGap: a start-first service that is served stays served.
func (s *sim) noGap(old proxy.Route, now proxy.Table) {
	g, ok := s.goals[old.Service]
	if !ok || !g.Running || g.Count(g.Policy) == 0 || g.Candidate != nil && g.Count(g.Candidate.Policy) == 0 || s.stopFirst(g) {
		return
	}
	r, _ := now.Route(old.Service)
	had := ""
	for _, t := range old.Targets {
		if i := s.at(t); s.well(i) && i.disturbedAt.IsZero() {
			had = t.Instance
		}
	}
	for _, t := range r.Targets {
		if i := s.at(t); i != nil && (s.well(i) || !i.disturbedAt.IsZero()) {
			return
		}
	}
	if had != "" {
		s.violateLocked(3, "%s was served well by %s, and is by nobody now", old.Service, had)
	}
}

// addresses: no served address is another container's of ours.
func (s *sim) addresses() {
	for _, r := range s.served.Routes {
		for _, t := range r.Targets {
			for _, i := range s.insts {
				if i.running && i.addr.Addr() == t.Addr.Addr() && i.name != t.Instance {
					s.violateLocked(1, "%s is served at %s, which is the address of %s", t.Instance, t.Addr, i.name)
				}
			}
		}
	}
}

// words is the call for people.
func (c *call) words(s *sim) string {
	arg := c.arg
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.insts[arg]; i != nil {
		arg = i.name
	}
	return fmt.Sprintf("%d %s %s", c.p.n, c.op, arg)
}

func oneLine(t string) string {
	line, _, _ := strings.Cut(t, "\n")
	return line
}

// before is what was true when a command began.
type before struct {
	goals map[string]goal.Goal
	calm  bool
}

func (s *sim) look0() before {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := before{goals: map[string]goal.Goal{}}
	for k, g := range s.goals {
		b.goals[k] = g
	}
	others := 0
	for _, p := range s.procs {
		if !p.done {
			others++
		}
	}
	b.calm = !s.disturbed && others == 0
	return b
}

// judge checks the end of a command. s.mu is held.
func (s *sim) judge(p *process, b before) {
	id := s.h.services[p.a.service].id
	if errors.Is(p.err, errDead) {
		s.violateLocked(0, "%s: %v, and nobody killed it", p.a.words(s.h), p.err)
	}
	if errors.Is(p.err, fault.ErrLocked) {
		others := slices.ContainsFunc(s.procs, func(o *process) bool {
			return o != p && (o.ended.IsZero() || !o.ended.Before(p.began)) && !o.began.After(p.ended)
		})
		if !others {
			s.violateLocked(0, "%s: %v, and nobody holds it", p.a.words(s.h), p.err)
		}
		return
	}
	if !b.calm || s.disturbed || p.a.timeout > 0 {
		return
	}
	for _, a := range s.h.acts { // two at once may do anything to each other's routes
		if a.overlap > 0 {
			return
		}
	}
	switch p.a.verb {
	case "upgrade":
		bad := ""
		for _, w := range []string{"exits", "late", "never", "cannot", "oom", "missing"} {
			if strings.HasPrefix(p.a.revision, w) {
				bad = w
			}
		}
		d := s.definitions[id]
		if strings.HasPrefix(p.a.revision, "spoils") && d.before {
			bad = "spoils"
		}
		if bad == "late" && !d.web || bad == "never" && !d.web {
			return
		}
		old := b.goals[id]
		g := s.goals[id]
		nothing := d.replicas == 0 || old.Replicas != nil && *old.Replicas == 0
		switch {
		case nothing && bad != "missing" && bad != "spoils":
		case bad != "" && p.err == nil:
			s.violateLocked(0, "%s ended well", p.a.words(s.h))
		case bad == "" && p.err != nil:
			s.violateLocked(0, "%s failed, with nothing in its way: %v", p.a.words(s.h), p.err)
		case bad == "missing" && !errors.Is(p.err, fault.ErrImage), bad != "" && bad != "missing" && !errors.Is(p.err, fault.ErrUnhealthy):
			s.violateLocked(0, "%s failed of the wrong class: %v", p.a.words(s.h), p.err)
		case bad == "" && (g.Current == nil || g.Current.Revision != p.a.revision || g.Candidate != nil):
			s.violateLocked(0, "%s ended well, and its goal is %s", p.a.words(s.h), goalWords(g))
		case bad != "" && (g.Candidate != nil || (g.Current == nil) != (old.Current == nil) || g.Current != nil && g.Current.Digest != old.Current.Digest):
			s.violateLocked(0, "%s failed, and its goal is %s", p.a.words(s.h), goalWords(g))
		}
	case "converge", "stop", "start", "restart", "scale", "remove":
		if p.err != nil && !errors.Is(p.err, fault.ErrUsage) {
			s.violateLocked(0, "%s failed, with nothing in its way: %v", p.a.words(s.h), p.err)
		}
	}
	if !errors.Is(p.err, fault.ErrUsage) && !s.disturbed && s.violated == nil && p.a.verb != "converge" {
		s.reached(id, false)
	}
}

// finish is the end of a history: nothing goes wrong any more, and converging
// brings the host to its goals (invariant 6).
func (d *driver) finish() {
	s := d.sim
	s.log("== all is calm")
	s.mu.Lock()
	s.calm = true
	s.engineDown, s.diskFull = time.Time{}, time.Time{}
	clear(s.armed)
	s.zombies, d.pending, d.todo = nil, nil, nil
	px := s.px
	s.mu.Unlock()
	px.Lie(false)
	px.Refuse(nil)
	px.Down(false)
	s.mu.Lock()
	s.sync(nil)
	s.mu.Unlock()
	var p *process
	for range 8 {
		d.idle(time.Second)
		d.steps = 0
		trial := false // what a candidate leaves as policy may not be today's
		for _, g := range s.goals {
			trial = trial || g.Candidate != nil
		}
		p = d.converge()
		if s.violated != nil {
			return
		}
		if (p.err == nil || onlyNeverDeployed(p.err)) && !trial {
			break
		}
	}
	if p.err != nil && !onlyNeverDeployed(p.err) {
		s.violate(6, "converge does not get there: %v", p.err)
		return
	}
	s.mu.Lock()
	for _, sv := range s.h.services {
		s.reached(sv.id, true)
	}
	n := s.changes
	s.mu.Unlock()
	if s.violated != nil {
		return
	}
	d.converge()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.violated == nil && s.changes > n+s.putGoals() {
		s.violateLocked(6, "converge again, and it did something: %d changes", s.changes-n)
	}
}

// putGoals are the goals that a command writes although nothing changes.
func (s *sim) putGoals() int { return len(s.goals) }

func onlyNeverDeployed(err error) bool { return errors.Is(err, fault.ErrUsage) }

func (d *driver) converge() *process {
	d.local = 0
	p := d.command(act{verb: "converge", replicas: -1})
	d.act = len(d.h.acts)
	d.remaining()
	return p
}

// reached checks that a service is what its goal says (invariant 6). s.mu is
// held. calmly: nothing may be under way any more.
func (s *sim) reached(id string, calmly bool) {
	s.look()
	g, ok := s.goals[id]
	bad := func(format string, args ...any) {
		if s.violated == nil {
			s.violateLocked(6, "%s, its goal is %s: %s", id, goalWords(g), fmt.Sprintf(format, args...))
			s.violated.kind = format
		}
	}
	if got, want := s.crontabs[id], scheduledText(g); got != want {
		bad("the crontab is %q, not %q", got, want)
	}
	is := s.instances(id)
	route, routed := s.served.Route(id)
	if calmly {
		if g.Candidate != nil {
			bad("there is a candidate still")
		}
		for _, i := range s.insts {
			if i.service == id && !i.removed && i.kind == KindRun && (ok || !i.ghost) {
				bad("a run is left: %s", i.name)
			}
		}
		for n := range s.placed {
			if i := s.byName[n]; i == nil || i.removed {
				if strings.HasPrefix(n, id+".") && ok {
					bad("files of secrets are left of %s", n)
				}
			}
		}
	}
	if !ok || g.Current == nil {
		for _, i := range is {
			if !i.ghost {
				bad("%s is left", i.name)
			}
		}
		if routed {
			bad("there is a route still")
		}
		return
	}
	want := map[string]bool{}
	for n := range g.Count(g.Policy) {
		live, dead := []*inst{}, 0
		for _, i := range is {
			if i.slot != n+1 || i.release != g.Current.Digest || i.epoch != g.Epoch {
				continue
			}
			if i.running {
				live = append(live, i)
			} else {
				dead++
			}
		}
		switch {
		case !g.Running && len(live) > 0:
			bad("%s runs", live[0].name)
		case g.Running && len(live) != 1:
			bad("slot %d has %d instances that run", n+1, len(live))
		case g.Running && g.Policy.HTTP != nil && !s.well(live[0]) && live[0].disturbedAt.IsZero():
			bad("%s is not well", live[0].name)
		case g.Running && calmly && g.Policy.HTTP != nil && !s.well(live[0]):
			bad("%s is not well", live[0].name)
		case dead > 1:
			bad("slot %d has %d dead instances", n+1, dead)
		}
		if g.Running && len(live) == 1 {
			want[live[0].name] = true
		}
	}
	for _, i := range is {
		switch {
		case i.release == g.Current.Digest && i.epoch == g.Epoch && i.slot <= g.Count(g.Policy):
		case !i.running && g.Running && i.release == g.Current.Digest && i.epoch == g.Epoch:
			bad("%s of a slot that is no more is left", i.name)
		default:
			bad("%s is left", i.name)
		}
	}
	if g.Policy.HTTP == nil {
		if routed {
			bad("there is a route")
		}
		return
	}
	if !routed {
		bad("there is no route")
		return
	}
	for _, t := range route.Targets {
		if !want[t.Instance] {
			bad("%s is served", t.Instance)
		}
		delete(want, t.Instance)
	}
	for n := range want {
		bad("%s is not served", n)
	}
	if disk, ok := s.px.Disk(); !ok || tableWords(disk) != tableWords(s.served) {
		bad("the proxy's file says something else than it serves")
	}
	if r, err := s.store.Routes(); err == nil {
		if f, _ := r.Table.Route(id); !slices.Equal(f.Targets, route.Targets) {
			bad("the routes file says something else than is served")
		}
	}
	if h := s.definitions[id].spec().Policy.HTTP; calmly && h != nil && route.HTTP.Hosts[0] != h.Hosts[0] {
		bad("the route is %v still", route.HTTP.Hosts)
	}
}
