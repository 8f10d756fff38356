//go:build e2e

package nginx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conductor/internal/fault"
	"conductor/internal/proxy"
	"conductor/internal/spec"
)

// blog is a second service, whose coming is a change of routes.
func blog(port uint16, targets ...proxy.Target) proxy.Route {
	return proxy.Route{Service: "blog", HTTP: spec.HTTP{Hosts: []string{"blog.example.com"}, Path: "/", Listen: spec.Listen{Port: port}}, Targets: targets}
}

// says fails unless err is of the class and it or its hint has all words.
func says(t *testing.T, err, class error, words ...string) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Errorf("error %v, want one that is %v", err, class)
		return
	}
	text := err.Error() + "; " + fault.Hint(err)
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q does not say %q", text, word)
		}
	}
}

// untouched fails unless the file is as it was and the shop is served.
func untouched(t *testing.T, n interface{ ConfigDir() string }, before []byte, name string) {
	t.Helper()
	now, err := os.ReadFile(filepath.Join(n.ConfigDir(), "conductor.conf"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := parse(string(now))
	b, err2 := parse(string(before))
	if err != nil || err2 != nil || d.structure != b.structure || !d.peers.sameValues(b.peers) {
		t.Errorf("the file changed: %v, %v", err, err2)
	}
	if _, text := get(t, base+"/"); !strings.HasPrefix(text, name) {
		t.Errorf("%q answers, want %s", text, name)
	}
	files, err := os.ReadDir(n.ConfigDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name() != "conductor.conf" && f.Name() != "bad.conf" {
			t.Errorf("%s is left over", f.Name())
		}
	}
}

func TestProxy_OtherFileBrokenIsNamed(t *testing.T) {
	n, p := start(t)
	a, b := named(t, "a"), named(t, "b")
	mustApply(t, p, shop(a))
	before, _ := os.ReadFile(p.File())
	bad := filepath.Join(n.ConfigDir(), "bad.conf")
	if err := os.WriteFile(bad, []byte("\nserver { oops; }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, table := range []proxy.Table{shop(b), shop(a).With(blog(httpPort))} {
		says(t, p.Check(t.Context(), table), fault.ErrProxyRefused, bad+":2", "no file of Conductor's", "oops")
	}
	_, err := p.Apply(t.Context(), shop(a).With(blog(httpPort)))
	says(t, err, proxy.ErrRefused, bad+":2")
	untouched(t, n, before, "a")
	// Other targets need no reload, so the broken file does not hold them up.
	mustApply(t, p, shop(b))
	if _, text := get(t, base+"/"); !strings.HasPrefix(text, "b") {
		t.Errorf("%q answers, want b", text)
	}
}

func TestProxy_TakenPortIsNamed(t *testing.T) {
	n, p := start(t)
	a := named(t, "a")
	mustApply(t, p, shop(a))
	before, _ := os.ReadFile(p.File())
	l, err := net.Listen("tcp", "127.0.0.1:21002")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	more := shop(a).With(blog(otherPort))
	says(t, p.Check(t.Context(), more), fault.ErrProxyRefused, "21002", "nginx.test (PID")
	_, err = p.Apply(t.Context(), more)
	says(t, err, proxy.ErrRefused, "21002", "taken by")
	untouched(t, n, before, "a")

	// The port is free when it is looked at, and taken when nginx reads the
	// file: its test passes, its reload passes, and it goes on as before.
	l.Close()
	c := config(n, filepath.Dir(n.ConfigDir()))
	// The reload waits for the race to be decided.
	gate := filepath.Join(t.TempDir(), "gate")
	c.Reload = append([]string{"sh", "-c", `until [ -e "$0" ]; do sleep 0.01; done; exec "$@"`, gate}, c.Reload...)
	raced := make(chan net.Listener, 1)
	go func() {
		defer os.WriteFile(gate, nil, 0o644)
		for t.Context().Err() == nil {
			if b, err := os.ReadFile(p.File()); err == nil && strings.Contains(string(b), "blog") {
				l, err := net.Listen("tcp", "0.0.0.0:21002")
				if err != nil {
					t.Error(err)
				}
				raced <- l
				return
			}
		}
	}()
	_, err = New(c).Apply(t.Context(), more)
	if l := <-raced; l != nil {
		defer l.Close()
	}
	says(t, err, proxy.ErrRefused, "21002")
	untouched(t, n, before, "a")
	if o, err := p.Observe(t.Context()); err != nil || !o.Routes {
		t.Errorf("observe = %+v, %v; want the table before, proved", o, err)
	}
}

// A signal that had no effect, for no reason that is to be found, is sent again.
func TestProxy_LostReloadIsAskedForAgain(t *testing.T) {
	n, p := start(t)
	a := named(t, "a")
	mustApply(t, p, shop(a))
	c := config(n, filepath.Dir(n.ConfigDir()))
	asked := filepath.Join(t.TempDir(), "asked")
	c.Reload = append([]string{"sh", "-c", `if [ -e "$0" ]; then exec "$@"; fi; : >"$0"`, asked}, c.Reload...)
	mustApply(t, New(c), shop(a).With(blog(otherPort, named(t, "b"))))
	if _, err := os.Stat(asked); err != nil {
		t.Error(err)
	}
	if _, text := get(t, fmt.Sprintf("http://127.0.0.1:%d/", otherPort), "Host", "blog.example.com"); !strings.HasPrefix(text, "b") {
		t.Errorf("%q answers, want b", text)
	}
}

func TestProxy_MissingIncludeIsNamed(t *testing.T) {
	n, p := start(t)
	n.WriteConf(strings.Replace(n.Conf(), "conf.d/*.conf", "conf.d/*.other", 1))
	n.Reload()
	table := shop(named(t, "a"))
	says(t, p.Check(t.Context(), table), fault.ErrProxyRefused, "does not read "+p.File(), "include")
	_, err := p.Apply(t.Context(), table)
	says(t, err, proxy.ErrRefused, "does not read", "include")
	if _, err := os.Stat(p.File()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file is left over: %v", err)
	}
}

func TestProxy_NginxDownIsSaid(t *testing.T) {
	n, p := start(t)
	n.Stop()
	table := shop(named(t, "a"))
	says(t, p.Check(t.Context(), table), fault.ErrUnreachable, "start nginx")
	_, err := p.Apply(t.Context(), table)
	says(t, err, proxy.ErrUnreachable, "start nginx")
	if _, err := os.Stat(p.File()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file is left over: %v", err)
	}
	n.Start()
	mustApply(t, p, table)
}

func TestProxy_MissingModuleNamesThePackages(t *testing.T) {
	n, p := start(t)
	var lines []string
	for line := range strings.Lines(n.Conf()) {
		if !strings.HasPrefix(line, "load_module") {
			lines = append(lines, line)
		}
	}
	n.WriteConf(strings.Join(lines, ""))
	n.Restart()
	table := shop(named(t, "a"))
	for _, err := range []error{p.Check(t.Context(), table), func() error { _, err := p.Apply(t.Context(), table); return err }()} {
		says(t, err, proxy.ErrUnsupported, "apt-get install -y libnginx-mod-http-lua lua-resty-core")
		says(t, err, fault.ErrHost)
	}
}

func TestProxy_InterruptedReloadRestores(t *testing.T) {
	n, p := start(t)
	a := named(t, "a")
	mustApply(t, p, shop(a))
	before, _ := os.ReadFile(p.File())
	cause := fault.New(fault.ErrInterrupted, "", "interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	c := config(n, filepath.Dir(n.ConfigDir()))
	q := New(c)
	go func() { // while the reload is being proved
		for ctx.Err() == nil {
			if b, err := os.ReadFile(p.File()); err == nil && strings.Contains(string(b), "blog") {
				cancel(cause)
			}
		}
	}()
	_, err := q.Apply(ctx, shop(a).With(blog(httpPort)))
	cancel(nil)
	if err == nil {
		t.Fatal("an interrupted Apply says that it is done")
	}
	if !errors.Is(err, fault.ErrInterrupted) && !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the interruption", err)
	}
	untouched(t, n, before, "a")
	if o, err := p.Observe(t.Context()); err != nil || !o.Routes {
		t.Errorf("observe = %+v, %v; want the table before, proved", o, err)
	}
}

func TestProxy_HandEditedOrTornFileIsPutRight(t *testing.T) {
	n, p := start(t)
	a := named(t, "a")
	mustApply(t, p, shop(a))
	good, err := os.ReadFile(p.File())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"edited": strings.Replace(string(good), "client_max_body_size 0", "client_max_body_size 1", 1),
		"torn":   string(good[:len(good)/2]),
		"peers":  strings.Replace(string(good), "a@127", "b@127", 1),
		"empty":  "",
	} {
		if err := os.WriteFile(p.File(), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if o, err := p.Observe(t.Context()); err != nil || o.Routes {
			t.Errorf("%s: observe = %+v, %v; want no proof of the file", name, o, err)
		}
		if c := mustApply(t, p, shop(a)); !c.Written || c.Reloaded {
			t.Errorf("%s: change = %+v, want written, not reloaded", name, c)
		}
		untouched(t, n, good, "a")
	}
}

func TestProxy_AdminNeedsTheToken(t *testing.T) {
	_, p := start(t)
	mustApply(t, p, shop(named(t, "a")))
	url := "http://127.0.0.1:21001/"
	for _, token := range []string{"", "x", strings.Repeat("0", 64)} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if status, text := do(t, method, url, strings.NewReader("boot 0\ngeneration 9\nend\n"), "X-Conductor-Token", token); status != 403 || text != "no\n" {
				t.Errorf("%s with token %q: %d %q", method, token, status, text)
			}
		}
	}
	info, err := os.Stat(filepath.Join(p.c.StateDir, "proxy", "admin.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the token's file: %v, %v; want mode 0600", info, err)
	}
	a, err := p.admin(false)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(p.File()); strings.Contains(string(text), a.token) {
		t.Error("the token is in nginx's file")
	}
	st, err := a.ask(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.set(t.Context(), "00", peers{generation: st.generation + 1}); err == nil {
		t.Error("peers for another boot were taken")
	}
	if _, err := a.set(t.Context(), st.boot, peers{generation: st.generation - 1}); err == nil {
		t.Error("peers of an older generation were taken")
	}
}

func TestProxy_RefusesTheReloadModeYet(t *testing.T) {
	c := Config{Switch: "reload", Namespace: "conductor", Admin: netip.MustParseAddrPort("127.0.0.1:0")}
	_, err := New(c).Observe(t.Context())
	says(t, err, proxy.ErrUnsupported, "libnginx-mod-http-lua")
}
