//go:build e2e

package nginx

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"conductor/internal/balancer"
	"conductor/internal/balancer/balancertest"
	"conductor/internal/fault"
	"conductor/internal/proxy/proxytest"
	"conductor/internal/session"
)

// rig is a real nginx before real web servers. Its upstream includes a file.
type rig struct {
	*proxytest.Nginx
	webs []*balancertest.Web
	port int
	file string
}

func start(t *testing.T) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "ct-balancer-") // workers that are www-data have to get through
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := &rig{port: balancertest.FreePort(t), file: filepath.Join(dir, "hosts")}
	var lines strings.Builder
	for _, name := range []string{"web1", "web2", "web3"} {
		w := balancertest.StartWeb(t, name)
		r.webs = append(r.webs, w)
		fmt.Fprintf(&lines, "server %s max_fails=0; # %s\n", w.Addr, name)
	}
	write(t, r.file, lines.String())
	if err := os.Mkdir(filepath.Join(dir, "conf.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "conf.d", "shop.conf"), fmt.Sprintf(`upstream shop {
    include %s;
    keepalive 64;
}
server {
    listen 127.0.0.1:%d;
    location / {
        proxy_pass http://shop;
        proxy_http_version 1.1;
        proxy_set_header Connection $next_connection;
        proxy_set_header Upgrade $http_upgrade;
    }
}
map $http_upgrade $next_connection { default upgrade; "" ""; }
`, r.file, r.port))
	r.Nginx = proxytest.StartNginx(t, dir)
	return r
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (r *rig) addr() string { return fmt.Sprintf("127.0.0.1:%d", r.port) }

func (r *rig) host() session.NginxBalancer {
	return session.NginxBalancer{Test: r.TestCommand(), Reload: r.ReloadCommand()}
}

// open returns an adapter that has four hosts; nginx knows three.
func (r *rig) open(t *testing.T) *Balancer {
	t.Helper()
	hosts := []balancer.Host{{Name: "web4", At: "192.0.2.4:80"}}
	for _, w := range r.webs {
		hosts = append(hosts, balancer.Host{Name: w.Name, At: w.Addr})
	}
	host := r.host()
	b, err := New(Config{File: r.file, Upstream: "shop", Hosts: hosts, Run: func(ctx context.Context, q balancer.FileRequest) (balancer.FileAnswer, error) {
		return host.Do(ctx, q)
	}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func state(t *testing.T, b balancer.Balancer) map[string]balancer.Server {
	t.Helper()
	s, err := b.State(t.Context())
	if err != nil {
		t.Fatalf("state: %v (%s)", err, fault.Hint(err))
	}
	return s
}

func set(t *testing.T, b balancer.Balancer, c balancer.Change) {
	t.Helper()
	if err := b.Set(t.Context(), c); err != nil {
		t.Fatalf("%s: %v (%s)", c, err, fault.Hint(err))
	}
}

// serving are the hosts that answer new connections, asked often enough for
// each that is in.
func (r *rig) serving(t *testing.T) string {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	seen := map[string]bool{}
	for range 60 {
		res, err := c.Get("http://" + r.addr() + "/")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("status %d, %v", res.StatusCode, err)
		}
		seen[string(body)] = true
	}
	var names []string
	for _, w := range r.webs {
		if seen[w.Name] {
			names = append(names, w.Name)
		}
	}
	return strings.Join(names, " ")
}

func TestBalancer_Conforms(t *testing.T) {
	balancertest.Suite(t, func(t *testing.T) balancertest.Subject {
		r := start(t)
		return balancertest.Subject{
			Balancer: r.open(t), Hosts: []string{"web1", "web2", "web3"}, Unknown: "web4",
			Reopen: func() balancer.Balancer { return r.open(t) },
			Stop:   r.Stop,
		}
	})
}

func TestSet_IsWhatNginxServes(t *testing.T) {
	r := start(t)
	b := r.open(t)
	for _, c := range []struct {
		change balancer.Change
		serve  string
	}{
		{balancer.Change{Drain: []string{"web1"}}, "web2 web3"},
		{balancer.Change{Admit: []string{"web1"}, Drain: []string{"web2"}, Away: []string{"web3"}}, "web1"},
		{balancer.Change{Admit: []string{"web2", "web3"}}, "web1 web2 web3"},
	} {
		set(t, b, c.change)
		if got := r.serving(t); got != c.serve {
			t.Errorf("%s: %s serve, want %s", c.change, got, c.serve)
		}
	}
	set(t, b, balancer.Change{Drain: []string{"web1"}})
	r.Restart()
	if got := r.serving(t); got != "web2 web3" || state(t, b)["web1"].In {
		t.Errorf("after a restart %s serve, and web1 is %+v", got, state(t, b)["web1"])
	}
}
