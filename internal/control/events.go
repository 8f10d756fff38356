package control

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"conductor/internal/event"
)

// backlog is how many events wait for a reader who is slower than they come.
const backlog = 1024

// reader is one stream of events. Whoever has the server's lock may send to it.
type reader struct {
	services []string // none: all
	lines    chan []byte
}

// hear gives it an event; false: it has not taken so many that it is cut off.
func (r *reader) hear(service string, line []byte) bool {
	if len(r.services) > 0 && !slices.Contains(r.services, service) {
		return true
	}
	select {
	case r.lines <- line:
		return true
	default:
		close(r.lines)
		return false
	}
}

// events writes what happens, a line of JSON each, until the reader goes, or
// the server does. A stream that ends without its last chunk was cut off: its
// reader has missed something.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	me := &reader{services: r.URL.Query()["id"], lines: make(chan []byte, backlog)}
	s.mu.Lock()
	if s.readers == nil {
		s.readers = map[*reader]bool{}
	}
	s.readers[me] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.readers, me)
	}()
	w.Header().Set("Content-Type", "application/jsonl")
	// The request is read: what ends it now is its reader's going.
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		panic(http.ErrAbortHandler)
	}
	write := func(line []byte) {
		err := c.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err == nil {
			_, err = w.Write(line)
		}
		if err == nil {
			err = c.Flush()
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	write(nil) // the answer's head: from here on nothing is missed
	for {
		select {
		case line, more := <-me.lines:
			if !more {
				panic(http.ErrAbortHandler)
			}
			write(line)
		case <-r.Context().Done():
			_ = c.SetWriteDeadline(time.Now().Add(farewell)) // for the last chunk
			return
		}
	}
}

// encode writes an event as all commands do.
func encode(e event.Event) []byte {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(e) // only text and times
	return b.Bytes()
}
