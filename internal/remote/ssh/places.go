package ssh

import (
	"context"
	"sync"
	"time"
)

// sshd allows so many sessions on a connection, unless its MaxSessions says
// otherwise.
const maxSessions = 10

const (
	// lingering is how long, at most, a host may count a session that has ended
	// here: sshd hears of it, and buries its process, later.
	lingering = time.Second
	// lingerPause is how long the next try waits then.
	lingerPause = 50 * time.Millisecond
)

// places bound how many sessions there are on one connection. That a host takes
// fewer is learned from its refusals.
type places struct {
	mu      sync.Mutex
	max     int
	taken   int
	lasting int           // of those: nobody may wait for their end
	freed   chan struct{} // closed and made anew when a place becomes free
	left    time.Time     // when a session ended last
	pause   time.Time     // until then nobody enters
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
		now := time.Now()
		freed, wait := p.freed, p.pause.Sub(now)
		full, never := p.taken >= p.max, p.lasting == p.taken
		if !full && wait <= 0 {
			p.taken++
			if lasts {
				p.lasting++
			}
			p.mu.Unlock()
			return func(refused bool) bool { return p.leave(now, lasts, refused) }, nil
		}
		p.mu.Unlock()
		var paused <-chan time.Time
		switch {
		case !full:
			paused, freed = time.After(wait), nil
		case never:
			return nil, errRefused
		}
		select {
		case <-freed:
		case <-paused:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (p *places) leave(entered time.Time, lasted, refused bool) (again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if lasted {
		p.lasting--
	}
	close(p.freed)
	p.freed = make(chan struct{})
	now := time.Now()
	switch {
	case !refused:
		p.left = now
		return false
	case p.taken > p.lasting: // the end of one of those is waited for
		p.max = min(p.max, p.taken)
		return true
	case entered.Sub(p.left) < lingering: // that one may have had its place still
		p.pause = now.Add(lingerPause)
		return true
	}
	return false
}
