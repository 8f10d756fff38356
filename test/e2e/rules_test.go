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

// A secret is nowhere to be read but in its container.
func TestRules_SecretsAreNotTold(t *testing.T) {
	t.Parallel()
	const value = "s3cr3t-value"
	e, addr := serving(t, nil)
	e.write("secret", value+"\n")
	e.Service("shop", e.read("services/shop.yml")+
		"secrets: {DB: {file: "+e.Path("secret")+"}, KEY: {file: "+e.Path("secret")+", as: file}}\n")
	if r := e.Upgrade("shop", "v2").Want(0); strings.Contains(r.Text(), value) {
		t.Errorf("it is told: %s", r)
	}
	wantServes(t, addr, "v2")
	for _, pattern := range []string{"state/goals/*", "state/routes.json", "state/history.db*"} {
		files, err := filepath.Glob(e.Path(pattern))
		must(t, err)
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), value) {
				t.Errorf("it is in %s", f)
			}
		}
	}
	for _, c := range e.Containers("shop") {
		for k, v := range c.Labels {
			if strings.Contains(v, value) {
				t.Errorf("it is in the label %s", k)
			}
		}
	}
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

// The events of each instance come in the contract's order.
func TestRules_OrderOfEvents(t *testing.T) {
	t.Parallel()
	e, _ := serving(t, nil)
	r := e.Upgrade("shop", "v2").Want(0)
	if r.Result == nil || r.Result.OK == nil || !*r.Result.OK || r.Result.Code != 0 {
		t.Errorf("the last line is no good result: %s", r)
	}
	of := map[string][]string{}
	for _, v := range r.Events {
		if v.Instance != "" {
			of[v.Instance] = append(of[v.Instance], v.Event)
			if v.Service != "shop" || len(v.Container) != 64 || v.Time.IsZero() {
				t.Errorf("incomplete event: %+v", v)
			}
		}
	}
	for name, events := range of {
		want := "unrouted drained stopped removed"
		if strings.Contains(name, ".v2.") {
			want = "created started healthy configured routed"
		}
		if got := strings.Join(events, " "); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if len(of) != 4 {
		t.Errorf("%d instances took part, want 4", len(of))
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
