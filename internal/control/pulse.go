package control

import (
	"sync/atomic"
	"time"
)

// Pulse tells whether a loop goes on that beats. It is safe for concurrent use.
type Pulse struct {
	// Within is how far apart two beats are at most while the loop goes on.
	Within time.Duration

	last atomic.Pointer[time.Time]
}

// Beat is called by the loop.
func (p *Pulse) Beat() {
	now := time.Now()
	p.last.Store(&now)
}

// Alive: the last beat was not too long ago.
func (p *Pulse) Alive() bool {
	at := p.last.Load()
	return at != nil && time.Since(*at) <= p.Within
}
