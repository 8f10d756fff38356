package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"conductor/internal/converge"
	"conductor/internal/display"
	"conductor/internal/event"
	"conductor/internal/fault"
)

// one runs a verb of one service and shows it.
func (a *app) one(ctx context.Context, verb func(context.Context, Core) (converge.Outcome, error)) error {
	return a.act(ctx, func(ctx context.Context, c Core) ([]converge.Outcome, error) {
		o, err := verb(ctx, c)
		if err != nil {
			return nil, err
		}
		return []converge.Outcome{o}, nil
	})
}

// act runs a verb that changes the host: its events are shown as they come, and
// then what became of each service.
func (a *app) act(ctx context.Context, verb func(context.Context, Core) ([]converge.Outcome, error)) error {
	d := a.display()
	var t tally
	p, _, err := a.open(ctx, func(e event.Event) {
		t.count(e)
		d.Event(e)
	})
	defer p.close()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { a.interrupted(ctx) })()
	outcomes, err := verb(ctx, p.Core)
	if err != nil {
		if len(outcomes) > 0 {
			a.outcomes = outcomes
		}
		return err
	}
	r := display.Result{Outcomes: outcomes}
	for _, o := range outcomes {
		r.Summary = append(r.Summary, t.summary(o))
	}
	for _, o := range outcomes {
		for _, w := range o.Warnings {
			if !a.json() && !t.told(w) {
				a.warn(o.Service + ": " + w)
			}
		}
	}
	d.End(r)
	if len(outcomes) == 0 && !a.json() {
		a.say("no services: nothing to do")
	}
	return nil
}

// interrupted says why a verb that was told to end has not ended yet: it may
// wait as long as the requests of an old release take.
func (a *app) interrupted(ctx context.Context) {
	if errors.Is(context.Cause(ctx), fault.ErrInterrupted) && a.output.mode != display.Quiet {
		fmt.Fprintln(a.stderr, "conductor: interrupted: coming to a clean end. A second time leaves at once, and the next command goes on from there")
	}
}

// tally counts what the events of each service tell, for the summary.
type tally struct {
	mu       sync.Mutex
	of       map[string]*counts // by service
	warnings []string
}

// counts are sets of instances.
type counts struct{ created, healthy, removed map[string]bool }

func (t *tally) count(e event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Event == event.Warning {
		t.warnings = append(t.warnings, e.Detail)
	}
	if t.of == nil {
		t.of = map[string]*counts{}
	}
	c := t.of[e.Service]
	if c == nil {
		c = &counts{map[string]bool{}, map[string]bool{}, map[string]bool{}}
		t.of[e.Service] = c
	}
	switch e.Event {
	case event.Created:
		c.created[e.Instance] = true
	case event.Healthy: // also those that were there before
		c.healthy[e.Instance] = true
	case event.Removed:
		c.removed[e.Instance] = true
	}
}

// without counts the instances of a that were not removed.
func (c *counts) without(a map[string]bool) (n int) {
	for i := range a {
		if !c.removed[i] {
			n++
		}
	}
	return n
}

// told says whether an event has already shown the warning.
func (t *tally) told(w string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.warnings {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

// summary is one line: "shop: v1 → v2, 2 instances, 1.2 s".
func (t *tally) summary(o converge.Outcome) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var parts []string
	if s := headline(o); s != "" {
		parts = append(parts, s)
	}
	if o.Changed {
		if s := t.instances(o); s != "" {
			parts = append(parts, s)
		}
	}
	if o.Note != "" {
		parts = append(parts, o.Note)
	} else if !o.Changed {
		parts = append(parts, "nothing to do")
	}
	if o.Changed {
		parts = append(parts, display.Took(o.Took.D()))
	}
	s := strings.Join(parts, ", ")
	if o.Service == "" {
		return s
	}
	return o.Service + ": " + s
}

func headline(o converge.Outcome) string {
	word := map[string]string{
		"stop": "stopped", "start": "started", "restart": "restarted", "scale": "scaled",
		"remove": "removed", "converge": "converged", "prune": "pruned",
		"pause": "is left to you", "resume": "is looked after again", "cron install": "crontab installed", "cron remove": "crontab removed",
	}[o.Verb]
	switch {
	case !o.Changed:
		return o.To
	case o.From != "" && o.To != "" && o.From != o.To:
		return o.From + " → " + o.To
	case word == "" && o.To == "":
		return o.Verb
	case word == "" && o.From == o.To:
		return o.To + " again"
	case word == "":
		return o.To
	case o.To != "" && o.Verb != "remove":
		return o.To + " " + word
	}
	return word
}

func (t *tally) instances(o converge.Outcome) string {
	c := t.of[o.Service]
	if c == nil {
		return ""
	}
	switch o.Verb {
	case "upgrade", "rollback", "start", "restart":
		if n := c.without(c.healthy); n > 0 {
			return plural(n, "instance")
		}
	case "scale", "converge":
		switch n, gone := c.without(c.created), len(c.removed); {
		case n > 0 && gone > 0:
			return fmt.Sprintf("%s new, %d gone", plural(n, "instance"), gone)
		case n > 0:
			return plural(n, "instance") + " new"
		case gone > 0:
			return plural(gone, "instance") + " gone"
		}
	}
	return ""
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
