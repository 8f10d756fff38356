package supervise

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"conductor/internal/converge"
	"conductor/internal/engine"
	"conductor/internal/engine/enginetest"
	"conductor/internal/health"
	"conductor/internal/proxy/proxytest"
	"conductor/internal/secret"
	"conductor/internal/spec"
	"conductor/internal/state"
	"conductor/internal/state/statetest"
)

// memory is a disk whose goals nobody changes.
type memory struct{ *statetest.Memory }

func (m memory) Stamps() (map[string]state.Stamp, error) {
	gs, err := m.Goals()
	stamps := map[string]state.Stamp{}
	for n, g := range gs {
		stamps[g.Service] = state.Stamp{Inode: uint64(n) + 1}
	}
	return stamps, err
}

// goes runs the supervisor, until end is called.
func goes(t *testing.T, s *Supervisor) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// nothing is a host without secrets.
type nothing struct{}

func (nothing) Read(context.Context, spec.Container) (m secret.Material, err error)  { return m, nil }
func (nothing) Place(string, map[string][]byte) (paths map[string]string, err error) { return nil, nil }
func (nothing) Clear(string) error                                                   { return nil }
func (nothing) Sweep(string, func(string) bool) error                                { return nil }

// jobless is a host on which nothing is scheduled.
type jobless struct{ converge.Crontabs }

func (jobless) Read(string) (string, error) { return "", nil }

// nurse finds everybody well but those who are sick.
type nurse struct {
	mu     sync.Mutex
	sick   string // the name of an instance
	probes int
}

func (n *nurse) Probe(_ context.Context, i health.Instance, _ spec.Health) health.Result {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.probes++
	return health.Result{At: time.Now(), OK: i.Name != n.sick, Text: "asked"}
}

// swept has no runs to sweep.
type swept struct{ *converge.Host }

func (swept) SweepRuns(context.Context) error { return nil }

// deployed is a host with services that run, whose names are s0, s1 and so on.
func deployed(t *testing.T, services, replicas int) (*enginetest.Fake, memory, *nurse, *converge.Host) {
	t.Helper()
	eng, disk, doctor := enginetest.NewFake(), memory{statetest.NewMemory()}, &nurse{}
	files := fstest.MapFS{}
	for n := range services {
		id := fmt.Sprintf("s%d", n)
		eng.AddImage(id+":v1", id)
		files[id+".yml"] = &fstest.MapFile{Data: fmt.Appendf(nil,
			"image: %s\nreplicas: %d\nhttp: {port: 8080, listen: '127.0.0.1:%d'}\nhealth: {path: /health}\n", id, replicas, 8000+n)}
	}
	set, err := spec.LoadServices(files, "services")
	if err != nil {
		t.Fatal(err)
	}
	host := &converge.Host{Namespace: "conductor", Definitions: set, Engine: eng, Proxy: proxytest.NewFake(), Prober: doctor,
		Store: disk, Secrets: nothing{}, Crontabs: jobless{}}
	for id := range set.Services {
		if _, err := host.Upgrade(t.Context(), converge.UpgradeRequest{Service: id, Revision: "v1"}); err != nil {
			t.Fatal(err)
		}
	}
	return eng, disk, doctor, host
}

// In an hour in which instances die and turn sick, events are lost and the
// engine goes away, a supervisor replaces them all and ends with as many
// goroutines as it began with.
func TestSupervisor_HoldsNoMoreAfterAnHour(t *testing.T) {
	const services, replicas = 10, 2
	synctest.Test(t, func(t *testing.T) {
		eng, disk, doctor, host := deployed(t, services, replicas)
		var mu sync.Mutex
		gone := false
		s := &Supervisor{Namespace: "conductor", Host: swept{host}, Goals: disk,
			Events: func(ctx context.Context, labels map[string]string, ready func(), f func(engine.Event)) error {
				mu.Lock()
				defer mu.Unlock()
				if gone {
					return errors.New("no such socket")
				}
				mu.Unlock()
				defer mu.Lock()
				return eng.Events(ctx, labels, ready, f)
			}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		running := func() (names []string) {
			for _, c := range eng.Containers() {
				if c.State == engine.Running {
					names = append(names, c.Name)
				}
			}
			return names
		}
		// counted at a moment at which nobody does anything, a minute after the
		// last trouble.
		counted := func() int {
			time.Sleep(time.Minute)
			synctest.Wait()
			if r := running(); len(r) != services*replicas {
				t.Fatalf("%d instances run, want %d", len(r), services*replicas)
			}
			return runtime.NumGoroutine()
		}
		first := counted()
		for n := range 56 {
			names := running()
			victim := names[n%len(names)]
			switch n % 7 {
			case 0, 1, 2, 3:
				eng.Die(victim, 137, false)
			case 4:
				doctor.mu.Lock()
				doctor.sick = victim
				doctor.mu.Unlock()
			case 5:
				eng.BreakEvents()
				eng.Vanish(victim)
			case 6:
				mu.Lock()
				gone = true
				mu.Unlock()
				eng.Reboot()
				time.Sleep(30 * time.Second)
				mu.Lock()
				gone = false
				mu.Unlock()
			}
			if now := counted(); now != first {
				stacks := make([]byte, 1<<20)
				t.Fatalf("%d goroutines after trouble %d, %d at the beginning:\n%s", now, n, first, strings.TrimSpace(string(stacks[:runtime.Stack(stacks, true)])))
			}
			for _, name := range running() {
				if n%7 != 6 && name == victim {
					t.Fatalf("trouble %d: %s runs on", n, victim)
				}
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if least := services * replicas * 3600 / 5; doctor.probes < least {
			t.Errorf("%d probes in more than an hour, want %d at least", doctor.probes, least)
		}
	})
}

// A supervisor that hears nothing asks the engine and the proxy once for all its
// services, and sees what was lost nevertheless.
func TestSupervisor_LooksOnceForAll(t *testing.T) {
	const services, replicas = 10, 2
	synctest.Test(t, func(t *testing.T) {
		eng, disk, _, host := deployed(t, services, replicas)
		s := &Supervisor{Namespace: "conductor", Host: swept{host}, Goals: disk,
			Events: func(ctx context.Context, _ map[string]string, ready func(), _ func(engine.Event)) error {
				ready()
				<-ctx.Done()
				return ctx.Err()
			}}
		var lists atomic.Int64
		eng.Intercept = func(op, _ string) enginetest.Fault {
			if op == "List" {
				lists.Add(1)
			}
			return enginetest.Fault{}
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		// Between two looks, not at the moment of one: it would be counted or not.
		time.Sleep(time.Minute + 7*time.Second)
		lists.Store(0)
		time.Sleep(10 * time.Minute)
		// Each looks around every 15 s, here all at once; runs are swept besides.
		if n := lists.Load(); n < 40 || n > 60 {
			t.Errorf("the engine was asked for %d lists in 10 minutes, want 40 to 60", n)
		}
		victim := eng.Containers()[3].Name
		eng.Vanish(victim)
		time.Sleep(17 * time.Second)
		synctest.Wait()
		left := eng.Containers()
		if len(left) != services*replicas || slices.ContainsFunc(left, func(c engine.Container) bool { return c.Name == victim || c.State != engine.Running }) {
			t.Errorf("%s vanished unheard; 17 s later there are %v", victim, left)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
