//go:build e2e

package nginx

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"conductor/internal/fault"
	"conductor/internal/proxy"
	"conductor/internal/spec"
)

// backend is a target that runs.
func backend(t *testing.T, name string, h http.HandlerFunc) proxy.Target {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return target(name, s.Listener.Addr().String())
}

// named answers with its name.
func named(t *testing.T, name string) proxy.Target {
	return backend(t, name, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		fmt.Fprintf(w, "%s %s %s %d", name, r.Method, r.RequestURI, n)
	})
}

func target(name, addr string) proxy.Target {
	return proxy.Target{Instance: name, Addr: netip.MustParseAddrPort(addr), Weight: 1}
}

// shop is a table of one service for every host name.
func shop(targets ...proxy.Target) proxy.Table {
	return proxy.Table{Routes: []proxy.Route{{
		Service: "shop", HTTP: spec.HTTP{Path: "/", Listen: spec.Listen{Port: httpPort}}, Targets: targets,
	}}}
}

func mustApply(t *testing.T, p *Proxy, table proxy.Table) proxy.Change {
	t.Helper()
	c, err := p.Apply(t.Context(), table)
	if err != nil {
		t.Fatalf("apply: %v (%s)", err, fault.Hint(err))
	}
	return c
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func inFlight(t *testing.T, p *Proxy, of proxy.Target) int {
	t.Helper()
	o, err := p.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return o.InFlight[of.Addr]
}

var base = fmt.Sprintf("http://127.0.0.1:%d", httpPort)

// do sends one request over a connection of its own.
func do(t *testing.T, method, url string, body io.Reader, headers ...string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := (&http.Transport{DisableKeepAlives: true, DisableCompression: true}).RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return resp.StatusCode, string(b)
}

func get(t *testing.T, url string, headers ...string) (int, string) {
	t.Helper()
	return do(t, http.MethodGet, url, nil, headers...)
}

// client is an honest one: it never sends a request twice. A connection that
// it finds closed before it writes is no failure, one closed after is.
type client struct {
	keepAlive bool
	method    string
	conn      net.Conn
	in        *bufio.Reader
}

func (c *client) request() error {
	if c.conn != nil {
		_ = c.conn.SetReadDeadline(time.Now().Add(-time.Second))
		if _, err := c.in.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
			c.close()
		}
	}
	if c.conn == nil {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", httpPort))
		if err != nil {
			return err
		}
		c.conn, c.in = conn, bufio.NewReader(conn)
	}
	_ = c.conn.SetDeadline(time.Now().Add(10 * time.Second))
	body := ""
	if c.method == http.MethodPost {
		body = "quantity=2"
	}
	if _, err := fmt.Fprintf(c.conn, "%s /cart HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: %d\r\n\r\n%s", c.method, len(body), body); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("%s /cart %d", c.method, len(body)); resp.StatusCode != 200 || !strings.HasSuffix(string(text), want) {
		return fmt.Errorf("%s: %q, want %q", resp.Status, text, want)
	}
	if !c.keepAlive || resp.Close {
		c.close()
	}
	return nil
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
	}
	c.conn, c.in = nil, nil
}

// load runs clients until stop, and counts.
type load struct{ sent, failed atomic.Int64 }

func (l *load) run(t *testing.T, c client, done <-chan struct{}) {
	defer c.close()
	for {
		select {
		case <-done:
			return
		default:
		}
		l.sent.Add(1)
		if err := c.request(); err != nil {
			c.close()
			if l.failed.Add(1) < 5 {
				t.Errorf("%s, keep-alive %v: %v", c.method, c.keepAlive, err)
			}
		}
	}
}
