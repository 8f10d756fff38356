package balancertest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// Web is a web server of a test's own, a host behind a balancer. It ends with
// its test.
//
// GET /up is what a balancer's check asks. /slow answers when Release is called.
// All else answers 200 with its name, also in X-Revision, and with the body that
// was sent. An Upgrade gets what it sends back.
type Web struct {
	Name, Addr string

	requests atomic.Int64 // but /up
	sick     atomic.Bool
	slow     chan struct{}
}

// StartWeb starts a web server on a free port of loopback.
func StartWeb(t testing.TB, name string) *Web {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &Web{Name: name, Addr: l.Addr().String(), slow: make(chan struct{})}
	server := &http.Server{Handler: w}
	go server.Serve(l)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
	})
	return w
}

// Sick says what /up answers from now on: 503, or 200.
func (w *Web) Sick(sick bool) { w.sick.Store(sick) }

// Requests counts those that came, but for /up.
func (w *Web) Requests() int64 { return w.requests.Load() }

// Release lets one request to /slow be answered, and waits for it to come.
func (w *Web) Release() { w.slow <- struct{}{} }

func (w *Web) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/up" {
		if w.sick.Load() {
			http.Error(out, "sick", http.StatusServiceUnavailable)
		}
		return
	}
	w.requests.Add(1)
	if r.Header.Get("Upgrade") != "" {
		w.echo(out)
		return
	}
	if r.URL.Path == "/slow" {
		select {
		case <-w.slow:
		case <-r.Context().Done():
			return
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	out.Header().Set("X-Revision", w.Name)
	if len(body) == 0 {
		body = []byte(w.Name)
	}
	_, _ = out.Write(body) // whoever asked may have gone
}

// echo is what a WebSocket is to a balancer: a connection that has changed its
// protocol.
func (w *Web) echo(out http.ResponseWriter) {
	conn, buf, err := http.NewResponseController(out).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	_, _ = io.Copy(conn, buf)
}

// Wait fails the test unless it is so within 10 s.
func Wait(t testing.TB, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in 10 s: %s", what)
		}
	}
}

// FreePort is a port of loopback that nobody has.
func FreePort(t testing.TB) int {
	t.Helper()
	for port := 22000; port < 23000; port++ { // no outgoing connection gets one of these
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free from 22000 to 23000")
	return 0
}
