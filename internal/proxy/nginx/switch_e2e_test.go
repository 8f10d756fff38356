//go:build e2e

package nginx

import (
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"conductor/internal/proxy"
)

func TestProxy_SwitchUnderLoadDropsNothing(t *testing.T) {
	_, p := start(t)
	a, b := named(t, "a"), named(t, "b")
	mustApply(t, p, shop(a))
	var (
		l    load
		wg   sync.WaitGroup
		done = make(chan struct{})
	)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		for _, keep := range []bool{true, true, false} {
			wg.Go(func() { l.run(t, client{keepAlive: keep, method: method}, done) })
		}
	}
	var slowest time.Duration
	for i := range 10 {
		before := l.sent.Load()
		eventually(t, "100 requests", func() bool { return l.sent.Load() > before+100 })
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		start := time.Now()
		mustApply(t, p, shop(from, to))
		if c := mustApply(t, p, shop(to)); c.Reloaded {
			t.Error("a switch reloaded nginx")
		}
		slowest = max(slowest, time.Since(start))
		eventually(t, "nothing in flight at the old target", func() bool { return inFlight(t, p, from) == 0 })
	}
	close(done)
	wg.Wait()
	t.Logf("%d requests, %d failed; the slowest two switches took %v", l.sent.Load(), l.failed.Load(), slowest)
	eventually(t, "nothing in flight", func() bool { return inFlight(t, p, a)+inFlight(t, p, b) == 0 })
}

func TestProxy_UnroutedTargetFinishesAndGetsNothingMore(t *testing.T) {
	_, p := start(t)
	release, got := make(chan struct{}), make(chan string, 1)
	old := backend(t, "old", func(w http.ResponseWriter, r *http.Request) {
		<-release
		io.WriteString(w, "finished")
	})
	next := named(t, "next")
	mustApply(t, p, shop(old))
	go func() {
		resp, err := http.Get(base + "/slow")
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		got <- string(text)
	}()
	eventually(t, "one in flight", func() bool { return inFlight(t, p, old) == 1 })
	mustApply(t, p, shop(next))
	for range 20 {
		if _, text := get(t, base+"/"); !strings.HasPrefix(text, "next") {
			t.Fatalf("answer %q, want next's", text)
		}
	}
	if n := inFlight(t, p, old); n != 1 {
		t.Errorf("%d in flight at the old target, want 1", n)
	}
	close(release)
	if text := <-got; text != "finished" {
		t.Errorf("the slow request got %q", text)
	}
	eventually(t, "none in flight", func() bool { return inFlight(t, p, old) == 0 })
}

func TestProxy_NoTargetAnswers503(t *testing.T) {
	_, p := start(t)
	mustApply(t, p, shop())
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		for _, size := range []int{0, 1, 4 << 20} {
			status, text := do(t, method, base+"/x", strings.NewReader(strings.Repeat("x", size)))
			if status != 503 || !strings.Contains(text, "no instance") {
				t.Errorf("%s of %d bytes: %d %q, want 503 in words", method, size, status, text)
			}
		}
	}
	resp, err := http.Get(base + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for k, want := range map[string]string{"Retry-After": "1", "Cache-Control": "no-store", "Content-Type": "text/plain; charset=utf-8"} {
		if got := resp.Header.Get(k); got != want {
			t.Errorf("%s: %q, want %q", k, got, want)
		}
	}
}

// A request whose instance goes away without an answer is tried at another
// one, unless it may have changed something there.
func TestProxy_OnlyHarmlessRequestsAreTriedAgain(t *testing.T) {
	_, p := start(t)
	var arrived sync.Map
	arrives := func(r *http.Request) {
		n, _ := arrived.LoadOrStore(r.URL.Path, new(atomic.Int32))
		n.(*atomic.Int32).Add(1)
	}
	rude := backend(t, "rude", func(w http.ResponseWriter, r *http.Request) {
		arrives(r)
		panic(http.ErrAbortHandler)
	})
	alive := backend(t, "alive", func(w http.ResponseWriter, r *http.Request) {
		arrives(r)
		fmt.Fprint(w, "alive")
	})
	mustApply(t, p, shop(rude, alive))
	for _, c := range []struct {
		method string
		body   string
		again  bool
	}{
		{http.MethodGet, "", true},
		{http.MethodHead, "", true},
		{http.MethodDelete, "", true},
		{http.MethodPost, "x", false},
		{http.MethodPost, strings.Repeat("x", 1<<20), false},
		{http.MethodPatch, "x", false},
		{http.MethodPut, strings.Repeat("x", 1<<20), false},
	} {
		failed, twice := 0, 0
		for i := range 30 {
			path := fmt.Sprintf("/%s/%d/%d", c.method, len(c.body), i)
			if status, _ := do(t, c.method, base+path, strings.NewReader(c.body)); status != 200 {
				failed++
			}
			if n, ok := arrived.Load(path); ok && n.(*atomic.Int32).Load() > 1 {
				twice++
			}
		}
		if c.again && (failed > 0 || twice == 0) || !c.again && (failed == 0 || twice > 0) {
			t.Errorf("%s with %d bytes: %d of 30 failed, %d arrived twice; to be tried again: %v", c.method, len(c.body), failed, twice, c.again)
		}
	}
}

func TestProxy_WeightsShareRequests(t *testing.T) {
	_, p := start(t)
	a, b := named(t, "a"), named(t, "b")
	a.Weight, b.Weight = 9, 1
	mustApply(t, p, shop(a, b))
	count := func(n int) float64 {
		hits := 0
		for range n {
			if _, text := get(t, base+"/"); strings.HasPrefix(text, "b") {
				hits++
			}
		}
		return float64(hits) / float64(n)
	}
	if share := count(600); math.Abs(share-0.1) > 0.05 {
		t.Errorf("weight 1 of 10 got %.3f of the requests", share)
	}
	a.Weight = 1
	mustApply(t, p, shop(a, b))
	if share := count(300); math.Abs(share-0.5) > 0.13 {
		t.Errorf("of two alike, one got %.3f of the requests", share)
	}
}

// A worker goes by what it has in flight itself, so all of it is in one here.
func TestProxy_BusyTargetGetsLess(t *testing.T) {
	n, p := start(t)
	n.Stop()
	n.WriteConf(strings.Replace(n.Conf(), "worker_processes 2;", "worker_processes 1;", 1))
	n.Start()
	hold := make(chan struct{})
	busy := backend(t, "busy", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			<-hold
		}
		io.WriteString(w, "busy")
	})
	idle := named(t, "idle")
	mustApply(t, p, shop(busy))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { get(t, base+"/hold") })
	}
	eventually(t, "four in flight", func() bool { return inFlight(t, p, busy) == 4 })
	mustApply(t, p, shop(busy, idle))
	for range 30 {
		if _, text := get(t, base+"/"); text == "busy" {
			t.Error("the busy target got a request")
		}
	}
	close(hold)
	wg.Wait()
}

func TestProxy_VanishedAddressIsSkipped(t *testing.T) {
	_, p := start(t)
	// Nothing listens here any more.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refuses := target("refuses", l.Addr().String())
	l.Close()
	// And this one takes no connection: its queue is full, so SYNs are dropped.
	full, stop := deaf(t)
	defer stop()
	alive := named(t, "alive")
	mustApply(t, p, shop(alive, full, refuses))
	var slow int
	for i := range 60 {
		method, body := http.MethodGet, ""
		if i%2 == 1 {
			method, body = http.MethodPost, "quantity=2"
		}
		start := time.Now()
		status, text := do(t, method, base+"/", strings.NewReader(body))
		if status != 200 || !strings.HasPrefix(text, "alive") {
			t.Fatalf("%s: %d %q, want the answer of the one that is alive", method, status, text)
		}
		if time.Since(start) > 500*time.Millisecond {
			slow++
		}
	}
	if slow > 4 {
		t.Errorf("%d of 60 requests waited for a connection; a worker should try it once in 5 s", slow)
	}
	for _, x := range []proxy.Target{alive, full, refuses} {
		eventually(t, "none in flight at "+x.Instance, func() bool { return inFlight(t, p, x) == 0 })
	}
}

// deaf returns a target whose connections are never established.
func deaf(t *testing.T) (proxy.Target, func()) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	conn, err := net.Dial("tcp", addr) // takes the only place in the queue
	if err != nil {
		t.Fatal(err)
	}
	return target("full", addr), func() { conn.Close(); syscall.Close(fd) }
}

func TestProxy_CountsReturnToZero(t *testing.T) {
	_, p := start(t)
	rude := backend(t, "rude", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/hang":
			<-r.Context().Done()
		default: // closes with no answer
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				conn.Close()
			}
		}
	})
	other := rude
	other.Instance, other.Addr = "other", backend(t, "other", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }).Addr
	mustApply(t, p, shop(rude, other))
	for range 20 {
		get(t, base+"/")
		do(t, http.MethodPost, base+"/", strings.NewReader("x"))
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", httpPort))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
		eventually(t, "in flight", func() bool { return inFlight(t, p, rude)+inFlight(t, p, other) > 0 })
		conn.Close()
		eventually(t, "none in flight", func() bool { return inFlight(t, p, rude)+inFlight(t, p, other) == 0 })
	}
}

func TestProxy_KilledWorkerLeavesNoCount(t *testing.T) {
	n, p := start(t)
	hold := make(chan struct{})
	a := backend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		}
	})
	defer close(hold)
	mustApply(t, p, shop(a))
	for range 8 {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", httpPort))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	eventually(t, "eight in flight", func() bool { return inFlight(t, p, a) == 8 })
	workers := n.Workers()
	for _, pid := range workers {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "no count of dead workers", func() bool {
		o, err := p.Observe(t.Context())
		return err == nil && o.InFlight[a.Addr] == 0
	})
	if status, _ := get(t, base+"/"); status != 200 {
		t.Errorf("status %d after the workers came back", status)
	}
	if o, err := p.Observe(t.Context()); err != nil || !o.Routes {
		t.Errorf("observe = %+v, %v", o, err)
	}
	if log := n.ErrorLog(); strings.Contains(log, "lua") {
		t.Errorf("nginx's error log speaks of Lua:\n%s", log)
	}
}

func TestProxy_HandReloadAndKillServeTheSame(t *testing.T) {
	n, p := start(t)
	a, b := named(t, "a"), named(t, "b")
	mustApply(t, p, shop(a))
	mustApply(t, p, shop(b))
	serves := func(what, name string) {
		t.Helper()
		for range 10 {
			if status, text := get(t, base+"/"); status != 200 || !strings.HasPrefix(text, name) {
				t.Fatalf("after %s: %d %q, want %s", what, status, text, name)
			}
		}
		o, err := p.Observe(t.Context())
		if err != nil || !o.Routes || o.Targets["shop"][0].Instance != name {
			t.Fatalf("after %s: observe = %+v, %v", what, o, err)
		}
	}
	n.Reload()
	serves("a reload by hand", "b")
	n.KillMaster()
	n.Start()
	serves("kill -9 and start", "b")
	mustApply(t, p, shop(a))
	serves("a switch", "a")

	// Killed between the file and the running nginx: a reload by hand takes
	// the new peers, and the next Apply proves them.
	text, err := os.ReadFile(p.File())
	if err != nil {
		t.Fatal(err)
	}
	d, err := parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	d.peers.generation++
	d.peers.values["shop"] = encode([]proxy.Target{b})
	if err := os.WriteFile(p.File(), d.bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if o, err := p.Observe(t.Context()); err != nil || o.Routes || o.Targets["shop"][0] != a {
		t.Fatalf("observe between file and nginx = %+v, %v; want a and no proof of the file", o, err)
	}
	n.Reload()
	eventually(t, "b", func() bool {
		o, err := p.Observe(t.Context())
		return err == nil && o.Routes && o.Targets["shop"][0] == b
	})
	mustApply(t, p, shop(a))
	serves("an Apply", "a")
}
