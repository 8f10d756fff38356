package converge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"conductor/internal/engine"
	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/state"
)

// LiveRuns are the containers of runs that there are, ordered by name; of one
// service or, with an empty id, of all.
func (h *Host) LiveRuns(ctx context.Context, service string) (runs []engine.Container, err error) {
	err = limited(ctx, func(ctx context.Context) error {
		runs, err = h.Engine.List(ctx, h.mine(service, KindRun))
		return err
	})
	return runs, err
}

// StopRun ends a run as a stop of its service would: by its stop signal, and
// after its grace by force. Whoever attends to it then removes it.
func (h *Host) StopRun(ctx context.Context, name string) error {
	runs, err := h.LiveRuns(ctx, "")
	if err != nil {
		return fmt.Errorf("stop run %s: %w", name, err)
	}
	i := slices.IndexFunc(runs, func(c engine.Container) bool { return c.Name == name })
	if i < 0 {
		return fault.New(fault.ErrUsage, runNames(runs), "no run %s is under way", name)
	}
	ctx, cancel := context.WithTimeout(ctx, grace(runs[i])+callTimeout)
	defer cancel()
	if err := h.Engine.Stop(ctx, runs[i].ID, grace(runs[i])); err != nil && !notFound(err) {
		return fmt.Errorf("stop run %s: %w", name, err)
	}
	return nil
}

func runNames(runs []engine.Container) string {
	var names []string
	for _, c := range runs {
		if c.State == engine.Running {
			names = append(names, c.Name)
		}
	}
	if len(names) == 0 {
		return "none is: conductor runs list"
	}
	return "under way: " + join(names)
}

// SweepRuns ends and removes the runs whose conductor was killed: nobody hears
// them, and their locks are free. What it cannot do, the next command does.
func (h *Host) SweepRuns(ctx context.Context) error {
	runs, err := h.LiveRuns(ctx, "")
	if err != nil {
		return err
	}
	h.sweepRuns(ctx, runs)
	return nil
}

func (h *Host) sweepRuns(ctx context.Context, runs []engine.Container) {
	for _, c := range runs {
		if p := c.Labels[LabelProcess]; p == "" || state.Alive(p) {
			continue
		}
		if err := h.sweepRun(ctx, c); err != nil && ctx.Err() == nil {
			h.tell(event.Event{Event: event.Warning, Service: c.Labels[LabelService], Instance: c.Name, Container: c.ID,
				Detail: fmt.Sprintf("run %s, whose conductor was killed, is left: %v", c.Name, err)})
		}
	}
}

func (h *Host) sweepRun(ctx context.Context, c engine.Container) error {
	ctx, cancel := context.WithTimeout(ctx, grace(c)+callTimeout)
	defer cancel()
	was := c.State
	if err := h.Engine.Stop(ctx, c.ID, grace(c)); err != nil {
		return ignore(err, engine.ErrNotFound)
	}
	c, err := h.Engine.Inspect(ctx, c.ID)
	if err != nil {
		return ignore(err, engine.ErrNotFound)
	}
	// Its conductor heard a part. Without a whole one, that part is what is kept.
	_ = h.Runs.CompleteRunLog(c.Name, func(log io.Writer) error {
		return h.Engine.Logs(ctx, c.ID, engine.LogOptions{}, log, log)
	})
	if err := h.Secrets.Clear(c.Name); err != nil {
		return err
	}
	if err := h.Engine.Remove(ctx, c.ID); err != nil {
		return ignore(err, engine.ErrNotFound)
	}
	said := "its conductor was killed; it had ended"
	if was == engine.Running {
		said = "its conductor was killed, so it was ended"
	}
	h.Runs.EndRun(state.Run{Name: c.Name, Service: c.Labels[LabelService], Ended: firstTime(c.FinishedAt, time.Now()),
		Code: c.ExitCode, Outcome: state.Interrupted, Error: said})
	h.tell(event.Event{Event: event.Note, Service: c.Labels[LabelService], Revision: c.Labels[LabelRevision], Instance: c.Name, Container: c.ID,
		Detail: "swept up a run: " + said + " (" + strings.ToLower(string(was)) + ")"})
	return nil
}

func ignore(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}

func firstTime(ts ...time.Time) time.Time {
	for _, t := range ts {
		if !t.IsZero() {
			return t
		}
	}
	return time.Time{}
}
