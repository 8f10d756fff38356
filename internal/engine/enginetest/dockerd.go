package enginetest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Dockerd is a Docker engine of a test's own, to be restarted, or to be the one
// of another host.
type Dockerd struct {
	Socket string
	Dir    string // of all that it has; its images are in "data"

	t     testing.TB
	flags []string
	cmd   *exec.Cmd
	done  chan struct{}
}

// StartDockerd starts an engine, with a name that is the test's alone among
// those that run, and returns once it answers. When the test ends it ends, and
// all that it has is removed. Its bridge has the subnet, of which it takes the
// first address (10.255.253.1/29).
func StartDockerd(t testing.TB, name, subnet string, flags ...string) *Dockerd {
	t.Helper()
	s := sha256.Sum256([]byte(t.Name() + name))
	word := hex.EncodeToString(s[:4])
	// t.TempDir is too long a name for a socket's.
	dir, err := os.MkdirTemp("", "ct-engine-"+word)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// With --live-restore it leaves its data folder mounted on itself.
		if err := syscall.Unmount(filepath.Join(dir, "data"), syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOENT) {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	d := &Dockerd{t: t, Dir: dir, Socket: filepath.Join(dir, "docker.sock")}
	bridge := "ct" + word
	d.run("ip", "link", "add", bridge, "type", "bridge")
	t.Cleanup(func() { d.run("ip", "link", "del", bridge) })
	d.run("ip", "addr", "add", subnet, "dev", bridge)
	// Without rules: they would go into the chains of the machine's engine.
	d.flags = append(flags, "--bridge", bridge, "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--userland-proxy=false")
	if err := os.WriteFile(filepath.Join(dir, "none.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Stop)
	d.Start()
	return d
}

func (d *Dockerd) run(name string, args ...string) {
	d.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
}

// Running says whether it was started, and not stopped since.
func (d *Dockerd) Running() bool { return d.cmd != nil }

// Start starts it and returns once it answers.
func (d *Dockerd) Start() {
	d.t.Helper()
	log, err := os.OpenFile(filepath.Join(d.Dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	name := filepath.Base(d.Dir)
	cmd := exec.Command("dockerd", append([]string{
		"--data-root", filepath.Join(d.Dir, "data"), "--exec-root", filepath.Join(d.Dir, "exec"),
		"--pidfile", filepath.Join(d.Dir, "docker.pid"), "-H", "unix://" + d.Socket,
		"--config-file", filepath.Join(d.Dir, "none.json"),
		"--containerd-namespace", name, "--containerd-plugins-namespace", name + "-plugins",
	}, d.flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	done := make(chan struct{})
	d.cmd, d.done = cmd, done
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		if _, err = call(ctx, d.Socket, http.MethodGet, "/_ping", "", nil); err == nil {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
			continue
		case <-done:
		case <-ctx.Done():
		}
		text, _ := os.ReadFile(filepath.Join(d.Dir, "log"))
		d.t.Fatalf("the private dockerd does not answer: %v\n%s", err, lastLines(string(text), 30))
	}
}

// Stop ends it as systemd does, and returns when it has ended. Its containers
// end too, but for --live-restore.
func (d *Dockerd) Stop() {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
	case <-time.After(time.Minute):
		d.t.Error("dockerd does not end")
		_ = d.cmd.Process.Kill()
		<-d.done
	}
	d.cmd = nil
}

func lastLines(text string, n int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}
