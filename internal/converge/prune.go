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
	"conductor/internal/fault"
	"conductor/internal/goal"
	"conductor/internal/spec"
	"conductor/internal/state"
)

// Prune takes from images of the services, of all where none is named, the
// names that Conductor gave them and no goal needs any more. Images without a
// name and a container go with them; nothing is forced.
func (h *Host) Prune(ctx context.Context, ids ...string) ([]Outcome, error) {
	names, err := h.Engine.Tags(ctx, h.Namespace+"/")
	if err != nil {
		return nil, err
	}
	byService := map[string][]string{}
	for _, n := range names {
		id, _, _ := strings.Cut(strings.TrimPrefix(n, h.Namespace+"/"), ":")
		if spec.ValidID(id) {
			byService[id] = append(byService[id], n)
		}
	}
	if len(ids) == 0 {
		for id := range byService {
			ids = append(ids, id)
		}
		slices.Sort(ids)
	}
	var outs []Outcome
	var errs []error
	for _, id := range ids {
		out, err := h.prune(ctx, id, byService[id])
		outs, errs = append(outs, out), append(errs, err)
	}
	return outs, errors.Join(errs...)
}

func (h *Host) prune(ctx context.Context, id string, names []string) (Outcome, error) {
	out := Outcome{Service: id, Verb: "prune"}
	began := time.Now()
	release, err := h.Store.Lock(ctx, id, state.Holder{Verb: "prune", User: h.User})
	if err != nil {
		return out, fmt.Errorf("prune %s: %w", id, err)
	}
	defer release()
	g, _, err := h.Store.Goal(id)
	if err != nil {
		return out, err
	}
	needed := map[string]bool{}
	for _, r := range g.Releases() {
		needed[r.Tag(h.Namespace, id)] = true
	}
	var errs []error
	gone := 0
	for _, n := range names {
		if needed[n] {
			continue
		}
		err := h.Engine.Untag(ctx, n)
		if errors.Is(err, engine.ErrConflict) {
			continue // a container that is kept for its logs needs it
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		gone++
	}
	out.Changed, out.Took = gone > 0, spec.Duration(time.Since(began))
	out.Note = fmt.Sprintf("%d of %d image names were needed no more", gone, len(names))
	if err := errors.Join(errs...); err != nil {
		return out, fault.New(fault.ErrHost, "the engine's message says why", "prune %s: %w", id, err)
	}
	return out, nil
}

// untag takes away the names that kept the images of releases that the goal
// does not need any more. Failing costs disk space only: a container that is
// kept for its logs may hold an image, and prune makes up for it.
func (h *Host) untag(ctx context.Context, g goal.Goal, releases []goal.Release) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	for _, r := range releases {
		if _, needed := releaseOf(g, r.Digest); needed {
			continue
		}
		err := h.Engine.Untag(ctx, r.Tag(h.Namespace, g.Service))
		if err != nil && !errors.Is(err, engine.ErrConflict) {
			h.tell(event.Event{Event: event.Warning, Service: g.Service, Revision: r.Revision,
				Detail: "its image keeps its name until `conductor prune`: " + err.Error()})
		}
	}
}
