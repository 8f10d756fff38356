// Package control lets programs on the host watch the supervisor: over a socket
// that root alone can use, its status and its events; there, and at an address
// for those who ask, its metrics and whether it is alive. Nothing can be
// changed through it.
//
// cmd puts it together. It imports event, display (for the form of an answer)
// and fault.
package control

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"conductor/internal/display"
	"conductor/internal/event"
	"conductor/internal/fault"
)

const (
	// readTimeout bounds a request, idleTimeout the wait for the next one.
	readTimeout = 5 * time.Second
	idleTimeout = 30 * time.Second
	// answerTimeout bounds an answer, the work for it included. A write to a
	// stream of events has writeTimeout.
	answerTimeout = 30 * time.Second
	writeTimeout  = 5 * time.Second
	headerBytes   = 8 << 10
	// farewell is how long answers that are on their way have at the end.
	farewell = 500 * time.Millisecond
)

// Server answers who watches. Publish is safe for concurrent use, also before
// Serve and after it.
type Server struct {
	// Status tells how the services are, none named: all; brief: without what
	// their instances use. It is in the form in which
	// `service status --output json` prints it.
	Status func(ctx context.Context, ids []string, brief bool) (any, error)
	// As names what Status goes by: a client that names something else is
	// refused. Who names nothing is answered.
	As string
	// Metrics are in Prometheus' form.
	Metrics http.Handler
	// Alive tells whether the supervisor's loop goes on.
	Alive func() bool

	mu      sync.Mutex
	readers map[*reader]bool
}

// Serve answers at the socket, which Listen has opened, and at the address, with
// less to be had; either may be nil. It closes both and returns when ctx is
// done, within a second: streams end, answers on their way have 0.5 s.
func (s *Server) Serve(ctx context.Context, socket, address net.Listener) error {
	// Requests end with ctx: a stream has no other end.
	base, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	errs := make([]error, 2)
	for n, at := range []struct {
		net.Listener
		handler http.Handler
	}{{socket, s.private()}, {address, s.public()}} {
		if at.Listener == nil {
			continue
		}
		srv := &http.Server{Handler: at.handler, MaxHeaderBytes: headerBytes, ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout,
			WriteTimeout: answerTimeout, IdleTimeout: idleTimeout, BaseContext: func(net.Listener) context.Context { return base }}
		running.Go(func() {
			defer cancel() // without one, the other is not to be relied on
			if err := srv.Serve(at.Listener); !errors.Is(err, http.ErrServerClosed) {
				errs[n] = err
			}
		})
		running.Go(func() {
			<-base.Done()
			soon, stop := context.WithTimeout(context.Background(), farewell)
			defer stop()
			if srv.Shutdown(soon) != nil {
				_ = srv.Close() // what is not done by now is cut off
			}
		})
	}
	<-base.Done()
	running.Wait()
	return errors.Join(errs...)
}

// private is what root can have.
func (s *Server) private() http.Handler {
	mux := s.public()
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/events", s.events)
	return mux
}

// public is what anybody can have who reaches the address.
func (s *Server) public() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.Metrics)
	mux.HandleFunc("GET /healthz", s.healthz)
	return mux
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if !s.Alive() {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte("the supervisor's loop stands still\n")) // who asked may be gone
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}

// status answers with the services that ?id= names, or with all;
// ?brief leaves away what the instances use, which takes a while to be measured.
func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if as := query.Get("as"); as != "" && as != s.As {
		http.Error(w, "this supervisor has another version or configuration", http.StatusConflict)
		return
	}
	all, err := s.Status(r.Context(), query["id"], query.Has("brief"))
	code := http.StatusOK
	if err != nil {
		code = http.StatusInternalServerError
		switch {
		case errors.Is(err, fault.ErrDefinition):
			code = http.StatusNotFound
		case errors.Is(err, fault.ErrUnreachable):
			code = http.StatusServiceUnavailable
		}
		all = failure{err.Error(), fault.Hint(err)}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = display.WriteDocument(w, all) // who asked may be gone
}

// failure is the answer to what could not be answered.
type failure struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
}

// Publish sends an event to all who hear. It is an event.Sink: it waits for
// nobody, and whoever is too slow is cut off.
func (s *Server) Publish(e event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.readers) == 0 {
		return
	}
	line := encode(e)
	for r := range s.readers {
		if !r.hear(e.Service, line) {
			delete(s.readers, r)
		}
	}
}
