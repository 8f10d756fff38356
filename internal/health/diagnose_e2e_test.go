//go:build e2e

package health_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"conductor/internal/engine"
	"conductor/internal/engine/docker"
	"conductor/internal/health"
	"conductor/internal/spec"
	"conductor/test/image"
)

const socket = "/var/run/docker.sock"

// host is a real engine with a network and an image for one test.
type host struct {
	*docker.Engine
	network, image string
	labels         map[string]string
	n              int
}

func newHost(t *testing.T) *host {
	t.Helper()
	ctx := t.Context()
	id := fmt.Sprintf("ct-health-%d", os.Getpid())
	h := &host{network: id, labels: map[string]string{"ct-health-test": id}}
	e, err := docker.New("unix://" + socket)
	must(t, err)
	h.Engine = e
	_, err = e.Info(ctx)
	must(t, err)

	binary := filepath.Join(t.TempDir(), "app")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "conductor/test/app")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the application: %v\n%s", err, out)
	}
	raw := image.NewEngine(socket)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cs, err := raw.Containers(ctx, "ct-health-test="+id)
		if err != nil {
			t.Error(err)
		}
		for _, c := range cs {
			if err := raw.RemoveContainer(ctx, c.ID); err != nil {
				t.Error(err)
			}
		}
		if err := raw.RemoveNetwork(ctx, id); err != nil {
			t.Error(err)
		}
		if err := raw.RemoveImage(ctx, id+":v1"); err != nil {
			t.Error(err)
		}
	})
	must(t, raw.Import(ctx, id+":v1", image.Image{Binary: binary}))
	i, err := e.Image(ctx, id+":v1")
	must(t, err)
	h.image = i.ID
	_, err = e.Network(ctx, h.network, netip.Prefix{}, h.labels)
	must(t, err)
	return h
}

// run creates and starts a container. startErr is what the start said.
func (h *host) run(t *testing.T, c spec.Container, env ...string) (i health.Instance, startErr error) {
	t.Helper()
	h.n++
	c.Init = false
	id, err := h.Create(t.Context(), engine.Create{
		Name: fmt.Sprintf("%s-%d", h.network, h.n), Image: h.image, Labels: h.labels, Network: h.network, Env: env, Spec: c,
	})
	must(t, err)
	startErr = h.Start(t.Context(), id)
	e, err := h.Inspect(t.Context(), id)
	must(t, err)
	return health.Instance{Name: e.Name, Container: id, Addr: netip.AddrPortFrom(e.Address, 8080),
		Host: "shop.example.com", Proto: "http", StartedAt: e.StartedAt, Memory: c.Limits.Memory}, startErr
}

// fail probes until the application said that it is up, or has ended, and diagnoses.
func (h *host) fail(t *testing.T, i health.Instance, check spec.Health, up func(engine.Container, *health.Result) bool) health.Diagnosis {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var last *health.Result
	var c engine.Container
	watchCtx, enough := context.WithCancel(ctx)
	defer enough()
	health.Watch(watchCtx, health.New(h.Engine), i, check, func(r health.Result) {
		if r.OK {
			t.Errorf("it is well: %+v", r)
		}
		last = &r
		var err error
		c, err = h.Inspect(ctx, i.Container)
		if err != nil || up(c, last) {
			enough()
		}
	})
	if ctx.Err() != nil {
		t.Fatalf("never came: container %+v, last answer %+v", c, last)
	}
	return health.Diagnose(t.Context(), h.Engine, i, check, last, c)
}

func TestDiagnose_RealContainers(t *testing.T) {
	h := newHost(t)
	get := spec.Health{Kind: spec.HealthHTTP, Path: "/health", StatusMin: 200, StatusMax: 299,
		Interval: spec.Duration(time.Second), Timeout: spec.Duration(2 * time.Second), StartTimeout: spec.Duration(time.Minute)}
	logged := func(what string) func(engine.Container, *health.Result) bool {
		return func(c engine.Container, _ *health.Result) bool {
			var b strings.Builder
			if err := h.Logs(t.Context(), c.ID, engine.LogOptions{}, &b, &b); err != nil {
				t.Error(err)
			}
			return strings.Contains(b.String(), what)
		}
	}
	answered := func(_ engine.Container, r *health.Result) bool { return r.Status != 0 }
	exited := func(c engine.Container, _ *health.Result) bool { return c.State == engine.Exited }
	any := func(engine.Container, *health.Result) bool { return true }
	tcp := get
	tcp.Kind, tcp.Port = spec.HealthTCP, 5432
	check := get
	check.Kind, check.Command = spec.HealthCommand, []string{"/app", "fail"}

	for _, test := range []struct {
		name  string
		env   []string
		spec  spec.Container
		check spec.Health
		up    func(engine.Container, *health.Result) bool
		want  []string // of the summary
		log   string   // the last line of it
	}{
		{"never listens", []string{"LISTEN=none"}, spec.Container{}, get, logged("starts"),
			[]string{"GET :8080/health: connection refused; the container listens on nothing after "}, "starts"},
		{"another port", []string{"PORT=3000"}, spec.Container{}, get, logged("listens"),
			[]string{"GET :8080/health: connection refused; the container listens on [::]:3000: set http.port: 3000"}, ":3000"},
		{"another port, tcp", []string{"PORT=3000", "LISTEN=::"}, spec.Container{}, tcp, logged("listens"),
			[]string{"tcp :5432: connection refused; the container listens on [::]:3000: set health.tcp: 3000"}, ":3000"},
		{"loopback", []string{"LISTEN=127.0.0.1"}, spec.Container{}, get, logged("listens"),
			[]string{"GET :8080/health: connection refused; the container listens on 127.0.0.1:8080 only: bind 0.0.0.0 (or ::)"}, ":8080"},
		{"loopback of IPv6", []string{"LISTEN=::1"}, spec.Container{}, get, exited, // the network has no IPv6
			[]string{"exited 1 a", "cannot assign requested address: bind 0.0.0.0"}, ""},
		{"500", []string{"STATUS=500"}, spec.Container{}, get, answered,
			[]string{"GET :8080/health: 500 Internal Server Error: undefined method 'name' for nil"}, ":8080"},
		{"redirect", []string{"REDIRECT=https://shop.example.com/"}, spec.Container{}, get, answered,
			[]string{"GET :8080/health: 301 to https://shop.example.com/: set health.headers: {X-Forwarded-Proto: https}"}, ":8080"},
		{"exits at once", []string{"EXIT_AT_START=3"}, spec.Container{}, get, exited,
			[]string{"exited 3 a", ", log: app: cannot reach the database at db.internal:5432"}, ""},
		{"out of memory", []string{"HOG=256m"}, spec.Container{Limits: spec.Limits{Memory: 64 << 20}}, get, exited,
			[]string{"killed by ", "out of memory, limits.memory is 64 MiB"}, "starts"},
		{"command", nil, spec.Container{}, check, any,
			[]string{"/app: exit 1: app: told to fail"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			i, err := h.run(t, test.spec, test.env...)
			must(t, err)
			d := h.fail(t, i, test.check, test.up)
			for _, want := range test.want {
				if !strings.Contains(d.Summary, want) {
					t.Errorf("got  %s\nwant %s", d.Summary, want)
				}
			}
			if test.log != "" && (len(d.Log) == 0 || !strings.Contains(d.Log[len(d.Log)-1], test.log)) {
				t.Errorf("log %q does not end with %q", d.Log, test.log)
			}
			if d.Hint == "" || len(d.Lines) == 0 {
				t.Errorf("%+v", d)
			}
			t.Logf("%s\nhint: %s\n%s", d.Summary, d.Hint, strings.Join(d.Lines, "\n"))
		})
	}

	t.Run("killed by a signal", func(t *testing.T) {
		i, err := h.run(t, spec.Container{}, "LISTEN=none")
		must(t, err)
		must(t, h.Kill(t.Context(), i.Container, "SIGSEGV"))
		d := h.fail(t, i, get, exited)
		// Go's runtime turns an outside SIGSEGV into exit code 2 and a trace.
		if !strings.Contains(d.Summary, "killed by SIGSEGV after ") && !strings.Contains(d.Summary, "exited 2 after ") {
			t.Error(d.Summary)
		}
		i, err = h.run(t, spec.Container{}, "LISTEN=none")
		must(t, err)
		must(t, h.Kill(t.Context(), i.Container, "SIGKILL"))
		if d := h.fail(t, i, get, exited); !strings.HasPrefix(d.Summary, "killed by SIGKILL after ") {
			t.Error(d.Summary)
		}
	})

	t.Run("missing command", func(t *testing.T) {
		i, err := h.run(t, spec.Container{Command: []string{"bin/server"}})
		if err == nil {
			t.Fatal("it started")
		}
		c, err := h.Inspect(t.Context(), i.Container)
		must(t, err)
		d := health.Diagnose(t.Context(), h.Engine, i, get, nil, c)
		if !strings.HasPrefix(d.Summary, "it cannot be started: ") || !strings.Contains(d.Summary, "set command to one that the image has") {
			t.Errorf("%s\n%+v", d.Summary, c)
		}
		t.Logf("%s\nhint: %s", d.Summary, d.Hint)
	})

	t.Run("well", func(t *testing.T) {
		i, err := h.run(t, spec.Container{})
		must(t, err)
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		well := false
		health.Watch(ctx, health.New(h.Engine), i, get, func(r health.Result) {
			if well = r.OK; well {
				cancel()
			}
		})
		if !well {
			t.Fatal("it was never well")
		}
		t.Logf("well %v after its start returned", time.Since(begun))
		check.Command = []string{"/app", "check"}
		for _, c := range []spec.Health{check, {Kind: spec.HealthTCP, Port: 8080, Timeout: check.Timeout}} {
			if r := health.New(h.Engine).Probe(t.Context(), i, c); !r.OK {
				t.Errorf("%s: %+v", c.Kind, r)
			}
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
