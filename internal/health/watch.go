package health

import (
	"context"
	"time"

	"conductor/internal/spec"
)

// The rhythm of the probes of an instance that is starting: dense at first,
// since most are well within a second, and each 20 ms are a part of an
// upgrade's time; then backing off, since a slow start needs its processor.
const (
	firstPause  = 20 * time.Millisecond
	longest     = 500 * time.Millisecond
	growPauseBy = 1.25
)

// Watch probes the instance until ctx is done and reports every answer: at
// once, then ever less often until it is well for the first time, then every
// h.Interval: one that serves already is asked so from the beginning. Uptime is asked at once and when it is due, and not again, since
// it cannot change. A probe that ctx cut short is not reported. report is
// called by one goroutine at a time.
func Watch(ctx context.Context, p Prober, i Instance, h spec.Health, report func(Result)) {
	if h.Kind == spec.HealthUptime {
		watchUptime(ctx, p, i, h, report)
		return
	}
	interval := h.Interval.D()
	if interval <= 0 {
		interval = 5 * time.Second
	}
	pause, well := firstPause, i.Serving
	for ctx.Err() == nil {
		begun := time.Now()
		r := p.Probe(ctx, i, h)
		if ctx.Err() != nil {
			return
		}
		report(r)
		well = well || r.OK
		if well {
			// From probe to probe, so that slow answers do not stretch it.
			wait(ctx, max(interval-time.Since(begun), firstPause))
			continue
		}
		wait(ctx, min(pause, interval))
		pause = min(time.Duration(float64(pause)*growPauseBy), longest)
	}
}

func watchUptime(ctx context.Context, p Prober, i Instance, h spec.Health, report func(Result)) {
	for ctx.Err() == nil {
		r := p.Probe(ctx, i, h)
		if ctx.Err() != nil {
			return
		}
		report(r)
		if r.OK || i.StartedAt.IsZero() {
			<-ctx.Done()
			return
		}
		// A clock that was set back could make it due at once and not well.
		wait(ctx, max(time.Until(i.StartedAt.Add(h.Uptime.D())), time.Millisecond))
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
