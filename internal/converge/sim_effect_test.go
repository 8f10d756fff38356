package converge

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"conductor/internal/proxy"
)

// What has been done, and what clients have of it.

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

// told takes note of what a proxy that lies says that it has taken out: its
// requests may end from then on as far as a process can know that looks no more.
// s.mu is held.
func (s *sim) told(c *call) {
	for _, r := range s.px.Table().Routes {
		said, _ := c.table.Route(r.Service)
		for _, t := range r.Targets {
			if i := s.at(t); i == nil {
				continue
			} else if slices.Contains(said.Targets, t) {
				i.toldOutAt = time.Time{}
			} else if i.toldOutAt.IsZero() {
				i.toldOutAt = time.Now()
			}
		}
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

// noGap: a start-first service that is served stays served. While it has no
// release yet, that is owed to its candidate alone: what else the proxy serves is
// left of a first release that was given up.
func (s *sim) noGap(old proxy.Route, now proxy.Table) {
	g, ok := s.goals[old.Service]
	if !ok || !g.Running || g.Count(g.Policy) == 0 || g.Candidate != nil && g.Count(g.Candidate.Policy) == 0 || s.stopFirst(g) {
		return
	}
	r, _ := now.Route(old.Service)
	had := ""
	for _, t := range old.Targets {
		i := s.at(t)
		if !s.well(i) || !i.disturbedAt.IsZero() || g.Current == nil && (g.Candidate == nil || i.release != g.Candidate.Digest) {
			continue
		}
		had = t.Instance
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
