// Package haproxy is the balancer adapter for HAProxy's runtime API: hosts are
// taken out and put in while it runs, without a reload.
//
// A deploy takes a server out by the state drain, a person by maint, so the two
// are told apart, also by whoever looks at HAProxy's own page. Neither survives
// a reload of HAProxy unless it keeps its server states in a file
// (load-server-state-from-file); State shows what is.
//
// In drain HAProxy goes on to send a server the clients that are bound to it,
// by a cookie or a stick table: with those a host is idle when they have gone.
// In maint it does not check, and takes a server that leaves maint for up. What
// is in flight at the process before a reload is counted nowhere.
//
// It imports balancer and fault; cmd alone imports it.
package haproxy

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"conductor/internal/balancer"
	"conductor/internal/fault"
)

// Config is what an adapter is made from.
type Config struct {
	Backend string
	Hosts   []balancer.Host // At: the server's name in the backend; empty: Name
	// Run sends commands, one a line, over one connection to the socket of the
	// runtime API, and returns all that was answered (session.HAProxy).
	Run func(ctx context.Context, lines string) (string, error)
	// UpTimeout is how long HAProxy may take to see hosts well that are swapped
	// in; default 30 s. ProveTimeout is how long it may take to do what it was
	// told; default 5 s.
	UpTimeout, ProveTimeout time.Duration
}

// Balancer is a balancer.Balancer.
type Balancer struct {
	c Config
}

var _ balancer.Balancer = (*Balancer)(nil)

const (
	every = 50 * time.Millisecond // between looks
	// stoppingFor is how long a process that HAProxy's reload has replaced may
	// go on to answer at its socket.
	stoppingFor = 3 * time.Second
)

// names is what may be written to the runtime API: nothing that could end a
// word or a command.
var names = regexp.MustCompile(`^[A-Za-z0-9_.:-]+$`)

// New returns a balancer that has not asked anything yet.
func New(c Config) (*Balancer, error) {
	if !names.MatchString(c.Backend) {
		return nil, fault.New(fault.ErrDefinition, "write balancer.backend as HAProxy's configuration calls it", "HAProxy's backend %q: a name has letters, digits and _ . : - alone", c.Backend)
	}
	hosts := make([]balancer.Host, len(c.Hosts))
	for i, h := range c.Hosts {
		if h.At == "" {
			h.At = h.Name
		}
		if !names.MatchString(h.At) {
			return nil, fault.New(fault.ErrDefinition, "write the host's server as HAProxy's configuration calls it", "HAProxy's server %q of host %q: a name has letters, digits and _ . : - alone", h.At, h.Name)
		}
		hosts[i] = h
	}
	c.Hosts = hosts
	if c.UpTimeout <= 0 {
		c.UpTimeout = 30 * time.Second
	}
	if c.ProveTimeout <= 0 {
		c.ProveTimeout = 5 * time.Second
	}
	return &Balancer{c: c}, nil
}

// State implements balancer.Balancer.
func (b *Balancer) State(ctx context.Context) (map[string]balancer.Server, error) {
	// The last answer has an end that is known: with it all have come.
	ask := fmt.Sprintf("show servers state %s\nshow stat %s 4 -1\nshow info", b.c.Backend, b.c.Backend)
	for began := time.Now(); ; {
		text, err := b.run(ctx, ask)
		if err != nil {
			return nil, err
		}
		a, err := parse(text, b.c.Backend)
		if err != nil {
			return nil, err
		}
		if !a.stopping {
			return b.named(a.servers), nil
		}
		// What a process says that a reload has replaced is not what is.
		if time.Since(began) > stoppingFor {
			return nil, fault.New(fault.ErrUnreachable, "look why HAProxy's reload does not come to an end", "ask HAProxy: %w: %s long a process that is being stopped has answered", balancer.ErrUnreachable, stoppingFor)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("ask HAProxy: %w", ctx.Err())
		case <-time.After(every):
		}
	}
}

// named gives the servers the names that the fleet has for them.
func (b *Balancer) named(servers map[string]balancer.Server) map[string]balancer.Server {
	state := map[string]balancer.Server{}
	for _, h := range b.c.Hosts {
		if s, ok := servers[h.At]; ok {
			state[h.Name] = s
		}
	}
	return state
}

// Set implements balancer.Balancer.
func (b *Balancer) Set(ctx context.Context, c balancer.Change) error {
	return balancer.Loop{State: b.State, Ask: b.ask, Up: b.c.UpTimeout, Prove: b.c.ProveTimeout, Every: every}.Set(ctx, c)
}

// ask sends the whole change over one connection: HAProxy does one command
// right after the other.
func (b *Balancer) ask(ctx context.Context, c balancer.Change) error {
	var lines []string
	for _, s := range []struct {
		hosts []string
		state string
	}{{c.Admit, "ready"}, {c.Drain, "drain"}, {c.Away, "maint"}} {
		for _, h := range s.hosts {
			lines = append(lines, fmt.Sprintf("set server %s/%s state %s", b.c.Backend, b.at(h), s.state))
		}
	}
	text, err := b.run(ctx, strings.Join(lines, "\n"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(text) { // it says nothing when it does it
		line = strings.TrimSpace(line)
		// A process says so that a reload replaces at this moment. The next
		// look tells, and then the one after it is asked.
		if line != "" && line != "Proxy is disabled." {
			return refusal(line, b.c.Backend)
		}
	}
	return nil
}

func (b *Balancer) at(host string) string {
	for _, h := range b.c.Hosts {
		if h.Name == host {
			return h.At
		}
	}
	return host // State knows no other
}

func (b *Balancer) run(ctx context.Context, lines string) (string, error) {
	text, err := b.c.Run(ctx, lines)
	switch {
	case err == nil:
		return text, nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("ask HAProxy: %w", ctx.Err())
	case errors.Is(err, fault.ErrUnreachable):
		return "", fmt.Errorf("ask HAProxy: %w: %w", balancer.ErrUnreachable, err)
	}
	return "", fmt.Errorf("ask HAProxy: %w", err)
}
