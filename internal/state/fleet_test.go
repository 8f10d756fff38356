package state_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"conductor/internal/fault"
	"conductor/internal/state"
)

func TestLockFleet(t *testing.T) {
	d := open(t, t.TempDir())
	if _, ok := d.FleetHolder("shop"); ok {
		t.Error("somebody has what nobody took")
	}
	release, err := d.LockFleet(t.Context(), "shop", false, state.Holder{Verb: "deploy", User: "alice@laptop", Token: "abc"})
	if err != nil {
		t.Fatal(err)
	}
	if h, ok := d.FleetHolder("shop"); !ok || h.User != "alice@laptop" || h.Token != "abc" {
		t.Errorf("%+v, %v", h, ok)
	}
	if _, err = d.LockFleet(t.Context(), "shop", false, state.Holder{}); !errors.Is(err, fault.ErrLocked) || !strings.Contains(err.Error(), "alice@laptop") {
		t.Errorf("taken twice: %v", err)
	}
	if r, err := d.LockFleet(t.Context(), "blog", false, state.Holder{}); err != nil {
		t.Errorf("another service's: %v", err)
	} else {
		r()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := d.LockFleet(ctx, "shop", true, state.Holder{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waited for: %v", err)
	}
	release()
	if _, ok := d.FleetHolder("shop"); ok {
		t.Error("it was released")
	}
	if _, err := d.LockFleet(t.Context(), "../x", false, state.Holder{}); !errors.Is(err, fault.ErrUsage) {
		t.Error(err)
	}
}

// Who only looks whether somebody has the lock keeps nobody from taking it, and
// who waits for it keeps nobody from being told who has it.
func TestLockFleet_BesideOthers(t *testing.T) {
	d := open(t, t.TempDir())
	over := make(chan struct{})
	var looking sync.WaitGroup
	for range 2 {
		looking.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					d.FleetHolder("shop")
				}
			}
		})
	}
	for n := range 300 {
		release, err := d.LockFleet(t.Context(), "shop", false, state.Holder{Verb: "deploy"})
		if err != nil {
			t.Errorf("try %d: %v", n, err)
			break
		}
		release()
	}
	close(over)
	looking.Wait()

	release, err := d.LockFleet(t.Context(), "shop", false, state.Holder{User: "alice@laptop"})
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() {
		release, err := d.LockFleet(t.Context(), "shop", true, state.Holder{})
		if err == nil {
			release()
		}
		waited <- err
	}()
	for range 20 {
		if _, err := d.LockFleet(t.Context(), "shop", false, state.Holder{}); !errors.Is(err, fault.ErrLocked) || !strings.Contains(err.Error(), "alice@laptop") {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Millisecond)
	}
	release()
	if err := <-waited; err != nil {
		t.Error(err)
	}
}

func TestMarks(t *testing.T) {
	d := open(t, t.TempDir())
	want := func(revision string, marks ...string) {
		t.Helper()
		if got, err := d.Marks("shop", revision); err != nil || !slices.Equal(got, marks) {
			t.Errorf("%s: %q, %v, want %q", revision, got, err, marks)
		}
	}
	want("v1")
	var marking sync.WaitGroup
	for _, m := range []string{"tested", "migrated", "tested"} {
		marking.Go(func() {
			if err := d.Mark(t.Context(), "shop", "v1", m); err != nil {
				t.Error(err)
			}
		})
	}
	marking.Wait()
	got, err := d.Marks("shop", "v1")
	slices.Sort(got)
	if err != nil || !slices.Equal(got, []string{"migrated", "tested"}) {
		t.Errorf("%q, %v", got, err)
	}
	want("v2")
	for n := range 100 {
		if err := d.Mark(t.Context(), "shop", fmt.Sprint("r", n), "migrated"); err != nil {
			t.Fatal(err)
		}
	}
	want("v1") // so many revisions ago
	want("r0", "migrated")
	if err := d.Mark(t.Context(), "../shop", "v1", "x"); !errors.Is(err, fault.ErrUsage) {
		t.Error(err)
	}
}
