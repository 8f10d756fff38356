package main

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// app answers requests.
type app struct {
	revision, service, host string
	status                  int
	redirect                string
	wellAt                  time.Time

	sick    atomic.Bool
	ending  chan struct{}  // closed when the application was told to end
	streams sync.WaitGroup // open WebSockets, which Shutdown does not know
}

func newApp() *app {
	status, _ := strconv.Atoi(env("STATUS", "200"))
	host, _ := os.Hostname()
	return &app{
		revision: env("REVISION", "dev"), service: env("SERVICE", "app"), host: host,
		status: status, redirect: os.Getenv("REDIRECT"),
		wellAt: time.Now().Add(duration("HEALTH_DELAY")),
		ending: make(chan struct{}),
	}
}

// ServeHTTP picks by the last part of the path.
func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Revision", a.revision)
	h.Set("X-Service", a.service)
	h.Set("X-Instance", a.host)
	switch r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:] {
	case "health":
		if a.sick.Load() || time.Now().Before(a.wellAt) {
			http.Error(w, "sick", http.StatusServiceUnavailable)
			return
		}
		a.index(w, r)
	case "echo":
		if b, ok := readAll(w, r); ok {
			w.Write(b)
		}
	case "slow":
		a.slow(w, r)
	case "events":
		a.events(w, r)
	case "ws":
		a.websocket(w, r)
	case "headers":
		a.headers(w, r)
	case "hog":
		mb, _ := strconv.Atoi(r.FormValue("mb"))
		hog(mb << 20)
		fmt.Fprintln(w, "took", mb, "MB")
	case "exit":
		code, _ := strconv.Atoi(r.FormValue("code"))
		fmt.Fprintln(os.Stderr, "app: told to exit", code)
		os.Exit(code)
	case "sick":
		a.sick.Store(true)
	case "well":
		a.sick.Store(false)
	default:
		a.index(w, r)
	}
}

func (a *app) index(w http.ResponseWriter, r *http.Request) {
	if a.redirect != "" {
		http.Redirect(w, r, a.redirect, http.StatusMovedPermanently)
		return
	}
	// A POST's body is read, or net/http closes the connection on large ones.
	if _, ok := readAll(w, r); !ok {
		return
	}
	w.WriteHeader(a.status)
	if a.status >= 500 {
		fmt.Fprintln(w, "undefined method 'name' for nil")
		return
	}
	fmt.Fprintf(w, "service=%s revision=%s instance=%s\n", a.service, a.revision, a.host)
}

// slow answers after ?ms=, in two parts, so that a cut shows.
func (a *app) slow(w http.ResponseWriter, r *http.Request) {
	ms, _ := strconv.Atoi(r.FormValue("ms"))
	w.Header().Set("Content-Length", "9")
	fmt.Fprint(w, "begun")
	http.NewResponseController(w).Flush()
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
		fmt.Fprint(w, "done")
	case <-r.Context().Done():
	}
}

// tick is the time between two messages of a stream: ?tick=, 100 ms.
func tick(r *http.Request) time.Duration {
	if d, err := time.ParseDuration(r.FormValue("tick")); err == nil && d > 0 {
		return d
	}
	return 100 * time.Millisecond
}

// events sends server-sent events until the client goes or the application ends.
func (a *app) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	rc := http.NewResponseController(w)
	t := time.NewTicker(tick(r))
	defer t.Stop()
	for n := 0; ; n++ {
		fmt.Fprintf(w, "id: %d\ndata: %s\n\n", n, a.revision)
		if rc.Flush() != nil {
			return
		}
		select {
		case <-t.C:
		case <-r.Context().Done():
			return
		case <-a.ending:
			return
		}
	}
}

// websocket ticks, and echoes what the client sends, until either side goes.
func (a *app) websocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	a.streams.Add(1)
	defer a.streams.Done()
	defer c.CloseNow()
	ctx := r.Context()
	heard := make(chan []byte)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			_, b, err := c.Read(ctx)
			if err != nil {
				return
			}
			select {
			case heard <- b:
			case <-a.ending:
				return
			}
		}
	}()
	t := time.NewTicker(tick(r))
	defer t.Stop()
	for {
		var b []byte
		select {
		case <-gone:
			return
		case <-a.ending:
			c.Close(websocket.StatusGoingAway, "the application ends")
			return
		case m := <-heard:
			b = append([]byte("echo "), m...)
		case <-t.C:
			b = []byte("tick " + a.revision)
		}
		if c.Write(ctx, websocket.MessageText, b) != nil {
			return
		}
	}
}

// headers answers with the request as the application saw it.
func (a *app) headers(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s %s %s\nHost: %s\nRemote: %s\n", r.Method, r.RequestURI, r.Proto, r.Host, r.RemoteAddr)
	keys := make([]string, 0, len(r.Header))
	for k := range r.Header {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		fmt.Fprintf(w, "%s: %s\n", k, strings.Join(r.Header[k], ", "))
	}
}
