//go:build e2e

package docker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"conductor/internal/engine"
	"conductor/internal/engine/enginetest"
	"conductor/internal/fault"
	"conductor/internal/spec"
)

// shown is what the test program says about itself.
type shown struct {
	Args, Env                    []string
	UID, GID, PID                int
	Hostname, Dir, Hosts, Resolv string
	Status, Mounts               string
	Files                        uint64
}

// plan is a container on the engine's default network.
func plan(t *testing.T, i enginetest.Instance, command []string) engine.Create {
	t.Helper()
	im, err := i.Engine.Image(t.Context(), i.Image)
	if err != nil {
		t.Fatal(err)
	}
	return engine.Create{
		Name: i.Prefix + "-app", Image: im.ID, Labels: i.Labels, Command: command,
		Spec: spec.Container{Init: true, Logging: spec.Logging{Driver: "local"}},
	}
}

// start creates and starts, and returns the container's ID.
func start(t *testing.T, i enginetest.Instance, c engine.Create) string {
	t.Helper()
	id, err := i.Engine.Create(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Engine.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return id
}

// output runs a container to its end.
func output(t *testing.T, i enginetest.Instance, c engine.Create) (code int, stdout, stderr string) {
	t.Helper()
	id := start(t, i, c)
	code, err := i.Engine.Wait(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if err := i.Engine.Logs(t.Context(), id, engine.LogOptions{}, &out, &errs); err != nil {
		t.Fatal(err)
	}
	if err := i.Engine.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return code, out.String(), errs.String()
}

func show(t *testing.T, i enginetest.Instance, c engine.Create) (s shown) {
	t.Helper()
	c.Command = enginetest.Show
	_, out, errs := output(t, i, c)
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("%v: stdout %q, stderr %q", err, out, errs)
	}
	return s
}

func TestEngine_EnvironmentArrivesIntact(t *testing.T) {
	i := open(t)
	c := plan(t, i, nil)
	c.Env = []string{
		"QUOTES=\"a\" 'b' `c`", "LINES=one\ntwo\r\n\tthree\n", "DOLLAR=$HOME ${HOME} $(id) $$", "EMPTY=",
		"EQUALS=a=b=c", "UNICODE=naïve ☃", "BACK=\\n \\\\", "SPACE=  two  ", "NUMBER=010", "BRACE={{.ID}}",
	}
	got := show(t, i, c)
	for _, want := range c.Env {
		if !slices.Contains(got.Env, want) {
			t.Errorf("%q did not arrive: %q", want, got.Env)
		}
	}
	c.Spec.Entrypoint = []string{"/app", "print"}
	c.Command = []string{"$HOME; \"x\"\n'y'", "`id` && %s"}
	if _, out, errs := output(t, i, c); out != c.Command[0]+"\n" || errs != c.Command[1]+"\n" {
		t.Errorf("arguments arrived as %q, %q", out, errs)
	}
}

func TestEngine_SpecArrives(t *testing.T) {
	i := open(t)
	dir := t.TempDir()
	for name, text := range map[string]string{"secret": "hunter2\n", "in: a, \"b\"": "odd name\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := plan(t, i, nil)
	c.Files = map[string]string{"/run/secrets/KEY": filepath.Join(dir, "secret"), "/odd": filepath.Join(dir, "in: a, \"b\"")}
	c.Spec = spec.Container{
		Init: true, WorkingDir: "/data", User: "1234:567", ReadOnly: true, Hostname: "shop-1",
		Tmpfs:      []string{"/tmp:size=1m,mode=1777", "/run"},
		CapAdd:     []string{"NET_ADMIN"},
		CapDrop:    []string{"ALL"},
		Ulimits:    map[string]spec.Ulimit{"nofile": {Soft: 321, Hard: 654}},
		ExtraHosts: []string{"db.internal:192.0.2.9"},
		DNS:        []string{"192.0.2.53"},
		ShmSize:    2 << 20,
		Volumes: []spec.Volume{
			{Source: dir, Target: "/host", ReadOnly: true, Bind: true, Options: []string{"rprivate"}},
			{Target: "/anonymous"},
		},
		Logging:     spec.Logging{Driver: "local", Options: map[string]string{"max-size": "1m", "max-file": "2"}},
		SecurityOpt: []string{"no-new-privileges:true"},
		StopSignal:  "SIGINT",
	}
	got := show(t, i, c)
	if got.UID != 1234 || got.GID != 567 || got.Dir != "/data" || got.Hostname != "shop-1" || got.Files != 654 {
		t.Errorf("%+v", got)
	}
	if got.PID == 1 {
		t.Error("it runs without an init")
	}
	for _, want := range []string{"NoNewPrivs:\t1", "CapBnd:\t0000000000001000"} {
		if !strings.Contains(got.Status, want) {
			t.Errorf("no %q in %s", want, got.Status)
		}
	}
	for path, options := range map[string][]string{
		"/": {"ro"}, "/tmp": {"tmpfs", "size=1024k"}, "/run": {"tmpfs"}, "/host": {"ro"}, "/anonymous": {"rw"},
		"/run/secrets/KEY": {"ro"}, "/odd": {"ro"}, "/dev/shm": {"size=2048k"}, "/data": {"rw"},
	} {
		found := false
		for l := range strings.Lines(got.Mounts) {
			f := strings.Fields(l)
			if f[1] != path {
				continue
			}
			found = true
			words := append(strings.Split(f[3], ","), f[2])
			for _, o := range options {
				if !slices.Contains(words, o) {
					t.Errorf("%s is mounted %q, want %s", path, words, o)
				}
			}
		}
		if !found {
			t.Errorf("%s is not mounted", path)
		}
	}
	if !strings.Contains(got.Hosts, "192.0.2.9\tdb.internal") || !strings.Contains(got.Resolv, "192.0.2.53") {
		t.Errorf("hosts %q, resolv %q", got.Hosts, got.Resolv)
	}

	c.Command = enginetest.Cat("/run/secrets/KEY")
	if code, out, errs := output(t, i, c); code != 0 || out != "hunter2\n" {
		t.Errorf("secret: %d %q %q", code, out, errs)
	}
	c.Spec.User = "0"
	c.Command = enginetest.Write("/run/secrets/KEY", "stolen")
	if code, _, errs := output(t, i, c); code != 1 || !strings.Contains(errs, "read-only file system") {
		t.Errorf("a write to a secret ends with %d %q", code, errs)
	}
	c.Spec.Init = false
	if got := show(t, i, c); got.PID != 1 {
		t.Errorf("it runs with an init, as process %d", got.PID)
	}
}

func TestEngine_NamedVolumeOutlivesItsContainer(t *testing.T) {
	i := open(t)
	c := plan(t, i, enginetest.Write("/data/word", "kept"))
	name := i.Prefix + "-volume"
	t.Cleanup(func() { enginetest.RemoveVolume(t, name) })
	c.Spec.Volumes = []spec.Volume{{Source: name, Target: "/data", Options: []string{"nocopy"}}}
	if code, _, errs := output(t, i, c); code != 0 {
		t.Fatalf("write: %d %s", code, errs)
	}
	c.Command = enginetest.Cat("/data/word")
	if code, out, errs := output(t, i, c); code != 0 || out != "kept" {
		t.Errorf("read: %d %q %q", code, out, errs)
	}
}

func TestEngine_LimitsAreRealCgroupLimits(t *testing.T) {
	i := open(t)
	c := plan(t, i, enginetest.Forever)
	c.Spec.Limits = spec.Limits{Memory: 64 << 20, CPUs: 0.5, PIDs: 17}
	id := start(t, i, c)
	in, err := i.Engine.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if got := cgroup(t, in.PID, "memory", "memory.limit_in_bytes", "memory.max"); got != fmt.Sprint(64<<20) {
		t.Errorf("memory limit %s", got)
	}
	if got := cgroup(t, in.PID, "pids", "pids.max", "pids.max"); got != "17" {
		t.Errorf("process limit %s", got)
	}
	if got := cgroup(t, in.PID, "cpu", "cpu.cfs_quota_us", "cpu.max"); got != "50000" && got != "50000 100000" {
		t.Errorf("CPU quota %s", got)
	}
}

// cgroup reads a limit of a process: the file v1 in the controller's tree, or
// the file v2 where there is one tree.
func cgroup(t *testing.T, pid int, controller, v1, v2 string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(l), ":", 3)
		file := ""
		switch {
		case slices.Contains(strings.Split(f[1], ","), controller):
			file = filepath.Join("/sys/fs/cgroup", controller, f[2], v1)
		case f[0] == "0" && f[1] == "":
			file = filepath.Join("/sys/fs/cgroup", f[2], v2)
		default:
			continue
		}
		if b, err := os.ReadFile(file); err == nil {
			return strings.TrimSpace(string(b))
		}
	}
	t.Fatalf("no %s limit of process %d in %s", controller, pid, b)
	return ""
}

func TestEngine_MissingBindSourceIsNamed(t *testing.T) {
	i := open(t)
	missing := filepath.Join(t.TempDir(), "not there")
	for _, options := range [][]string{nil, {"z"}} {
		c := plan(t, i, nil)
		c.Spec.Volumes = []spec.Volume{{Source: missing, Target: "/x", Bind: true, Options: options}}
		_, err := i.Engine.Create(t.Context(), c)
		if !errors.Is(err, engine.ErrCannotRun) || !strings.Contains(err.Error(), missing) || !strings.Contains(err.Error(), c.Name) {
			t.Errorf("options %v: got %v", options, err)
		}
		if _, err := os.Stat(missing); err == nil {
			t.Errorf("options %v: it was made", options)
		}
	}
	c := plan(t, i, nil)
	c.Files = map[string]string{"/x": missing}
	if _, err := i.Engine.Create(t.Context(), c); !errors.Is(err, engine.ErrCannotRun) {
		t.Errorf("file: got %v", err)
	}
	gone := t.TempDir()
	c = plan(t, i, nil)
	c.Spec.Volumes = []spec.Volume{{Source: gone, Target: "/x", Bind: true}}
	id, err := i.Engine.Create(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	if err := i.Engine.Start(t.Context(), id); !errors.Is(err, engine.ErrCannotRun) || !strings.Contains(err.Error(), gone) {
		t.Errorf("gone before the start: got %v", err)
	}
}

func TestEngine_StartFailuresSayWhy(t *testing.T) {
	i := open(t)
	for _, c := range []struct {
		name string
		set  func(*engine.Create)
		want string
	}{
		{"command missing", func(c *engine.Create) { c.Spec.Entrypoint = []string{"nope"} }, `cannot be started: exec: "nope": executable file not found in $PATH`},
		{"not executable", func(c *engine.Create) { c.Spec.Entrypoint = []string{"/etc/hosts"} }, `cannot be started: exec: "/etc/hosts": permission denied`},
		{"network missing", func(c *engine.Create) { c.Network = i.Prefix + "-no-net" }, `cannot be started: network ` + i.Prefix + `-no-net not found`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := plan(t, i, nil)
			p.Spec.Init = false
			p.Name = i.Prefix + "-" + strings.ReplaceAll(c.name, " ", "-")
			c.set(&p)
			id, err := i.Engine.Create(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			err = i.Engine.Start(t.Context(), id)
			if !errors.Is(err, engine.ErrCannotRun) || !strings.HasSuffix(err.Error(), c.want) {
				t.Errorf("got %v, want …%s", err, c.want)
			}
		})
	}
}

func TestEngine_HealthcheckOfTheImageIsOff(t *testing.T) {
	i := open(t)
	id := start(t, i, plan(t, i, nil))
	if text := enginetest.RawInspect(t, id); strings.Contains(text, `"Health":{`) || !strings.Contains(text, `"Test":["NONE"]`) {
		t.Errorf("the image's health check is on: %s", text)
	}
}

func TestEngine_PublishedPorts(t *testing.T) {
	i := open(t)
	c := plan(t, i, nil)
	c.Spec.Ports = []spec.Port{
		{HostIP: "127.0.0.1", Published: 47811, Target: 80, Protocol: "tcp"},
		{HostIP: "127.0.0.1", Published: 47811, Target: 53, Protocol: "udp"},
	}
	start(t, i, c)
	text := enginetest.RawInspect(t, c.Name)
	for _, want := range []string{
		`"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"47811"}]`, `"53/udp":[{"HostIp":"127.0.0.1","HostPort":"47811"}]`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	c.Name += "-2"
	id, err := i.Engine.Create(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Engine.Start(t.Context(), id); !errors.Is(err, engine.ErrCannotRun) || !strings.Contains(err.Error(), "47811") {
		t.Errorf("a port that is taken: %v", err)
	}
}

func TestEngine_ExecStdinAndTerminal(t *testing.T) {
	i := open(t)
	id := start(t, i, plan(t, i, enginetest.Forever))
	big := strings.Repeat("0123456789abcde\n", 1<<15)
	var out bytes.Buffer
	code, err := i.Engine.Exec(t.Context(), id, engine.Exec{
		Command: append([]string{"/app"}, enginetest.Echo...), Streams: engine.Streams{Stdin: strings.NewReader(big), Stdout: &out},
	})
	if err != nil || code != 0 || out.String() != big {
		t.Errorf("code %d, %v, %d bytes of %d", code, err, out.Len(), len(big))
	}
	out.Reset()
	sizes := make(chan [2]uint, 1)
	sizes <- [2]uint{100, 30}
	code, err = i.Engine.Exec(t.Context(), id, engine.Exec{
		Command: append([]string{"/app"}, enginetest.Print("a", "b")...), Streams: engine.Streams{Stdout: &out, TTY: true, Resize: sizes},
	})
	if err != nil || code != 0 || out.String() != "a\r\nb\r\n" {
		t.Errorf("terminal: code %d, %v, %q", code, err, out.String())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = i.Engine.Exec(ctx, id, engine.Exec{Command: append([]string{"/app"}, enginetest.Forever...)})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a command without end: %v", err)
	}
}

func TestEngine_SubnetThatIsTaken(t *testing.T) {
	i := open(t)
	n, err := i.Engine.Network(t.Context(), i.Prefix+"-one", netip.Prefix{}, i.Labels)
	if err != nil {
		t.Fatal(err)
	}
	_, err = i.Engine.Network(t.Context(), i.Prefix+"-two", n.Subnet, i.Labels)
	if !errors.Is(err, engine.ErrConflict) || !errors.Is(err, fault.ErrHost) || fault.Hint(err) == "" {
		t.Errorf("got %v", err)
	}
}
