package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"conductor/internal/balancer"
	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/rollout"
)

// recycleStep is a step, and how it is done.
type recycleStep struct {
	rollout.Step
	service string
	done    event.Name // "": the host tells of it
	act     func(ctx context.Context) error
}

// steps are those of the recycling of the host that was chosen, in their order.
func (r *recycling) steps() (all []recycleStep) {
	add := func(do rollout.Do, service, cause string, done event.Name, act func(context.Context) error) {
		all = append(all, recycleStep{rollout.Step{Do: do, Hosts: []string{r.Host}, Cause: cause}, service, done, act})
	}
	self, known := r.at[r.Host]
	if known && self.In {
		add(rollout.Drain, "", "it is next: "+r.turn(), event.Withdrawn, r.drain)
	}
	add(refreshPackages, "", "of the host, from its own sources", "", func(ctx context.Context) error {
		if err := r.hosts.Refresh(ctx, r.Host, r.emit); err != nil {
			return err
		}
		return r.AwaitWell(ctx, r.Host) // its engine or proxy may have been restarted
	})
	if r.ask.Reboot {
		add(reboot, "", "asked for", event.Rebooted, r.boot)
	}
	add(refreshImages, "", "of what runs; what nobody needs goes", event.Refreshed, func(ctx context.Context) error { return r.hosts.Images(ctx, r.Host, r.emit) })
	for _, s := range r.Services {
		add(restart, s, "instances of "+s+" are replaced by fresh ones", event.Restarted, func(ctx context.Context) error { return r.hosts.Restart(ctx, r.Host, s, r.emit) })
	}
	add(rollout.Verify, "", "before it serves again", event.Verified, r.verify)
	if known && !self.Away {
		add(rollout.Admit, "", r.Host+" answers", event.Admitted, r.admit)
	}
	return all
}

// turn is why it is this host's turn.
func (r *recycling) turn() string {
	switch {
	case !r.Begun.IsZero():
		return "its recycling was broken off at " + r.Begun.Local().Format(time.DateTime)
	case r.Last.IsZero():
		return "it was never recycled"
	}
	return "it was last recycled at " + r.Last.Local().Format(time.DateTime)
}

// do does the steps. None is cut off by the end of ctx, after which no other
// begins.
func (r *recycling) do(ctx context.Context) error {
	whole := context.WithoutCancel(ctx)
	if _, err := r.hosts.Recycling(whole, r.Host, RecycleBegun); err != nil {
		return fmt.Errorf("%s: note that it is recycled: %w", r.Host, err)
	}
	r.say(event.Note, r.Host, "it is next: "+r.turn())
	for _, s := range r.steps() {
		err := context.Cause(ctx)
		if err == nil {
			err = s.act(whole)
		}
		if err != nil {
			r.Emit(event.Event{Time: time.Now(), Event: event.Failed, Host: r.Host, Service: s.service, Detail: err.Error(), Cause: string(s.Do)})
			return r.failed(whole, s, err)
		}
		if s.done != "" {
			r.Emit(event.Event{Time: time.Now(), Event: s.done, Host: r.Host, Service: s.service, Cause: s.Cause})
		}
	}
	if _, err := r.hosts.Recycling(whole, r.Host, RecycleDone); err != nil {
		return fmt.Errorf("%s: note that it was recycled: %w", r.Host, err)
	}
	r.say(event.Recycled, r.Host, strings.Join(r.Services, ", "))
	return nil
}

// failed says how the host is left.
func (r *recycling) failed(ctx context.Context, s recycleStep, err error) error {
	class := fault.ErrHost
	if e, ok := errors.AsType[*fault.Error](err); ok {
		class = e.Class
	} else if errors.Is(err, fault.ErrInterrupted) || errors.Is(err, fault.ErrTimeout) {
		class = err
	}
	hint := "put that right, and run conductor fleet recycle again: it takes " + r.Host + " first"
	if h := fault.Hint(err); h != "" {
		hint = h + "\n" + hint
	}
	return fault.New(class, hint, "recycle %s: %s: %w%s", r.Host, s.Do, err, r.left(ctx))
}

// left is what the balancer makes of the host now, as the end of a message.
func (r *recycling) left(ctx context.Context) string {
	if _, known := r.at[r.Host]; !known {
		return ""
	}
	at, err := r.Balancer.State(ctx)
	switch {
	case err != nil:
		return fmt.Sprintf("\nand the balancer cannot be asked about it: %v", err)
	case at[r.Host].In:
		return "\nit is in the balancer"
	}
	return "\nit is out of the balancer, and stays out"
}

// emit passes on what the host tells.
func (r *recycling) emit(e event.Event) {
	e.Host = r.Host
	r.Emit(e)
}

// drain takes the host out, and sees it idle.
func (r *recycling) drain(ctx context.Context) error {
	if err := r.Balancer.Set(ctx, balancer.Change{Drain: []string{r.Host}}); err != nil {
		return err
	}
	patience := time.Duration(0)
	for _, p := range r.placed() {
		patience = max(patience, orElse(p.DrainTimeout, drainTimeout))
	}
	for began := time.Now(); ; time.Sleep(look) {
		n, err := r.inFlight(ctx)
		switch {
		case err != nil:
			return err
		case n == 0:
			return nil
		case time.Since(began) >= patience:
			r.say(event.Drained, r.Host, fmt.Sprintf("the drain deadline passed with %d in flight", n))
			return nil
		}
	}
}

// inFlight is how many requests the host has.
func (r *recycling) inFlight(ctx context.Context) (int, error) {
	at, err := r.Balancer.State(ctx)
	if err != nil {
		return 0, err
	}
	n := max(at[r.Host].Sessions, 0)
	for _, s := range r.Services {
		seen, err := r.hosts.Look(ctx, r.Host, Question{Service: s})
		if err != nil {
			return 0, err
		}
		n += seen.InFlight
	}
	return n, nil
}

// boot reboots the host, and waits until it answers from another boot.
func (r *recycling) boot(ctx context.Context) error {
	if r.own != nil { // they die with the boot; those on the other hosts stay
		r.own()
		r.own = nil
	}
	if err := r.hosts.Reboot(ctx, r.Host); err != nil {
		return err
	}
	var last error
	for began := time.Now(); ; time.Sleep(look) {
		now, err := r.hosts.Recycling(ctx, r.Host, "")
		if err == nil && now.Boot != r.was.Boot {
			break
		}
		if err != nil {
			last = err
		}
		if time.Since(began) > bootTimeout {
			return fault.New(fault.ErrUnreachable, "look at its console", "%s has not booted within %s; last seen: %w", r.Host, bootTimeout, last)
		}
	}
	if err := r.holdOwn(ctx); err != nil {
		return err
	}
	return r.AwaitWell(ctx, r.Host)
}

// AwaitWell waits until nothing keeps the host from working.
func (f *Fleet) AwaitWell(ctx context.Context, host string) error {
	for began := time.Now(); ; time.Sleep(look) {
		seen, err := f.Hosts.Look(ctx, host, Question{Whole: true})
		switch {
		case err == nil && len(seen.Troubles) == 0:
			return nil
		case errors.Is(err, fault.ErrHost): // of the session itself, which waiting does not change
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w", host, context.Cause(ctx))
		case time.Since(began) > wellTimeout:
			if err == nil {
				err = errors.New(strings.Join(seen.Troubles, "\n"))
			}
			return fault.New(fault.ErrHost, "conductor doctor on the host says more", "%s is not well after %s: %w", host, wellTimeout, err)
		}
	}
}

// verify sees that all that ran runs and answers, and that the balancer's own
// check comes to the same.
func (r *recycling) verify(ctx context.Context) error {
	for _, s := range r.Services {
		for began := time.Now(); ; time.Sleep(look) {
			seen, err := r.hosts.Look(ctx, r.Host, Question{Service: s})
			if err != nil {
				return err
			}
			if seen.Sound {
				break
			}
			if time.Since(began) > wellTimeout {
				return fault.New(fault.ErrUnhealthy, "conductor service status and logs on the host say more", "%s is %s on %s", s, seen.State, r.Host)
			}
		}
		if err := r.hosts.Verify(ctx, r.Host, s); err != nil {
			return err
		}
	}
	return r.Fleet.awaitUp(ctx, r.Host)
}

// awaitUp waits until the balancer's own check sees the host well, if the
// balancer knows it.
func (f *Fleet) awaitUp(ctx context.Context, host string) error {
	if f.Balancer == nil {
		return nil
	}
	for began := time.Now(); ; time.Sleep(look) {
		at, err := f.Balancer.State(ctx)
		if err != nil {
			return err
		}
		s, known := at[host]
		switch {
		case !known || s.Up:
			return nil
		case time.Since(began) > upTimeout:
			return fault.New(fault.ErrUnhealthy, "see what the balancer's check asks for, and whether it can reach the host",
				"%s answers, and the balancer's check has not seen it well for %s", host, upTimeout)
		}
	}
}

func (r *recycling) admit(ctx context.Context) error {
	if err := r.Balancer.Set(ctx, balancer.Change{Admit: []string{r.Host}}); err != nil {
		return err
	}
	return r.awaitUp(ctx, r.Host)
}
