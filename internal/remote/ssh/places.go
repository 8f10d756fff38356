package ssh

import (
	"context"
	"sync"
)

// sshd allows so many sessions on a connection, unless its MaxSessions says
// otherwise.
const maxSessions = 10

// places bound how many sessions there are on one connection. That a host takes
// fewer is learned from its refusals.
type places struct {
	mu    sync.Mutex
	max   int
	taken int
	freed chan struct{} // closed and made anew when a place becomes free
}

func newPlaces() *places { return &places{max: maxSessions, freed: make(chan struct{})} }

func (p *places) most() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.max
}

// enter waits for a place. leave gives it back: refused says that the host did
// not take the session. It returns whether another try, when a place is free,
// makes sense.
func (p *places) enter(ctx context.Context) (leave func(refused bool) (again bool), err error) {
	for {
		p.mu.Lock()
		if p.taken < p.max {
			p.taken++
			p.mu.Unlock()
			return p.leave, nil
		}
		freed := p.freed
		p.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (p *places) leave(refused bool) (again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	close(p.freed)
	p.freed = make(chan struct{})
	// One other alone may be a lock that is held for the whole of a deploy: who
	// waited for it to end would wait for himself.
	if !refused || p.taken < 2 {
		return false
	}
	p.max = min(p.max, p.taken)
	return true
}
