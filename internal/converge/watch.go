package converge

import (
	"context"
	"time"

	"conductor/internal/health"
	"conductor/internal/plan"
	"conductor/internal/spec"
)

// watcher probes instances and keeps what they answered.
type watcher struct {
	prober health.Prober
	found  chan *probed
	known  map[string]*watched // by container ID
}

type watched struct {
	cancel context.CancelFunc // nil: it is not probed now
	done   chan struct{}
	run    time.Time // the start of the process that answered

	asked, ever bool
	served      bool // it was seen to be served
	failures    int
	last        health.Result
}

type probed struct {
	id     string
	result health.Result
}

func newWatcher(p health.Prober) *watcher {
	// A prober whose answer is not taken waits with it, and asks no more: a
	// loop that the engine lets hang would go by what was true before.
	return &watcher{prober: p, found: make(chan *probed, 64), known: map[string]*watched{}}
}

// watch starts to probe the instance, if it is not probed yet.
func (w *watcher) watch(ctx context.Context, i health.Instance, h spec.Health) {
	k := w.known[i.Container]
	if k != nil && !k.run.Equal(i.StartedAt) {
		w.forget(i.Container)
		k = nil
	}
	if k == nil {
		k = &watched{run: i.StartedAt}
		w.known[i.Container] = k
	}
	if k.cancel != nil {
		return
	}
	ctx, k.cancel = context.WithCancel(ctx)
	k.done = make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		health.Watch(ctx, w.prober, i, h, func(r health.Result) {
			select {
			case w.found <- &probed{i.Container, r}:
			case <-ctx.Done():
			}
		})
	}(k.done)
}

// unwatch stops to probe it; what it answered is kept.
func (w *watcher) unwatch(id string) {
	if k := w.known[id]; k != nil && k.cancel != nil {
		k.cancel()
		<-k.done
		k.cancel = nil
	}
}

// forget drops what is known of an instance: its process is another one now.
func (w *watcher) forget(id string) {
	w.unwatch(id)
	delete(w.known, id)
}

func (w *watcher) close() {
	for id := range w.known {
		w.unwatch(id)
	}
}

// take keeps an answer, and says whether the instance has just become well.
func (w *watcher) take(p probed) (becameWell bool) {
	k := w.known[p.id]
	if k == nil || k.cancel == nil {
		return false // an answer that came after the question was taken back
	}
	k.asked, k.last = true, p.result
	if !p.result.OK {
		k.failures++
		return false
	}
	becameWell = !k.ever
	k.failures, k.ever = 0, true
	return becameWell
}

// fill writes what is known of their health into the instances.
func (w *watcher) fill(is []plan.Instance, h func(plan.Instance) spec.Health) {
	for n := range is {
		i := &is[n]
		k := w.known[i.ID]
		if k == nil || !k.run.Equal(i.StartedAt) {
			continue // what another process of the container answered says nothing of this one
		}
		if served(*i) && !k.served {
			// Somebody else found it well and routed it: what it answered
			// before, while it was starting, says nothing of it now.
			k.served = true
			if !k.ever {
				k.asked, k.failures = false, 0
			}
		}
		i.Asked, i.EverWell, i.Failures, i.LastWord = k.asked, k.ever || served(*i), k.failures, k.last.Text
		// One failed probe is not sickness: unhealthy_after of them are.
		i.Well = k.ever && k.failures < max(h(*i).UnhealthyAfter, 1)
	}
}
