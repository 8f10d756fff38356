package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"conductor/internal/balancer"
	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/rollout"
)

// loop is one deploy under way. Its fields are touched by the goroutine of run
// alone.
type loop struct {
	*Fleet
	d       Deploy
	input   rollout.Input
	hosts   []*host
	done    chan result
	running int
	failure error // the first, for the exit code
	began   time.Time
	at      map[string]balancer.Server
	lost    chan lostLock
	over    chan struct{} // closed: locks may be lost
}

// host is what this deploy knows of a host besides what it says itself.
type host struct {
	name string
	seen Seen
	err  error // why it was given up
	lost error // that its lock is
	// take has its lock taken, hold waits for that as well, once, and leave ends
	// the session by which it is kept. nil: there is no such session.
	take  func()
	hold  func() (Held, error)
	leave func()

	busy     rollout.Do
	verified bool
	changed  bool
	idle     bool
	stale    bool // something was done there since it was looked at
	doing    doing
	done     bool // it is where it should be
	drained  time.Time
	admitted time.Time
	before   traffic // when it was admitted
}

// traffic is how many requests the balancer has sent to a host, and to all.
type traffic struct {
	host, all int64
	last      time.Time // when all last grew
}

// result is how a step ended.
type result struct {
	step rollout.Step
	said string // what it took
	seen *Seen  // how its host is now; nil: it has to be looked at
	err  error
}

// sees takes in how the host is now; with nil it has to be looked at.
func (h *host) sees(s *Seen) {
	if h.stale = s == nil; s != nil {
		h.seen = *s
	}
}

// run goes on until the deploy is done, stopped, or cannot go on. When ctx ends,
// nothing new is begun; what was begun ends first.
func (l *loop) run(ctx context.Context) error {
	for {
		if err := l.observe(ctx); err != nil {
			l.fail(err)
			for l.running > 0 { // what was begun keeps the locks until it has ended
				l.end(<-l.done)
			}
			return l.failure
		}
		if ctx.Err() != nil && l.input.Refused == "" {
			l.refuse("interrupted", ended(ctx))
		}
		out := rollout.Next(l.view())
		for _, s := range out.Steps {
			l.begin(ctx, s)
		}
		l.underWay(out.Waits)
		switch {
		case out.Done:
			return l.failure
		case out.Stopped != "" && l.running == 0:
			return l.failure
		case len(out.Steps) == 0 && len(out.Waits) == 0 && l.running == 0:
			return fault.New(errors.New("no way on"), "run the deploy again; conductor fleet status shows the hosts", "the deploy of %s cannot go on", l.d.Service)
		}
		l.await(ctx, len(out.Waits) > 0)
	}
}

// refuse has nothing new begin.
func (l *loop) refuse(why string, err error) {
	l.input.Refused = why
	l.fail(err)
}

func (l *loop) fail(err error) {
	if l.failure == nil {
		l.failure = err
	}
}

func ended(ctx context.Context) error {
	cause := context.Cause(ctx)
	for _, class := range []error{fault.ErrTimeout, fault.ErrInterrupted} {
		if errors.Is(cause, class) {
			return fault.New(class, "run it again to go on; conductor fleet status shows the hosts", "the deploy was ended: %w", cause)
		}
	}
	return cause
}

// await waits for a step's end, and no longer than until what is awaited has to
// be looked at.
func (l *loop) await(ctx context.Context, poll bool) {
	var tick <-chan time.Time
	if poll {
		t := time.NewTimer(look)
		defer t.Stop()
		tick = t.C
	}
	stop := ctx.Done()
	if l.input.Refused != "" {
		stop = nil // that is known
	}
	select {
	case r := <-l.done:
		l.end(r)
	case x := <-l.lost:
		l.loses(x)
	case <-tick:
	case <-stop:
	}
	for { // and whatever has ended meanwhile
		select {
		case r := <-l.done:
			l.end(r)
		case x := <-l.lost:
			l.loses(x)
		default:
			return
		}
	}
}

// balancerState asks the balancer; nil where there is none.
func (l *loop) balancerState(ctx context.Context) (map[string]balancer.Server, error) {
	if l.Balancer == nil {
		return nil, nil
	}
	at, err := l.Balancer.State(ctx)
	switch {
	case errors.Is(err, balancer.ErrUnknown), errors.Is(err, balancer.ErrRefused):
		return nil, fmt.Errorf("look at the balancer: %w", err)
	case err != nil:
		return nil, fault.New(fault.ErrUnreachable, "nothing was changed since the balancer last answered; run the deploy again when it answers", "look at the balancer: %w", err)
	}
	return at, nil
}

// observe looks at the balancer, and at the hosts where something was done or is
// awaited.
func (l *loop) observe(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx) // what was begun is brought to its end
	var looking sync.WaitGroup
	errs := make([]error, len(l.hosts))
	look := func(hosts []*host) {
		for n, h := range l.hosts {
			if h.err != nil || h.busy != "" || !slices.Contains(hosts, h) {
				continue
			}
			looking.Go(func() {
				seen, err := l.Hosts.Look(ctx, h.name, Question{Service: l.d.Service, Revision: l.d.Revision})
				if errs[n] = err; err == nil {
					h.sees(&seen)
				}
			})
		}
	}
	var stale, awaited []*host
	for _, h := range l.hosts {
		if h.stale {
			stale = append(stale, h)
		}
	}
	look(stale) // while the balancer answers
	at, err := l.balancerState(ctx)
	if err == nil {
		l.at = at
		for _, h := range l.hosts {
			if l.awaited(h) && !slices.Contains(stale, h) {
				awaited = append(awaited, h)
			}
		}
		look(awaited)
	}
	looking.Wait()
	if err != nil {
		return err
	}
	for n, h := range l.hosts {
		if errs[n] != nil {
			l.giveUp(h, errs[n], "")
		}
		l.settle(h)
		l.late(h)
	}
	return nil
}

// awaited: the host is out, and its requests have to end.
func (l *loop) awaited(h *host) bool {
	s, known := l.at[h.name]
	return known && !s.In && !h.idle
}

// settle works out what takes time to be true.
func (l *loop) settle(h *host) {
	s, known := l.at[h.name]
	now := time.Now()
	switch {
	case !known:
		h.idle = true
	case s.In:
		h.drained, h.idle = time.Time{}, false
	case !h.idle:
		if h.drained.IsZero() {
			h.drained = now
		}
		inFlight := max(s.Sessions, 0) + h.seen.InFlight
		switch waited := now.Sub(h.drained); {
		case inFlight == 0:
			h.idle = true
		case waited >= orElse(l.d.DrainTimeout, drainTimeout):
			h.idle = true
			l.say(event.Drained, h.name, fmt.Sprintf("the drain deadline passed with %d in flight", inFlight), "")
		}
	}
}

func orElse(d, other time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return other
}

// view is what rollout decides by.
func (l *loop) view() rollout.Input {
	in := l.input
	in.Hosts = make([]rollout.Host, 0, len(l.hosts))
	for _, h := range l.hosts {
		in.Tested = in.Tested || slices.Contains(h.seen.Marks, Tested)
		in.Migrated = in.Migrated || slices.Contains(h.seen.Marks, Migrated)
	}
	for _, h := range l.hosts {
		s, known := l.at[h.name]
		v := rollout.Host{
			Name: h.name, HasImage: h.seen.Image != "", Current: h.seen.Sound && h.seen.Live == l.d.Revision, Sound: h.seen.Sound,
			Balanced: known, In: s.In, Away: s.Away, Up: s.Up, Idle: h.idle, Verified: h.verified, Busy: h.busy,
		}
		v.Taking = s.In && s.Up && l.taking(h, s)
		if h.err != nil {
			v.Failed = h.err.Error()
		}
		in.Hosts = append(in.Hosts, v)
	}
	return in
}

// late gives a host up that was admitted and that the balancer does not see well.
func (l *loop) late(h *host) {
	s := l.at[h.name]
	if h.admitted.IsZero() || h.busy != "" || !s.In || s.Up || time.Since(h.admitted) < upTimeout {
		return
	}
	l.giveUp(h, fault.New(fault.ErrUnhealthy, "see what the balancer's check asks for", "%s was admitted, and the balancer has not seen it well for %s", h.name, upTimeout), "")
}

// taking: a request has come since the host was admitted, or there are none.
func (l *loop) taking(h *host, s balancer.Server) bool {
	if h.admitted.IsZero() || s.Requests < 0 {
		return true
	}
	all := l.requests()
	if all != h.before.all {
		h.before.all, h.before.last = all, time.Now()
	}
	return s.Requests > h.before.host || time.Since(h.before.last) >= quiet || time.Since(h.admitted) >= upTimeout
}

// requests is how many the balancer has sent to all hosts.
func (l *loop) requests() (n int64) {
	for _, s := range l.at {
		n += max(s.Requests, 0)
	}
	return n
}

func (l *loop) host(name string) *host {
	for _, h := range l.hosts {
		if h.name == name {
			return h
		}
	}
	return nil
}

// say emits an event of a host.
func (l *loop) say(name event.Name, host, detail, cause string) {
	detail = strings.TrimPrefix(detail, host+": ") // which stands beside it
	l.Emit(event.Event{Time: time.Now(), Event: name, Host: host, Service: l.d.Service, Revision: l.d.Revision, Detail: detail, Cause: cause})
}
