package supervise

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/converge"
	"conductor/internal/engine"
	"conductor/internal/engine/enginetest"
)

// full is the engine of a host that is full: what it is asked for costs time.
type full struct {
	*enginetest.Fake
	mu     sync.Mutex
	counts counts
}

type counts struct {
	starts  int
	all     int // listings of all containers
	service int // of those of one service
	known   int // of some by their IDs
}

func (f *full) List(ctx context.Context, labels map[string]string, ids ...string) ([]engine.Container, error) {
	f.mu.Lock()
	switch {
	case len(ids) > 0:
		f.counts.known++
	case labels[converge.LabelService] != "":
		f.counts.service++
	default:
		f.counts.all++
	}
	f.mu.Unlock()
	time.Sleep(5 * time.Millisecond)
	return f.Fake.List(ctx, labels, ids...)
}

func (f *full) Start(ctx context.Context, id string) error {
	f.mu.Lock()
	f.counts.starts++
	n := f.counts.starts
	f.mu.Unlock()
	time.Sleep(3*time.Second + time.Duration(n)*3*time.Millisecond) // no two end at one time
	return f.Fake.Start(ctx, id)
}

// After a boot the time goes into starts. A listing costs an engine as much as it
// has containers, the dead among them, so there are few of them, although the
// last of a hundred services waits 40 s for its turn; and what is dead is removed
// once it is calm.
func TestSupervisor_BootAsksLittle(t *testing.T) {
	const services = 12 * atOnce
	synctest.Test(t, func(t *testing.T) {
		eng, disk, _, host := deployed(t, services, 1)
		crowd := &full{Fake: eng}
		host.Engine = crowd
		// boot is a supervisor that finds all dead, for so long.
		boot := func(lasts time.Duration) (end func()) {
			for _, c := range eng.Containers() {
				if c.State == engine.Running {
					eng.Die(c.Name, 137, false)
				}
			}
			time.Sleep(time.Minute)
			crowd.counts = counts{}
			end = goes(t, &Supervisor{Namespace: "conductor", Host: swept{host}, Goals: disk, Events: eng.Events})
			time.Sleep(lasts)
			synctest.Wait()
			return end
		}
		const inLine = 38 * time.Second
		boot(inLine + 6*time.Second)() // it leaves one dead container each
		end := boot(inLine)
		defer end()
		crowd.mu.Lock()
		n := crowd.counts
		crowd.mu.Unlock()
		t.Logf("%+v", n)
		if n.starts != services {
			t.Errorf("%d starts, want %d", n.starts, services)
		}
		if n.all > 20 {
			t.Errorf("all containers were listed %d times, want 20 at most", n.all)
		}
		// Without the lock, and with it.
		if n.service > 2*services {
			t.Errorf("a service's containers were listed %d times, want %d at most", n.service, 2*services)
		}
		if n.known > 5*services {
			t.Errorf("containers were listed by ID %d times, want %d at most", n.known, 5*services)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		// The last dead one of each stays, for those who ask what it died of.
		if left := len(eng.Containers()); left != 2*services {
			t.Errorf("%d containers a minute later, want %d", left, 2*services)
		}
	})
}
