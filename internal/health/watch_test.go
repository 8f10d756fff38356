package health

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/spec"
)

// prober answers by a function, and takes no time unless that does.
type prober func(ctx context.Context, n int) Result

func (p *counting) Probe(ctx context.Context, i Instance, h spec.Health) Result {
	if p.answer == nil {
		return uptime(time.Now(), i, h)
	}
	p.n++
	return p.answer(ctx, p.n)
}

type counting struct {
	n      int
	answer prober
}

// watch returns when the reports came, in ms since the start, until the time has passed.
func watch(t *testing.T, h spec.Health, i Instance, until time.Duration, answer prober) (at []int, results []Result) {
	t.Helper()
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), until)
	defer cancel()
	Watch(ctx, &counting{answer: answer}, i, h, func(r Result) {
		at = append(at, int(time.Since(begun).Milliseconds()))
		results = append(results, r)
	})
	if d := time.Since(begun); d != until {
		t.Errorf("Watch returned after %v, not when its context was done", d)
	}
	return at, results
}

func TestWatch_IsDenseAtFirstThenBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := spec.Health{Kind: spec.HealthHTTP, Interval: spec.Duration(5 * time.Second)}
		at, _ := watch(t, h, Instance{}, 30*time.Second, func(context.Context, int) Result { return Result{} })
		if at[0] != 0 || at[1] != 20 || at[2] != 45 {
			t.Errorf("first probes at %v", at[:3])
		}
		before := 0
		for n := 1; n < len(at); n++ {
			pause := at[n] - at[n-1]
			if pause < before || pause > 500 {
				t.Errorf("a pause of %d ms after one of %d ms", pause, before)
			}
			before = pause
		}
		if before != 500 || len(at) < 60 {
			t.Errorf("%d probes, the last after %d ms", len(at), before)
		}
	})
}

func TestWatch_OnceWellEveryInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := spec.Health{Kind: spec.HealthHTTP, Interval: spec.Duration(5 * time.Second)}
		at, _ := watch(t, h, Instance{}, 21*time.Second, func(_ context.Context, n int) Result {
			time.Sleep(300 * time.Millisecond) // slow answers do not stretch the rhythm
			return Result{OK: n != 1 && n != 4}
		})
		want := []int{300, 620, 5620, 10620, 15620, 20620}
		if len(at) != len(want) {
			t.Fatalf("reports at %v, want %v", at, want)
		}
		for n := range at {
			if at[n] != want[n] {
				t.Fatalf("reports at %v, want %v", at, want)
			}
		}
	})
}

func TestWatch_ShortIntervalBoundsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := spec.Health{Kind: spec.HealthTCP, Interval: spec.Duration(30 * time.Millisecond)}
		at, _ := watch(t, h, Instance{}, time.Second, func(context.Context, int) Result { return Result{} })
		for n := 3; n < len(at); n++ {
			if at[n]-at[n-1] != 30 {
				t.Fatalf("reports at %v", at)
			}
		}
	})
}

func TestWatch_DoesNotReportWhatWasCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at, _ := watch(t, spec.Health{Kind: spec.HealthHTTP}, Instance{}, time.Second, func(ctx context.Context, _ int) Result {
			<-ctx.Done()
			return Result{Text: "cut short"}
		})
		if len(at) != 0 {
			t.Errorf("reports at %v", at)
		}
	})
}

func TestWatch_UptimeIsAskedWhenItIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := spec.Health{Kind: spec.HealthUptime, Uptime: spec.Duration(5 * time.Second), Interval: spec.Duration(time.Second)}
		i := Instance{StartedAt: time.Now().Add(-2100 * time.Millisecond)}
		at, results := watch(t, h, i, time.Minute, nil)
		if len(at) != 2 || at[0] != 0 || at[1] != 2900 || results[0].OK || !results[1].OK {
			t.Fatalf("reports at %v: %+v", at, results)
		}
		if results[0].Text != "has run 2.1 s of 5 s" || results[1].Text != "has run 5 s" {
			t.Errorf("texts %q, %q", results[0].Text, results[1].Text)
		}
		at, results = watch(t, h, Instance{}, time.Minute, nil)
		if len(at) != 1 || results[0].OK || !strings.Contains(results[0].Text, "not been started") {
			t.Errorf("never started: reports at %v: %+v", at, results)
		}
	})
}
