// Package balancertest has a balancer in memory, the suite that every adapter of
// balancer.Balancer runs, and HAProxy, nginx and web servers of a test's own.
//
// Only tests import it.
package balancertest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"conductor/internal/balancer"
	"conductor/internal/fault"
)

// Fake is a balancer in memory. It is deterministic, starts no goroutine, never
// asks the clock, and is safe for concurrent use.
type Fake struct {
	mu      sync.Mutex
	servers map[string]balancer.Server
	down    bool
	refusal error
	lies    bool
	watch   func(map[string]balancer.Server)
	changes []balancer.Change
}

var _ balancer.Balancer = (*Fake)(nil)

// NewFake returns a balancer that has these hosts, in and up.
func NewFake(hosts ...string) *Fake {
	f := &Fake{servers: map[string]balancer.Server{}}
	for _, h := range hosts {
		f.servers[h] = balancer.Server{In: true, Up: true}
	}
	return f
}

// Down stops the balancer, or starts it again. It forgets nothing.
func (f *Fake) Down(down bool) { f.do(func() { f.down = down }) }

// Reload puts all hosts in again, as a balancer does that reads its
// configuration, and counts requests from 0.
func (f *Fake) Reload() {
	f.do(func() {
		for h, s := range f.servers {
			s.In, s.Away, s.Requests = true, false, 0
			f.servers[h] = s
		}
	})
}

// Refuse makes Set fail before it changes anything; nil takes that back.
func (f *Fake) Refuse(reason error) { f.do(func() { f.refusal = reason }) }

// Lie makes Set have no effect: the case that a proof is there for.
func (f *Fake) Lie(on bool) { f.do(func() { f.lies = on }) }

// SetUp says how the balancer's check sees a host.
func (f *Fake) SetUp(host string, up bool) {
	f.server(host, func(s *balancer.Server) { s.Up = up })
}

// SetSessions says how many requests are in flight at a host; -1: it cannot tell.
func (f *Fake) SetSessions(host string, n int) {
	f.server(host, func(s *balancer.Server) { s.Sessions = n })
}

// Send counts requests sent to a host.
func (f *Fake) Send(host string, n int64) {
	f.server(host, func(s *balancer.Server) { s.Requests += n })
}

// Watch has seen called with each state that a client of the balancer could
// meet, also in the middle of a change. It may not call the Fake.
func (f *Fake) Watch(seen func(map[string]balancer.Server)) { f.do(func() { f.watch = seen }) }

// Changes are those that Set was called with and that it began.
func (f *Fake) Changes() []balancer.Change {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.changes)
}

// State implements balancer.Balancer.
func (f *Fake) State(ctx context.Context) (map[string]balancer.Server, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.ready(ctx); err != nil {
		return nil, err
	}
	return maps.Clone(f.servers), nil
}

// Set implements balancer.Balancer. Hosts that are not up to be swapped in are
// refused at once, as there is nothing to wait for.
func (f *Fake) Set(ctx context.Context, c balancer.Change) error {
	if err := c.Check(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.ready(ctx); err != nil {
		return err
	}
	left, err := c.Left(f.servers)
	if err != nil {
		return err
	}
	if f.refusal != nil {
		return fault.New(fault.ErrProxyRefused, "", "%s: %w: %w", c, balancer.ErrRefused, f.refusal)
	}
	for _, h := range c.Admit {
		if len(left.Drain)+len(left.Away) > 0 && !f.servers[h].Up {
			return fault.New(fault.ErrUnhealthy, "", "%s: %w: %s is not up", c, balancer.ErrRefused, h)
		}
	}
	f.changes = append(f.changes, c)
	if f.lies && !left.Empty() {
		return fault.New(fault.ErrProxyRefused, "", "%s: %w: it was asked, and nothing came of it", c, balancer.ErrRefused)
	}
	f.put(left.Admit, true, false)
	f.put(left.Drain, false, false)
	f.put(left.Away, false, true)
	return nil
}

func (f *Fake) put(hosts []string, in, away bool) {
	for _, h := range hosts {
		s := f.servers[h]
		s.In, s.Away = in, away
		f.servers[h] = s
		f.show()
	}
}

func (f *Fake) ready(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("ask the balancer: %w", ctx.Err())
	case f.down:
		return fault.New(fault.ErrUnreachable, "", "ask the balancer: %w", balancer.ErrUnreachable)
	}
	return nil
}

func (f *Fake) server(host string, change func(*balancer.Server)) {
	f.do(func() {
		s, ok := f.servers[host]
		if !ok {
			panic("balancertest: no host " + host)
		}
		change(&s)
		f.servers[host] = s
	})
}

func (f *Fake) do(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	f.show()
}

func (f *Fake) show() {
	if f.watch != nil {
		f.watch(maps.Clone(f.servers))
	}
}
