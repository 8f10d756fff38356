//go:build e2e

package nginx

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"conductor/internal/proxy"
	"conductor/internal/spec"
)

// countedIs waits until nginx has counted these requests and no others.
func countedIs(t *testing.T, p *Proxy, want map[string]proxy.Count) {
	t.Helper()
	var o proxy.Observed
	defer func() {
		if t.Failed() {
			t.Logf("requests %v, want %v", o.Requests, want)
		}
	}()
	eventually(t, "all requests are counted", func() (ok bool) {
		var err error
		o, err = p.Observe(t.Context())
		return err == nil && maps.Equal(o.Requests, want)
	})
}

// withBlog is the table with one more service, which takes a reload.
func withBlog(t proxy.Table) proxy.Table {
	return t.With(proxy.Route{Service: "blog", HTTP: spec.HTTP{Hosts: []string{"blog.example.com"}, Path: "/", Listen: spec.Listen{Port: httpPort}}})
}

// Under load, through switches and reloads, each request is counted once, where
// it was answered.
func TestProxy_EachRequestIsCountedOnce(t *testing.T) {
	n, p := start(t)
	var served [2]atomic.Uint64
	var targets []proxy.Target
	for i, name := range []string{"a", "b"} {
		targets = append(targets, backend(t, name, func(w http.ResponseWriter, r *http.Request) {
			size, _ := io.Copy(io.Discard, r.Body)
			served[i].Add(1)
			fmt.Fprintf(w, "%s %s %s %d", name, r.Method, r.RequestURI, size)
		}))
	}
	mustApply(t, p, shop(targets[0]))
	var (
		l    load
		wg   sync.WaitGroup
		done = make(chan struct{})
	)
	// A reload cuts clients' idle connections, and what is being sent over them.
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodGet, http.MethodPost} {
		wg.Go(func() { l.run(t, client{method: method}, done) })
	}
	table := shop(targets[0])
	for i := range 8 {
		before := l.sent.Load()
		eventually(t, "100 requests", func() bool { return l.sent.Load() > before+100 })
		switch i % 4 {
		case 0:
			table = shop(targets...)
		case 1:
			n.Reload()
		case 2:
			table = shop(targets[1])
		case 3:
			table = shop(targets[0])
		}
		mustApply(t, p, table)
	}
	close(done)
	wg.Wait()
	if sent, answered := l.sent.Load(), served[0].Load()+served[1].Load(); uint64(sent) != answered {
		t.Errorf("%d requests were sent, %d answered", sent, answered)
	}
	countedIs(t, p, map[string]proxy.Count{"a": {Requests: served[0].Load()}, "b": {Requests: served[1].Load()}})
	if log := n.ErrorLog(); strings.Contains(log, "lua") {
		t.Errorf("nginx's error log speaks of Lua:\n%s", log)
	}
}

// A request is counted when it has ended, however it ends, and where it was
// tried last; also by a worker that waits for it alone.
func TestProxy_CountsHoweverARequestEnds(t *testing.T) {
	_, p := start(t)
	hold := make(chan struct{})
	a := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hold":
			<-hold
			w.WriteHeader(http.StatusBadGateway)
		case "/hang":
			<-r.Context().Done()
		case "/abort":
			panic(http.ErrAbortHandler)
		}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refuses := target("refuses", l.Addr().String())
	l.Close()
	mustApply(t, p, shop(a))
	want := map[string]proxy.Count{}

	// An instance that gives no answer is an error, a client that goes is none.
	if status, _ := get(t, base+"/abort"); status != 502 {
		t.Errorf("%d of an instance that gives no answer", status)
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", httpPort))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
	eventually(t, "in flight", func() bool { return inFlight(t, p, a) == 1 })
	conn.Close()
	want["a"] = proxy.Count{Requests: 2, Errors: 1}
	countedIs(t, p, want)

	// One that is tried again counts where it is answered.
	mustApply(t, p, shop(a, refuses))
	for range 20 {
		get(t, base+"/")
	}
	want["a"] = proxy.Count{Requests: 22, Errors: 1}
	countedIs(t, p, want)
	mustApply(t, p, shop(refuses))
	get(t, base+"/")
	want["refuses"] = proxy.Count{Requests: 1, Errors: 1}
	countedIs(t, p, want)

	// What is in flight is not counted yet. Old workers count it.
	mustApply(t, p, shop(a))
	answers := make(chan int, 3)
	for range cap(answers) {
		go func() {
			resp, err := http.Get(base + "/hold")
			if err != nil {
				answers <- 0
				return
			}
			resp.Body.Close()
			answers <- resp.StatusCode
		}()
	}
	eventually(t, "three in flight", func() bool { return inFlight(t, p, a) == 3 })
	mustApply(t, p, withBlog(shop(a)))
	get(t, base+"/")
	want["a"] = proxy.Count{Requests: 23, Errors: 1}
	countedIs(t, p, want)
	close(hold)
	for range cap(answers) {
		if status := <-answers; status != 502 {
			t.Errorf("%d of a request that was held", status)
		}
	}
	want["a"] = proxy.Count{Requests: 26, Errors: 4}
	countedIs(t, p, want)
}
