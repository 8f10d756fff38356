//go:build e2e

package nginx

import (
	"net/netip"
	"os"
	"path/filepath"
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

func TestProxy_Conforms(t *testing.T) {
	proxytest.Suite(t, func(t *testing.T) proxytest.Subject {
		n, p := start(t, httpPort)
		return proxytest.Subject{
			Proxy: p, Port: httpPort,
			Addrs: []netip.AddrPort{
				netip.MustParseAddrPort("127.0.0.1:21101"), netip.MustParseAddrPort("127.0.0.2:21101"), netip.MustParseAddrPort("[::1]:21101"),
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
