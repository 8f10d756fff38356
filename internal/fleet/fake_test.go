package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"conductor/internal/balancer"
	"conductor/internal/event"
	"conductor/internal/fault"
)

// fleetOf is a fleet in memory, whose time is the test's bubble's. Requests come
// to it all the time, and one that comes to a host that is not well has failed.
type inMemory struct {
	t  *testing.T
	mu sync.Mutex

	hosts    map[string]*machine
	order    []string
	events   []event.Event
	failed   int // requests
	requests int64
	breaks   map[string]error // by "verb host", or "verb" for all
	said     []string         // every verb that changes something, "verb host"
	set      int              // calls of Set
	hidden   map[string]bool  // hosts that the balancer does not know
}

type machine struct {
	Seen
	cut      bool // it does not answer
	in, away bool
	requests int64
	holder   string
	lost     chan error
	broken   map[string]bool // revisions that do not become healthy here
}

func newFleet(t *testing.T, n int) *inMemory {
	f := &inMemory{t: t, hosts: map[string]*machine{}, breaks: map[string]error{}}
	for i := range n {
		name := fmt.Sprintf("web%02d", i+1)
		f.order = append(f.order, name)
		f.hosts[name] = &machine{in: true, broken: map[string]bool{}, Seen: Seen{
			Version: "1", Hostname: name, Definition: "d", Live: "v1", State: "running", Sound: true, Routed: true,
		}}
	}
	return f
}

// traffic sends requests until the bubble's test ends it.
func (f *inMemory) traffic(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		time.Sleep(100 * time.Millisecond / time.Duration(len(f.order))) // to each ten a second
		f.mu.Lock()
		var in []string
		for _, name := range f.order {
			if h := f.hosts[name]; h.in && !h.cut && h.Live != "" { // its own check sees who does not answer
				in = append(in, name)
			}
		}
		if len(in) == 0 {
			f.failed++
		} else {
			h := f.hosts[in[n%len(in)]]
			h.requests++
			f.requests++
			if !h.Sound {
				f.failed++
			}
		}
		f.mu.Unlock()
	}
}

// call is a session on a host.
func (f *inMemory) call(ctx context.Context, verb, host string, takes time.Duration, then func(h *machine) error) error {
	f.mu.Lock()
	h := f.hosts[host]
	cut := h.cut
	err := errors.Join(f.breaks[verb+" "+host], f.breaks[verb])
	if verb != "look" && verb != "hold" {
		f.said = append(f.said, verb+" "+host)
	}
	f.mu.Unlock()
	if cut {
		time.Sleep(100 * time.Millisecond)
		return fault.New(fault.ErrUnreachable, "", "no connection to %s", host)
	}
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if h.cut {
		return fault.New(fault.ErrUnreachable, "", "the connection to %s is cut", host)
	}
	return then(h)
}

func (f *inMemory) Look(ctx context.Context, host string, q Question) (s Seen, err error) {
	err = f.call(ctx, "look", host, 30*time.Millisecond, func(h *machine) error {
		s = h.look()
		return nil
	})
	return s, err
}

// look is what the host says of itself.
func (h *machine) look() Seen {
	s := h.Seen
	s.Marks = slices.Clone(h.Marks)
	s.Time = time.Now()
	return s
}

func (f *inMemory) Attend(ctx context.Context, host string, q Question, wait bool) (a Attended, err error) {
	if a.Seen, err = f.Look(ctx, host, q); err != nil {
		return a, err
	}
	var mu sync.Mutex
	release, left := func() {}, false
	a.Hold = func(ctx context.Context) (Held, error) {
		held, err := f.Hold(ctx, host, q, wait)
		mu.Lock()
		defer mu.Unlock()
		if err == nil && left {
			held.Release()
		} else if err == nil {
			release = held.Release
		}
		return held, err
	}
	a.Leave = func() {
		mu.Lock()
		defer mu.Unlock()
		left = true
		release()
	}
	return a, nil
}

// Hold says how the host is since then, as hosts of the same version do.
func (f *inMemory) Hold(ctx context.Context, host string, q Question, wait bool) (Held, error) {
	var lost chan error
	var seen Seen
	for {
		err := f.call(ctx, "hold", host, 20*time.Millisecond, func(h *machine) error {
			if h.holder != "" {
				return fault.New(fault.ErrLocked, "", "%s has the lock", h.holder)
			}
			lost = make(chan error, 1)
			h.holder, h.lost = "somebody", lost
			seen = h.look()
			return nil
		})
		switch {
		case err == nil:
			return Held{Seen: &seen, Lost: lost, Release: func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				if f.hosts[host].lost == lost {
					f.hosts[host].holder = ""
				}
			}}, nil
		case !wait || !errors.Is(err, fault.ErrLocked):
			return Held{}, err
		}
		time.Sleep(time.Second)
	}
}

func (f *inMemory) Bring(ctx context.Context, host, service, revision string) (string, error) {
	return "", f.call(ctx, "bring", host, time.Second, func(h *machine) error { h.Image = "sha256:" + revision; return nil })
}

func (f *inMemory) Test(ctx context.Context, host string, t Task) error {
	return f.call(ctx, "test", host, time.Second, func(*machine) error { return nil })
}

func (f *inMemory) Migrate(ctx context.Context, host string, t Task) error {
	return f.call(ctx, "migrate", host, time.Second, func(h *machine) error { h.Marks = append(h.Marks, Migrated); return nil })
}

func (f *inMemory) Mark(ctx context.Context, host, service, revision string, m Mark) error {
	return f.call(ctx, "mark", host, 10*time.Millisecond, func(h *machine) error { h.Marks = append(h.Marks, m); return nil })
}

// Upgrade says how the host is then on every other host only.
func (f *inMemory) Upgrade(ctx context.Context, host string, u Upgrade, emit event.Sink) (seen *Seen, err error) {
	service, revision := u.Service, u.Revision
	err = f.call(ctx, "upgrade", host, 2*time.Second, func(h *machine) error {
		if h.broken[revision] {
			return fault.New(fault.ErrUnhealthy, "", "%s did not become healthy", revision)
		}
		h.Live, h.Sound = revision, true
		if s := h.look(); slices.Index(f.order, host)%2 == 0 {
			seen = &s
		}
		return nil
	})
	if err == nil {
		emit(event.Event{Time: time.Now(), Event: event.Committed, Service: service, Revision: revision})
	}
	return seen, err
}

func (f *inMemory) Verify(ctx context.Context, host, service string) error {
	return f.call(ctx, "verify", host, 10*time.Millisecond, func(*machine) error { return nil })
}

func (f *inMemory) State(ctx context.Context) (map[string]balancer.Server, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.breaks["state"]; err != nil {
		return nil, err
	}
	all := map[string]balancer.Server{}
	for name, h := range f.hosts {
		if f.hidden[name] {
			continue
		}
		all[name] = balancer.Server{In: h.in, Away: h.away, Up: h.Sound && !h.cut, Requests: h.requests}
	}
	return all, nil
}

func (f *inMemory) Set(ctx context.Context, c balancer.Change) error {
	time.Sleep(10 * time.Millisecond)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set++
	f.said = append(f.said, fmt.Sprintf("set +%v -%v", c.Admit, c.Drain))
	if err := f.breaks["set"]; err != nil {
		return err
	}
	for _, name := range c.Admit {
		f.hosts[name].in = true
	}
	for _, name := range c.Drain {
		f.hosts[name].in = false
	}
	return nil
}

// change changes the fleet while there is traffic.
func (f *inMemory) change(how func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how()
}

func (f *inMemory) emit(e event.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, e)
}

func (f *inMemory) fleet() *Fleet {
	return &Fleet{Hosts: f, Balancer: f, Emit: f.emit, Version: "1"}
}

// runs is what each host runs and whether it is in, "v2+" or "v1-".
func (f *inMemory) runs() (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(f.hosts)) {
		h := f.hosts[name]
		sign := "-"
		if h.in {
			sign = "+"
		}
		all = append(all, h.Live+sign)
	}
	return all
}

func (f *inMemory) count(verb string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.said {
		if len(s) >= len(verb) && s[:len(verb)] == verb {
			n++
		}
	}
	return n
}
