//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"conductor/test/image"
)

// Dockerd is a private Docker engine: to restart the machine's would disturb
// whoever uses it.
type Dockerd struct {
	t      testing.TB
	dir    string
	bridge string
	Engine *image.Engine
	cmd    *exec.Cmd
	done   chan struct{}
}

// newWithEngine sets an installation up that has an engine of its own.
func newWithEngine(t testing.TB) (*Env, *Dockerd) {
	t.Helper()
	// The installation's folder must outlive the engine below it.
	dir := filepath.Join(os.TempDir(), newNamespace())
	must(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	d := newDockerd(t, filepath.Join(dir, "dockerd"))
	return newAt(t, d.Engine), d
}

// newDockerd starts an engine of its own below dir. It ends with the test.
func newDockerd(t testing.TB, dir string) *Dockerd {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o711))
	d := &Dockerd{t: t, dir: dir, Engine: image.NewEngine(filepath.Join(dir, "docker.sock"))}
	// A default bridge of its own: with none, dockerd would take docker0 away
	// from the machine's engine.
	d.bridge = fmt.Sprintf("ct%08x", rand.Uint32())
	d.ip("link", "add", d.bridge, "type", "bridge")
	t.Cleanup(func() { d.ip("link", "del", d.bridge) })
	d.ip("addr", "add", "10.255.254.1/29", "dev", d.bridge)
	d.Start()
	t.Cleanup(func() {
		d.Stop()
		d.clear()
		if t.Failed() {
			t.Logf("dockerd wrote:\n%s", indent(tail(d.log(), 30)))
		}
	})
	return d
}

func (d *Dockerd) ip(args ...string) {
	d.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		d.t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// Start starts it and returns once it answers.
func (d *Dockerd) Start() {
	d.t.Helper()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	must(d.t, err)
	defer log.Close()
	// Its rules would go into the chains of the machine's engine, which it
	// empties when it starts; from this host a bridge is reached without any.
	cmd := exec.Command("dockerd",
		"--data-root", filepath.Join(d.dir, "data"), "--exec-root", filepath.Join(d.dir, "exec"),
		"--pidfile", filepath.Join(d.dir, "docker.pid"), "-H", "unix://"+d.Engine.Socket,
		"--config-file", filepath.Join(d.dir, "none.json"),
		"--containerd-namespace", d.namespace(), "--containerd-plugins-namespace", d.namespace()+"-plugins",
		"--bridge", d.bridge, "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--userland-proxy=false")
	must(d.t, os.WriteFile(filepath.Join(d.dir, "none.json"), []byte("{}"), 0o644))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	must(d.t, cmd.Start())
	done := make(chan struct{})
	go func() {
		cmd.Wait()
		close(done)
	}()
	d.cmd, d.done = cmd, done
	eventually(d.t, 30*time.Second, "the private dockerd answers", func() bool {
		select {
		case <-done:
			d.t.Fatalf("dockerd ended:\n%s", indent(tail(d.log(), 30)))
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return d.Engine.Ping(ctx) == nil
	})
}

// Stop ends it as systemd does; its containers end with it.
func (d *Dockerd) Stop() {
	if d.cmd == nil {
		return
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
	case <-time.After(30 * time.Second):
		d.t.Errorf("dockerd does not end:\n%s", indent(tail(d.log(), 30)))
		d.cmd.Process.Kill()
		<-d.done
	}
	d.cmd = nil
	// An engine that ends while it starts a container may leave that one's root
	// mounted. Where / is not shared (no systemd) the next one mounts its folder
	// over it, finds it no more and never can remove the container.
	if err := unmountBelow(d.dir); err != nil {
		d.t.Error(err)
	}
}

// Kill kills it. Its containers live on; the containerd that it has started, if
// it does not use the machine's, ends with it.
func (d *Dockerd) Kill() {
	d.t.Helper()
	d.cmd.Process.Kill()
	<-d.done
	d.cmd = nil
	file := filepath.Join(d.dir, "exec/containerd/containerd.pid")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	must(d.t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	must(d.t, err)
	eventually(d.t, 10*time.Second, "its containerd ends with it", func() bool { return dead(pid) })
	// Where nobody reaps orphans, the next dockerd would take it for alive.
	must(d.t, os.Remove(file))
}

// clear ends the containers that it has left behind, when it was killed and did
// not come back, and takes their mounts away.
func (d *Dockerd) clear() {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range lines {
		b, _ := os.ReadFile(f)
		shim, err := strconv.Atoi(strings.Split(f, "/")[2])
		words := strings.Split(string(b), "\x00")
		if err != nil || !strings.Contains(words[0], "containerd-shim") || !slices.Contains(words, d.namespace()) {
			continue
		}
		for _, pid := range append(children(shim), shim) {
			syscall.Kill(pid, syscall.SIGKILL)
			eventually(d.t, 10*time.Second, fmt.Sprintf("process %d ends", pid), func() bool { return dead(pid) })
		}
	}
	if err := unmountBelow(d.dir); err != nil {
		d.t.Error(err)
	}
}

// namespace is where it keeps its containers at containerd.
func (d *Dockerd) namespace() string { return filepath.Base(filepath.Dir(d.dir)) }

func (d *Dockerd) log() string {
	b, _ := os.ReadFile(filepath.Join(d.dir, "log"))
	return string(b)
}
