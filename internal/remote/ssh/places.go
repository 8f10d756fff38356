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
	mu      sync.Mutex
	max     int
	taken   int
	lasting int           // of those: nobody may wait for their end
	freed   chan struct{} // closed and made anew when a place becomes free
}

func newPlaces() *places { return &places{max: maxSessions, freed: make(chan struct{})} }

func (p *places) most() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.max
}

// enter waits for a place; errRefused says that none will become free. leave
// gives it back: refused says that the host did not take the session. It returns
// whether another try, when a place is free, makes sense.
func (p *places) enter(ctx context.Context, lasts bool) (leave func(refused bool) (again bool), err error) {
	for {
		p.mu.Lock()
		if p.taken < p.max {
			p.taken++
			if lasts {
				p.lasting++
			}
			p.mu.Unlock()
			return func(refused bool) bool { return p.leave(lasts, refused) }, nil
		}
		freed, never := p.freed, p.lasting == p.taken
		p.mu.Unlock()
		if never {
			return nil, errRefused
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (p *places) leave(lasted, refused bool) (again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if lasted {
		p.lasting--
	}
	close(p.freed)
	p.freed = make(chan struct{})
	if !refused || p.taken == p.lasting { // whom would it wait for
		return false
	}
	p.max = min(p.max, p.taken)
	return true
}
