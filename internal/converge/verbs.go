package converge

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"conductor/internal/engine"
	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/goal"
	"conductor/internal/spec"
	"conductor/internal/state"
)

// UpgradeRequest is what to upgrade to.
type UpgradeRequest struct {
	Service, Revision string
	// SkipBefore: what upgrade.before does is done elsewhere, once for all hosts.
	SkipBefore bool
}

// Upgrade makes the revision's release the goal and brings the host there. It
// fails early, with what serves untouched. With nothing to change it does
// nothing and says so.
func (h *Host) Upgrade(ctx context.Context, u UpgradeRequest) (Outcome, error) {
	return h.verb(ctx, u.Service, "upgrade", u.Revision, func(ctx context.Context, r *request) error {
		if err := h.upgrade(ctx, r, CrontabRequest{Service: u.Service, Revision: u.Revision}); err != nil {
			return err
		}
		if r.Candidate != nil && u.SkipBefore {
			r.Candidate.Before = true
		}
		return nil
	})
}

// Bring has the revision's image on this host, as pull_policy says, and tells
// which that is. An upgrade to it need not wait for a registry then.
func (h *Host) Bring(ctx context.Context, id, revision string) (image string, err error) {
	s, err := h.definition(id)
	if err != nil {
		return "", err
	}
	ref, err := s.Container.Reference(revision)
	if err != nil {
		return "", err
	}
	img, _, err := h.image(ctx, s, revision, ref)
	return img.ID, err
}

func (h *Host) upgrade(ctx context.Context, req *request, asked CrontabRequest) error {
	s, err := h.definition(asked.Service)
	if err != nil {
		return err
	}
	r, err := h.resolve(ctx, s, asked.Revision)
	if err != nil {
		return err
	}
	if err := h.checkProxy(ctx, req, s.Policy); err != nil {
		return err
	}
	c, err := h.crontab(ctx, req.Goal, r, s.Policy, asked)
	if err != nil {
		return err
	}
	if c != nil {
		if err := h.Crontabs.Check(s.ID); err != nil {
			return err
		}
	}
	req.setCandidate(goal.Candidate{Release: r, Policy: s.Policy, Crontab: c})
	return nil
}

// Rollback makes the last committed release before the current one the goal,
// or the newest of the named revision, with today's policy.
func (h *Host) Rollback(ctx context.Context, id, revision string) (Outcome, error) {
	return h.verb(ctx, id, "rollback", revision, func(ctx context.Context, r *request) error {
		return h.rollback(ctx, r, revision)
	})
}

func (h *Host) rollback(ctx context.Context, g *request, revision string) error {
	if g.Current == nil {
		return neverDeployed(g.Service)
	}
	k, ok := g.Previous(revision)
	r, crontab := k.Release, k.Crontab
	if c := g.Candidate; c != nil && c.Rollback && (revision == "" || c.Revision == revision) {
		r, crontab, ok = c.Release, c.Crontab, true // an interrupted rollback goes on
	}
	if !ok && revision == "" {
		return fault.New(fault.ErrUsage, "upgrade to the revision that you want", "no release before %s is kept", g.Current.Revision)
	}
	if !ok && revision == g.Current.Revision { // it was rolled back before, or never left
		r, crontab, ok = *g.Current, g.Crontab, true
	}
	if !ok {
		return fault.New(fault.ErrUsage, "`conductor service status --id "+g.Service+"` lists the kept ones; or upgrade to it",
			"no kept release is of revision %s", revision)
	}
	if err := limited(ctx, func(ctx context.Context) error {
		_, err := h.Engine.Image(ctx, r.Image)
		return err
	}); err != nil {
		if notFound(err) {
			return fault.New(fault.ErrImage, "upgrade to the revision instead: that fetches the image", "image of %s (%.19s) is not on this host any more", r.Revision, r.Image)
		}
		return err
	}
	p := g.Policy
	if s, err := h.definition(g.Service); err == nil {
		p = s.Policy
	} else {
		h.tell(event.Event{Event: event.Warning, Service: g.Service, Detail: "rolled back with the policy applied last: " + err.Error()})
	}
	if err := h.checkProxy(ctx, g, p); err != nil {
		return err
	}
	if crontab != nil {
		if err := h.Crontabs.Check(g.Service); err != nil {
			return err
		}
	}
	// Forward again, to one that was undone, undoes nothing.
	g.setCandidate(goal.Candidate{Release: r, Policy: p, Rollback: !k.Undone, Crontab: h.again(crontab)})
	return nil
}

// Stop takes the service out of the proxy and stops its instances. It stays
// stopped until Start or Upgrade.
func (h *Host) Stop(ctx context.Context, id string) (Outcome, error) {
	return h.verb(ctx, id, "stop", "", func(_ context.Context, g *request) error {
		if g.Current == nil && g.Candidate == nil {
			return neverDeployed(id)
		}
		g.Candidate, g.Running = nil, false
		return nil
	})
}

// Start takes Stop back.
func (h *Host) Start(ctx context.Context, id string) (Outcome, error) {
	return h.verb(ctx, id, "start", "", func(_ context.Context, g *request) error {
		if g.Current == nil {
			return neverDeployed(id)
		}
		if !g.Running {
			g.Epoch++
		}
		g.Running, g.Removing = true, false // a removal that was not finished is taken back
		return nil
	})
}

// Restart replaces all instances by fresh ones of the same release, one slot
// after the other. A stopped service starts.
func (h *Host) Restart(ctx context.Context, id string) (Outcome, error) {
	return h.verb(ctx, id, "restart", "", func(_ context.Context, g *request) error {
		if g.Current == nil {
			return neverDeployed(id)
		}
		g.Epoch++
		g.Running, g.Removing = true, false // a removal that was not finished is taken back
		return nil
	})
}

// Scale sets the number of replicas; nil gives it back to the definition.
func (h *Host) Scale(ctx context.Context, id string, replicas *int) (Outcome, error) {
	return h.verb(ctx, id, "scale", "", func(_ context.Context, g *request) error {
		if g.Current == nil {
			return neverDeployed(id)
		}
		switch {
		case replicas == nil:
			if s, err := h.definition(id); err == nil {
				g.Policy.Replicas = s.Policy.Replicas
			}
		case *replicas < 0:
			return fault.New(fault.ErrUsage, "", "%d replicas cannot be", *replicas)
		case g.Policy.Kind == spec.Job:
			return fault.New(fault.ErrUsage, "", "a job has no replicas")
		case *replicas > 1 && len(g.Current.Container.Ports) > 0:
			return fault.New(fault.ErrDefinition, "publish no ports, or stay at 1", "its published ports can belong to one replica only")
		}
		g.Replicas = replicas
		return nil
	})
}

// Remove stops the service and forgets it; its definition is not touched.
func (h *Host) Remove(ctx context.Context, id string) (Outcome, error) {
	return h.verb(ctx, id, "remove", "", func(_ context.Context, g *request) error {
		if never(g.Goal) {
			return nil // removed already: once more is safe
		}
		g.Candidate, g.Running, g.Removing = nil, false, true
		return nil
	})
}

// empty: the goal asks for nothing, as that of a first deploy which was given
// up. Where that was cut off, its instances may still be there.
func empty(g goal.Goal) bool {
	return g.Current == nil && g.Candidate == nil && g.Crontab == nil && !g.Removing
}

// never: nothing was ever asked of the service, or nothing is left of it.
func never(g goal.Goal) bool { return empty(g) && g.Policy.Kind == "" }

func neverDeployed(id string) error {
	return fault.New(fault.ErrUsage, fmt.Sprintf("conductor service upgrade --id %s --revision REVISION", id), "%s was never deployed on this host", id)
}

// verb changes the goal of one service under its lock, writes it, and lets the
// loop bring the host there. All verbs are this, with another change.
func (h *Host) verb(ctx context.Context, id, verb, revision string, change func(context.Context, *request) error) (out Outcome, err error) {
	began := time.Now()
	out = Outcome{Service: id, Verb: verb}
	defer func() {
		out.Took = spec.Duration(time.Since(began))
		if ctx.Err() != nil && err != nil && transient(err) {
			err = interruption(ctx)
		}
		if err != nil {
			if out.Note != "" {
				err = fmt.Errorf("%w\n  %s", err, out.Note)
			}
			err = fmt.Errorf("%s %s: %w", verb, id, err)
		}
	}()
	if err := h.known(id); err != nil {
		return out, err
	}
	release, err := h.Store.Lock(ctx, id, state.Holder{Verb: verb, Revision: revision, User: h.User})
	if err != nil {
		return out, err
	}
	defer release()
	g, _, err := h.Store.Goal(id)
	if err != nil {
		return out, err
	}
	g.Service = id
	if g.Current != nil {
		out.From = g.Current.Revision
	}
	op := state.Operation{Service: id, Verb: verb, User: h.User, Reason: h.Reason, From: out.From, To: revision, Started: began}
	var opID int64
	if h.History != nil {
		opID = h.History.Begin(op)
		defer func() {
			op.To, op.Ended, op.Outcome, op.Detail = firstOf(revision, out.To), time.Now(), outcomeWord(err), out.Note
			if err != nil {
				op.Error = err.Error()
				if h.Code != nil {
					op.Code = h.Code(err)
				}
			}
			h.History.End(opID, op)
		}()
	}
	// Whether the engine answers at all: a listing is its quickest answer, and
	// what it says of itself takes it 15 ms.
	runs, err := h.LiveRuns(ctx, "")
	if err != nil {
		return out, err
	}
	defer func() { h.sweepRuns(context.WithoutCancel(ctx), runs) }()
	was, req := g, request{Goal: g, before: slices.ContainsFunc(runs, func(c engine.Container) bool {
		return c.Labels[LabelService] == id && c.Labels[LabelRun] == RunBefore
	})}
	if err := change(ctx, &req); err != nil {
		return out, err
	}
	if never(req.Goal) {
		out.Note = "nothing to do"
		return out, nil
	}
	l, err := h.pursue(ctx, was, req)
	out.Changed = l.changed || !reflect.DeepEqual(was, req.Goal)
	h.describe(&out, l, was)
	return out, err
}

// pursue writes the goal and runs the loop until it is reached.
func (h *Host) pursue(ctx context.Context, was goal.Goal, req request) (*loop, error) {
	g, l := req.Goal, h.loop(req.Goal)
	l.check = req.check
	for _, r := range g.Releases() {
		if _, had := releaseOf(was, r.Digest); had && (g.Candidate == nil || g.Candidate.Digest != r.Digest) {
			continue
		}
		// Named before it is the goal, so that no prune takes it in between.
		if err := limited(ctx, func(ctx context.Context) error {
			return h.Engine.Tag(ctx, r.Image, r.Tag(h.Namespace, g.Service))
		}); err != nil {
			return l, fmt.Errorf("tag the image of %s: %w", r.Revision, err)
		}
	}
	if err := h.Store.PutGoal(g); err != nil {
		h.untag(ctx, was, g.Releases())
		return l, err
	}
	if c := was.Candidate; c != nil && (g.Candidate == nil || g.Candidate.Digest != c.Digest) {
		if err := h.sweepBefore(ctx, g); err != nil {
			return l, err
		}
	}
	err := l.run(ctx)
	if err = firstOf(err, h.tidy(ctx, was, g, l, req.before)); err != nil {
		return l, err
	}
	if g.Removing {
		return l, h.forget(ctx, l.goal)
	}
	return l, nil
}

// tidy takes away what no goal needs any more, once the loop has brought a goal
// as far as it could: was is the goal before, asked the one that it began with;
// before: there was a run of upgrade.before.
func (h *Host) tidy(ctx context.Context, was, asked goal.Goal, l *loop, before bool) (err error) {
	ctx = context.WithoutCancel(ctx)
	if before || was.Candidate != nil || asked.Candidate != nil && len(asked.Candidate.Policy.Upgrade.Before) > 0 || len(asked.Policy.Upgrade.Before) > 0 {
		// One that is done stays where its removal failed, or a process died.
		if err = h.sweepBefore(ctx, l.goal); err != nil {
			l.settled = false
		}
		if left, is := errors.AsType[leftError](err); is { // its command is done, or given up
			h.tellLeft(left)
			err = nil
		}
	}
	if !l.goal.Removing { // whose plan removes those, too
		l.finishRemovals(ctx)
	}
	h.untag(ctx, l.goal, append(was.Releases(), asked.Releases()...))
	if empty(l.goal) && l.settled && len(l.obs.containers) == 0 && !l.obs.mayRoute {
		// A first deploy that did not work out: there is nothing to remember.
		err = firstOf(err, h.Store.DeleteGoal(l.service))
	}
	return err
}

// forget takes the last traces of a removed service away.
func (h *Host) forget(ctx context.Context, g goal.Goal) error {
	ctx = context.WithoutCancel(ctx)
	if err := h.sweepBefore(ctx, g); err != nil {
		return err
	}
	h.untag(ctx, goal.Goal{Service: g.Service}, g.Releases())
	if err := h.forgetDrains(ctx, g.Service); err != nil {
		return err
	}
	return h.Store.DeleteGoal(g.Service)
}

// describe says in words what became of the verb.
func (h *Host) describe(out *Outcome, l *loop, was goal.Goal) {
	if l.goal.Current != nil {
		out.To = l.goal.Current.Revision
	}
	l.outage.end(time.Now())
	if l.outage.total > 0 && l.goal.Running && l.goal.Count(l.goal.Policy) > 0 {
		out.Note = fmt.Sprintf("nobody served for %.1f s", l.outage.total.Seconds())
	}
	if r := was.Current; l.failure != nil && r != nil && was.Running && l.goal.Candidate == nil {
		serves := r.Revision + " serves on"
		if errors.Is(l.failure, engine.ErrUnreachable) { // which may have taken it along
			serves = r.Revision + " stays its release; whether it serves is not known"
		}
		out.Note = join(without(out.Note, serves))
	}
	if !out.Changed && out.Note == "" && l.failure == nil {
		out.Note = "nothing to do"
	}
}

// Converge makes one pass to the goals of the services, of all where none is
// named: after a boot, or from config management.
func (h *Host) Converge(ctx context.Context, ids ...string) ([]Outcome, error) {
	var unreadable error
	if len(ids) == 0 {
		var goals []goal.Goal
		goals, unreadable = h.Store.Goals()
		for _, g := range goals {
			ids = append(ids, g.Service)
		}
	}
	outs := make([]Outcome, len(ids))
	errs := make([]error, len(ids))
	inParallel(len(ids), 4, func(n int) {
		again := true
		for pass := 0; again && errs[n] == nil && pass < 2; pass++ {
			first := outs[n]
			outs[n], errs[n] = h.verb(ctx, ids[n], "converge", "", func(ctx context.Context, g *request) error {
				again = g.Changes() // it brings its own policy; today's comes after it
				return h.reapply(ctx, g)
			})
			outs[n] = first.then(outs[n])
		}
	})
	return outs, errors.Join(append(errs, unreadable)...)
}

// reapply takes the definition's policy into the goal, where there is a valid one.
func (h *Host) reapply(ctx context.Context, g *request) error {
	if never(g.Goal) {
		return neverDeployed(g.Service)
	}
	if s, err := h.definition(g.Service); err == nil && g.Current != nil && g.Candidate == nil {
		p := s.Policy
		c := h.updated(ctx, g.Goal, &p)
		g.setPolicy(p, c)
	}
	return nil
}
