package supervise

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/engine"
	"conductor/internal/engine/enginetest"
	"conductor/internal/event"
)

// What a removal that failed half-way has left is tried again by a supervisor who
// has nothing else to do, calmly, until it is gone.
func TestSupervisor_FinishesRemovals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eng, disk, _, host := deployed(t, 1, 1)
		var mu sync.Mutex
		busy, warned, removed := true, 0, 0
		eng.Intercept = func(op, _ string) enginetest.Fault {
			mu.Lock()
			defer mu.Unlock()
			if op == "Remove" && busy {
				return enginetest.Fault{Err: errors.New("device or resource busy")}
			}
			return enginetest.Fault{}
		}
		host.Emit = func(e event.Event) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case e.Event == event.Warning && strings.Contains(e.Detail, "device or resource busy"):
				warned++
			case e.Event == event.Removed:
				removed++
			}
		}
		eng.Die(eng.Containers()[0].Name, 1, false)
		eng.HalfRemove(eng.Containers()[0].Name)
		defer goes(t, &Supervisor{Namespace: "conductor", Host: swept{host}, Goals: disk, Events: eng.Events})()
		left := func() bool {
			synctest.Wait()
			return slices.ContainsFunc(eng.Containers(), func(c engine.Container) bool { return c.State == engine.Removing })
		}
		time.Sleep(time.Hour)
		if !left() {
			t.Fatal("it is gone, and could not go")
		}
		mu.Lock()
		if warned < 2 || warned > 7 {
			t.Errorf("%d warnings in an hour, want one every ten minutes", warned)
		}
		busy = false
		mu.Unlock()
		time.Sleep(11 * time.Minute)
		if left() {
			t.Error("eleven minutes after it can go, it is there")
		}
		if mu.Lock(); removed != 1 {
			t.Errorf("it was told %d times that one is removed", removed)
		}
		mu.Unlock()
		if cs := eng.Containers(); len(cs) != 1 || cs[0].State != engine.Running {
			t.Errorf("what is there in the end: %v", cs)
		}
	})
}
