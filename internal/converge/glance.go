package converge

import (
	"context"
	"sync"
	"time"

	"conductor/internal/engine"
	"conductor/internal/proxy"
	"conductor/internal/state"
)

// Glances are looks at everything that the services of a host have in common.
// Whoever tends one of them looks around from time to time though nothing was
// heard; a hundred who each ask the engine and the proxy, of which each answers
// with what a hundred have, would make most of what an idle supervisor costs.
type Glances struct {
	mu   sync.Mutex
	last *glance
}

// glance is one look; nobody changes it.
type glance struct {
	at         time.Time                     // when it began
	containers map[string][]engine.Container // instances, by service
	routes     state.Routes
	seen       proxy.Observed
	err        error // of the proxy
}

// since returns a look that began after that time: the last one, or its own.
func (g *Glances) since(ctx context.Context, h *Host, after time.Time) (*glance, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last != nil && g.last.at.After(after) {
		return g.last, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
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
	g.last = now
	return now, nil
}
