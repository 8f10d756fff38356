package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/event"
	"conductor/internal/fault"
)

// watched is a server that answers, at a socket and at an address.
type watched struct {
	*Server
	path, address string
	alive         atomic.Bool
	client        *http.Client // of the socket
	end           func() error // ends it, and returns what Serve did
}

func serve(t *testing.T) *watched {
	t.Helper()
	w := &watched{path: filepath.Join(t.TempDir(), "s.sock")}
	w.Server = &Server{
		Status: func(_ context.Context, ids []string, _ bool) (any, error) {
			switch {
			case len(ids) > 0 && ids[0] == "nobody":
				return nil, fault.New(fault.ErrDefinition, "see the list", "unknown service %q", ids[0])
			case len(ids) > 0 && ids[0] == "gone":
				return nil, fault.New(fault.ErrUnreachable, "", "no engine")
			case len(ids) > 0 && ids[0] == "broken":
				return nil, errors.New("broken")
			}
			return append([]string{"<all>"}, ids...), nil
		},
		As:      "v1",
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "metrics 1") }),
		Alive:   w.alive.Load,
	}
	w.alive.Store(true)
	socket, err := Listen(w.path)
	if err != nil {
		t.Fatal(err)
	}
	at, err := ListenAt("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = at.Addr().String()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", w.path)
	}}
	w.client = &http.Client{Transport: transport}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Serve(ctx, socket, at) }()
	w.end = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := w.end(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func get(t *testing.T, c *http.Client, url string) (code int, body string) {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestServer_Answers(t *testing.T) {
	w := serve(t)
	for _, test := range []struct {
		path string
		code int
		body string
	}{
		{"/v1/status", 200, "[\n  \"<all>\"\n]\n"},
		{"/v1/status?id=shop&id=blog", 200, "[\n  \"<all>\",\n  \"shop\",\n  \"blog\"\n]\n"},
		{"/v1/status?id=nobody", 404, "{\n  \"error\": \"unknown service \\\"nobody\\\"\",\n  \"hint\": \"see the list\"\n}\n"},
		{"/v1/status?id=gone", 503, "{\n  \"error\": \"no engine\"\n}\n"},
		{"/v1/status?id=broken", 500, "{\n  \"error\": \"broken\"\n}\n"},
		{"/metrics", 200, "metrics 1\n"},
		{"/healthz", 200, "ok\n"},
		{"/", 404, "404 page not found\n"},
	} {
		if code, body := get(t, w.client, "http://conductor"+test.path); code != test.code || body != test.body {
			t.Errorf("%s: %d\n%s\nwant %d\n%s", test.path, code, body, test.code, test.body)
		}
	}
	// Nothing can be changed.
	r, err := w.client.Post("http://conductor/v1/status", "application/json", strings.NewReader("{}"))
	if err != nil || r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("%v, %v", r, err)
	}
	r.Body.Close()

	w.alive.Store(false)
	if code, body := get(t, w.client, "http://conductor/healthz"); code != 503 || body == "" {
		t.Errorf("a loop that stands still: %d %s", code, body)
	}
}

// At an address there is nothing that is for root alone.
func TestServer_TellsLessAtTheAddress(t *testing.T) {
	w := serve(t)
	for path, want := range map[string]int{"/metrics": 200, "/healthz": 200, "/v1/status": 404, "/v1/events": 404, "/": 404} {
		if code, _ := get(t, http.DefaultClient, "http://"+w.address+path); code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
	r, err := http.NewRequest("GET", "http://"+w.address+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Long", strings.Repeat("x", headerBytes+8<<10)) // net/http allows for 4 KB more
	answer, err := http.DefaultClient.Do(r)
	if err != nil || answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a long header: %v, %v", answer, err)
	}
	if err == nil {
		answer.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
}

func stream(t *testing.T, w *watched, query string) (*http.Response, *bufio.Reader) {
	t.Helper()
	r, err := w.client.Get("http://conductor/v1/events" + query)
	if err != nil || r.StatusCode != 200 {
		t.Fatalf("%v, %v", r, err)
	}
	t.Cleanup(func() { r.Body.Close() })
	return r, bufio.NewReader(r.Body)
}

func TestServer_StreamsEvents(t *testing.T) {
	w := serve(t)
	w.Publish(event.Event{Event: event.Note, Detail: "nobody hears this"})
	_, all := stream(t, w, "")
	_, shop := stream(t, w, "?id=shop")
	gone, _ := stream(t, w, "")
	gone.Body.Close()
	at := time.Date(2026, 1, 2, 13, 0, 0, 5, time.FixedZone("", 3600))
	w.Publish(event.Event{Time: at, Event: event.Created, Service: "blog", Cause: "a < b"})
	w.Publish(event.Event{Time: at, Event: event.Created, Service: "shop", Reason: "exited"})
	blog := `{"time":"2026-01-02T12:00:00.000000005Z","event":"created","service":"blog","cause":"a < b"}` + "\n"
	mine := `{"time":"2026-01-02T12:00:00.000000005Z","event":"created","service":"shop","reason":"exited"}` + "\n"
	for _, test := range []struct {
		from *bufio.Reader
		want string
	}{{all, blog}, {all, mine}, {shop, mine}} {
		if line, err := test.from.ReadString('\n'); err != nil || line != test.want {
			t.Errorf("%v %swant %s", err, line, test.want)
		}
	}
	// A clean end is told from being cut off.
	if err := w.end(); err != nil {
		t.Error(err)
	}
	for _, r := range []*bufio.Reader{all, shop} {
		if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
			t.Errorf("%q, %v", rest, err)
		}
	}
	w.Publish(event.Event{Event: event.Note}) // nobody hears it, and nobody minds
	if n := len(w.readers); n != 0 {
		t.Errorf("%d readers are left", n)
	}
}

// Whoever does not read is cut off; the others, and who publishes, do not notice.
func TestServer_CutsOffWhoIsSlow(t *testing.T) {
	w := serve(t)
	_, slow := stream(t, w, "")
	_, quick := stream(t, w, "")
	const events = 40 * backlog // more than all buffers between here and there hold
	read := make(chan int, 1)
	taken := make(chan struct{})
	go func() {
		n := 0
		for n < events {
			line, err := quick.ReadBytes('\n')
			if err != nil || !json.Valid(line) {
				break
			}
			if n++; n%(backlog/2) == 0 {
				taken <- struct{}{}
			}
		}
		read <- n
	}()
	longest := time.Duration(0)
	for n := range events {
		began := time.Now()
		w.Publish(event.Event{Time: began, Event: event.Note, Detail: strings.Repeat("x", 200)})
		longest = max(longest, time.Since(began))
		if (n+1)%(backlog/2) == 0 {
			<-taken // so that it is the other one that is slow
		}
	}
	if n := <-read; n != events {
		t.Errorf("the quick reader had %d of %d events", n, events)
	}
	if longest > writeTimeout/2 {
		t.Errorf("an event waited for %s", longest)
	}
	rest, err := io.ReadAll(slow)
	if err == nil || strings.Count(string(rest), "\n") >= events {
		t.Errorf("the slow reader had %d of %d events and was not told: %v", strings.Count(string(rest), "\n"), events, err)
	}
}

// Streams and answers that never come do not hold up the end.
func TestServer_EndsWithinASecond(t *testing.T) {
	w := serve(t)
	asked, let := make(chan struct{}), make(chan struct{})
	defer close(let)
	w.Status = func(context.Context, []string, bool) (any, error) { close(asked); <-let; return nil, nil }
	answered := make(chan error, 1)
	go func() {
		r, err := w.client.Get("http://conductor/v1/status")
		if err == nil {
			r.Body.Close()
		}
		answered <- err
	}()
	<-asked
	_, events := stream(t, w, "")
	idle, err := net.Dial("unix", w.path)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	began := time.Now()
	if err := w.end(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("the end took %s", took)
	}
	if err := <-answered; err == nil {
		t.Error("there was an answer")
	}
	if _, err := events.ReadByte(); err != io.EOF {
		t.Errorf("the stream: %v", err)
	}
	if _, err := os.Lstat(w.path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// pipes are a listener whose connections have no buffer and no network.
type pipes struct {
	come chan net.Conn
	gone chan struct{}
	once sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.come:
		return c, nil
	case <-p.gone:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.gone) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// A client that does not go on is left after a while, whatever it stopped at,
// and a stream on which nothing happens is not.
func TestServer_HasTimeouts(t *testing.T) {
	for _, test := range []struct {
		name, says string
		reads      bool // what is answered
		events     bool // happen
		after      time.Duration
	}{
		{"says nothing", "", true, false, readTimeout},
		{"has no end of its header", "GET /healthz HTTP/1.1\r\nHost: c\r\n", true, false, readTimeout},
		{"has no end of its body", "GET /healthz HTTP/1.1\r\nHost: c\r\nContent-Length: 9\r\n\r\n12", true, false, readTimeout},
		{"does not come again", "GET /healthz HTTP/1.1\r\nHost: c\r\n\r\n", true, false, idleTimeout},
		{"does not read its answer", "GET /healthz HTTP/1.1\r\nHost: c\r\n\r\n", false, false, answerTimeout},
		{"does not read its stream", "GET /v1/events HTTP/1.1\r\nHost: c\r\n\r\n", false, true, writeTimeout},
		{"hears nothing for a day", "GET /v1/events HTTP/1.1\r\nHost: c\r\n\r\n", true, false, 24 * time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Server{Alive: func() bool { return true }, Metrics: http.NotFoundHandler()}
				l := &pipes{come: make(chan net.Conn), gone: make(chan struct{})}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- s.Serve(ctx, l, nil) }()
				client, server := net.Pipe()
				l.come <- server
				began := time.Now()
				go func() {
					if _, err := io.WriteString(client, test.says); err != nil {
						return // it was left already
					}
					if test.events {
						synctest.Wait()
						s.Publish(event.Event{Event: event.Note})
					}
				}()
				left := make(chan time.Duration, 1)
				go func() {
					if test.reads {
						_, _ = io.Copy(io.Discard, client)
					} else {
						time.Sleep(test.after + time.Second)
						// What was written cannot be read any more.
						if n, err := client.Read(make([]byte, 1)); err == nil {
							t.Errorf("%d bytes were left to read", n)
						}
					}
					left <- time.Since(began)
				}()
				if test.after == 24*time.Hour {
					time.Sleep(test.after)
					select {
					case after := <-left:
						t.Errorf("left after %s", after)
					default:
					}
				} else if after := <-left; after > test.after+time.Second {
					t.Errorf("left after %s, want %s", after, test.after)
				}
				client.Close()
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestPulse_StandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Pulse{Within: time.Second}
		if p.Alive() {
			t.Error("it never beat")
		}
		p.Beat()
		time.Sleep(time.Second)
		if !p.Alive() {
			t.Error("it has beaten a second ago")
		}
		time.Sleep(time.Millisecond)
		if p.Alive() {
			t.Error("it stands still")
		}
	})
}

// Without listeners it waits for its end.
func TestServer_WithoutListeners(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := &Server{Metrics: http.NotFoundHandler()}
	if err := s.Serve(ctx, nil, nil); err != nil {
		t.Error(err)
	}
	w := httptest.NewRecorder()
	s.public().ServeHTTP(w, httptest.NewRequest("GET", "/v1/status", nil))
	if w.Code != 404 {
		t.Error(w.Code)
	}
}

func TestClient_AsksTheSupervisor(t *testing.T) {
	w := serve(t)
	ask := func(c Client, ids ...string) (all []string, ok bool) {
		ok = c.Status(t.Context(), &all, false, ids...)
		return all, ok
	}
	mine := Client{Path: w.path, As: "v1"}
	if all, ok := ask(mine, "shop", "a&b=c"); !ok || !slices.Equal(all, []string{"<all>", "shop", "a&b=c"}) {
		t.Errorf("%q, %v", all, ok)
	}
	for what, of := range map[string]struct {
		Client
		id string
	}{
		"another version":    {Client{Path: w.path, As: "v2"}, "shop"},
		"nobody is there":    {Client{Path: w.path + ".other", As: "v1"}, "shop"},
		"it fails":           {mine, "broken"},
		"an unknown service": {mine, "nobody"},
	} {
		if all, ok := ask(of.Client, of.id); ok {
			t.Errorf("%s: answered with %q", what, all)
		}
	}
	var other map[string]int
	if mine.Status(t.Context(), &other, false) {
		t.Errorf("an answer of another form: %v", other)
	}
}

// A stopped supervisor still has its socket, and takes connections.
func TestClient_DoesNotWaitForLong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	begun := time.Now()
	if (Client{Path: path, As: "v1"}).Status(t.Context(), &struct{}{}, false) {
		t.Error("answered by nobody")
	}
	if took := time.Since(begun); took < answerWithin || took > answerWithin+2*time.Second {
		t.Errorf("it took %s", took)
	}
}
