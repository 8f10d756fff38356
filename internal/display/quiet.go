package display

import (
	"io"
	"sync"

	"conductor/internal/event"
)

// quiet writes warnings and failures, on stderr, and nothing else.
type quiet struct {
	mu    sync.Mutex
	err   io.Writer
	paint Painter
}

func (q *quiet) Event(e event.Event) {
	if e.Event != event.Warning {
		return
	}
	text := say(e)
	if s := e.Instance; s != "" {
		text = s + ": " + text
	} else if e.Service != "" {
		text = e.Service + ": " + text
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	WriteWarning(q.err, q.paint, text)
}

func (q *quiet) End(r Result) {
	q.mu.Lock()
	defer q.mu.Unlock()
	WriteFailures(q.err, q.paint, r.Failures)
}
