//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What a definition says never becomes configuration by itself.
func TestRules_NothingIsInjected(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, nil)
	good := e.read("services/shop.yml")
	unchanged(e, addr, func() {
		for _, host := range []string{"'a;b'", "'a{b'", `"a\nb"`, "'a b'", "'$host'"} {
			e.Service("evil", strings.Replace(good, "http: {", "http: {hosts: ["+host+"], ", 1))
			e.Upgrade("evil", "v2").Want(3, "evil.yml")
		}
	})
}

// Several services are upgraded at once; the proxy is one.
func TestRules_SeveralServicesAtOnce(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1", "v2")
	addrs := map[string]string{}
	for _, id := range []string{"a", "b", "c"} {
		addrs[id] = e.Web(id, nil)
	}
	for _, to := range []string{"v1", "v2", "v1"} {
		var ps []*Proc
		for id := range addrs {
			ps = append(ps, e.Start("service", "upgrade", "--id", id, "--revision", to))
		}
		for _, p := range ps {
			p.Wait().Want(0)
		}
		for id, addr := range addrs {
			if a := get(addr, "/"); a.Revision != to || a.Header.Get("X-Service") != id {
				t.Errorf("%s: %s %s, want %s", id, a, a.Header.Get("X-Service"), to)
			}
		}
	}
}

// The disk of the proxy's configuration is full: the old release serves on, and
// no instance of the new one is left.
func TestRules_ProxyDiskFull(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1", "v2")
	addr := e.Web("shop", nil)
	must(t, syscall.Mount("tmpfs", e.Nginx.ConfD(), "tmpfs", 0, "size=2m"))
	t.Cleanup(func() { syscall.Unmount(e.Nginx.ConfD(), syscall.MNT_DETACH) })
	e.Upgrade("shop", "v1").Want(0)
	filler := filepath.Join(e.Nginx.ConfD(), "filler")
	unchanged(e, addr, func() {
		fill(t, filler)
		e.Upgrade("shop", "v2").Want(9, "no space left")
		must(t, os.Remove(filler))
	})
	e.Upgrade("shop", "v2").Want(0)
	wantServes(t, addr, "v2")
}

// fill writes a file until there is no space.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	must(t, err)
	defer f.Close()
	for size := 64 << 10; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
}

// A namespace of any length that is allowed works.
func TestRules_LongNamespace(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1")
	addr := e.Web("shop", nil)
	long := e.Namespace + "_a-long-namespace_of-somebody-s"
	e.Config(map[string]string{"namespace": long})
	t.Cleanup(func() {
		if err := clearAll(e.ctx(), e.Engine, long); err != nil {
			t.Error(err)
		}
	})
	e.Upgrade("shop", "v1").Want(0)
	wantServes(t, addr, "v1")
}
