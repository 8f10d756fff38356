package converge

import (
	"context"
	"errors"
	"sync"
	"time"

	"conductor/internal/engine"
)

// supervised tends all services until ctx is done, woken as internal/supervise
// wakes them: by events, by goals that change, and by time.
func supervised(ctx context.Context, h *Host, hist history) error {
	var tending sync.WaitGroup
	errs := make([]error, len(hist.services))
	glances, switches := NewGlances(), &Switches{}
	for n, s := range hist.services {
		look, asking := make(chan time.Time, 1), sync.Mutex{}
		// Room for all and a turn for each: who comes first at one instant would
		// be chance, and no history could be played again.
		feed := Feed{Events: make(chan engine.Event, 64), Look: look, Starts: make(chan struct{}, 100), Recycle: make(chan struct{}, 1),
			Glances: glances, Switches: switches}
		wake := func() {
			asking.Lock()
			defer asking.Unlock()
			select {
			case <-look:
			default:
			}
			look <- time.Now()
		}
		tending.Go(func() {
			for ctx.Err() == nil {
				_ = h.Engine.Events(ctx, h.mine(s.id, KindService), wake, func(e engine.Event) {
					select {
					case feed.Events <- e:
					default:
						wake()
					}
				})
				pause(ctx, 250*time.Millisecond)
			}
		})
		tending.Go(func() {
			for ctx.Err() == nil {
				if pause(ctx, time.Second); ctx.Err() == nil {
					wake()
				}
			}
		})
		tending.Go(func() {
			for ctx.Err() == nil {
				errs[n] = errors.Join(errs[n], h.Tend(ctx, s.id, feed))
				pause(ctx, time.Second) // there may be a goal by then
			}
		})
	}
	tending.Wait()
	return errors.Join(errs...)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
