package notify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNotifier_TriesAgainAfterGrowingPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &listener{name: "a"}
		a.answer = func(context.Context) error {
			if len(a.got) < 5 {
				return errors.New("busy")
			}
			return nil
		}
		other := &listener{name: "other"}
		var warned []string
		n := running(t, Options{Warn: func(target string, givenUp bool, err error) {
			warned = append(warned, fmt.Sprint(target, " ", givenUp, " ", err))
		}}, a, other)
		n.Tell(of("shop", Sick))
		pass(4 * time.Second)
		n.Tell(of("late", Sick)) // waits for the message before
		pass(time.Minute)
		var pauses []time.Duration
		for i := range 4 {
			pauses = append(pauses, a.tries[i+1].Sub(a.tries[i]))
			if a.got[i+1].ID != a.got[0].ID {
				t.Error("another ID")
			}
		}
		if want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}; !slices.Equal(pauses, want) {
			t.Errorf("pauses %v", pauses)
		}
		if len(a.got) != 6 || a.got[5].ID == a.got[0].ID || a.got[5].Lost != 0 || len(other.got) != 2 {
			t.Errorf("%+v, other %d", a.got, len(other.got))
		}
		if d := cmp.Diff([]string{"a false busy"}, warned); d != "" {
			t.Error(d)
		}
		if s := n.Stats(); s != (Stats{Sent: 4}) {
			t.Errorf("%+v", s)
		}
	})
}

func TestNotifier_GivesUpAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &listener{name: "a", answer: func(context.Context) error { return errors.New("gone") }}
		var warned []string
		n := running(t, Options{Warn: func(_ string, givenUp bool, err error) { warned = append(warned, fmt.Sprint(givenUp, " ", err)) }}, a)
		n.Tell(of("x", Sick))
		n.Tell(of("y", Sick))
		pass(quiet + patience - time.Second)
		if s := n.Stats(); s.Failed != 0 {
			t.Errorf("%+v", s)
		}
		pass(time.Minute)
		if s := n.Stats(); s != (Stats{Failed: 1}) || a.tries[len(a.tries)-1].Sub(a.tries[0]) != patience {
			t.Errorf("%+v, tried for %s", s, a.tries[len(a.tries)-1].Sub(a.tries[0]))
		}
		for i := range len(a.tries) - 1 {
			if p := a.tries[i+1].Sub(a.tries[i]); p > longest {
				t.Errorf("a pause of %s", p)
			}
		}
		if d := cmp.Diff([]string{"false gone", "true gone"}, warned); d != "" {
			t.Error(d)
		}
		a.answer, a.got = nil, nil
		n.Tell(of("z", Sick))
		pass(time.Minute)
		if d := cmp.Diff([]string{"z (v1) is sick", "2 changes before these could not be told"}, a.texts()); d != "" {
			t.Error(d)
		}
	})
}

func TestNotifier_SendsWhatWaitsAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		good, bad, stuck := &listener{name: "good"}, &listener{name: "bad", answer: func(context.Context) error { return errors.New("no") }}, &listener{name: "stuck", answer: hangs}
		slow := &listener{name: "slow"}
		slow.answer = func(ctx context.Context) error {
			select {
			case <-time.After(3 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		n := New([]Target{good, bad, stuck, slow}, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			_ = n.Run(ctx)
			close(done)
		}()
		n.Tell(of("early", Sick), "slow")
		pass(quiet + time.Second) // slow is being told
		n.Tell(of("shop", Sick))
		pass(time.Second)
		begun := time.Now()
		cancel()
		<-done
		if took := time.Since(begun); took != 5*time.Second {
			t.Errorf("it took %s", took)
		}
		if len(good.got) != 1 || !good.tries[0].Equal(begun) || len(bad.got) != 1 || len(stuck.got) != 1 || len(slow.got) != 2 {
			t.Errorf("good %d, bad %d, stuck %d, slow %d", len(good.got), len(bad.got), len(stuck.got), len(slow.got))
		}
		if s := n.Stats(); s != (Stats{Sent: 3, Failed: 2}) {
			t.Errorf("%+v", s)
		}
	})
}

func TestNotifier_TriesOnceMoreInAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &listener{name: "a"}
		a.answer = func(context.Context) error {
			if len(a.got) < 3 {
				return errors.New("busy")
			}
			return nil
		}
		n := New([]Target{a}, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			_ = n.Run(ctx)
			close(done)
		}()
		n.Tell(of("shop", Sick))
		pass(quiet + 1500*time.Millisecond)
		begun := time.Now()
		cancel()
		<-done
		if len(a.got) != 3 || time.Since(begun) != 0 || n.Stats().Sent != 1 {
			t.Errorf("%d tries, %s, %+v", len(a.got), time.Since(begun), n.Stats())
		}
	})
}
