package statetest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"conductor/internal/fault"
	"conductor/internal/state"
)

func TestMemory_PassesSuite(t *testing.T) {
	Suite(t, func(*testing.T) func() Store {
		m := NewMemory()
		return func() Store { return m.Process() }
	})
}

func TestMemory_CrashFreesLocksAndSilencesTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		release, err := m.Lock(t.Context(), "shop", state.Holder{Supervisor: true})
		must(t, err)
		must(t, m.PutGoal(Goal("shop")))

		waiting := m.Process() // a second process waits, and dies waiting
		done := make(chan error)
		go func() {
			_, err := waiting.Lock(context.Background(), "shop", state.Holder{})
			done <- err
		}()
		synctest.Wait()
		waiting.Crash()
		if err := <-done; !errors.Is(err, ErrCrashed) {
			t.Fatalf("got %v, want ErrCrashed", err)
		}

		next := m.Process()
		go func() {
			_, err := next.Lock(context.Background(), "shop", state.Holder{Verb: "upgrade"})
			done <- err
		}()
		synctest.Wait()
		m.Crash()
		must(t, <-done)
		release() // of the dead process: nothing
		if _, err := m.Process().Lock(t.Context(), "shop", state.Holder{}); !errors.Is(err, fault.ErrLocked) {
			t.Fatalf("got %v, want fault.ErrLocked", err)
		}
		if err := m.PutGoal(Goal("late")); !errors.Is(err, ErrCrashed) {
			t.Fatalf("got %v, want ErrCrashed", err)
		}
		if goals, err := next.Goals(); len(goals) != 1 || err != nil {
			t.Fatalf("goals after the crash: %v, %v", goals, err)
		}
	})
}

func TestMemory_RebootEmptiesTargets(t *testing.T) {
	m := NewMemory()
	_, err := m.Lock(t.Context(), "shop", state.Holder{})
	must(t, err)
	must(t, m.PutRoutes(routes()))
	m.Reboot()
	p := m.Process()
	r, err := p.Routes()
	must(t, err)
	if len(r.Table.Routes) != 1 || len(r.Table.Routes[0].Targets) != 0 || len(r.Drains) != 0 {
		t.Errorf("after a reboot: %+v", r)
	}
	release, err := p.Lock(t.Context(), "shop", state.Holder{})
	must(t, err)
	release()
}

func TestMemory_FaultChangesNothing(t *testing.T) {
	m := NewMemory()
	boom := errors.New("boom")
	m.Fault(func(call string) error {
		if call == "PutGoal" {
			return boom
		}
		return nil
	})
	if err := m.PutGoal(Goal("shop")); !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
	if _, ok, err := m.Goal("shop"); ok || err != nil {
		t.Fatalf("the goal is kept: %v, %v", ok, err)
	}
}

func TestMemory_GivesLocksInTheOrderAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		release, err := m.LockProxy(t.Context())
		must(t, err)
		order := make(chan int, 5)
		for i := range 5 {
			p := m.Process()
			go func() {
				release, err := p.LockProxy(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				order <- i
				release()
			}()
			synctest.Wait()
		}
		release()
		for i := range 5 {
			if g := <-order; g != i {
				t.Fatalf("the lock went to %d, want %d", g, i)
			}
		}
	})
}
