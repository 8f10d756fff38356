package supervise

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/engine"
	"conductor/internal/engine/enginetest"
	"conductor/internal/event"
	"conductor/internal/state"
)

// laborious is an engine whose doings take a while.
type laborious struct{ *enginetest.Fake }

const labour = 100 * time.Millisecond

func (l laborious) Create(ctx context.Context, c engine.Create) (string, error) {
	time.Sleep(labour)
	return l.Fake.Create(ctx, c)
}

func (l laborious) Start(ctx context.Context, id string) error {
	time.Sleep(labour)
	return l.Fake.Start(ctx, id)
}

func (l laborious) Remove(ctx context.Context, id string) error {
	time.Sleep(labour)
	return l.Fake.Remove(ctx, id)
}

// locks counts how often the service's lock is taken.
type locks struct {
	memory
	taken atomic.Int64
}

func (l *locks) Lock(ctx context.Context, service string, h state.Holder) (func(), error) {
	l.taken.Add(1)
	return l.memory.Lock(ctx, service, h)
}

// When one dies, the engine's time is for the next one until that serves: what
// died before is removed after it, although it could be at once. One lock is
// enough for all of it, where the next one is well at once.
func TestSupervisor_RemovesAfterItHasReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eng, disk, _, host := deployed(t, 1, 2)
		store := &locks{memory: disk}
		host.Engine, host.Store = laborious{eng}, store
		var mu sync.Mutex
		var told []string
		host.Emit = func(e event.Event) {
			mu.Lock()
			defer mu.Unlock()
			if slices.Contains([]event.Name{event.Created, event.Started, event.Healthy, event.Routed, event.Removed}, e.Event) {
				told = append(told, string(e.Event))
			}
		}
		defer goes(t, &Supervisor{Namespace: "conductor", Host: swept{host}, Goals: disk, Events: eng.Events})()
		for n := range 4 {
			time.Sleep(time.Minute)
			synctest.Wait()
			mu.Lock()
			told = nil
			mu.Unlock()
			store.taken.Store(0)
			oldest := slices.MinFunc(running(eng), func(a, b engine.Container) int { return a.StartedAt.Compare(b.StartedAt) })
			eng.Die(oldest.Name, 137, false)
			time.Sleep(time.Second)
			synctest.Wait()
			want := []string{"created", "started", "healthy", "routed", "removed"}
			if n < 2 { // the first that died of each slot stays
				want = want[:4]
			}
			mu.Lock()
			if !slices.Equal(told, want) {
				t.Errorf("death %d: %v, want %v", n+1, told, want)
			}
			mu.Unlock()
			if got := store.taken.Load(); got != 1 {
				t.Errorf("death %d: the lock was taken %d times, want once", n+1, got)
			}
		}
	})
}

func running(eng *enginetest.Fake) []engine.Container {
	return slices.DeleteFunc(eng.Containers(), func(c engine.Container) bool { return c.State != engine.Running })
}
