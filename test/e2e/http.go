//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// Answer is what came of one request; Err is set when none came.
type Answer struct {
	Status   int
	Header   http.Header
	Body     string
	Revision string
	Err      error
}

func (a Answer) String() string {
	if a.Err != nil {
		return a.Err.Error()
	}
	return fmt.Sprintf("%d %s %q", a.Status, a.Revision, a.Body)
}

// client opens a connection for each request, so that it never meets a stale
// one and never sends twice.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// get asks the address once.
func get(addr, path string) Answer {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+path, nil)
	if err != nil {
		return Answer{Err: err}
	}
	resp, err := client.Do(req)
	if err != nil {
		return Answer{Err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: string(b), Revision: resp.Header.Get("X-Revision"), Err: err}
}

// wantServes fails the test unless the address answers well with the revision.
func wantServes(t testing.TB, addr, revision string) {
	t.Helper()
	if a := get(addr, "/"); a.Err != nil || a.Status != 200 || a.Revision != revision {
		t.Errorf("%s answers %s, want %s", addr, a, revision)
	}
}

// later runs a request beside the test.
func later(addr, path string) <-chan Answer {
	c := make(chan Answer, 1)
	go func() { c <- get(addr, path) }()
	return c
}

// Stream is a WebSocket or an event stream that is read beside the test.
type Stream struct {
	mu       sync.Mutex
	messages []string
	last     time.Time
	cancel   context.CancelFunc
	ended    chan struct{} // closed at its end
	endedAt  time.Time
	err      error
	ws       *websocket.Conn
}

// openEvents opens an event stream and waits for its first event.
func openEvents(t testing.TB, addr string) *Stream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/events?tick=20ms", nil)
	must(t, err)
	resp, err := client.Do(req)
	must(t, err)
	s := &Stream{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer resp.Body.Close()
		r := bufio.NewReader(resp.Body)
		s.loop(func() (string, error) {
			for {
				line, err := r.ReadString('\n')
				if data, ok := strings.CutPrefix(line, "data: "); ok || err != nil {
					return strings.TrimSpace(data), err
				}
			}
		})
	}()
	s.begin(t)
	return s
}

// openWebSocket opens a WebSocket and waits for its first message.
func openWebSocket(t testing.TB, addr string) *Stream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c, _, err := websocket.Dial(ctx, "ws://"+addr+"/ws?tick=20ms", nil)
	must(t, err)
	s := &Stream{cancel: cancel, ended: make(chan struct{}), ws: c}
	go s.loop(func() (string, error) {
		_, b, err := c.Read(ctx)
		return string(b), err
	})
	s.begin(t)
	return s
}

func (s *Stream) begin(t testing.TB) {
	t.Helper()
	t.Cleanup(s.Close)
	eventually(t, 5*time.Second, "the stream's first message", func() bool { return s.Count() > 0 })
}

func (s *Stream) loop(next func() (string, error)) {
	defer close(s.ended)
	for {
		m, err := next()
		s.mu.Lock()
		if err != nil {
			s.err, s.endedAt = err, time.Now()
			s.mu.Unlock()
			return
		}
		s.messages = append(s.messages, m)
		s.last = time.Now()
		s.mu.Unlock()
	}
}

// Count is the number of messages so far.
func (s *Stream) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.messages)
}

// Alive waits until two more messages have come.
func (s *Stream) Alive(t testing.TB, what string) {
	t.Helper()
	n := s.Count()
	eventually(t, 2*time.Second, what+" ticks on", func() bool {
		select {
		case <-s.ended:
			t.Fatalf("%s has ended: %v", what, s.err)
		default:
		}
		return s.Count() >= n+2
	})
}

// Echo sends a message on a WebSocket and waits for its echo.
func (s *Stream) Echo(t testing.TB, text string) {
	t.Helper()
	must(t, s.ws.Write(context.Background(), websocket.MessageText, []byte(text)))
	eventually(t, 2*time.Second, "the echo", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, m := range s.messages {
			if m == "echo "+text {
				return true
			}
		}
		return false
	})
}

// Ended waits for its end and returns when that was.
func (s *Stream) Ended(t testing.TB, what string) time.Time {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(time.Minute):
		t.Fatalf("%s does not end", what)
	}
	return s.endedAt
}

// Close ends it from here.
func (s *Stream) Close() {
	s.cancel()
	<-s.ended
}

// echoLarge posts n bytes to /echo and counts what comes back.
func echoLarge(addr string, n int64) (int64, error) {
	resp, err := client.Post("http://"+addr+"/echo", "application/octet-stream", io.LimitReader(zeros{}, n))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("status %d", resp.StatusCode)
	}
	return io.Copy(io.Discard, resp.Body)
}

// zeros reads as zeros without end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
