package converge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"conductor/internal/event"
	"conductor/internal/plan"
	"conductor/internal/proxy"
)

// routeTimeout bounds a switch of the proxy, its test, reload and proof.
const routeTimeout = 60 * time.Second

// drainsKept is how long the note of a drain is kept that nobody took back: of
// an instance that vanished, or of a service that was forgotten.
const drainsKept = 24 * time.Hour

// Switches are those that the services of a host wait for. One switch of the
// proxy serves all who wait: each renders, writes and proves all routes, so that
// after a boot a hundred in line would take longer than the starts.
type Switches struct {
	mu    sync.Mutex
	queue []*switching
}

// add puts one into the queue; nil: there is none.
func (q *Switches) add(s *switching) {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(q.queue, s)
}

// take takes all out of the queue for who has the proxy's lock; none, where s was
// taken, and done, by who had it before.
func (q *Switches) take(s *switching) []*switching {
	if q == nil {
		return []*switching{s}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !slices.Contains(q.queue, s) {
		return nil
	}
	all := q.queue
	q.queue = nil
	return all
}

// leave takes one out that does not wait any more; false: somebody does it.
func (q *Switches) leave(s *switching) bool {
	if q == nil {
		return true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	n := slices.Index(q.queue, s)
	if n >= 0 {
		q.queue = slices.Delete(q.queue, n, n+1)
	}
	return n >= 0
}

// switching is an action that routes.
type switching struct {
	action
	in, out  []proxy.Target
	changing bool       // it is more than other targets
	done     chan error // how it ended, when another has done it
}

// route hands the proxy the service's new targets, with those of whoever else
// waits for it, and sees them proved.
func (a action) route(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, routeTimeout)
	defer cancel()
	s := &switching{action: a, done: make(chan error, 1)}
	a.switches.add(s)
	release, err := a.Store.LockProxy(ctx)
	if err != nil {
		if a.switches.leave(s) {
			return err
		}
		return <-s.done
	}
	defer release()
	all := a.switches.take(s)
	if len(all) > 0 {
		a.switchAll(ctx, all)
	}
	return <-s.done
}

// switchAll tells each how its switch ended. The file says first what will be;
// which of the two is true is observed, so a crash in between leaves routes that
// are neither proved in nor out.
func (h *Host) switchAll(ctx context.Context, all []*switching) {
	tell := func(err error) {
		for _, s := range all {
			s.done <- err
		}
	}
	before, err := h.Store.Routes()
	if err != nil {
		tell(err)
		return
	}
	after, put := before, false
	for _, s := range all {
		old, had := before.Table.Route(s.service)
		s.in, s.out = changes(old.Targets, s.step.Targets)
		after.Drains = s.drains(after.Drains, nil)
		if s.step.Gone { // its route is in the file until it is proved to be gone
			continue
		}
		put = true
		// So it is where a process that died had begun with it: until it is proved, it is not done.
		if s.changing = before.Changing[s.service] || had && !plan.SameRoute(old.HTTP, *s.step.HTTP); s.changing {
			after.Changing = with(after.Changing, s.service, true)
		}
		after.Table = after.Table.With(proxy.Route{Service: s.service, HTTP: *s.step.HTTP, Targets: s.step.Targets})
	}
	if put {
		if err := h.Store.PutRoutes(after); err != nil {
			tell(err)
			return
		}
	}
	for _, s := range all {
		if s.step.Gone {
			after.Table = after.Table.Without(s.service)
		}
	}
	change, err := h.Proxy.Apply(ctx, after.Table)
	if err != nil {
		if put && errors.Is(err, proxy.ErrRefused) { // else the next observation tells what it serves
			if e := h.Store.PutRoutes(before); e != nil {
				tell(errors.Join(err, fmt.Errorf("routes file not restored: %w", e)))
				return
			}
		}
		if len(all) > 1 && errors.Is(err, proxy.ErrRefused) { // for one of them
			for _, s := range all {
				h.switchAll(ctx, []*switching{s})
			}
			return
		}
		tell(err)
		return
	}
	noted := false
	for _, s := range all {
		s.proved(s.in, s.out, change)
		if s.notes() {
			noted = true
			after.Drains = s.drains(after.Drains, s.out)
			after.Changing = with(after.Changing, s.service, false)
		}
	}
	if noted {
		err = h.Store.PutRoutes(after)
	}
	for _, s := range all {
		if s.notes() {
			s.done <- err
		} else {
			s.done <- nil
		}
	}
}

// notes: what was proved is to be noted.
func (s *switching) notes() bool { return s.step.Gone || len(s.out) > 0 || s.changing }

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
