package proxytest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"conductor/internal/fault"
	"conductor/internal/proxy"
)

// Fake is a proxy in memory. It is deterministic, starts no goroutine, never
// asks the clock, and is safe for concurrent use.
//
// Like the real one it has a file on disk and a configuration that runs, which
// need not be the same.
type Fake struct {
	mu       sync.Mutex
	disk     *proxy.Table // nil: never applied
	running  proxy.Table
	inFlight map[netip.AddrPort]int
	requests map[string]proxy.Count
	unserved map[string]uint64
	lies     bool
	down     bool
	refusal  error
	applied  int
}

var _ proxy.Proxy = (*Fake)(nil)

// NewFake returns a proxy that runs and has no routes.
func NewFake() *Fake {
	return &Fake{inFlight: map[netip.AddrPort]int{}, requests: map[string]proxy.Count{}, unserved: map[string]uint64{}}
}

// Lie makes Apply return nil without effect on what runs, until it is told
// not to: the case that a proof is there for.
func (f *Fake) Lie(on bool) { f.do(func() { f.lies = on }) }

// Refuse makes Check and Apply fail as a configuration does that the proxy
// does not take; nil takes that back.
func (f *Fake) Refuse(reason error) { f.do(func() { f.refusal = reason }) }

// Down stops the proxy, or starts it again with what is on disk.
func (f *Fake) Down(down bool) {
	f.do(func() {
		if f.down && !down && f.disk != nil {
			f.running = cloneTable(*f.disk)
		}
		if down {
			clear(f.inFlight)
			clear(f.requests)
			clear(f.unserved)
		}
		f.down = down
	})
}

// Restart stops the proxy, cutting what is in flight, and starts it with what
// is on disk.
func (f *Fake) Restart() { f.Down(true); f.Down(false) }

// SetInFlight sets how many requests are in flight at the address.
func (f *Fake) SetInFlight(addr netip.AddrPort, n int) {
	f.do(func() {
		if n <= 0 {
			delete(f.inFlight, addr)
			return
		}
		f.inFlight[addr] = n
	})
}

// Request is a request for the service that its first target answers with the
// status, if there is one.
func (f *Fake) Request(service string, status int) {
	f.do(func() {
		r, ok := f.running.Route(service)
		if !ok || f.down {
			return
		}
		if len(r.Targets) == 0 {
			f.unserved[service]++
			return
		}
		c := f.requests[r.Targets[0].Instance]
		c.Requests++
		if status >= 500 {
			c.Errors++
		}
		f.requests[r.Targets[0].Instance] = c
	})
}

// Table is what the running proxy serves, whatever it says.
func (f *Fake) Table() proxy.Table {
	f.mu.Lock()
	defer f.mu.Unlock()
	return cloneTable(f.running)
}

// Disk is what the file says; ok is false where there is none.
func (f *Fake) Disk() (t proxy.Table, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.disk == nil {
		return proxy.Table{}, false
	}
	return cloneTable(*f.disk), true
}

// Applied counts the calls of Apply.
func (f *Fake) Applied() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.applied
}

// Check implements proxy.Proxy.
func (f *Fake) Check(ctx context.Context, t proxy.Table) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ready(ctx, t)
}

// Apply implements proxy.Proxy.
func (f *Fake) Apply(ctx context.Context, t proxy.Table) (proxy.Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied++
	if err := f.ready(ctx, t); err != nil {
		return proxy.Change{}, err
	}
	c := proxy.Change{Written: f.disk == nil || !sameTable(*f.disk, t), Reloaded: f.disk == nil || !sameRoutes(f.running, t)}
	disk := cloneTable(t)
	f.disk = &disk
	if !f.lies {
		f.running = cloneTable(t)
	}
	return c, nil
}

// Observe implements proxy.Proxy.
func (f *Fake) Observe(ctx context.Context) (proxy.Observed, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return proxy.Observed{}, context.Cause(ctx)
	}
	if f.down {
		return proxy.Observed{}, f.unreachable()
	}
	o := proxy.Observed{Targets: map[string][]proxy.Target{}, InFlight: maps.Clone(f.inFlight),
		Requests: maps.Clone(f.requests), Unserved: maps.Clone(f.unserved), Counted: true}
	for _, r := range f.running.Routes {
		o.Targets[r.Service] = slices.Clone(r.Targets)
	}
	o.Routes = f.disk != nil && sameTable(*f.disk, f.running)
	return o, nil
}

func (f *Fake) ready(ctx context.Context, t proxy.Table) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if f.refusal != nil {
		return fault.New(fault.ErrProxyRefused, "", "%w: %w", proxy.ErrRefused, f.refusal)
	}
	if err := claims(t); err != nil {
		return err
	}
	if f.down {
		return f.unreachable()
	}
	return nil
}

func (f *Fake) unreachable() error {
	return fault.New(fault.ErrUnreachable, "start the proxy", "%w: it is down", proxy.ErrUnreachable)
}

func (f *Fake) do(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// claims refuses two services that want the same requests.
func claims(t proxy.Table) error {
	owner := map[string]string{}
	for _, r := range t.Routes {
		hosts := r.HTTP.Hosts
		if len(hosts) == 0 {
			hosts = []string{""}
		}
		for _, host := range hosts {
			key := fmt.Sprint(r.HTTP.Listen, host, r.HTTP.Path)
			if other, taken := owner[key]; taken {
				return fault.New(fault.ErrDefinition, "", "%w: services %q and %q claim one route", proxy.ErrRefused, other, r.Service)
			}
			owner[key] = r.Service
		}
	}
	return nil
}

func cloneTable(t proxy.Table) proxy.Table {
	t.Routes = slices.Clone(t.Routes)
	for i := range t.Routes {
		t.Routes[i].Targets = slices.Clone(t.Routes[i].Targets)
		t.Routes[i].HTTP.Hosts = slices.Clone(t.Routes[i].HTTP.Hosts)
	}
	return t
}

func sameTable(a, b proxy.Table) bool {
	return sameRoutes(a, b) && slices.EqualFunc(a.Routes, b.Routes, func(a, b proxy.Route) bool {
		return slices.Equal(a.Targets, b.Targets)
	})
}

// sameRoutes compares all but the targets.
func sameRoutes(a, b proxy.Table) bool {
	return slices.EqualFunc(a.Routes, b.Routes, func(a, b proxy.Route) bool {
		tls := a.HTTP.TLS == b.HTTP.TLS || a.HTTP.TLS != nil && b.HTTP.TLS != nil && *a.HTTP.TLS == *b.HTTP.TLS
		return a.Service == b.Service && slices.Equal(a.HTTP.Hosts, b.HTTP.Hosts) && a.HTTP.Path == b.HTTP.Path &&
			a.HTTP.Listen == b.HTTP.Listen && tls && a.HTTP.GRPC == b.HTTP.GRPC
	})
}
