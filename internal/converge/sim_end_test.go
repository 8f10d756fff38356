package converge

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"conductor/internal/fault"
	"conductor/internal/goal"
)

// Checks of how commands end, and the whole history.

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
