package load

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serve answers each connection with f, which gets the number of the
// connection, and returns the address.
func serve(t *testing.T, f func(n int64, c net.Conn, r *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var n atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			k := n.Add(1)
			go func() {
				defer c.Close()
				f(k, c, bufio.NewReader(c))
			}()
		}
	}()
	return l.Addr().String()
}

// readRequest reads one request without a body.
func readRequest(r *bufio.Reader) bool {
	req, err := http.ReadRequest(r)
	if err != nil {
		return false
	}
	io.Copy(io.Discard, req.Body)
	return true
}

const good = "HTTP/1.1 200 OK\r\nX-Revision: v1\r\nContent-Length: 2\r\n\r\nok"

// send sends n requests one after the other over one connection.
func send(cfg Config, n int) (ok, reopened int, errs []error) {
	c := newConn(cfg.withDefaults())
	defer c.close()
	for range n {
		a, err := c.do()
		reopened += a.reopened
		if err != nil {
			errs = append(errs, err)
		} else {
			ok++
		}
	}
	return ok, reopened, errs
}

func TestConn_Failures(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer string // then the connection is closed
		cfg    Config
		want   string // in the error; empty: a good answer
	}{
		{"good", good, Config{}, ""},
		{"closed without an answer", "", Config{}, "no answer"},
		{"closed in the status line", "HTTP/1.1 2", Config{}, "status line"},
		{"closed in the header", "HTTP/1.1 200 OK\r\nContent-Le", Config{}, "header: "},
		{"closed in the body", "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf", Config{}, "body after 4 bytes"},
		{"closed in a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf", Config{}, "body after"},
		{"closed before the last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfull\r\n", Config{}, "body after 4 bytes"},
		{"whole chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfull\r\n0\r\n\r\n", Config{}, ""},
		{"body until the end", "HTTP/1.0 200 OK\r\n\r\nall", Config{}, ""},
		{"early hints before the answer", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + good, Config{}, ""},
		{"502", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", Config{}, "status 502"},
		{"404 that is expected", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
			Config{Good: func(s int) bool { return s == 404 }}, ""},
		{"not HTTP", "SSH-2.0-OpenSSH_9.2 hello there\r\n", Config{}, "is not HTTP/1"},
		{"another body than was sent", good, Config{Method: "POST", Body: []byte("xx"), Echo: true}, "echo differs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := serve(t, func(_ int64, c net.Conn, r *bufio.Reader) {
				if readRequest(r) {
					io.WriteString(c, tt.answer)
				}
			})
			tt.cfg.Addr = addr
			_, _, errs := send(tt.cfg, 1)
			switch {
			case tt.want == "" && errs != nil:
				t.Errorf("failed: %v", errs)
			case tt.want != "" && errs == nil:
				t.Errorf("no failure, want %q", tt.want)
			case tt.want != "" && !strings.Contains(errs[0].Error(), tt.want):
				t.Errorf("failed with %q, want %q in it", errs[0], tt.want)
			}
		})
	}
}

func TestConn_ReopensWhatWasClosedWhileIdle(t *testing.T) {
	closedAll := make(chan struct{}, 8)
	addr := serve(t, func(_ int64, c net.Conn, r *bufio.Reader) {
		if readRequest(r) {
			io.WriteString(c, good)
		}
		c.Close()
		closedAll <- struct{}{}
	})
	c := newConn(Config{Addr: addr}.withDefaults())
	defer c.close()
	for i := range 3 {
		a, err := c.do()
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		if want := min(i, 1); a.reopened != want {
			t.Errorf("request %d reopened %d connections, want %d", i, a.reopened, want)
		}
		<-closedAll
		// The end has left the server; wait until it is here.
		c.net.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.r.Peek(1); err != io.EOF {
			t.Fatalf("peek: %v, want EOF", err)
		}
		c.r.Reset(c.net)
	}
}

func TestConn_NeverSendsTwice(t *testing.T) {
	// The server answers one request a connection and closes at the second
	// after reading it: a client that retries would get a good answer.
	var requests atomic.Int64
	addr := serve(t, func(_ int64, c net.Conn, r *bufio.Reader) {
		if readRequest(r) {
			requests.Add(1)
			io.WriteString(c, good)
		}
		if readRequest(r) {
			requests.Add(1)
		}
	})
	ok, reopened, errs := send(Config{Addr: addr}, 4)
	if ok != 2 || len(errs) != 2 || reopened != 0 {
		t.Errorf("ok %d, failed %d %v, reopened %d; want 2, 2, 0", ok, len(errs), errs, reopened)
	}
	if n := requests.Load(); n != 4 {
		t.Errorf("the server read %d requests, want 4", n)
	}
}

func TestConn_ConnectionCloseIsObeyed(t *testing.T) {
	addr := serve(t, func(_ int64, c net.Conn, r *bufio.Reader) {
		if readRequest(r) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		}
	})
	ok, reopened, errs := send(Config{Addr: addr}, 5)
	if ok != 5 || reopened != 0 || errs != nil {
		t.Errorf("ok %d, reopened %d, errors %v", ok, reopened, errs)
	}
}

func TestConn_UnaskedBytesAreAFailure(t *testing.T) {
	addr := serve(t, func(_ int64, c net.Conn, r *bufio.Reader) {
		if readRequest(r) {
			io.WriteString(c, good+good)
			readRequest(r)
		}
	})
	_, _, errs := send(Config{Addr: addr}, 2)
	if len(errs) != 1 {
		t.Errorf("errors %v, want one", errs)
	}
}

func TestRun_RefusedAndTimedOut(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	r := Run(t.Context(), Config{Addr: addr, Rate: 50, Duration: 100 * time.Millisecond})
	if r.Failed == 0 || r.OK != 0 || r.Reasons["dial: refused"] != r.Failed {
		t.Errorf("refused: %+v", r)
	}
	addr = serve(t, func(_ int64, c net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) })
	r = Run(t.Context(), Config{Addr: addr, Connections: 1, Rate: 100, Duration: 20 * time.Millisecond, Timeout: 30 * time.Millisecond})
	if r.Failed == 0 || r.Reasons["no answer: timed out"] != r.Failed {
		t.Errorf("timed out: %+v", r)
	}
}

// app is a server that echoes POSTs and names its revision.
func app(revision func() string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := revision()
		w.Header().Set("X-Revision", v)
		if r.Method == "POST" {
			b, err := io.ReadAll(r.Body) // all of it: HTTP/1.1 of net/http is half duplex
			if err == nil {
				w.Write(b)
			}
			return
		}
		fmt.Fprintf(w, "revision=%s\n", v)
	})
}

func TestRun_EveryWay(t *testing.T) {
	s := httptest.NewServer(app(func() string { return "v1" }))
	defer s.Close()
	addr := s.Listener.Addr().String()
	body := bytes.Repeat([]byte("0123456789"), 500)
	for _, rate := range []float64{500, 0} {
		for _, method := range []string{"GET", "POST"} {
			for _, fresh := range []bool{false, true} {
				t.Run(fmt.Sprintf("rate=%v,%s,new=%v", rate, method, fresh), func(t *testing.T) {
					cfg := Config{Addr: addr, Rate: rate, Method: method, NewConnections: fresh, Connections: 4, Duration: 200 * time.Millisecond}
					if method == "POST" {
						cfg.Body, cfg.Echo = body, true
					}
					r := Run(t.Context(), cfg)
					if r.Failed != 0 || r.OK != r.Sent || r.OK < 20 {
						t.Errorf("result:\n%s", r)
					}
					if most := int64(rate*r.Took.Seconds()) + 1; rate > 0 && r.Sent > most {
						t.Errorf("sent %d, want at most %d: it is an open loop", r.Sent, most)
					}
					if v, _ := r.Revision("v1"); v.Answers != r.OK {
						t.Errorf("revisions %+v", r.Revisions)
					}
				})
			}
		}
	}
}

func TestRun_TellsRevisionsApart(t *testing.T) {
	var n atomic.Int64
	s := httptest.NewServer(app(func() string {
		if n.Add(1) <= 10 {
			return "v1"
		}
		return "v2"
	}))
	defer s.Close()
	cfg := Config{
		Addr: s.Listener.Addr().String(), Connections: 2, Rate: 200, Duration: 200 * time.Millisecond,
		RevisionBody: regexp.MustCompile(`revision=(\w+)`), RevisionHeader: "X-Other",
	}
	r := Run(t.Context(), cfg)
	if len(r.Revisions) != 2 || r.Revisions[0].Name != "v1" || r.Revisions[0].Answers != 10 ||
		r.Revisions[1].Name != "v2" || !r.Revisions[1].First.After(r.Revisions[0].First) {
		t.Errorf("revisions %+v", r.Revisions)
	}
}

func TestRun_GapAndLatencyOfAStall(t *testing.T) {
	var stalled atomic.Bool
	const stall = 150 * time.Millisecond
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if stalled.CompareAndSwap(false, true) {
			<-time.After(stall)
		}
	}))
	defer s.Close()
	r := Run(t.Context(), Config{Addr: s.Listener.Addr().String(), Connections: 1, Rate: 100, Duration: 300 * time.Millisecond})
	if r.Failed != 0 {
		t.Fatalf("result:\n%s", r)
	}
	if r.Gap < stall || r.Max < stall {
		t.Errorf("gap %s, max %s, want at least %s", r.Gap, r.Max, stall)
	}
	// The requests that were due meanwhile waited too: that is what an open loop tells.
	if r.Late < 5 {
		t.Errorf("late %d: the stall is hidden", r.Late)
	}
}

func TestRunning_Stop(t *testing.T) {
	s := httptest.NewServer(app(func() string { return "v1" }))
	defer s.Close()
	l := Start(context.Background(), Config{Addr: s.Listener.Addr().String(), Rate: 1000})
	deadline := time.After(5 * time.Second)
	for l.Good() < 10 {
		select {
		case <-deadline:
			t.Fatal("no good answers")
		case <-time.After(time.Millisecond):
		}
	}
	r := l.Stop()
	if r.Failed != 0 || r.OK != l.Good() || r.Took > 10*time.Second {
		t.Errorf("result:\n%s", r)
	}
	if r := Run(t.Context(), Config{}); r.Failed != 1 {
		t.Errorf("a load without an address: %+v", r)
	}
}

func TestHistogram_Quantiles(t *testing.T) {
	var h histogram
	for i := 1; i <= 1000; i++ {
		h.add(time.Duration(i) * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 501 * time.Millisecond, 0.99: 991 * time.Millisecond, 1: time.Second} {
		if got := h.quantile(q); got < want || got > want*104/100 {
			t.Errorf("quantile %v = %s, want %s or up to 4%% more", q, got, want)
		}
	}
	for us := uint64(0); us < 1<<30; us = us*2 + 7 {
		if b := bucket(us); upper(b) < time.Duration(us)*time.Microsecond || b > 0 && upper(b-1) >= time.Duration(us)*time.Microsecond {
			t.Errorf("%d µs is in bucket %d, up to %s", us, b, upper(b))
		}
	}
}
