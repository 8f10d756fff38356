package session

import (
	"io"
	"sync"
	"syscall"
	"time"
)

// writeTimeout is how long the near end may take nothing of what is written.
const writeTimeout = time.Minute

// timed is a writer that is not held up for ever. A connection that is cut
// without a word is noticed here hours later, if at all: what was begun would
// wait for it as soon as it has said more than fits on the way, with its locks.
// When a write has taken too long this one and all that follow fail, as when
// the reader has gone.
type timed struct {
	to io.Writer

	mu   sync.Mutex // one write at a time
	gone bool
}

func (t *timed) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone {
		return 0, syscall.EPIPE
	}
	type written struct {
		n   int
		err error
	}
	done := make(chan written, 1)
	b := append([]byte(nil), p...) // it may outlive this call
	go func() {
		n, err := t.to.Write(b)
		done <- written{n, err}
	}()
	late := time.NewTimer(writeTimeout)
	defer late.Stop()
	select {
	case w := <-done:
		return w.n, w.err
	case <-late.C:
		t.gone = true
		return 0, syscall.EPIPE
	}
}
