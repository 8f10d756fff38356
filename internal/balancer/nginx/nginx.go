// Package nginx is the balancer adapter for a plain nginx before a fleet, whose
// upstream is in a file.
//
// The file is the person's own: the upstream block itself, or lines that such
// a block includes. Of it one word is changed, down, on the lines of the hosts,
// and a comment says whether a deploy wrote it or a person. A line that is down
// without the comment was written by a person.
//
// Each change reloads nginx. That closes idle connections that clients keep
// alive, so a client that sends at that very instant may see one closed: where
// that matters, HAProxy is told without a reload. nginx tells neither who is in
// flight where nor who is well.
//
// It imports balancer and fault; cmd alone imports it.
package nginx

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"conductor/internal/balancer"
	"conductor/internal/fault"
)

// Config is what an adapter is made from.
type Config struct {
	File string // on the host with the balancer, absolute
	// Upstream is whose lines are meant where the file has upstream blocks.
	Upstream string
	Hosts    []balancer.Host // At: the address that its line has; without a port: port 80
	// Run asks the host with the balancer (session.NginxBalancer).
	Run func(ctx context.Context, r balancer.FileRequest) (balancer.FileAnswer, error)
}

// Balancer is a balancer.Balancer.
type Balancer struct {
	c Config
}

var _ balancer.Balancer = (*Balancer)(nil)

const (
	every = 50 * time.Millisecond // between looks
	// proveTimeout bounds how often somebody else may change the file between a
	// look and a change; nginx itself has done it when Run returns.
	proveTimeout = 10 * time.Second
)

// New returns a balancer that has not asked anything yet.
func New(c Config) (*Balancer, error) {
	if !filepath.IsAbs(c.File) {
		return nil, fault.New(fault.ErrDefinition, "write balancer.file as an absolute path", "nginx's file %q is not an absolute path", c.File)
	}
	for _, h := range c.Hosts {
		if h.At == "" {
			return nil, fault.New(fault.ErrDefinition, "write the host's address as nginx's file has it", "the host %s has no address", h.Name)
		}
	}
	return &Balancer{c: c}, nil
}

// State implements balancer.Balancer.
func (b *Balancer) State(ctx context.Context) (map[string]balancer.Server, error) {
	_, state, err := b.look(ctx)
	return state, err
}

func (b *Balancer) look(ctx context.Context) (text string, state map[string]balancer.Server, err error) {
	a, err := b.run(ctx, balancer.FileRequest{File: b.c.File})
	if err != nil {
		return "", nil, err
	}
	f, err := parse(a.Text, b.c.Upstream)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", b.c.File, err)
	}
	state = map[string]balancer.Server{}
	for _, h := range b.c.Hosts {
		l, ok := f.host(h.At)
		if !ok {
			continue
		}
		s := balancer.Server{In: !l.down, Away: l.down && !l.drained, Up: true, Sessions: -1, Requests: -1, Says: l.says()}
		if l.down && a.Finishing == 0 {
			s.Sessions = 0 // nobody runs who ever sent it anything
		}
		state[h.Name] = s
	}
	return a.Text, state, nil
}

// Set implements balancer.Balancer.
func (b *Balancer) Set(ctx context.Context, c balancer.Change) error {
	return balancer.Loop{State: b.State, Ask: b.ask, Prove: proveTimeout, Every: every}.Set(ctx, c)
}

// ask writes the change into the file as it is now. That somebody else has
// written it meanwhile is seen by who asked, and asked again.
func (b *Balancer) ask(ctx context.Context, c balancer.Change) error {
	text, state, err := b.look(ctx)
	if err != nil {
		return err
	}
	if c, err = c.Left(state); err != nil || c.Empty() {
		return err
	}
	f, err := parse(text, b.c.Upstream)
	if err != nil {
		return fmt.Errorf("%s: %w", b.c.File, err)
	}
	for _, s := range []struct {
		hosts         []string
		down, drained bool
	}{{c.Admit, false, false}, {c.Drain, true, true}, {c.Away, true, false}} {
		for _, h := range s.hosts {
			f.set(b.at(h), s.down, s.drained)
		}
	}
	changed := f.text()
	_, err = b.run(ctx, balancer.FileRequest{File: b.c.File, Text: &changed, Was: balancer.Sum(text)})
	return err
}

func (b *Balancer) at(host string) string {
	for _, h := range b.c.Hosts {
		if h.Name == host {
			return h.At
		}
	}
	return "" // State knows no other
}

func (b *Balancer) run(ctx context.Context, r balancer.FileRequest) (balancer.FileAnswer, error) {
	a, err := b.c.Run(ctx, r)
	switch {
	case err == nil:
		return a, nil
	case ctx.Err() != nil:
		return a, fmt.Errorf("ask nginx: %w", ctx.Err())
	case errors.Is(err, fault.ErrUnreachable):
		return a, fmt.Errorf("ask nginx: %w: %w", balancer.ErrUnreachable, err)
	case errors.Is(err, fault.ErrProxyRefused):
		return a, fmt.Errorf("ask nginx: %w: %w", balancer.ErrRefused, err)
	}
	return a, fmt.Errorf("ask nginx: %w", err)
}
