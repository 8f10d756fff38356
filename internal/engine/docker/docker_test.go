package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"conductor/internal/engine"
	"conductor/internal/fault"
)

// speak returns an engine that a handler plays, whose API is version 1.41.
func speak(t *testing.T, h http.HandlerFunc) *Engine {
	t.Helper()
	path := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path != "/_ping" {
			h(w, r)
		}
	})}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	e, err := New("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = e.Close()
		_ = srv.Close()
		<-done
	})
	return e
}

func TestNew_Host(t *testing.T) {
	for _, c := range []struct{ host, env, want string }{
		{"unix:///a/b.sock", "unix:///c.sock", "unix:///a/b.sock"},
		{"", "unix:///c.sock", "unix:///c.sock"},
		{"tcp://192.0.2.1:2375", "", ""},
		{"", "ssh://host", ""},
		{"unix://relative.sock", "", ""},
		{"/var/run/docker.sock", "", ""},
	} {
		t.Setenv("DOCKER_HOST", c.env)
		e, err := New(c.host)
		switch {
		case c.want == "" && (!errors.Is(err, fault.ErrUsage) || fault.Hint(err) == ""):
			t.Errorf("%q, %q: got %v", c.host, c.env, err)
		case c.want != "" && (err != nil || e.endpoint != c.want):
			t.Errorf("%q, %q: got %v", c.host, c.env, err)
		}
	}
}

func TestUsualSocket_FindsPodman(t *testing.T) {
	dir := t.TempDir()
	if got := usualSocket(dir); !strings.HasSuffix(got, ".sock") {
		t.Errorf("got %s", got)
	}
}

func TestEngine_DeadSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "docker.sock")
	check := func(t *testing.T) {
		e, err := New("unix://" + path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = e.Info(t.Context())
		if !errors.Is(err, engine.ErrUnreachable) || !errors.Is(err, fault.ErrUnreachable) || fault.Hint(err) == "" || !strings.Contains(err.Error(), path) {
			t.Errorf("info: %v", err)
		}
		for name, err := range map[string]error{
			"start": e.Start(t.Context(), "x"), "remove": e.Remove(t.Context(), "x"),
			"events": e.Events(t.Context(), nil, func() { t.Error("ready") }, nil),
		} {
			if !errors.Is(err, engine.ErrUnreachable) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	t.Run("missing", check)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	t.Run("nobody listens", check)
}

func TestEngine_ErrorsAreMapped(t *testing.T) {
	type call func(context.Context, *Engine) error
	start := func(ctx context.Context, e *Engine) error { return e.Start(ctx, "shop.v1") }
	stop := func(ctx context.Context, e *Engine) error { return e.Stop(ctx, "shop.v1", time.Second) }
	create := func(ctx context.Context, e *Engine) error {
		_, err := e.Create(ctx, engine.Create{Name: "shop.v1", Image: "sha256:1"})
		return err
	}
	for _, c := range []struct {
		call    call
		status  int
		message string
		want    []error
		text    string // the end of it
	}{
		{start, 404, "No such container: shop.v1", []error{engine.ErrNotFound}, "start container shop.v1: not found: No such container: shop.v1"},
		{start, 404, "network conductor not found", []error{engine.ErrCannotRun}, "cannot be started: network conductor not found"},
		{start, 403, "Address already in use", []error{engine.ErrCannotRun}, "cannot be started: Address already in use"},
		{start, 400, `OCI runtime create failed: container_linux.go:380: starting container process caused: exec: "x": executable file not found in $PATH: unknown`,
			[]error{engine.ErrCannotRun}, `cannot be started: exec: "x": executable file not found in $PATH`},
		{start, 400, `failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: error mounting "/a" to rootfs at "/b": not a directory: unknown`,
			[]error{engine.ErrCannotRun}, `cannot be started: error mounting "/a" to rootfs at "/b": not a directory`},
		{start, 400, `failed to create shim: OCI runtime create failed: container_linux.go:380: starting container process caused: process_linux.go:545: container init caused: rootfs_linux.go:76: mounting "/a" caused: not a directory: unknown`,
			[]error{engine.ErrCannotRun}, `cannot be started: mounting "/a" caused: not a directory`},
		{start, 500, "mkdir /var/lib/docker/overlay2/x: no space left on device", []error{engine.ErrNoSpace, fault.ErrHost}, "no space left on device"},
		{start, 500, `connection error: desc = "transport: error while dialing: dial unix /run/containerd/containerd.sock: connect: connection refused"`,
			[]error{engine.ErrUnreachable, fault.ErrUnreachable}, ""},
		{start, 503, "the daemon is not ready", []error{engine.ErrUnreachable}, ""},
		{stop, 500, "cannot stop container: shop.v1: PID 7 is a zombie", nil, "stop container shop.v1: PID 7 is a zombie"},
		{stop, 304, "", nil, "-"},
		{create, 409, `Conflict. The container name "/shop.v1" is already in use by container "1".`, []error{engine.ErrConflict}, ""},
		{create, 404, "No such image: sha256:1", []error{engine.ErrNotFound}, ""},
		{create, 400, `invalid mount config for type "bind": bind source path does not exist: /x`, []error{engine.ErrCannotRun}, "does not exist: /x"},
		{create, 500, "write /var/lib/docker/x: disk quota exceeded", []error{engine.ErrNoSpace}, ""},
		{create, 400, "Minimum memory limit allowed is 6MB", nil, "create container shop.v1: Minimum memory limit allowed is 6MB"},
	} {
		e := speak(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			if c.message != "" {
				fmt.Fprintf(w, `{"message":%q}`, c.message)
			}
		})
		err := c.call(t.Context(), e)
		if c.text == "-" {
			if err != nil {
				t.Errorf("%d: got %v", c.status, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s: no error", c.message)
			continue
		}
		for _, known := range []error{
			engine.ErrNotFound, engine.ErrConflict, engine.ErrUnreachable, engine.ErrNoSpace, engine.ErrCannotRun,
		} {
			wanted := false
			for _, w := range c.want {
				wanted = wanted || w == known
			}
			if errors.Is(err, known) != wanted {
				t.Errorf("%s: is %v: %t, got %v", c.message, known, !wanted, err)
			}
		}
		for _, w := range c.want {
			if !errors.Is(err, w) {
				t.Errorf("%s: got %v, want %v", c.message, err, w)
			}
		}
		if !strings.HasSuffix(err.Error(), c.text) {
			t.Errorf("got  %v\nwant …%s", err, c.text)
		}
	}
}

func TestEngine_AnswerIsLost(t *testing.T) {
	e := speak(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	for name, err := range map[string]error{
		"start": e.Start(t.Context(), "x"), "stop": e.Stop(t.Context(), "x", 0), "remove": e.Remove(t.Context(), "x"),
	} {
		if !errors.Is(err, engine.ErrUnreachable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	torn := speak(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `[{"Id":"1"`)
	})
	if _, err := torn.List(t.Context(), nil); !errors.Is(err, engine.ErrUnreachable) {
		t.Errorf("list: %v", err)
	}
}

func TestEngine_AgreesAgainAfterAFailure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "docker.sock")
	e, err := New("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context(), "x"); !errors.Is(err, engine.ErrUnreachable) {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var asked []string
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		w.Header().Set("Api-Version", "1.41")
		if r.URL.Path != "/_ping" {
			w.WriteHeader(http.StatusNoContent)
		}
	})}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	for range 2 {
		if err := e.Start(t.Context(), "x"); err != nil {
			t.Error(err)
		}
	}
	_ = e.Close()
	_ = srv.Close()
	<-done
	if want := "[/_ping /v1.41/containers/x/start /v1.41/containers/x/start]"; fmt.Sprint(asked) != want {
		t.Errorf("asked %v, want %s", asked, want)
	}
}

func TestEngine_EventsBreak(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) }) // after the engines are closed
	e := speak(t, func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("since") == "" || !strings.Contains(r.FormValue("filters"), `"a=b"`) {
			t.Errorf("asked for %s", r.URL.RawQuery)
		}
		_, _ = io.WriteString(w, `{"Type":"container","Action":"die","Actor":{"ID":"1","Attributes":{"name":"shop","image":"i","exitCode":"3","a":"b"}},"timeNano":5000000007}`)
	})
	ready := 0
	var got []engine.Event
	err := e.Events(t.Context(), map[string]string{"a": "b"}, func() { ready++ }, func(e engine.Event) { got = append(got, e) })
	if !errors.Is(err, engine.ErrUnreachable) || ready != 1 || len(got) != 1 {
		t.Fatalf("got %v, ready %d times, %v", err, ready, got)
	}
	if g := got[0]; g.Action != "die" || g.ID != "1" || g.Name != "shop" || !g.Time.Equal(time.Unix(5, 7)) || fmt.Sprint(g.Labels) != "map[a:b]" {
		t.Errorf("%+v", g)
	}

	refused := speak(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	err = refused.Events(t.Context(), nil, func() { t.Error("ready, but refused") }, nil)
	if !errors.Is(err, engine.ErrUnreachable) {
		t.Error(err)
	}
}

func TestEngine_PullErrorInTheStream(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	for _, c := range []struct {
		message string
		want    error
	}{
		{"write /var/lib/docker/tmp/x: no space left on device", engine.ErrNoSpace},
		{"pull access denied for shop, repository does not exist or may require 'docker login'", engine.ErrNotFound},
		{"manifest for shop:v9 not found: manifest unknown", engine.ErrNotFound},
		{"unexpected EOF", fault.ErrImage},
		{"dial tcp 192.0.2.1:443: connect: connection refused", fault.ErrImage},
	} {
		e := speak(t, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"status":"Pulling"}`+"\n"+`{"errorDetail":{"message":%q},"error":%q}`+"\n", c.message, c.message)
		})
		if _, err := e.Pull(t.Context(), "r.example.com/shop:v9"); !errors.Is(err, c.want) || errors.Is(err, engine.ErrUnreachable) {
			t.Errorf("%s: got %v", c.message, err)
		}
	}
}

func TestEngine_StopSendsWholeSeconds(t *testing.T) {
	for _, c := range []struct {
		grace time.Duration
		want  string
	}{{-time.Second, "0"}, {0, "0"}, {time.Millisecond, "1"}, {time.Second, "1"}, {1001 * time.Millisecond, "2"}, {10 * time.Second, "10"}} {
		var got string
		e := speak(t, func(w http.ResponseWriter, r *http.Request) {
			got = r.FormValue("t")
			w.WriteHeader(http.StatusNoContent)
		})
		if err := e.Stop(t.Context(), "x", c.grace); err != nil || got != c.want {
			t.Errorf("%s: sent %q, want %q (%v)", c.grace, got, c.want, err)
		}
	}
}

func TestEngine_TwoNetworksOfOneName(t *testing.T) {
	e := speak(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `[{"Name":"n","Id":"111111111111aa","Driver":"bridge","IPAM":{"Config":[{"Subnet":"10.1.0.0/20"}]}},
			{"Name":"n","Id":"222222222222bb","Driver":"bridge","IPAM":{"Config":[{"Subnet":"10.2.0.0/20"}]}}]`)
	})
	_, err := e.Network(t.Context(), "n", netip.Prefix{}, nil)
	if !errors.Is(err, engine.ErrConflict) || !strings.Contains(err.Error(), "111111111111") || !strings.Contains(err.Error(), "222222222222") {
		t.Errorf("got %v", err)
	}
}
