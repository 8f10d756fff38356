package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"conductor/internal/engine"
	"conductor/internal/spec"
)

// fakeEngine has what this package asks of an engine.
type fakeEngine struct {
	engine.Engine
	exec    func(ctx context.Context, e engine.Exec) (int, error)
	logs    func(stdout, stderr io.Writer) error
	inspect func() (engine.Container, error)
}

func (f *fakeEngine) Exec(ctx context.Context, _ string, e engine.Exec) (int, error) {
	return f.exec(ctx, e)
}

func (f *fakeEngine) Logs(_ context.Context, _ string, o engine.LogOptions, stdout, stderr io.Writer) error {
	if f.logs == nil || o.Tail != 50 || o.Follow {
		return nil
	}
	return f.logs(stdout, stderr)
}

func (f *fakeEngine) Inspect(context.Context, string) (engine.Container, error) { return f.inspect() }

func serve(t *testing.T, f http.HandlerFunc) netip.AddrPort {
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

func probe(t *testing.T, i Instance, h spec.Health) Result {
	t.Helper()
	if h.Timeout == 0 {
		h.Timeout = spec.Duration(5 * time.Second)
	}
	r := New(&fakeEngine{}).Probe(t.Context(), i, h)
	if r.At.IsZero() || r.Text == "" || strings.ContainsAny(r.Text, "\n\x1b") {
		t.Errorf("%+v", r)
	}
	return r
}

func TestProbe_HTTPAnswers(t *testing.T) {
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "https://shop.example.com/login?a=b", http.StatusMovedPermanently)
		case "/500":
			w.WriteHeader(500)
			fmt.Fprint(w, "\n\n  \x1b[31mundefined method\x1b[0m\x00 \xff"+strings.Repeat("x", 300)+"\nsecond line")
		case "/204":
			w.WriteHeader(204)
		case "/stream":
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case "/query":
			if r.URL.RawQuery != "deep=1" {
				w.WriteHeader(404)
			}
		}
	})
	i := Instance{Addr: at}
	port := fmt.Sprint(at.Port())
	for _, test := range []struct {
		path     string
		min, max int
		ok       bool
		status   int
		text     string
	}{
		{"/", 200, 299, true, 200, "GET :" + port + "/: 200 OK"},
		{"", 0, 0, true, 200, "GET :" + port + "/: 200 OK"},
		{"/204", 200, 299, true, 204, "GET :" + port + "/204: 204 No Content"},
		{"/stream", 200, 299, true, 200, "GET :" + port + "/stream: 200 OK"},
		{"/query?deep=1", 200, 299, true, 200, "GET :" + port + "/query?deep=1: 200 OK"},
		{"/redirect", 200, 299, false, 301, "GET :" + port + "/redirect: 301 to https://shop.example.com/login?a=b"},
		{"/redirect", 0, 0, true, 301, "GET :" + port + "/redirect: 301 to https://shop.example.com/login?a=b"},
		{"/500", 200, 399, false, 500, "GET :" + port + "/500: 500 Internal Server Error"},
		{"/500", 500, 500, true, 500, "GET :" + port + "/500: 500 Internal Server Error"},
	} {
		r := probe(t, i, spec.Health{Kind: spec.HealthHTTP, Path: test.path, StatusMin: test.min, StatusMax: test.max})
		if r.OK != test.ok || r.Status != test.status || r.Text != test.text {
			t.Errorf("%+v: got %+v", test, r)
		}
		if test.path == "/500" && !r.OK && (!strings.HasPrefix(r.Body, "undefined method \ufffdxxx") || len(r.Body) > 200) {
			t.Errorf("body %q", r.Body)
		}
	}
}

func TestProbe_HTTPRequestIsAClients(t *testing.T) {
	var got *http.Request
	at := serve(t, func(_ http.ResponseWriter, r *http.Request) { got = r })
	i := Instance{Addr: at, Host: "shop.example.com", Proto: "https"}
	probe(t, i, spec.Health{Kind: spec.HealthHTTP})
	if got.Host != "shop.example.com" || got.Header.Get("X-Forwarded-Proto") != "https" || got.Header.Get("X-Forwarded-For") == "" ||
		got.Header.Get("X-Forwarded-Port") != "443" || got.Header.Get("X-Forwarded-Host") != "shop.example.com" || !got.Close {
		t.Errorf("%s %v, close %v", got.Host, got.Header, got.Close)
	}
	probe(t, i, spec.Health{Kind: spec.HealthHTTP, Headers: map[string]string{"host": "other", "x-forwarded-proto": "http", "Authorization": "x"}})
	if got.Host != "other" || got.Header.Get("X-Forwarded-Proto") != "http" || got.Header.Get("X-Forwarded-Host") != "other" || got.Header.Get("Authorization") != "x" {
		t.Errorf("%s %v", got.Host, got.Header)
	}
	probe(t, Instance{Addr: at}, spec.Health{Kind: spec.HealthHTTP})
	if got.Host != at.String() || got.Header.Get("X-Forwarded-Proto") != "http" {
		t.Errorf("%s %v", got.Host, got.Header)
	}
}

func TestProbe_NoAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := netip.MustParseAddrPort(l.Addr().String())
	_ = l.Close()
	for _, kind := range []spec.HealthKind{spec.HealthHTTP, spec.HealthTCP} {
		r := probe(t, Instance{Addr: closed}, spec.Health{Kind: kind})
		if r.OK || !r.Refused || !strings.HasSuffix(r.Text, ": connection refused") {
			t.Errorf("%s: %+v", kind, r)
		}
	}

	hang := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	r := probe(t, Instance{Addr: hang}, spec.Health{Kind: spec.HealthHTTP, Timeout: spec.Duration(50 * time.Millisecond)})
	if r.OK || r.Refused || !strings.HasSuffix(r.Text, ": no answer within 50 ms") {
		t.Errorf("%+v", r)
	}

	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	go func() {
		for {
			c, err := mute.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 10_000))
			_ = c.Close()
		}
	}()
	r = probe(t, Instance{Addr: netip.MustParseAddrPort(mute.Addr().String())}, spec.Health{Kind: spec.HealthHTTP})
	if r.OK || !strings.HasSuffix(r.Text, ": connection closed without an answer") {
		t.Errorf("%+v", r)
	}
	r = probe(t, Instance{Addr: closed}, spec.Health{Kind: spec.HealthTCP, Port: netip.MustParseAddrPort(mute.Addr().String()).Port()})
	if !r.OK || !strings.HasSuffix(r.Text, ": connected") {
		t.Errorf("%+v", r)
	}
	if r = probe(t, Instance{Addr: closed}, spec.Health{Kind: spec.HealthHTTP, Path: "/%zz"}); r.OK {
		t.Errorf("%+v", r)
	}
	if r = probe(t, Instance{}, spec.Health{Kind: "none"}); r.OK {
		t.Errorf("%+v", r)
	}
}

// What stands on the other end of the line is nobody's friend.
func TestProbe_OddAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		answer string // again and again
		want   string
	}{
		"well":             {"HTTP/1.1 204 No Content\r\n\r\n", "GET :%d/: 204 No Content"},
		"first an interim": {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "GET :%d/: 200 OK"},
		"interim for ever": {"HTTP/1.1 100 Continue\r\n\r\n", "GET :%d/: the head of its answer is longer than 64 KiB"},
		"head for ever":    {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1000), "GET :%d/: the head of its answer is longer than 64 KiB"},
		"another protocol": {"SSH-2.0-OpenSSH_9.2\r\n", "GET :%d/: malformed HTTP response \"SSH-2.0-OpenSSH_9.2\""},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = c.Read(make([]byte, 10_000))
			for err == nil {
				_, err = io.WriteString(c, test.answer)
			}
		}()
		at := netip.MustParseAddrPort(l.Addr().String())
		r := probe(t, Instance{Addr: at}, spec.Health{Kind: spec.HealthHTTP})
		_ = l.Close()
		if want := fmt.Sprintf(test.want, at.Port()); r.Text != want {
			t.Errorf("%s: %q, want %q", name, r.Text, want)
		}
	}
}

func TestProbe_Command(t *testing.T) {
	h := spec.Health{Kind: spec.HealthCommand, Command: []string{"bin/check", "-v"}, Timeout: spec.Duration(50 * time.Millisecond)}
	for name, test := range map[string]struct {
		exec func(ctx context.Context, e engine.Exec) (int, error)
		want Result
	}{
		"well": {func(_ context.Context, e engine.Exec) (int, error) {
			fmt.Fprintf(e.Stdout, "%q\nfine", e.Command)
			return 0, nil
		}, Result{OK: true, Text: `bin/check: exit 0: fine`}},
		"quiet": {func(context.Context, engine.Exec) (int, error) { return 0, nil }, Result{OK: true, Text: "bin/check: exit 0"}},
		"sick": {func(_ context.Context, e engine.Exec) (int, error) {
			fmt.Fprint(e.Stdout, "one\n")
			fmt.Fprint(e.Stderr, "\x1b[1mqueue\x1b[0m is full\r\n\n")
			return 3, nil
		}, Result{Exit: 3, Text: "bin/check: exit 3: queue is full"}},
		"not running": {func(context.Context, engine.Exec) (int, error) {
			return 0, fmt.Errorf("exec: %w", engine.ErrConflict)
		}, Result{Exit: -1, Text: "bin/check: exec: conflict"}},
		"hangs": {func(ctx context.Context, _ engine.Exec) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}, Result{Exit: -1, Text: "bin/check: no answer within 50 ms"}},
	} {
		r := New(&fakeEngine{exec: test.exec}).Probe(t.Context(), Instance{}, h)
		r.At = time.Time{}
		if r != test.want {
			t.Errorf("%s: got %+v, want %+v", name, r, test.want)
		}
	}
}

func TestProbe_EndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupted"))
	r := New(&fakeEngine{}).Probe(ctx, Instance{Addr: netip.MustParseAddrPort("127.0.0.1:1")},
		spec.Health{Kind: spec.HealthHTTP, Timeout: spec.Duration(time.Minute)})
	if r.OK {
		t.Errorf("%+v", r)
	}
}

func TestLines_KeepsTheLastInOrder(t *testing.T) {
	l := &lines{max: 3}
	out, errs := l.stream(), l.stream()
	fmt.Fprint(out, "1\n2\npart")
	fmt.Fprint(errs, "3\n"+strings.Repeat("é", 2000)+"\n\n \x1b]0;title\x07\n")
	fmt.Fprint(out, "ial\n")
	fmt.Fprint(errs, "end")
	got := l.all()
	if len(got) != 3 || len(got[0]) > longestLine || !strings.HasSuffix(got[0], "é…") || got[1] != "partial" || got[2] != "end" {
		t.Errorf("%q", got)
	}
}

func TestClean_LeavesNothingForTerminals(t *testing.T) {
	for in, want := range map[string]string{
		"\x1b[31;1mred\x1b[0m":                     "red",
		"\x1b]8;;http://x\x1b\\link\x1b]8;;\x07":   "link",
		"\x1b[2J\x1b(B\x1bcx\x08\x7f\u202ey\u0085": "xy",
		"tab\there\r":      "tab here",
		"caf\xc3\xa9 \xff": "café \ufffd",
		"\x1b[38;5;1":      "38;5;1",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}
