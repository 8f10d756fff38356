package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/rollout"
)

// Deploy brings the revision to all hosts. The outcome names each host's state
// also beside an error, which is the first failure.
func (f *Fleet) Deploy(ctx context.Context, d Deploy) (Outcome, error) {
	l := f.loop(d)
	if err := l.preflight(ctx); err != nil {
		return l.outcome(), err
	}
	ctx, release, err := l.hold(ctx)
	defer release()
	if err != nil {
		return l.outcome(), err
	}
	for _, h := range l.hosts {
		h.stale = true // it may have been waited for
	}
	if err := l.hook(ctx, BeforeDeploy, "", nil); err != nil {
		return l.outcome(), err
	}
	from := l.from()
	err = l.run(ctx)
	if err != nil && d.Back {
		l = l.back(ctx, from)
	}
	after := AfterDeploy
	if err != nil {
		after = OnFailure
	}
	if e := l.hook(context.WithoutCancel(ctx), after, "", err); e != nil {
		l.say(event.Warning, "", fmt.Sprintf("hook %s: %v", after, e), "")
		if err == nil {
			err = e
		}
	}
	return l.outcome(), err
}

// from is what all hosts run before the deploy, "" where they differ.
func (l *loop) from() (revision string) {
	for _, h := range l.hosts {
		switch {
		case h.err != nil:
		case revision == "":
			revision = h.seen.Live
		case h.seen.Live != revision && h.seen.Live != l.d.Revision:
			return ""
		}
	}
	return revision
}

// back has the hosts go back to the revision, in the same way as they came. The
// loop that it returns knows how the hosts are now, and why it was begun.
func (l *loop) back(ctx context.Context, to string) *loop {
	if to == "" || to == l.d.Revision {
		l.say(event.Warning, "", "the hosts did not all run one other revision before: nothing is rolled back", "")
		return l
	}
	d := l.d
	d.Revision, d.Rollback, d.Test, d.Migrate, d.MaxFailed, d.Confirm, d.Strategy.First = to, true, nil, nil, len(l.hosts), nil, ""
	b := l.Fleet.loop(d)
	b.began = l.began
	for n, h := range b.hosts {
		h.seen, h.changed, h.stale = l.hosts[n].seen, l.hosts[n].changed, true
		if errors.Is(l.hosts[n].err, fault.ErrUnreachable) {
			h.err = l.hosts[n].err
		}
	}
	l.say(event.Note, "", "going back to "+to, "the deploy failed")
	if err := b.run(context.WithoutCancel(ctx)); err != nil {
		l.say(event.Warning, "", fmt.Sprintf("going back to %s: %v", to, err), "")
	}
	for n, h := range b.hosts {
		if h.err == nil { // it is well, and does not run what it should
			h.err = l.hosts[n].err
		}
	}
	return b
}

// Plan is what a deploy would begin with: what each host runs, and the steps in
// their order if all goes well.
func (f *Fleet) Plan(ctx context.Context, d Deploy) ([]rollout.Step, Outcome, error) {
	l := f.loop(d)
	if err := l.preflight(ctx); err != nil {
		return nil, l.outcome(), err
	}
	if err := l.observe(ctx); err != nil {
		return nil, l.outcome(), err
	}
	return rollout.Foresee(l.view()), l.outcome(), nil
}

func (f *Fleet) loop(d Deploy) *loop {
	l := &loop{Fleet: f, d: d, done: make(chan result), began: time.Now()}
	l.input = rollout.Input{Strategy: d.Strategy, MaxFailed: d.MaxFailed, Test: len(d.Test) > 0, Migrate: len(d.Migrate) > 0}
	for _, name := range d.Hosts {
		l.hosts = append(l.hosts, &host{name: name})
	}
	return l
}

// preflight looks at all hosts at once, and says everything that is in the way.
func (l *loop) preflight(ctx context.Context) error {
	var looking sync.WaitGroup
	for _, h := range l.hosts {
		looking.Go(func() {
			began := time.Now()
			seen, err := l.Hosts.Look(ctx, h.name, Question{Service: l.d.Service, Revision: l.d.Revision, Whole: true})
			if err == nil {
				err = l.fit(h, seen, began)
			}
			h.seen = seen
			if err != nil {
				h.err = fmt.Errorf("%s: %w", h.name, err)
			}
		})
	}
	looking.Wait()
	var errs []error
	for _, h := range l.hosts {
		if h.err != nil {
			errs = append(errs, h.err)
			l.say(event.Failed, h.name, h.err.Error(), "before the deploy")
			l.fail(h.err)
		}
	}
	if err := l.inStep(); err != nil {
		errs = append(errs, err)
	} else if len(errs) <= l.d.MaxFailed && len(errs) < len(l.hosts) {
		return nil // the deploy goes on without them, and does not end well
	}
	if len(errs) == 0 {
		return nil
	}
	return errors.Join(errs...)
}

// fit says why a host cannot take part.
func (l *loop) fit(h *host, s Seen, asked time.Time) error {
	if s.Version != l.Version {
		l.say(event.Warning, h.name, fmt.Sprintf("it has conductor %s, and this is %s", s.Version, l.Version), "")
	}
	// Its clock was read between the question and the answer.
	if skew := max(asked.Sub(s.Time), time.Until(s.Time)); skew > maxSkew {
		l.say(event.Warning, h.name, fmt.Sprintf("its clock is off by %s", skew.Round(time.Second)), "")
	}
	if len(s.Troubles) > 0 {
		var errs []error
		for _, t := range s.Troubles {
			errs = append(errs, errors.New(t))
		}
		return fault.New(fault.ErrHost, "conductor doctor on the host says more", "it cannot upgrade: %w", errors.Join(errs...))
	}
	return nil
}

// inStep: all hosts have the same definition.
func (l *loop) inStep() error {
	var first *host
	for _, h := range l.hosts {
		switch {
		case h.err != nil:
		case h.seen.Definition == "":
			return fault.New(fault.ErrDefinition, "conductor sync sends definitions to the hosts", "%s: no definition of %s is there", h.name, l.d.Service)
		case first == nil:
			first = h
		case h.seen.Definition != first.seen.Definition:
			return fault.New(fault.ErrDefinition, "conductor sync --plan shows the difference, conductor sync sends what is here",
				"the definitions of %s differ on %s and %s", l.d.Service, first.name, h.name)
		}
	}
	return nil
}

// hold takes the lock on all hosts, on the first of them first: of two deploys
// one gets no further. The context ends when one of the locks is lost.
func (l *loop) hold(ctx context.Context) (context.Context, func(), error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var mu sync.Mutex
	var releases []func()
	release := func() {
		cancel(nil)
		mu.Lock()
		defer mu.Unlock()
		for _, r := range releases {
			r()
		}
	}
	take := func(h *host) error {
		lost, r, err := l.Hosts.Hold(ctx, h.name, l.d.Service, l.d.Wait)
		if err != nil {
			return fmt.Errorf("%s: %w", h.name, err)
		}
		mu.Lock()
		releases = append(releases, r)
		mu.Unlock()
		go func() {
			select {
			case <-lost:
				cancel(fault.New(fault.ErrUnreachable, "run the deploy again when the host answers", "the lock on %s is lost", h.name))
			case <-ctx.Done():
			}
		}()
		return nil
	}
	reachable := slices.DeleteFunc(slices.Clone(l.hosts), func(h *host) bool { return h.err != nil })
	slices.SortFunc(reachable, func(a, b *host) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	if err := take(reachable[0]); err != nil {
		return ctx, release, err
	}
	errs := make([]error, len(reachable))
	var taking sync.WaitGroup
	for n, h := range reachable[1:] {
		taking.Go(func() { errs[n] = take(h) })
	}
	taking.Wait()
	return ctx, release, errors.Join(errs...)
}

// outcome says what each host runs now.
func (l *loop) outcome() Outcome {
	o := Outcome{Service: l.d.Service, Revision: l.d.Revision, Took: time.Since(l.began)}
	for _, h := range l.hosts {
		s, balanced := l.at[h.name]
		out := HostOutcome{Host: h.name, Revision: h.seen.Live, Balanced: balanced, In: s.In, Changed: h.changed, Err: h.err}
		if h.err != nil {
			out.Failure = h.err.Error()
		}
		if errors.Is(h.err, fault.ErrUnreachable) {
			out.Revision = "?"
		}
		o.Hosts = append(o.Hosts, out)
	}
	return o
}
