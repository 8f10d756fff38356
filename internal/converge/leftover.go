package converge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"conductor/internal/engine"
	"conductor/internal/event"
)

const (
	// finishing is how long the end of a removal that somebody else began is
	// waited for.
	finishing = 3 * time.Second
	// leftoverPause is how long a supervisor, who has nothing else to do, leaves
	// a removal that failed before the engine is asked again.
	leftoverPause = 10 * time.Minute
)

// finishRemovals asks the engine again to remove those of whom it has begun to:
// where it fails half-way, as over a file system that is busy, it leaves what
// only another removal can take away. The plan counts such a one as gone, so
// failing costs disk space only.
func (l *loop) finishRemovals(ctx context.Context) {
	for _, c := range l.obs.leftovers() {
		short, cancel := context.WithTimeout(ctx, finishing)
		err := l.takeAway(short, c)
		cancel()
		if err == nil {
			delete(l.obs.containers, c.Name)
			l.changed = true
			l.tell(event.Removed, c.Name, c.ID, c.Labels[LabelRevision], "its removal had not ended", "")
		} else if left, is := errors.AsType[leftError](err); is {
			l.tellLeft(left)
		} // else it goes on, or nobody knows
	}
}

// takeAway removes a container. Where that fails half-way, the error is a
// leftError.
func (h *Host) takeAway(ctx context.Context, c engine.Container) error {
	err := h.Engine.Remove(ctx, c.ID)
	if err == nil || notFound(err) {
		return nil
	}
	if now, e := h.Engine.Inspect(ctx, c.ID); e == nil && now.State == engine.Removing {
		return leftError{c, err}
	}
	return err
}

// leftError is a removal that failed half-way.
type leftError struct {
	container engine.Container
	error
}

func (e leftError) Unwrap() error { return e.error }

// tellLeft tells of a removal that failed half-way.
func (h *Host) tellLeft(left leftError) {
	c := left.container
	h.tell(event.Event{Event: event.Warning, Service: c.Labels[LabelService], Revision: c.Labels[LabelRevision], Instance: c.Name, Container: c.ID,
		Detail: "what is left of it takes up disk space until a removal works, which the next converge tries again: " + left.Error()})
}

// named finds the container of a name. What a removal that failed half-way has left of
// ours has to go before the name can be had again.
func (a action) named(ctx context.Context, name string) (engine.Container, error) {
	c, err := a.Engine.Inspect(ctx, name)
	if err != nil || c.State != engine.Removing || c.Labels[LabelNamespace] != a.Namespace {
		return c, err
	}
	if err := a.takeAway(ctx, c); err != nil {
		return c, fmt.Errorf("%s has left something, whose removal fails: %w", name, err)
	}
	return c, fmt.Errorf("container %s: %w", name, engine.ErrNotFound)
}

// leftovers are the containers that the engine has begun to remove, by name.
func (o *observer) leftovers() (cs []engine.Container) {
	for _, c := range o.containers {
		if c.State == engine.Removing {
			cs = append(cs, c)
		}
	}
	slices.SortFunc(cs, func(a, b engine.Container) int { return strings.Compare(a.Name, b.Name) })
	return cs
}
