package converge

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"conductor/internal/engine"
	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/goal"
	"conductor/internal/plan"
	"conductor/internal/spec"
	"conductor/internal/state"
)

const (
	// slowPass is how often everything about a service is looked at anew though
	// nothing was heard of it: it makes up for whatever was missed.
	slowPass = 15 * time.Second
	// deferral is how long a service is left to the command that has its lock,
	// before it is looked at again.
	deferral = 250 * time.Millisecond
	// supervisor is who did it, for the history.
	supervisor = "supervisor"
)

// Feed is what one who tends a service hears.
type Feed struct {
	// Events are those of the service's containers.
	Events chan engine.Event
	// Look asks, and says since when, to look at everything anew: the goal has
	// changed, or events were missed.
	Look <-chan time.Time
	// Starts bounds how many containers are created or started at once over the
	// host.
	Starts chan struct{}
	// Recycle is the turn to replace an instance that is old, of which there is
	// one over the host.
	Recycle chan struct{}
	// Glances and Switches are shared by all who tend a service of the host; nil: each looks
	// and switches by itself.
	Glances  *Glances
	Switches *Switches
	// Fares is told at each pass how the service fares; nil: nobody.
	Fares func(Condition)
	// Settled is told at each pass whether the goal is reached; nil: nobody.
	Settled func(bool)
	// Late is told how late each pass begins that begins by the clock; nil:
	// nobody.
	Late func(by time.Duration)
}

// tender keeps a service at its goal. It is the loop of a command, but for
// this: it begins again whenever something happens, and has the service's lock
// only while steps are in flight, or what it has started may serve in a moment.
// Without the lock it looks and plans, and what it planned counts for nothing:
// with the lock it looks again.
type tender struct {
	*loop
	feed      Feed
	recycling recycling
	told      map[string]bool // containers whose end was told, by ID
	from      time.Time       // what ended before is nobody's news
	finish    time.Time       // when the engine is asked again for removals that failed half-way
}

// Tend brings the service to its goal whenever it is not there, for as long as
// there is a goal and until ctx is done. It never gives up: what fails is tried
// again. What is in flight when ctx is done is left as it is, as a kill would.
func (h *Host) Tend(ctx context.Context, id string, feed Feed) error {
	work, cancel := context.WithCancel(ctx)
	t := &tender{loop: h.loop(goal.Goal{Service: id}), feed: feed, told: map[string]bool{}, from: time.Now()}
	t.work, t.events, t.asked, t.starts, t.switches = work, feed.Events, feed.Look, feed.Starts, feed.Switches
	t.obs.relist = slowPass
	t.glances, t.obs.glances = feed.Glances, feed.Glances
	defer func() {
		cancel()
		t.watch.close()
		t.running.Wait()
		t.recycled()
	}()
	pause := time.Duration(0)
	t.look(ctx, time.Now()) // all services of the host begin at one time
	for ctx.Err() == nil {
		g, ok, err := h.Store.Goal(id)
		if err == nil && !ok {
			return nil
		}
		var at time.Time
		if err == nil {
			t.adopt(g)
			at, err = t.pass(ctx)
		}
		if err != nil {
			// That the engine is gone is one message of the supervisor's, and
			// not one of each service.
			if pause == 0 && ctx.Err() == nil && !transient(err) {
				t.tell(event.Warning, "", "", "", "", "it is not looked after for now: "+err.Error())
			}
			pause = min(max(2*pause, 100*time.Millisecond), 5*time.Second)
			t.obs.changed("")
			t.idle(ctx, time.Now().Add(pause))
			continue
		}
		pause = 0
		t.idle(ctx, at)
	}
	return nil
}

// adopt takes the goal as it is now. What was held against the one before is
// forgotten.
func (t *tender) adopt(g goal.Goal) {
	if reflect.DeepEqual(g, t.goal) {
		return
	}
	t.goal = g
	t.held, t.refused, t.made = map[string]hold{}, nil, map[string]bool{}
	t.failure, t.abort, t.unproved = nil, "", 0
	t.obs.changed("")
	t.obs.routesKnown = false
}

// pass looks, and acts where there is something to do. It returns when to look
// again.
func (t *tender) pass(ctx context.Context) (again time.Time, err error) {
	in, out, err := t.decide(plan.Next)
	if err != nil {
		return again, err
	}
	left := len(t.obs.leftovers()) > 0 && in.Now.After(t.finish)
	if left {
		t.finish = in.Now.Add(leftoverPause)
	}
	if !t.goal.Paused && (len(t.due(in, out)) > 0 || left) {
		if in, out, err = t.act(ctx); err != nil {
			if errors.Is(err, fault.ErrLocked) || ctx.Err() != nil {
				return time.Now().Add(deferral), nil
			}
			return again, err
		}
	}
	if c, ok := t.condition(in, out); ok && t.feed.Fares != nil {
		t.feed.Fares(c)
	}
	if t.feed.Settled != nil {
		t.feed.Settled(len(out.Steps) == 0 && len(out.Waiting) == 0)
	}
	return t.wakeAt(in, out, slowPass), nil
}

func (t *tender) decide(next func(plan.Input) plan.Output) (plan.Input, plan.Output, error) {
	in, err := t.observe(time.Now())
	if err != nil {
		return in, plan.Output{}, err
	}
	t.recycle(&in)
	out := next(in)
	if t.spoiled(in, out) {
		in.Recycle = ""
		out = next(in)
	}
	t.explain(in, out)
	return in, out, nil
}

// act takes the lock, and does what there is to do until nothing is in flight.
func (t *tender) act(ctx context.Context) (in plan.Input, out plan.Output, err error) {
	release, err := t.Store.Lock(ctx, t.service, state.Holder{Supervisor: true, User: t.User})
	if err != nil {
		return in, out, err
	}
	defer func() {
		if ctx.Err() != nil {
			t.running.Wait() // what is in flight ends with ctx, and the lock after it
		}
		release()
	}()
	g, ok, err := t.Store.Goal(t.service)
	if err != nil || !ok {
		return in, out, err
	}
	t.adopt(g)
	if g.Paused {
		return in, out, nil
	}
	was := g
	t.shared = newShared() // addresses and secrets may be others now
	t.obs.distrust()
	for ctx.Err() == nil {
		if in, out, err = t.decide(t.loop.next); err != nil {
			// The lock is not let go of while anything is in flight.
			for len(t.doing) > 0 && ctx.Err() == nil {
				t.wait(ctx.Done(), time.Now().Add(relist))
			}
			return in, out, err
		}
		// Something is in flight, whose end wakes it. It may be in line behind
		// those of a hundred other services: looking around meanwhile is what
		// they would wait for.
		until := t.wakeAt(in, out, slowPass)
		if t.start(in, out) == 0 && len(t.doing) == 0 {
			// What has just been started may serve in a moment: to let go of the
			// lock, and to look at everything anew, would take longer.
			if until = t.promptUntil(in); !in.Now.Before(until) {
				break
			}
		}
		t.wait(ctx.Done(), until)
	}
	t.settled = out.Settled(in) // not where ctx ends it with something in flight
	if err := t.tidy(ctx, was, was, t.loop, false); err != nil || !t.goal.Removing || !t.settled {
		return in, out, err
	}
	return in, out, t.forget(ctx, t.goal)
}

// idle returns when there is something new to see, or at the given time.
// Most of what is heard says that all is as it was.
func (t *tender) idle(ctx context.Context, at time.Time) {
	t.obs.glance = nil
	pause := time.Until(at)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case e := <-t.events:
			t.heard(e)
			return
		case p := <-t.watch.found:
			if t.matters(*p) {
				return
			}
		case since := <-t.asked:
			t.obs.routesKnown = false
			if t.obs.missed(since) {
				t.look(ctx, since) // often all are asked
			}
			return
		case <-timer.C:
			if t.feed.Late != nil {
				t.feed.Late(time.Since(at))
			}
			t.obs.changed("")
			t.obs.routesKnown = false
			if pause > slowPass-relist {
				t.look(ctx, later(t.obs.looked, time.Now().Add(-relist)))
			}
			return
		case <-ctx.Done():
			return
		}
	}
}

// look takes a look at the whole host that began after that time for the next one.
// What it would act upon it sees for itself, once it has the lock.
func (t *tender) look(ctx context.Context, after time.Time) {
	if t.feed.Glances == nil {
		return
	}
	if g, err := t.feed.Glances.since(ctx, t.Host, after); err == nil {
		t.obs.glance = g
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// matters takes an answer, and says whether it may change a decision.
func (t *tender) matters(p probed) bool {
	k := t.watch.known[p.id]
	if k == nil {
		return false
	}
	threshold := 1
	for _, c := range t.obs.containers {
		if c.ID == p.id {
			threshold = max(t.healthOf(instance(c)).UnhealthyAfter, 1)
		}
	}
	asked, well, sick := k.asked, k.ever && k.failures < threshold, k.failures >= threshold
	t.answered(p)
	return !asked || well != (k.ever && k.failures < threshold) || sick != (k.failures >= threshold)
}

// explain tells why instances ended or are sick, once each, with what they said
// last. Their containers stay until the next one of the slot has ended. What a
// command stops is no news.
func (t *tender) explain(in plan.Input, out plan.Output) {
	g := t.goal
	if !g.Running || g.Candidate != nil {
		return
	}
	for _, tr := range out.Trouble {
		for _, i := range in.Instances {
			if i.Name != tr.Instance || t.told[i.ID] || !i.FinishedAt.IsZero() && i.FinishedAt.Before(t.from) ||
				!i.FinishedAt.IsZero() && i.StartedAt.Before(g.Dropped) {
				continue
			}
			t.told[i.ID] = true
			a := t.action(plan.Step{Do: plan.Start, Instance: i.Name, ID: i.ID, Revision: i.Revision, Cause: tr.Cause})
			began := time.Now()
			t.running.Go(func() {
				d := a.examine(t.work)
				if t.History == nil || t.work.Err() != nil {
					return
				}
				op := state.Operation{Service: t.service, Verb: "replace", User: supervisor, From: i.Revision, To: i.Revision, Started: began}
				id := t.History.Begin(op)
				op.Ended, op.Outcome, op.Error = time.Now(), "failed", i.Name+" "+text(d)
				t.History.End(id, op)
			})
		}
	}
}

// Pause keeps the supervisor from the service, or lets it look after it again.
// Nothing else is done: what is broken stays as it is, to be looked at.
func (h *Host) Pause(ctx context.Context, id string, paused bool) (Outcome, error) {
	out := Outcome{Service: id, Verb: map[bool]string{true: "pause", false: "resume"}[paused]}
	began := time.Now()
	err := func() error {
		if err := h.known(id); err != nil {
			return err
		}
		release, err := h.Store.Lock(ctx, id, state.Holder{Verb: out.Verb, User: h.User})
		if err != nil {
			return err
		}
		defer release()
		g, _, err := h.Store.Goal(id)
		if err != nil {
			return err
		}
		if g.Current == nil {
			return neverDeployed(id)
		}
		out.To, out.Changed = g.Current.Revision, g.Paused != paused
		g.Paused = paused
		return h.Store.PutGoal(g)
	}()
	out.Took = spec.Duration(time.Since(began))
	if err != nil {
		return out, fmt.Errorf("%s %s: %w", out.Verb, id, err)
	}
	return out, nil
}
