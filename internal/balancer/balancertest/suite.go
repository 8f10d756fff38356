package balancertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"conductor/internal/balancer"
	"conductor/internal/fault"
)

// Subject is one balancer that the suite may do with as it likes. It runs, and
// its hosts are in and up.
type Subject struct {
	Balancer balancer.Balancer
	// Hosts are three hosts that the balancer knows. It was made with Unknown
	// as a host too, which it does not know; empty where it cannot tell.
	Hosts   []string
	Unknown string
	// Reopen returns another Balancer to the same, as another process has it;
	// nil where a process remembers by itself.
	Reopen func() balancer.Balancer
	// Sick makes the balancer's check of a host fail, and returns when it does;
	// nil where it does not check.
	Sick func(host string)
	// Stop ends the balancer; nil where there is nothing to end.
	Stop func()
}

// Suite says what every adapter of balancer.Balancer does. open is called once
// for each case.
func Suite(t *testing.T, open func(t *testing.T) Subject) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, s Subject)
	}{
		{"AllAreIn", allIn},
		{"DrainAndAdmit", drainAndAdmit},
		{"AgainIsTheSame", again},
		{"SwapAsOne", swap},
		{"AwayIsToldApart", away},
		{"UnknownChangesNothing", unknown},
		{"TwiceIsRefused", twice},
		{"NothingToChange", nothing},
		{"AnotherProcessSeesIt", another},
		{"EndedContextChangesNothing", ended},
		{"ManyAtOnce", many},
		{"SwapNeedsThoseThatAreUp", sick},
		{"StoppedIsUnreachable", stopped},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

func set(t *testing.T, b balancer.Balancer, c balancer.Change) {
	t.Helper()
	if err := b.Set(t.Context(), c); err != nil {
		t.Fatalf("%s: %v (%s)", c, err, fault.Hint(err))
	}
}

// is fails unless these hosts are as said and all others of the subject in.
func is(t *testing.T, s Subject, b balancer.Balancer, want map[string]string) {
	t.Helper()
	state, err := b.State(t.Context())
	if err != nil {
		t.Fatalf("state: %v (%s)", err, fault.Hint(err))
	}
	got, all := map[string]string{}, map[string]string{}
	for h, server := range state {
		got[h] = word(server)
		if !server.Up {
			t.Errorf("%s is not up: %+v", h, server)
		}
	}
	for _, h := range s.Hosts {
		all[h] = "in"
	}
	maps.Copy(all, want)
	if !maps.Equal(got, all) {
		t.Errorf("state %v, want %v", got, all)
	}
}

func word(s balancer.Server) string {
	switch {
	case s.In && s.Away:
		return "both in and away"
	case s.In:
		return "in"
	case s.Away:
		return "away"
	}
	return "out"
}

func allIn(t *testing.T, s Subject) { is(t, s, s.Balancer, nil) }

func drainAndAdmit(t *testing.T, s Subject) {
	a, b := s.Hosts[0], s.Hosts[1]
	set(t, s.Balancer, balancer.Change{Drain: []string{a}})
	is(t, s, s.Balancer, map[string]string{a: "out"})
	set(t, s.Balancer, balancer.Change{Drain: []string{b}})
	is(t, s, s.Balancer, map[string]string{a: "out", b: "out"})
	set(t, s.Balancer, balancer.Change{Admit: []string{a, b}})
	is(t, s, s.Balancer, nil)
}

func again(t *testing.T, s Subject) {
	a, b, c := s.Hosts[0], s.Hosts[1], s.Hosts[2]
	for range 2 {
		set(t, s.Balancer, balancer.Change{Admit: []string{c}, Drain: []string{a}, Away: []string{b}})
		is(t, s, s.Balancer, map[string]string{a: "out", b: "away"})
	}
	for range 2 {
		set(t, s.Balancer, balancer.Change{Admit: s.Hosts})
		is(t, s, s.Balancer, nil)
	}
}

func swap(t *testing.T, s Subject) {
	a, b, c := s.Hosts[0], s.Hosts[1], s.Hosts[2]
	set(t, s.Balancer, balancer.Change{Drain: []string{a}})
	set(t, s.Balancer, balancer.Change{Admit: []string{a}, Drain: []string{b, c}})
	is(t, s, s.Balancer, map[string]string{b: "out", c: "out"})
	set(t, s.Balancer, balancer.Change{Admit: []string{b, c}, Drain: []string{a}})
	is(t, s, s.Balancer, map[string]string{a: "out"})
}

func away(t *testing.T, s Subject) {
	a, b := s.Hosts[0], s.Hosts[1]
	set(t, s.Balancer, balancer.Change{Away: []string{a}, Drain: []string{b}})
	is(t, s, s.Balancer, map[string]string{a: "away", b: "out"})
	set(t, s.Balancer, balancer.Change{Drain: []string{a}}) // it is out, and stays a person's
	is(t, s, s.Balancer, map[string]string{a: "away", b: "out"})
	set(t, s.Balancer, balancer.Change{Away: []string{b}})
	is(t, s, s.Balancer, map[string]string{a: "away", b: "away"})
	set(t, s.Balancer, balancer.Change{Admit: []string{a}})
	is(t, s, s.Balancer, map[string]string{b: "away"})
}

func unknown(t *testing.T, s Subject) {
	if s.Unknown != "" {
		err := s.Balancer.Set(t.Context(), balancer.Change{Admit: []string{s.Unknown}, Drain: s.Hosts})
		if !errors.Is(err, balancer.ErrUnknown) {
			t.Errorf("set: %v, want ErrUnknown", err)
		}
	}
	err := s.Balancer.Set(t.Context(), balancer.Change{Admit: []string{"no-such-host"}, Drain: s.Hosts})
	if !errors.Is(err, balancer.ErrUnknown) || !errors.Is(err, fault.ErrDefinition) {
		t.Errorf("set: %v, want ErrUnknown, of the class definition", err)
	}
	is(t, s, s.Balancer, nil)
}

func twice(t *testing.T, s Subject) {
	a := s.Hosts[0]
	for _, c := range []balancer.Change{{Admit: []string{a}, Drain: []string{a}}, {Drain: []string{a, a}}, {Drain: []string{a}, Away: []string{a}}} {
		if err := s.Balancer.Set(t.Context(), c); !errors.Is(err, fault.ErrUsage) {
			t.Errorf("%s: %v, want ErrUsage", c, err)
		}
	}
	is(t, s, s.Balancer, nil)
}

func nothing(t *testing.T, s Subject) {
	set(t, s.Balancer, balancer.Change{})
	is(t, s, s.Balancer, nil)
}

func another(t *testing.T, s Subject) {
	if s.Reopen == nil {
		return // documented: each process remembers what it did itself
	}
	a, b := s.Hosts[0], s.Hosts[1]
	set(t, s.Balancer, balancer.Change{Drain: []string{a}, Away: []string{b}})
	other := s.Reopen()
	is(t, s, other, map[string]string{a: "out", b: "away"})
	set(t, other, balancer.Change{Admit: []string{a, b}})
	is(t, s, s.Balancer, nil)
}

func ended(t *testing.T, s Subject) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Balancer.State(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("state: %v, want canceled", err)
	}
	if err := s.Balancer.Set(ctx, balancer.Change{Drain: s.Hosts[:1]}); !errors.Is(err, context.Canceled) {
		t.Errorf("set: %v, want canceled", err)
	}
	is(t, s, s.Balancer, nil)
}

func many(t *testing.T, s Subject) {
	errs := make([]error, len(s.Hosts))
	var wg sync.WaitGroup
	for i, h := range s.Hosts {
		wg.Go(func() {
			b := s.Balancer
			if s.Reopen != nil {
				b = s.Reopen()
			}
			for range 2 {
				if errs[i] = b.Set(t.Context(), balancer.Change{Drain: []string{h}}); errs[i] != nil {
					return
				}
				state, err := b.State(t.Context())
				if err != nil || state[h].In {
					errs[i] = fmt.Errorf("%s is drained: %+v, %w", h, state[h], err)
					return
				}
				if errs[i] = b.Set(t.Context(), balancer.Change{Admit: []string{h}}); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	is(t, s, s.Balancer, nil)
}

func sick(t *testing.T, s Subject) {
	if s.Sick == nil {
		return // it does not check: all count as up
	}
	a, b := s.Hosts[0], s.Hosts[1]
	set(t, s.Balancer, balancer.Change{Drain: []string{a}})
	s.Sick(a)
	err := s.Balancer.Set(t.Context(), balancer.Change{Admit: []string{a}, Drain: []string{b}})
	if !errors.Is(err, balancer.ErrRefused) || !errors.Is(err, fault.ErrUnhealthy) {
		t.Errorf("set: %v, want ErrRefused, of the class unhealthy", err)
	}
	state, err := s.Balancer.State(t.Context())
	if err != nil || state[a].In || state[a].Up || !state[b].In {
		t.Errorf("state %+v, %v; want %s out and not up, %s in", state, err, a, b)
	}
	// Alone it may go in: nobody is taken out for it.
	set(t, s.Balancer, balancer.Change{Admit: []string{a}})
	if state, err = s.Balancer.State(t.Context()); err != nil || !state[a].In || state[a].Up {
		t.Errorf("state %+v, %v; want %s in and not up", state, err, a)
	}
}

func stopped(t *testing.T, s Subject) {
	if s.Stop == nil {
		return // commands do not stop
	}
	s.Stop()
	if _, err := s.Balancer.State(t.Context()); !errors.Is(err, balancer.ErrUnreachable) || !errors.Is(err, fault.ErrUnreachable) {
		t.Errorf("state: %v, want ErrUnreachable", err)
	}
	if err := s.Balancer.Set(t.Context(), balancer.Change{Drain: slices.Clone(s.Hosts[:1])}); !errors.Is(err, balancer.ErrUnreachable) {
		t.Errorf("set: %v, want ErrUnreachable", err)
	}
}
