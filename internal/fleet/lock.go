package fleet

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"conductor/internal/event"
	"conductor/internal/fault"
)

// lostLock: a host does not keep the deploy's lock any more.
type lostLock struct {
	host string
	why  error
}

// attend has a session look at the host that takes the lock when it is told to:
// over a slow link another session would cost as much as the look.
func (l *loop) attend(ctx context.Context, h *host) error {
	a, err := l.Hosts.Attend(ctx, h.name, l.whole(), l.d.Wait)
	if err != nil {
		return err
	}
	h.seen, h.leave = a.Seen, a.Leave
	var held Held
	ended := make(chan error, 1)
	h.take = sync.OnceFunc(func() {
		go func() {
			var err error
			held, err = a.Hold(ctx)
			ended <- err
		}()
	})
	h.hold = func() (Held, error) {
		h.take()
		err := <-ended
		return held, err
	}
	return nil
}

// first is the host whose lock is taken before any other: of two deploys one gets
// no further.
func (l *loop) first() *host {
	return slices.MinFunc(l.hosts, func(a, b *host) int { return cmp.Compare(a.name, b.name) })
}

// hold takes the lock on all hosts, on the first of them first. A host that is not
// there to keep it is given up. Which locks are lost later is told by l.lost.
func (l *loop) hold() error {
	l.lost = make(chan lostLock, len(l.hosts)) // whoever tells does not wait
	take := func(h *host) error {
		held, err := h.hold()
		if err != nil {
			return err
		}
		h.sees(held.Seen)
		go func() {
			select {
			case why := <-held.Lost:
				l.lost <- lostLock{h.name, why}
			case <-l.over:
			}
		}()
		return nil
	}
	left := slices.DeleteFunc(slices.Clone(l.hosts), func(h *host) bool { return h.err != nil })
	slices.SortFunc(left, func(a, b *host) int { return cmp.Compare(a.name, b.name) })
	for taken := false; !taken; left = left[1:] {
		err := take(left[0])
		if taken = err == nil; taken {
			continue
		}
		if err := l.without(left[0], err); err != nil {
			return err
		}
	}
	errs := make([]error, len(left))
	var taking sync.WaitGroup
	for n, h := range left {
		taking.Go(func() { errs[n] = take(h) })
	}
	taking.Wait()
	var fatal []error
	for n, err := range errs {
		if err != nil {
			fatal = append(fatal, l.without(left[n], err))
		}
	}
	return errors.Join(fatal...)
}

// leave lets go of all locks.
func (l *loop) leave() {
	close(l.over)
	var leaving sync.WaitGroup
	for _, h := range l.hosts {
		if h.leave != nil {
			leaving.Go(h.leave)
		}
	}
	leaving.Wait()
}

// without gives a host up that cannot be locked, and returns the error where the
// deploy cannot go on without it.
func (l *loop) without(h *host, err error) error {
	if !errors.Is(err, fault.ErrUnreachable) && !errors.Is(err, fault.ErrHost) {
		return err
	}
	l.giveUp(h, err, "before the deploy")
	if l.tooMany() {
		return err
	}
	return nil
}

// loses takes in that a lock is lost. What is under way on the host tells better
// what became of it, and is awaited.
func (l *loop) loses(x lostLock) {
	h := l.host(x.host)
	h.lost = fault.New(fault.ErrUnreachable, cmp.Or(fault.Hint(x.why), "run the deploy again when the host answers"),
		"%s: the deploy's lock there is lost: %w", h.name, x.why)
	if h.busy == "" {
		l.giveUp(h, h.lost, "")
	}
}

// giveUp leaves a host out of what comes; the first reason stays.
func (l *loop) giveUp(h *host, err error, cause string) {
	if h.err != nil {
		return
	}
	h.err, h.stale = err, true
	l.fail(err)
	said := err.Error()
	for _, other := range l.hosts {
		if other != h && other.err != nil && other.err.Error() == said {
			l.say(event.Failed, h.name, "as "+other.name, cause)
			return
		}
	}
	if hint := fault.Hint(err); hint != "" { // the deploy ends with that of the first failure alone
		said += " (" + hint + ")"
	}
	l.say(event.Failed, h.name, said, cause)
}

// tooMany: the deploy cannot go on without those that were given up.
func (l *loop) tooMany() bool {
	n := 0
	for _, h := range l.hosts {
		if h.err != nil {
			n++
		}
	}
	return n > l.d.MaxFailed || n == len(l.hosts)
}
