package converge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"conductor/internal/engine"
	"conductor/internal/fault"
	"conductor/internal/goal"
	"conductor/internal/plan"
	"conductor/internal/proxy"
	"conductor/internal/spec"
)

// result is the end of a step.
type result struct {
	step plan.Step
	made string    // ID of the container that it created
	at   time.Time // when it had ended
	err  error
	// goal is the goal as the step has written it; nil: it did not.
	goal *goal.Goal
	// failure is what a dropped candidate failed of, diagnosed.
	failure error
}

// hold keeps a step from being tried again at once.
type hold struct {
	since, until time.Time
	gap          time.Duration
	err          error
}

// ended takes the end of a step into account. What it changed is observed, not
// believed.
func (l *loop) ended(r result) {
	key := r.step.Key()
	delete(l.doing, key)
	l.obs.stepped(r.step, r.made)
	if r.err != nil {
		l.obs.changed("") // it may have been done all the same
	}
	if r.step.Do == plan.Route {
		l.obs.routesKnown = false
	}
	if r.step.Do == plan.Start { // whether or not it was answered, it may be another process now
		l.watch.forget(r.step.ID)
	}
	if r.step.Do == plan.Before {
		l.before = nil
	}
	if r.goal != nil {
		l.goal = *r.goal
	}
	switch r.step.Do {
	case plan.Before, plan.Commit, plan.Drop:
		l.unsure = r.err != nil
	}
	if r.failure != nil && l.failure == nil {
		l.failure = r.failure
	}
	if r.err == nil {
		l.changed = true
		delete(l.held, key)
		l.succeeded(r.step, r.at)
		return
	}
	l.failed(r)
}

func (l *loop) succeeded(s plan.Step, at time.Time) {
	p := l.goal.Policy
	if l.goal.Candidate != nil {
		p.Upgrade = l.goal.Candidate.Policy.Upgrade
	}
	l.outage.ended(s, p.HTTP != nil, p.Upgrade.Order == spec.StopFirst, at)
	switch s.Do {
	case plan.Create:
		l.made[s.Instance] = true
		l.refused = slices.DeleteFunc(l.refused, func(r plan.Refusal) bool { return r.Release == s.Release && r.Slot == s.Slot })
	case plan.Start:
		l.made[s.Instance] = true
	case plan.Drop:
		// The way back to what served is another switch than the one that failed.
		delete(l.held, plan.Step{Do: plan.Route}.Key())
	case plan.Commit:
		l.failure = nil // too late to be given up: it is finished
	case plan.Route:
		l.unproved++
		if l.unproved > proofs {
			err := fault.New(fault.ErrProxyRefused, "see the proxy's error log; is another program in its place?",
				"route %s: the proxy took the change %d times and does not serve it: %w", l.service, l.unproved, proxy.ErrRefused)
			l.hold(s, time.Now(), err) // without a candidate to give up, that is the end
			l.refuse(err)
		}
	}
}

// failed decides what a failed step means: try again soon, give the candidate
// up, or a refusal that the planner takes into account.
func (l *loop) failed(r result) {
	s, now := r.step, time.Now()
	switch {
	case s.Do == plan.Before:
		if l.abort == "" && !transient(r.err) {
			l.failure, l.abort = r.err, "upgrade.before failed"
			return
		}
		l.hold(s, now, r.err)
	case transient(r.err):
		l.hold(s, now, r.err)
	case s.Do == plan.Start:
		l.broken[s.ID] = r.err.Error()
	case s.Do == plan.Create && errors.Is(r.err, fault.ErrHost):
		l.refuse(r.err)
		l.refused = append(l.refused, plan.Refusal{Release: s.Release, Slot: s.Slot, Reason: r.err.Error(), At: now})
	case s.Do == plan.Create:
		l.refused = append(l.refused, plan.Refusal{Release: s.Release, Slot: s.Slot, Reason: r.err.Error(), At: now})
	case s.Do == plan.Route:
		l.hold(s, now, r.err)
		l.refuse(r.err)
	default:
		l.hold(s, now, r.err)
	}
}

// refuse gives the candidate up for a reason that is not its health.
func (l *loop) refuse(err error) {
	if err != nil && l.goal.Candidate != nil && l.abort == "" {
		l.failure, l.abort = err, err.Error()
	}
}

func (l *loop) hold(s plan.Step, now time.Time, err error) {
	l.held[s.Key()] = l.held[s.Key()].again(now, err)
}

// again waits a little longer each time, to at most a second.
func (h hold) again(now time.Time, err error) hold {
	if h.since.IsZero() {
		h.since = now
	}
	h.gap = min(max(2*h.gap, 50*time.Millisecond), time.Second)
	h.until, h.err = now.Add(h.gap), err
	return h
}

// stuck says whether waiting is in vain: nothing is in flight, and what is
// held back has failed for good, or for too long.
func (l *loop) stuck(in plan.Input, out plan.Output) error {
	for _, s := range out.Steps {
		h := l.held[s.Key()]
		if s.Do == plan.Cron && len(out.Waiting) > 0 {
			continue // what has nothing to do with it is brought to its end
		}
		if !transient(h.err) || in.Now.Sub(h.since) > patience {
			return l.giveUp(fmt.Errorf("%s: %w", s.Name(), h.err))
		}
	}
	if l.goal.Candidate != nil {
		return nil
	}
	leaving := slices.ContainsFunc(in.Instances, func(i plan.Instance) bool {
		return i.Running() && (l.goal.Current == nil || i.Release != l.goal.Current.Digest)
	})
	if leaving {
		return nil // a release on its way out is seen out first
	}
	for _, t := range out.Trouble {
		if t.Instance == "" || l.made[t.Instance] {
			return l.giveUp(l.unhealthy(t))
		}
	}
	return nil
}

// giveUp ends the loop short of its goal: the first reason counts.
func (l *loop) giveUp(err error) error {
	if l.failure != nil {
		return l.failure
	}
	return err
}

// giveWay gives the candidate up because the caller asks for it.
func (l *loop) giveWay(ctx context.Context) {
	l.abort = "interrupted"
	if errors.Is(context.Cause(ctx), fault.ErrTimeout) {
		l.abort = "the time allowed is over"
	}
	if l.before != nil {
		l.before()
	}
	if l.goal.Candidate != nil {
		l.failure = interruption(ctx)
		if r := l.goal.Current; r != nil {
			l.failure = fmt.Errorf("%w: %s was given up, %s stays", l.failure, l.goal.Candidate.Revision, r.Revision)
		}
	}
}

// unhealthy is the error of a verb whose instances do not become well.
func (l *loop) unhealthy(t plan.Trouble) error {
	a := l.action(plan.Step{Do: plan.Start, Instance: t.Instance, Revision: l.goal.Current.Revision, Cause: t.Cause})
	a.step.ID = a.instance.ID
	return a.diagnose(l.work)
}

// interruption is the error of a verb whose caller lost patience.
func interruption(ctx context.Context) error {
	class := fault.ErrInterrupted
	if errors.Is(context.Cause(ctx), fault.ErrTimeout) || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		class = fault.ErrTimeout
	}
	what := "interrupted before the goal was reached"
	if class == fault.ErrTimeout {
		what = "--timeout passed before the goal was reached"
	}
	return fault.New(class, "the same command, or `conductor converge`, goes on from here", "%s", what)
}

// transient: trying again can help.
func transient(err error) bool {
	return errors.Is(err, fault.ErrUnreachable) || errors.Is(err, engine.ErrUnreachable) || errors.Is(err, proxy.ErrUnreachable) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

func notFound(err error) bool { return errors.Is(err, engine.ErrNotFound) }
