//go:build e2e

package nginx

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"conductor/internal/proxy/proxytest"
)

// Tests of this package share these loopback ports, so none is parallel.
const (
	httpPort  = 21000
	adminPort = 21001
	otherPort = 21002
)

// start returns a private nginx and its proxy, which has not applied anything.
func start(t *testing.T, ports ...int) (*proxytest.Nginx, *Proxy) {
	t.Helper()
	// Workers that are www-data have to get through to their folders.
	dir, err := os.MkdirTemp("", "conductor-nginx-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	n := proxytest.StartNginx(t, dir, ports...)
	return n, New(config(n, dir))
}

func config(n *proxytest.Nginx, dir string) Config {
	return Config{
		ConfigDir: n.ConfigDir(), StateDir: filepath.Join(dir, "state"), Namespace: "conductor",
		Test: n.TestCommand(), Reload: n.ReloadCommand(), Switch: "auto",
		Admin:        netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), adminPort),
		ProveTimeout: 3 * time.Second,
	}
}

// answers has something at the address that answers /STATUS with that status.
func answers(t *testing.T, addr netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		if err != nil {
			status = http.StatusOK
		}
		w.WriteHeader(status)
	}))
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
}

func TestProxy_Conforms(t *testing.T) {
	proxytest.Suite(t, func(t *testing.T) proxytest.Subject {
		n, p := start(t, httpPort)
		addrs := []netip.AddrPort{
			netip.MustParseAddrPort("127.0.0.1:21101"), netip.MustParseAddrPort("127.0.0.2:21101"), netip.MustParseAddrPort("[::1]:21101"),
		}
		for _, addr := range addrs {
			answers(t, addr)
		}
		return proxytest.Subject{
			Proxy: p, Port: httpPort, Addrs: addrs,
			Request: func(service string, status int) {
				get(t, fmt.Sprintf("%s/%d", base, status), "Host", service+".example.com")
			},
			Restart: n.Restart,
			Stop:    n.Stop,
			Break: func() func() {
				bad := filepath.Join(n.ConfigDir(), "bad.conf")
				if err := os.WriteFile(bad, []byte("no_such_directive on;\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				return func() { os.Remove(bad) }
			},
		}
	})
}
