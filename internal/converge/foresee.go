package converge

import (
	"context"
	"fmt"
	"time"

	"conductor/internal/plan"
)

// PlanUpgrade says what Upgrade would do. It changes nothing, but it fetches
// the image: without it there is no telling.
func (h *Host) PlanUpgrade(ctx context.Context, id, revision string) ([]Step, error) {
	return h.foresee(ctx, id, func(r *request) error {
		return h.upgrade(ctx, r, CrontabRequest{Service: id, Revision: revision})
	})
}

// PlanRollback says what Rollback would do, and changes nothing.
func (h *Host) PlanRollback(ctx context.Context, id, revision string) ([]Step, error) {
	return h.foresee(ctx, id, func(r *request) error { return h.rollback(ctx, r, revision) })
}

func (h *Host) foresee(ctx context.Context, id string, change func(*request) error) ([]Step, error) {
	quiet := *h
	quiet.Emit, quiet.History = nil, nil
	g, _, err := h.Store.Goal(id)
	if err != nil {
		return nil, err
	}
	g.Service = id
	req := request{Goal: g}
	err = change(&req)
	if err == nil && req.check != nil {
		err = req.check(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("plan %s: %w", id, err)
	}
	g = req.Goal
	o := newObserver(&quiet, id)
	if err := o.refresh(ctx, time.Now(), nil); err != nil {
		return nil, err
	}
	is := o.instances()
	px, err := o.route(ctx, g.Policy.HTTP != nil, is, time.Now())
	if err != nil {
		return nil, err
	}
	crontab, err := h.installed(g)
	if err != nil {
		return nil, err
	}
	steps := []Step{}
	for _, s := range plan.Foresee(plan.Input{Namespace: h.Namespace, Goal: g, Instances: is, Proxy: px, Crontab: crontab, Now: time.Now()}, 1000) {
		steps = append(steps, Step{Do: s.Name(), Cause: s.Cause})
	}
	return steps, nil
}
