//go:build e2e

package nginx

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"testing"
	"time"

	"conductor/internal/proxy"
	"conductor/internal/proxy/proxytest"
	"conductor/internal/spec"
)

func TestThin(t *testing.T) {
	dir := t.TempDir()
	os.Chmod(dir, 0o755)
	n := proxytest.StartNginx(t, dir, 21000)
	p := New(Config{ConfigDir: n.ConfigDir(), StateDir: t.TempDir(), Namespace: "conductor", Test: n.TestCommand(), Reload: n.ReloadCommand(), Admin: netip.MustParseAddrPort("127.0.0.1:21001")})
	ctx := context.Background()
	back := func(name string) proxy.Target {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, name, r.Method, r.RequestURI, r.Header) }))
		t.Cleanup(s.Close)
		return proxy.Target{Instance: name, Addr: netip.MustParseAddrPort(s.Listener.Addr().String()), Weight: 1}
	}
	a, b := back("a"), back("b")
	table := proxy.Table{Routes: []proxy.Route{{Service: "shop", HTTP: spec.HTTP{Path: "/", Listen: spec.Listen{Port: 21000}}, Targets: []proxy.Target{a}}}}
	fmt.Println(p.Observe(ctx))
	st := time.Now()
	fmt.Println(p.Check(ctx, table))
	fmt.Println("check", time.Since(st))
	st = time.Now()
	fmt.Println(p.Apply(ctx, table))
	fmt.Println("apply", time.Since(st))
	st = time.Now()
	fmt.Println(p.Observe(ctx))
	fmt.Println("observe", time.Since(st))
	get := func(m string) {
		r, _ := http.NewRequest(m, "http://127.0.0.1:21000/x%2Fy?z=1", nil)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		x, _ := io.ReadAll(resp.Body)
		fmt.Print(resp.Status, " ", string(x))
	}
	get("GET")
	get("POST")
	table.Routes[0].Targets = []proxy.Target{b}
	st = time.Now()
	fmt.Println(p.Apply(ctx, table))
	fmt.Println("switch", time.Since(st))
	st = time.Now()
	get("GET")
	get("POST")
	st = time.Now()
	fmt.Println(p.Apply(ctx, table))
	fmt.Println("noop", time.Since(st))
	st = time.Now()
	table.Routes[0].Targets = nil
	fmt.Println(p.Apply(ctx, table))
	get("GET")
	fmt.Println(p.Observe(ctx))
	x, _ := os.ReadFile(p.File())
	os.WriteFile("/tmp/nx.conf", x, 0o644)
	fmt.Println(n.ErrorLog())
}
