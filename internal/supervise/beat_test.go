package supervise

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/engine"
	"conductor/internal/goal"
	"conductor/internal/state"
)

// disk has no goals, and can hang.
type disk struct{ hang chan struct{} }

func (d disk) Stamps() (map[string]state.Stamp, error) {
	<-d.hang
	return nil, nil
}
func (disk) Goal(string) (goal.Goal, bool, error) { return goal.Goal{}, false, nil }

type idle struct{ Host }

func (idle) SweepRuns(context.Context) error { return nil }

// A supervisor gives a sign of life every second, and none while it hangs.
func TestSupervisor_BeatsWhileItGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := disk{make(chan struct{})}
		goesOn := func(d time.Duration, hang chan struct{}) {
			for end := time.After(d); ; {
				select {
				case hang <- struct{}{}:
				case <-end:
					return
				}
			}
		}
		var beats, early atomic.Int32
		s := &Supervisor{
			Host: idle{}, Goals: d,
			Events: func(ctx context.Context, _ map[string]string, ready func(), _ func(engine.Event)) error {
				ready()
				<-ctx.Done()
				return ctx.Err()
			},
			Ready: func() { early.Store(1 - beats.Load()) },
			Beat:  func(bool) { beats.Add(1) },
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		goesOn(10500*time.Millisecond, d.hang)
		if early.Load() != 1 || beats.Load() != 11 {
			t.Errorf("ready before the first: %v; %d beats in 10 s, want 11", early.Load() == 1, beats.Load())
		}
		time.Sleep(time.Minute)
		if beats.Load() != 11 {
			t.Errorf("%d beats while it hung, want none", beats.Load()-11)
		}
		goesOn(5*time.Second, d.hang)
		if beats.Load() < 15 {
			t.Errorf("%d beats in 5 s after that, want 4 at least", beats.Load()-11)
		}
		cancel()
		close(d.hang)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
