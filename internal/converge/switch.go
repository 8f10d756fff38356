package converge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"conductor/internal/event"
	"conductor/internal/plan"
	"conductor/internal/proxy"
	"conductor/internal/state"
)

// routeTimeout bounds a switch of the proxy, its test, reload and proof.
const routeTimeout = 60 * time.Second

// drainsKept is how long the note of a drain is kept that nobody took back: of
// an instance that vanished, or of a service that was forgotten.
const drainsKept = 24 * time.Hour

// route hands the proxy the service's new targets, and sees them proved. The
// file says first what will be; which of the two is true is observed, so a
// crash in between leaves routes that are neither proved in nor out.
func (a action) route(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, routeTimeout)
	defer cancel()
	release, err := a.Store.LockProxy(ctx)
	if err != nil {
		return err
	}
	defer release()
	before, err := a.Store.Routes()
	if err != nil {
		return err
	}
	after := before
	old, had := before.Table.Route(a.service)
	if had && !a.step.Gone && !plan.SameRoute(old.HTTP, *a.step.HTTP) {
		after.Changing = with(before.Changing, a.service, true)
	}
	if a.step.Gone {
		after.Table = before.Table.Without(a.service)
	} else {
		after.Table = before.Table.With(proxy.Route{Service: a.service, HTTP: *a.step.HTTP, Targets: a.step.Targets})
	}
	in, out := changes(old.Targets, a.step.Targets)
	after.Drains = a.drains(before.Drains, nil)
	if !a.step.Gone { // a route that goes is in the file until it is proved to be gone
		if err := a.Store.PutRoutes(after); err != nil {
			return err
		}
	}
	change, err := a.Proxy.Apply(ctx, after.Table)
	if err != nil {
		return errors.Join(err, a.unput(err, before))
	}
	a.proved(in, out, change)
	if a.step.Gone || len(out) > 0 || after.Changing[a.service] {
		after.Drains = a.drains(after.Drains, out)
		after.Changing = with(after.Changing, a.service, false)
		return a.Store.PutRoutes(after)
	}
	return nil
}

// with is the set with the service in it, or without.
func with(old map[string]bool, service string, in bool) map[string]bool {
	m := maps.Clone(old)
	delete(m, service)
	if in {
		if m == nil {
			m = map[string]bool{}
		}
		m[service] = true
	}
	return m
}

// unput takes the file back where the proxy has refused what it says.
func (a action) unput(err error, before state.Routes) error {
	if a.step.Gone || !errors.Is(err, proxy.ErrRefused) {
		return nil // what the proxy serves is not known: the next observation tells
	}
	if err := a.Store.PutRoutes(before); err != nil {
		return fmt.Errorf("routes file not restored: %w", err)
	}
	return nil
}

// drains notes when instances were proved out, and forgets those that came in
// again or were seen to be served all the same, are gone, or are long past.
func (a action) drains(old map[string]time.Time, out []proxy.Target) map[string]time.Time {
	now := time.Now()
	m := map[string]time.Time{}
	mine := plan.Prefix(a.Namespace, a.service)
	for name, t := range old {
		i, exists := a.ids[name]
		if exists && !i.Served || !exists && !strings.HasPrefix(name, mine) && now.Sub(t) < drainsKept {
			m[name] = t
		}
	}
	for _, t := range a.step.Targets {
		delete(m, t.Instance)
	}
	for _, t := range out {
		m[t.Instance] = now
	}
	return m
}

// forgetDrains takes the notes of a service away that has no instance any more.
func (h *Host) forgetDrains(ctx context.Context, service string) error {
	release, err := h.Store.LockProxy(ctx)
	if err != nil {
		return err
	}
	defer release()
	r, err := h.Store.Routes()
	if err != nil {
		return err
	}
	had := len(r.Drains)
	r.Drains = maps.Clone(r.Drains)
	mine := plan.Prefix(h.Namespace, service)
	maps.DeleteFunc(r.Drains, func(name string, _ time.Time) bool { return strings.HasPrefix(name, mine) })
	if len(r.Drains) == had {
		return nil
	}
	return h.Store.PutRoutes(r)
}

// changes are the targets that come in, and those that go out.
func changes(old, want []proxy.Target) (in, out []proxy.Target) {
	for _, t := range want {
		if !slices.Contains(old, t) {
			in = append(in, t)
		}
	}
	for _, t := range old {
		if !slices.Contains(want, t) {
			out = append(out, t)
		}
	}
	return in, out
}

// proved tells what the proxy has proved, instance by instance.
func (a action) proved(in, out []proxy.Target, change proxy.Change) {
	tell := func(name event.Name, t proxy.Target, cause string) {
		s := a
		s.step.Instance, s.step.ID, s.step.Revision = t.Instance, a.ids[t.Instance].ID, a.ids[t.Instance].Revision
		s.say(name, cause, t.Addr.String())
	}
	for _, t := range in {
		if change.Written {
			tell(event.Configured, t, "")
		}
		if change.Reloaded {
			tell(event.Reloaded, t, "")
		}
		tell(event.Routed, t, a.step.Cause)
	}
	for _, t := range out {
		tell(event.Unrouted, t, a.step.Cause)
	}
	switch {
	case len(in)+len(out) > 0:
	case change.Reloaded:
		a.say(event.Reloaded, a.step.Cause, "")
	case change.Written:
		a.say(event.Configured, a.step.Cause, "")
	}
}

// outage adds up how long a service that should serve had nobody to do it.
type outage struct {
	since time.Time
	total time.Duration
}

// ended takes a step of the service into account. Without a route, stop-first
// is what makes the gap.
func (o *outage) ended(s plan.Step, routed, stopFirst bool, now time.Time) {
	var down, up bool
	switch s.Do {
	case plan.Route:
		down, up = !s.Gone && len(s.Targets) == 0, len(s.Targets) > 0
	case plan.Stop:
		down = !routed && stopFirst
	case plan.Commit:
		up = !routed && stopFirst
	}
	switch {
	case down && o.since.IsZero():
		o.since = now
	case up:
		o.end(now)
	}
}

// end closes the gap: somebody serves, or all that could be done is done.
func (o *outage) end(now time.Time) {
	if !o.since.IsZero() {
		o.total += now.Sub(o.since)
		o.since = time.Time{}
	}
}
