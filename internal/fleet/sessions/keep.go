package sessions

import (
	"context"
	"fmt"
	"sync"

	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/fleet"
	"conductor/internal/remote"
)

// kept is a session by which a host keeps something for this deploy, until it is
// released or ends by itself.
type kept struct {
	host    string
	take    chan struct{}    // closed: the lock is to be taken
	sight   chan *fleet.Seen // how the host is, once it has said it
	taken   chan *fleet.Seen // how it was when it said that it has the lock
	ended   chan error       // why the session is over
	release func()
}

// keep begins the session.
func (h *Hosts) keep(ctx context.Context, host string, r remote.Request) *kept {
	k := &kept{host: host, take: make(chan struct{}), sight: make(chan *fleet.Seen, 1), taken: make(chan *fleet.Seen, 1), ended: make(chan error, 1)}
	keeping, cancel := context.WithCancel(context.WithoutCancel(ctx))
	over := make(chan struct{})
	said := &events{emit: func(event.Event) {}}
	if r.Attend { // else what it says is how it is with the lock
		said.looked = sync.OnceFunc(func() {
			k.sight <- said.seen
			said.seen = nil
		})
	}
	said.held = sync.OnceFunc(func() { k.taken <- said.seen })
	go func() {
		defer close(over)
		err := h.Transport.Do(keeping, h.At[host], r, remote.Streams{Stdout: said, Take: k.take})
		if err == nil {
			err = fault.New(fault.ErrHost, "", "%s: the session for its lock ended", host)
		}
		k.ended <- err
	}()
	k.release = func() {
		cancel()
		<-over
	}
	return k
}

// looked waits until the host has said how it is. After an error the session is
// over.
func (k *kept) looked(ctx context.Context) (fleet.Seen, error) {
	seen, err := k.hear(ctx, k.sight, "look")
	switch {
	case err != nil:
		return fleet.Seen{}, err
	case seen == nil:
		k.release()
		return fleet.Seen{}, fault.New(fault.ErrHost, "bring both to one version", "%s: what its conductor says of it cannot be read", k.host)
	}
	return *seen, nil
}

// held waits until the host has the lock. After an error the session is over.
func (k *kept) held(ctx context.Context) (fleet.Held, error) {
	seen, err := k.hear(ctx, k.taken, "take its lock")
	if err != nil {
		return fleet.Held{}, err
	}
	return fleet.Held{Seen: seen, Lost: k.ended, Release: k.release}, nil
}

func (k *kept) hear(ctx context.Context, said <-chan *fleet.Seen, what string) (*fleet.Seen, error) {
	select {
	case seen := <-said:
		return seen, nil
	case err := <-k.ended:
		k.release()
		return nil, err
	case <-ctx.Done(): // it may be waiting for somebody else
		k.release()
		return nil, fmt.Errorf("%s: %s: %w", k.host, what, context.Cause(ctx))
	}
}
