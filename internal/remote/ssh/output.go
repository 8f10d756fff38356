package ssh

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"conductor/internal/remote"
)

// kept is how much is kept of what is not passed on, in bytes, to tell why
// something failed.
const kept = 8 << 10

// answer passes on what comes after the greeting; what is before it is what
// login shells, sudo and the like say.
type answer struct {
	to    io.Writer     // nil: nobody
	begun chan struct{} // closed: the greeting has come

	passed atomic.Int64 // bytes, those before the greeting included

	mu     sync.Mutex
	before []byte // the end of it
}

func (a *answer) hasBegun() bool {
	select {
	case <-a.begun:
		return true
	default:
		return false
	}
}

// preamble is what came before the greeting.
func (a *answer) preamble() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return string(a.before)
}

func (a *answer) Write(p []byte) (int, error) {
	a.passed.Add(int64(len(p)))
	rest := p
	if !a.hasBegun() {
		a.mu.Lock()
		a.before = append(a.before, p...)
		before, after, found := bytes.Cut(a.before, []byte(remote.Greeting))
		a.before = before[max(0, len(before)-kept):]
		a.mu.Unlock()
		if !found {
			return len(p), nil
		}
		rest = bytes.Clone(after)
		close(a.begun)
	}
	if a.to == nil || len(rest) == 0 {
		return len(p), nil
	}
	if _, err := a.to.Write(rest); err != nil {
		return 0, err
	}
	return len(p), nil
}

// endings passes on what the far end says on stderr, and keeps its ending from
// it. The last one counts: what a container writes may look like one.
type endings struct {
	to io.Writer // nil: nobody
	// lingers fires when nothing has come for a while after an ending.
	lingers *time.Timer

	held   []byte // what may become an ending
	last   remote.Ending
	isOver bool
	said   []byte // the end of what was passed on
}

func newEndings(to io.Writer) *endings {
	e := &endings{to: to, lingers: time.NewTimer(hangUpTimeout)}
	e.lingers.Stop()
	return e
}

func (e *endings) Write(p []byte) (int, error) {
	e.held = append(e.held, p...)
	for len(e.held) > 0 {
		i := bytes.IndexByte(e.held, 0)
		switch {
		case i < 0:
			i = len(e.held)
		case i == 0:
			ending, n, more := remote.FindEnding(e.held)
			if more {
				return len(p), nil
			}
			if n > 0 {
				e.last, e.isOver, e.held = ending, true, e.held[n:]
				e.lingers.Reset(hangUpTimeout)
				continue
			}
			i = 1
		}
		if err := e.pass(e.held[:i]); err != nil {
			return 0, err
		}
		e.held = e.held[i:]
	}
	return len(p), nil
}

func (e *endings) pass(p []byte) error {
	e.lingers.Stop()
	e.said = append(e.said, p...)
	e.said = e.said[max(0, len(e.said)-kept):]
	if e.to == nil {
		return nil
	}
	_, err := e.to.Write(p)
	return err
}

// found and tail are for when nothing comes any more.
func (e *endings) found() (remote.Ending, bool) { return e.last, e.isOver }
func (e *endings) tail() string                 { return string(e.said) }
