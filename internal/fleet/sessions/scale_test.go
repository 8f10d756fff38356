package sessions

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/balancer"
	"conductor/internal/event"
	"conductor/internal/fleet"
	"conductor/internal/remote"
	"conductor/internal/remote/remotetest"
	"conductor/internal/rollout"
)

// many is a fleet in memory, whose hosts talk a lot.
type many struct {
	transport *remotetest.Memory

	mu    sync.Mutex
	order []string
	seen  map[string]*fleet.Seen
	in    map[string]bool
	talks int    // upgrades and the like that there were
	heap  uint64 // the most that lived
	said  int    // bytes
}

// delay is how long the way to a host is, talk how much it says at an upgrade.
const (
	delay = 20 * time.Millisecond
	talk  = 512 << 10
)

func newMany(n int) *many {
	m := &many{seen: map[string]*fleet.Seen{}, in: map[string]bool{}}
	m.transport = remotetest.New(m.serve)
	for i := range n {
		name := fmt.Sprintf("web%02d", i+1)
		m.order = append(m.order, name)
		m.seen[name] = &fleet.Seen{Version: "1", Hostname: name, Definition: "d", Live: "v1", State: "running", Sound: true, Routed: true}
		m.in[name] = true
		m.transport.Set(name, remotetest.Fault{Delay: delay})
	}
	return m
}

// serve is a host's conductor.
func (m *many) serve(ctx context.Context, host remote.Host, r remote.Request, s remote.Streams) error {
	change := func(how func(*fleet.Seen)) {
		m.mu.Lock()
		defer m.mu.Unlock()
		how(m.seen[host.Name])
	}
	look := func() fleet.Seen {
		m.mu.Lock()
		defer m.mu.Unlock()
		seen := *m.seen[host.Name]
		seen.Time = time.Now()
		return seen
	}
	switch r.Do {
	case remote.Observe:
		return json.NewEncoder(s.Stdout).Encode(look())
	case remote.Hold:
		text, err := json.Marshal(look())
		if err == nil {
			err = json.NewEncoder(s.Stdout).Encode(remote.Sight{Event: remote.SightEvent, Seen: text})
		}
		if err != nil {
			return err
		}
		select {
		case <-s.Take:
		case <-ctx.Done():
			return nil
		}
		if _, err := s.Stdout.Write(remote.Held); err != nil {
			return err
		}
		<-ctx.Done()
	case remote.Bring:
		time.Sleep(time.Second)
		change(func(s *fleet.Seen) { s.Image = "sha256:v2" })
	case remote.Exec, remote.Migrate:
		return m.talk(s.Stdout, "migrating\n")
	case remote.Mark:
		change(func(s *fleet.Seen) { s.Marks = append(s.Marks, fleet.Mark(r.Mark)) })
	case remote.Command:
		line, err := json.Marshal(event.Event{Event: event.Note, Service: "shop", Detail: string(bytes.Repeat([]byte("x"), 1000))})
		if err != nil {
			return err
		}
		time.Sleep(2 * time.Second)
		if err := m.talk(s.Stdout, string(line)+"\n"); err != nil {
			return err
		}
		change(func(s *fleet.Seen) { s.Live = r.Revision })
	}
	return nil
}

// talk says a line over and over, and looks in the middle how much memory is
// taken.
func (m *many) talk(to io.Writer, line string) error {
	for n := 0; n < talk; n += len(line) {
		if _, err := io.WriteString(to, line); err != nil {
			return err
		}
		if n < talk/2 && n+len(line) >= talk/2 {
			m.mu.Lock()
			if m.talks++; m.talks%5 == 0 {
				m.heap = max(m.heap, live())
			}
			m.mu.Unlock()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.said += talk
	return nil
}

func live() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

func (m *many) State(context.Context) (map[string]balancer.Server, error) {
	time.Sleep(delay)
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string]balancer.Server{}
	for name, in := range m.in {
		all[name] = balancer.Server{In: in, Up: true, Requests: -1}
	}
	return all, nil
}

func (m *many) Set(_ context.Context, c balancer.Change) error {
	time.Sleep(delay)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range c.Admit {
		m.in[name] = true
	}
	for _, name := range c.Drain {
		m.in[name] = false
	}
	return nil
}

// deploy brings v2 to all, and returns how long that took.
func (m *many) deploy(t *testing.T, s rollout.Strategy) time.Duration {
	t.Helper()
	at := map[string]remote.Host{}
	for _, name := range m.order {
		at[name] = remote.Host{Name: name, SSH: name}
	}
	f := fleet.Fleet{Hosts: &Hosts{Transport: m.transport, At: at, Version: "1"}, Balancer: m, Emit: func(event.Event) {}, Version: "1"}
	began := time.Now()
	o, err := f.Deploy(t.Context(), fleet.Deploy{Service: "shop", Revision: "v2", Hosts: m.order, Strategy: s, Test: []string{"test"}, Migrate: []string{"migrate"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range o.Hosts {
		if h.Revision != "v2" || !h.In {
			t.Errorf("%+v", h)
		}
	}
	took := time.Since(began)
	if err := m.transport.Close(); err != nil {
		t.Error(err)
	}
	m.transport.Wait()
	return took
}

// The time of a deploy grows with its waves and not with its hosts, over links
// that have their delay; and what hosts say is not kept.
func TestDeploy_FiftyHosts(t *testing.T) {
	for name, strategy := range map[string]func(n int) rollout.Strategy{
		"halves":     func(int) rollout.Strategy { return rollout.Strategy{Kind: rollout.Halves} },
		"five waves": func(n int) rollout.Strategy { return rollout.Strategy{Kind: rollout.Rolling, Width: n / 5} },
	} {
		took, heap := map[int]time.Duration{}, map[int]uint64{}
		for _, n := range []int{10, 50} {
			synctest.Test(t, func(t *testing.T) {
				m := newMany(n)
				before := live()
				took[n] = m.deploy(t, strategy(n))
				heap[n] = m.heap - min(before, m.heap)
				if m.said < n*talk {
					t.Errorf("%d hosts have said %d bytes: that shows nothing", n, m.said)
				}
			})
		}
		t.Logf("%s: %v, with %v bytes of memory at most", name, took, heap)
		if took[50] > took[10]*105/100 {
			t.Errorf("%s: 50 hosts take %s, and 10 take %s, in as many waves", name, took[50], took[10])
		}
		if heap[50] > 8<<20 {
			t.Errorf("%s: 50 hosts, each of which says %d bytes, take %d bytes of memory", name, talk, heap[50])
		}
	}
}
