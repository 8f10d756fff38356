package balancer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"conductor/internal/fault"
)

// Empty: there is nothing to change.
func (c Change) Empty() bool { return len(c.Admit)+len(c.Drain)+len(c.Away) == 0 }

// Hosts are all hosts of the change.
func (c Change) Hosts() []string { return slices.Concat(c.Admit, c.Drain, c.Away) }

// String is the change in words: "admit web1, web2; drain web3".
func (c Change) String() string {
	var parts []string
	for _, p := range []struct {
		verb  string
		hosts []string
	}{{"admit", c.Admit}, {"drain", c.Drain}, {"take away", c.Away}} {
		if len(p.hosts) > 0 {
			parts = append(parts, p.verb+" "+strings.Join(p.hosts, ", "))
		}
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, "; ")
}

// Check returns an error where a host is in the change twice.
func (c Change) Check() error {
	all := c.Hosts()
	for i, h := range all {
		if slices.Contains(all[:i], h) {
			return fault.New(fault.ErrUsage, "", "change the balancer: %s is named twice in: %s", h, c)
		}
	}
	return nil
}

// Left is what of the change the balancer does not do yet. Hosts that are
// absent from the state are ErrUnknown.
func (c Change) Left(state map[string]Server) (Change, error) {
	var left Change
	var unknown []string
	pick := func(hosts []string, done func(Server) bool) (rest []string) {
		for _, h := range hosts {
			if s, ok := state[h]; !ok {
				unknown = append(unknown, h)
			} else if !done(s) {
				rest = append(rest, h)
			}
		}
		return rest
	}
	left.Admit = pick(c.Admit, func(s Server) bool { return s.In })
	left.Drain = pick(c.Drain, func(s Server) bool { return !s.In })
	left.Away = pick(c.Away, func(s Server) bool { return s.Away })
	if len(unknown) > 0 {
		return Change{}, fault.New(fault.ErrDefinition, "let fleet.yml call them as the balancer does, or add them to its configuration",
			"%s: %w: %s", c, ErrUnknown, strings.Join(unknown, ", "))
	}
	return left, nil
}

// notUp are the hosts to admit that are not up, where the rest of the change
// has yet to take others out for them.
func (c Change) notUp(left Change, state map[string]Server) (hosts []string) {
	if len(left.Drain)+len(left.Away) == 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(c.Admit), func(h string) bool { return state[h].Up })
}

// seen is how the hosts were seen, in words.
func seen(hosts []string, state map[string]Server) string {
	var parts []string
	for _, h := range hosts {
		s := state[h]
		word := "out"
		switch {
		case s.In:
			word = "in"
		case s.Away:
			word = "away"
		}
		if s.Says != "" {
			word += " (" + s.Says + ")"
		}
		parts = append(parts, h+" is "+word)
	}
	return strings.Join(parts, ", ")
}

// Loop makes changes for an adapter: look, ask for what is left, look again.
type Loop struct {
	// State is the adapter's.
	State func(context.Context) (map[string]Server, error)
	// Ask asks the balancer for what is left of a change, the hosts to admit
	// first. It may be called again for the same.
	Ask func(ctx context.Context, left Change) error
	// Up is how long hosts to admit may take to be up, Prove how long the
	// balancer may take to do what it was asked, Every the time between looks.
	Up, Prove, Every time.Duration
	// Once: what was asked for is not asked for again, only looked for.
	Once bool
}

// Set is what a Balancer's Set says.
func (l Loop) Set(ctx context.Context, c Change) error {
	if err := c.Check(); err != nil {
		return err
	}
	began := time.Now()
	var asked time.Time // for the first time
	waited := false     // since it was asked
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
		state, err := l.State(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
		left, err := c.Left(state)
		if err != nil || left.Empty() {
			return err
		}
		sick := c.notUp(left, state)
		switch {
		case asked.IsZero() && len(sick) > 0 && time.Since(began) > l.Up:
			return fault.New(fault.ErrUnhealthy, "look why the balancer's check of "+strings.Join(sick, ", ")+" fails; nobody was taken out",
				"%s: %w: %s, after %s", c, ErrRefused, seen(sick, state), l.Up)
		case !asked.IsZero() && time.Since(asked) > l.Prove:
			return fault.New(fault.ErrProxyRefused, "look at the balancer's own log, and whether something else changes it too",
				"%s: %w: it was asked, and %s later %s", c, ErrRefused, l.Prove, seen(left.Hosts(), state))
		case len(sick) == 0 && (asked.IsZero() || waited && !l.Once):
			if err := l.Ask(ctx, left); err != nil {
				return fmt.Errorf("%s: %w", c, err)
			}
			if asked.IsZero() {
				asked = time.Now()
			}
			waited = false
			continue // most often it is done at once
		}
		l.wait(ctx)
		waited = true
	}
}

func (l Loop) wait(ctx context.Context) {
	timer := time.NewTimer(l.Every)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
