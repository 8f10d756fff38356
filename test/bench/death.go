package main

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"conductor/test/bench/container"
)

const (
	deathLimit = 1.25
	hangLimit  = 250 * time.Millisecond // above the formula
)

// deathPhases are the instants between a death and its replacement serving.
var deathPhases = []string{"die", "created", "started", "healthy", "serving"}

// death is one: when each phase was over, from the signal on.
type death map[string]time.Duration

// at are the times of one phase.
func at(phase string, ds []death) (all times) {
	for _, d := range ds {
		all = append(all, d[phase])
	}
	return all
}

// deaths measures how long it takes from the death of a process to its
// replacement serving, by Conductor and by a floor: who hears of it at the
// engine, creates, starts, and waits for the first good answer.
func (s *stage) deaths(ctx context.Context, r *report) error {
	pairs := 45
	if s.quick {
		pairs = 3
	}
	// A slot is filled at once where its last start is 5 s ago: so there are a
	// few services, and they have their turns.
	ids := []string{"died-1", "died-2", "died-3"}
	proxy := map[string]netip.AddrPort{}
	for _, id := range ids {
		var err error
		if proxy[id], err = s.service(id, 2); err != nil {
			return err
		}
	}
	if err := s.deploy(ctx, ids...); err != nil {
		return err
	}
	floor, _, err := s.floorStart(ctx, s.floorSpec(), time.Now())
	if err != nil {
		return err
	}
	var own, least []death
	if err := s.supervised(ctx, func(sup *supervisor) error {
		for n := range pairs + len(ids) {
			id := ids[n%len(ids)]
			ours := func() (death, error) {
				victim, p, err := s.victim(ctx, id)
				if err != nil {
					return nil, err
				}
				since, heard, began := sup.heard(), s.heard.count(), time.Now()
				if err := p.Kill(); err != nil {
					return nil, err
				}
				_, d, err := s.replaced(ctx, sup, since, id, victim, proxy[id], began)
				if err != nil {
					return nil, err
				}
				e, err := s.heard.first(ctx, heard, "die", is(victim))
				d["die"] = e.at.Sub(began)
				if s.keepTrace && n == pairs {
					sup.print(os.Stderr, since, began)
				}
				return d, err
			}
			floors := func() (d death, err error) {
				floor, d, err = s.floorDeath(ctx, floor)
				return d, err
			}
			if err := turns(n, n >= len(ids), &own, ours, &least, floors); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	a, b := at("serving", own), at("serving", least)
	q := ratio(a, b)
	r.add(row{section: "a process is killed, 1 of 2 replicas: until its replacement serves",
		what: fmt.Sprintf("`conductor supervise`, median of %d", pairs), value: a.String(),
		baseline: "floor: " + b.String(), ratio: fmt.Sprintf("%.2f", q), target: target(fmt.Sprintf("≤ %.2f", deathLimit), q <= deathLimit)})
	r.details = append(r.details, deathBreakdown(own, least))
	return s.clear(ctx, ids...)
}

// floorDeath kills the floor's container and returns another one that answers
// in its place.
func (s *stage) floorDeath(ctx context.Context, victim string) (fresh string, d death, err error) {
	p, err := container.Inspect(ctx, s.engine, victim, s.network.name)
	if err != nil {
		return "", nil, err
	}
	heard, began := s.heard.count(), time.Now()
	if err := p.Kill(); err != nil {
		return "", nil, err
	}
	e, err := s.heard.first(ctx, heard, "die", is(victim))
	if err != nil {
		return "", nil, err
	}
	fresh, d, err = s.floorStart(ctx, s.floorSpec(), began)
	if err != nil {
		return "", nil, err
	}
	d["die"], d["healthy"] = e.at.Sub(began), d["serving"]
	return fresh, d, container.Remove(ctx, s.engine, victim)
}

// clear takes services and the floor's containers away.
func (s *stage) clear(ctx context.Context, ids ...string) error {
	if err := s.forget(ctx, ids...); err != nil {
		return err
	}
	return s.removeContainers(ctx, container.Label+"="+namespace+"-floor")
}

// deathBreakdown tells where the time of both goes.
func deathBreakdown(own, least []death) detail {
	d := detail{title: "Where the time of a death goes, medians:", head: []string{"until …", "conductor", "floor", "conductor's part", "floor's part"}}
	words := map[string]string{"die": "the engine tells it", "created": "created", "started": "started", "healthy": "healthy", "serving": "it serves"}
	before := ""
	for _, p := range deathPhases {
		part := func(ds []death) (t times) {
			for _, d := range ds {
				t = append(t, d[p]-d[before])
			}
			return t
		}
		d.lines = append(d.lines, []string{words[p], ms(at(p, own).median()), ms(at(p, least).median()), ms(part(own).median()), ms(part(least).median())})
		before = p
	}
	return d
}

// hangs measures how long it takes from when a process hangs, with its port
// open, to its replacement serving.
func (s *stage) hangs(ctx context.Context, r *report) error {
	const id, interval, timeout, after = "hung", 500 * time.Millisecond, 500 * time.Millisecond, 2
	runs := 9
	if s.quick {
		runs = 2
	}
	proxy, err := s.service(id, 2, "interval: "+interval.String(), "timeout: "+timeout.String(), "unhealthy_after: "+strconv.Itoa(after))
	if err != nil {
		return err
	}
	if err := s.deploy(ctx, id); err != nil {
		return err
	}
	var own, starts []death
	if err := s.supervised(ctx, func(sup *supervisor) error {
		for n := range runs {
			ours := func() (death, error) {
				victim, _, err := s.victim(ctx, id)
				if err != nil {
					return nil, err
				}
				since, heard, began := sup.heard(), s.heard.count(), time.Now()
				if err := s.halt(ctx, victim); err != nil {
					return nil, err
				}
				_, d, err := s.replaced(ctx, sup, since, id, victim, proxy, began)
				if err != nil {
					return nil, err
				}
				// It is stopped in the end, and the next one meets two that are well.
				_, err = s.heard.first(ctx, heard, "die", is(victim))
				return d, err
			}
			alone := func() (death, error) {
				c, d, err := s.floorStart(ctx, s.floorSpec(), time.Now())
				if err != nil {
					return nil, err
				}
				return d, s.engine.RemoveContainer(ctx, c)
			}
			if err := turns(n, true, &own, ours, &starts, alone); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	formula := after * (interval + timeout)
	a, b := at("serving", own), at("serving", starts)
	var over times
	for n := range a {
		over = append(over, a[n]-b[n]-formula)
	}
	worst := slices.Max(over)
	r.add(row{section: "a process hangs (SIGSTOP), 1 of 2 replicas: until its replacement serves",
		what:     fmt.Sprintf("interval and timeout %s, unhealthy after %d; median of %d", ms(interval), after, runs),
		value:    a.String(),
		baseline: fmt.Sprintf("%d × (interval + timeout) = %s, + start %s", after, ms(formula), b),
		target:   target(fmt.Sprintf("each ≤ that + %s", ms(hangLimit)), worst <= hangLimit)})
	return s.clear(ctx, id)
}

// halt stops all processes of a container with its port open.
func (s *stage) halt(ctx context.Context, id string) error {
	var top struct{ Processes [][]string }
	if err := s.engine.Do(ctx, "GET", "/containers/"+id+"/top", url.Values{"ps_args": {"-o pid"}}, nil, &top); err != nil {
		return err
	}
	for _, line := range top.Processes {
		pid, err := strconv.Atoi(line[0])
		if err != nil || pid <= 1 {
			return fmt.Errorf("container %.12s: %q is no process", id, line)
		}
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return err
		}
	}
	return nil
}
