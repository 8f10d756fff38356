package converge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"conductor/internal/engine"
	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/goal"
	"conductor/internal/plan"
)

// before runs upgrade.before in a container of the candidate, once: the
// container's name is a function of the release, so another process finds it
// running, or ended, and does not run it again.
func (a action) before(ctx context.Context) (*goal.Goal, error) {
	c := a.goal.Candidate
	a.step.Instance = plan.RunName(a.Namespace, a.service, c.Revision, c.Digest, "before")
	id, err := a.beginBefore(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("run upgrade.before: %w", err)
	}
	a.step.ID = id
	code, err := a.wait(ctx, id)
	if ctx.Err() != nil {
		a.endBefore(c.Container.StopGracePeriod.D())
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("wait for upgrade.before: %w", err)
	}
	var failure error
	if code != 0 {
		failure = fault.New(fault.ErrUnhealthy, "mend the command, then run the upgrade again: it did not count as done",
			"upgrade.before of %s (%s) exited %d%s", c.Revision, strings.Join(c.Policy.Upgrade.Before, " "), code, a.lastWords(ctx))
	}
	var g *goal.Goal
	if failure == nil {
		g = new(a.goal)
		done := *c
		done.Before = true
		g.Candidate = &done
		if err := a.Store.PutGoal(*g); err != nil {
			return nil, err
		}
		a.say(event.Note, "", "upgrade.before is done")
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	if err := a.remove(clean); err != nil { // the end of the command sweeps it up
		a.say(event.Warning, "", "the container of upgrade.before is left: "+err.Error())
	}
	return g, failure
}

// wait returns the exit code of a run, however long it takes. The engine is
// asked anew every now and then: an answer can be lost.
func (a action) wait(ctx context.Context, id string) (code int, err error) {
	for {
		slice, cancel := context.WithTimeout(ctx, callTimeout)
		code, err = a.Engine.Wait(slice, id)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return code, err
		}
	}
}

// beginBefore finds the run, or creates and starts it.
func (a action) beginBefore(ctx context.Context, c *goal.Candidate) (id string, err error) {
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	found, err := a.named(limited, a.step.Instance)
	switch {
	case err == nil && found.Labels[LabelRelease] != c.Digest:
		return "", fmt.Errorf("the container name %s is taken by a container that is not ours (%.12s): remove or rename it", a.step.Instance, found.ID)
	case err == nil && found.State != engine.Created:
		return found.ID, nil
	case err == nil:
		id = found.ID
	case !notFound(err):
		return "", err
	default:
		m, err := a.readMaterial(limited, c.Release)
		if err != nil {
			return "", err
		}
		run := engine.Create{Name: a.step.Instance, Image: c.Image, Labels: a.mine(a.service, KindRun), Env: m.Env,
			Command: c.Policy.Upgrade.Before, Spec: c.Container}
		run.Spec.Ports = nil // they belong to the instances
		run.Labels[LabelRevision], run.Labels[LabelRelease] = c.Revision, c.Digest
		run.Labels[LabelRun] = RunBefore
		if run.Files, err = a.Secrets.Place(run.Name, m.Files); err != nil {
			return "", err
		}
		if run.Network, run.Address, err = a.address(limited); err != nil {
			return "", err
		}
		if id, err = a.Engine.Create(limited, run); err != nil {
			return "", err
		}
		a.step.ID = id
		a.say(event.Created, a.step.Cause, strings.Join(run.Command, " "))
	}
	if err := a.Engine.Start(limited, id); err != nil {
		return "", err
	}
	return id, nil
}

// endBefore stops the run of a candidate that is given up.
func (a action) endBefore(grace time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), grace+callTimeout)
	defer cancel()
	err := a.Engine.Stop(ctx, a.step.ID, grace)
	if err == nil {
		err = a.remove(ctx)
	}
	if err != nil && !notFound(err) {
		a.say(event.Warning, "", "upgrade.before still runs: "+err.Error())
	}
}

// sweepBefore ends the runs of upgrade.before of candidates that the goal does
// not name any more: a process that died left them.
func (h *Host) sweepBefore(ctx context.Context, g goal.Goal) error {
	ctx, cancel := context.WithTimeout(ctx, 2*callTimeout)
	defer cancel()
	want := h.mine(g.Service, KindRun)
	want[LabelRun] = RunBefore
	runs, err := h.Engine.List(ctx, want)
	if err != nil {
		return err
	}
	for _, c := range runs {
		if g.Candidate != nil && g.Candidate.Digest == c.Labels[LabelRelease] {
			continue
		}
		if err := h.Engine.Stop(ctx, c.ID, 10*time.Second); err != nil && !notFound(err) {
			return err
		}
		if err := h.Secrets.Clear(c.Name); err != nil {
			return err
		}
		if err := h.takeAway(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (a action) lastWords(ctx context.Context) string {
	var b bytes.Buffer
	if err := a.Engine.Logs(ctx, a.step.ID, engine.LogOptions{Tail: 20}, &b, &b); err != nil || b.Len() == 0 {
		return ""
	}
	return "\n  its last log lines:\n    " + strings.ReplaceAll(strings.TrimSpace(b.String()), "\n", "\n    ")
}
