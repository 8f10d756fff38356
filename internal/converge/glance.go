package converge

import (
	"context"
	"time"

	"conductor/internal/engine"
	"conductor/internal/proxy"
	"conductor/internal/state"
)

// Glances are looks at what the services of a host have in common, shared by all
// who tend one of them: each answer of the proxy is about a hundred services, and
// of the engine about all containers. Whoever asks is given a look that began
// after it asked, as its own would have; those who ask at one time, as after a
// boot, are given one and the same. nil: each looks by itself.
type Glances struct {
	around *joint[*glance]
	proxy  *joint[proxy.Observed]
	used   *joint[*addresses]
}

// NewGlances returns those of one host.
func NewGlances() *Glances {
	return &Glances{around: newJoint[*glance](), proxy: newJoint[proxy.Observed](), used: newJoint[*addresses]()}
}

// joint is a look that is shared, with its answer.
type joint[T any] struct {
	turn  turn // of who looks
	began time.Time
	last  T
	err   error
}

func newJoint[T any]() *joint[T] { return &joint[T]{turn: newTurn()} }

// since returns a look that began after that time: the last one, or its own. One
// that the asker's own end cut off is nobody else's.
func (j *joint[T]) since(ctx context.Context, after time.Time, look func(context.Context) (T, error)) (T, error) {
	return j.unless(ctx, func() bool { return j.began.After(after) }, look, func(err error) bool { return err == nil || ctx.Err() == nil })
}

// once returns the first look that worked. One that failed, not before that time,
// has failed for all, however it did: they end as the asker does.
func (j *joint[T]) once(ctx context.Context, failed time.Time, look func(context.Context) (T, error)) (T, error) {
	return j.unless(ctx, func() bool {
		return !j.began.IsZero() && (j.err == nil || !j.began.Before(failed))
	}, look, func(error) bool { return true })
}

// unless returns the last look, if that will do, or its own, which may be kept.
func (j *joint[T]) unless(ctx context.Context, willDo func() bool, look func(context.Context) (T, error), keep func(error) bool) (v T, err error) {
	if j.turn.take(ctx) != nil {
		return v, context.Cause(ctx)
	}
	defer j.turn.leave()
	if willDo() {
		return j.last, j.err
	}
	began := time.Now()
	v, err = look(ctx)
	if keep(err) {
		j.began, j.last, j.err = began, v, err
	}
	return v, err
}

// glance is one look around for those who have heard nothing for a while.
type glance struct {
	at         time.Time                     // when it began
	containers map[string][]engine.Container // instances, by service
	routes     state.Routes
	seen       proxy.Observed
	err        error // of the proxy
}

// since returns a look around that began after that time.
func (g *Glances) since(ctx context.Context, h *Host, after time.Time) (*glance, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return g.around.since(ctx, after, func(ctx context.Context) (*glance, error) {
		now := &glance{at: time.Now(), containers: map[string][]engine.Container{}}
		list, err := h.Engine.List(ctx, h.mine("", KindService))
		if err != nil {
			return nil, err
		}
		for _, c := range list {
			id := c.Labels[LabelService]
			now.containers[id] = append(now.containers[id], c)
		}
		if now.routes, err = h.Store.Routes(); err != nil {
			return nil, err
		}
		now.seen, now.err = h.Proxy.Observe(ctx)
		return now, nil
	})
}

// proxied is what the proxy serves from now on.
func (g *Glances) proxied(ctx context.Context, h *Host) (proxy.Observed, error) {
	if g == nil {
		return h.Proxy.Observe(ctx)
	}
	return g.proxy.since(ctx, time.Now(), h.Proxy.Observe)
}

// usedAddresses are those that are used from now on. All who are given one look hand
// out of it together.
func (g *Glances) usedAddresses(ctx context.Context, h *Host) (*addresses, error) {
	if g == nil {
		return h.usedAddresses(ctx)
	}
	return g.used.since(ctx, time.Now(), h.usedAddresses)
}
