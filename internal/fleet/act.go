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

// begin starts a step, whose end comes as a result.
func (l *loop) begin(ctx context.Context, s rollout.Step) {
	for _, name := range slices.Concat(s.Hosts, s.Out) {
		l.host(name).busy = s.Do
		l.host(name).does(string(s.Do), s.Cause)
	}
	l.running++
	if s.Do == rollout.Admit || s.Do == rollout.Swap {
		for _, name := range s.Hosts {
			l.host(name).before = traffic{host: max(l.at[name].Requests, 0), all: l.requests(), last: time.Now()}
		}
	}
	at := l.at
	go func() { l.done <- l.do(ctx, s, at) }()
}

// do does a step. What changes a host or the balancer is not cut off by the end
// of ctx: half of it would help nobody.
func (l *loop) do(ctx context.Context, s rollout.Step, at map[string]balancer.Server) result {
	r, first := result{step: s}, s.Hosts[0]
	switch s.Do {
	case rollout.Image:
		r.said, r.err = l.Hosts.Bring(ctx, first, l.d.Service, l.d.Revision)
	case rollout.Upgrade:
		r.seen, r.err = l.upgrade(ctx, first, at)
	default:
		r.err = l.act(ctx, s)
	}
	return r
}

// upgrade has the host upgrade. Where it serves meanwhile, that is all that is
// done to it, so that both hooks are run.
func (l *loop) upgrade(ctx context.Context, host string, at map[string]balancer.Server) (*Seen, error) {
	_, balanced := at[host]
	inPlace := !balanced || at[host].In
	if inPlace {
		if err := l.hook(ctx, BeforeHost, host, nil); err != nil {
			return nil, err
		}
	}
	u := Upgrade{Service: l.d.Service, Revision: l.d.Revision, Back: l.d.Rollback, SkipBefore: len(l.d.Migrate) > 0}
	seen, err := l.Hosts.Upgrade(context.WithoutCancel(ctx), host, u, func(e event.Event) {
		e.Host = host
		l.Emit(e)
	})
	if err != nil || !inPlace {
		return seen, err
	}
	return seen, l.hook(ctx, AfterHost, host, nil)
}

// act does the other steps.
func (l *loop) act(ctx context.Context, s rollout.Step) error {
	first := s.Hosts[0]
	whole := context.WithoutCancel(ctx)
	switch s.Do {
	case rollout.Test:
		if err := l.Hosts.Test(ctx, first, l.task(l.d.Test, l.d.TestTimeout)); err != nil {
			return err
		}
		return l.markAll(whole, Tested, "")
	case rollout.Migrate:
		if err := l.Hosts.Migrate(whole, first, l.task(l.d.Migrate, l.d.MigrateTimeout)); err != nil {
			return err
		}
		return l.markAll(whole, Migrated, first)
	case rollout.Drain:
		if err := l.hook(ctx, BeforeHost, first, nil); err != nil {
			return err
		}
		return l.Balancer.Set(whole, balancer.Change{Drain: s.Hosts})
	case rollout.Exclude:
		return l.Balancer.Set(whole, balancer.Change{Drain: s.Hosts})
	case rollout.Verify:
		return l.verify(whole, first)
	case rollout.Admit, rollout.Swap:
		for _, name := range s.Out {
			if err := l.hook(ctx, BeforeHost, name, nil); err != nil {
				return err
			}
		}
		if err := l.Balancer.Set(whole, balancer.Change{Admit: s.Hosts, Drain: s.Out}); err != nil {
			return err
		}
		for _, name := range s.Hosts {
			if err := l.hook(ctx, AfterHost, name, nil); err != nil {
				return err
			}
		}
		return nil
	case rollout.Confirm:
		return l.confirm(ctx, first)
	}
	return fmt.Errorf("an unknown step: %s", s.Do)
}

func (l *loop) task(command []string, timeout time.Duration) Task {
	return Task{Service: l.d.Service, Revision: l.d.Revision, Command: command, Timeout: timeout}
}

func (l *loop) hook(ctx context.Context, name, host string, failure error) error {
	if l.d.Hooks == nil {
		return nil
	}
	return l.d.Hooks.Run(ctx, name, host, l.d, failure)
}

// markAll notes on all hosts but the one that knows. Whom that cannot be told is
// told a person: another deploy that finds only such hosts would do it again.
func (l *loop) markAll(ctx context.Context, m Mark, but string) error {
	var marking sync.WaitGroup
	errs := make([]error, len(l.hosts))
	marked := 0
	for n, h := range l.hosts {
		if h.name == but {
			marked++
			continue
		}
		marking.Go(func() { errs[n] = l.Hosts.Mark(ctx, h.name, l.d.Service, l.d.Revision, m) })
	}
	marking.Wait()
	for n, err := range errs {
		if err != nil {
			l.say(event.Warning, l.hosts[n].name, fmt.Sprintf("it does not know that %s is %s: %v", l.d.Revision, m, err), "")
		} else if l.hosts[n].name != but {
			marked++
		}
	}
	if marked == 0 {
		return errors.Join(errs...)
	}
	return nil
}

// verify asks the host itself, and then sees that the balancer's own check
// comes to the same.
func (l *loop) verify(ctx context.Context, host string) error {
	if err := l.Hosts.Verify(ctx, host, l.d.Service); err != nil {
		return err
	}
	for began := time.Now(); ; {
		at, err := l.Balancer.State(ctx)
		switch {
		case err != nil:
			return err
		case at[host].Up:
			return nil
		case time.Since(began) > upTimeout:
			return fault.New(fault.ErrUnhealthy, "see what the balancer's check asks for, and whether it can reach the host",
				"%s answers, and the balancer's check has not seen it well for %s", host, upTimeout)
		}
		time.Sleep(look)
	}
}

func (l *loop) confirm(ctx context.Context, host string) error {
	if l.d.Confirm == nil {
		return nil
	}
	yes, err := l.d.Confirm(ctx, host)
	if err == nil && !yes {
		err = fault.New(fault.ErrInterrupted, "run it again to go on", "not confirmed after %s", host)
	}
	return err
}

// end takes in how a step ended.
func (l *loop) end(r result) {
	l.running--
	for _, name := range slices.Concat(r.step.Hosts, r.step.Out) {
		h := l.host(name)
		h.busy = ""
		h.sees(r.seen)
		if h.lost != nil {
			defer l.giveUp(h, h.lost, "")
		}
	}
	h := l.host(r.step.Hosts[0])
	if r.err != nil {
		l.ended(h, r)
		return
	}
	cause := r.step.Cause
	switch r.step.Do {
	case rollout.Image:
		l.say(event.Shipped, h.name, r.said, cause)
	case rollout.Test:
		l.input.Tested = true
		l.say(event.Tested, h.name, strings.Join(l.d.Test, " "), cause)
	case rollout.Migrate:
		l.input.Migrated = true
		l.say(event.Migrated, h.name, strings.Join(l.d.Migrate, " "), cause)
	case rollout.Drain, rollout.Exclude:
		l.say(event.Withdrawn, h.name, "", cause)
	case rollout.Upgrade:
		h.changed, h.verified = true, false
		l.say(event.Upgraded, h.name, "", cause)
	case rollout.Verify:
		h.verified = true
		l.say(event.Verified, h.name, "", cause)
	case rollout.Confirm:
		l.input.Confirmed = true
	case rollout.Admit, rollout.Swap:
		for _, name := range r.step.Hosts {
			l.host(name).admitted = time.Now()
			l.say(event.Admitted, name, "", cause)
		}
		for _, name := range r.step.Out {
			l.say(event.Withdrawn, name, "", cause)
		}
	}
}

// ended takes in that a step failed. A host's own failure is that host's; what
// concerns all has nothing new begin.
func (l *loop) ended(h *host, r result) {
	switch r.step.Do {
	case rollout.Image, rollout.Upgrade, rollout.Verify:
		l.giveUp(h, r.err, r.step.Cause)
	case rollout.Test:
		if errors.Is(r.err, fault.ErrUnreachable) { // another host can do it
			l.giveUp(h, r.err, r.step.Cause)
			return
		}
		fallthrough
	default:
		l.say(event.Failed, h.name, r.err.Error(), r.step.Cause)
		l.refuse(fmt.Sprintf("%s on %s: %v", r.step.Do, h.name, r.err), r.err)
	}
}
