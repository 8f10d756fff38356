//go:build e2e

package docker_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"conductor/internal/engine/docker"
	"conductor/internal/engine/enginetest"
)

// dockerd is a private Docker engine, to be restarted.
type dockerd struct {
	t      *testing.T
	dir    string
	flags  []string
	socket string
	cmd    *exec.Cmd
	done   chan struct{}
}

// openPrivate starts an engine for one test, which clears it away.
func openPrivate(t *testing.T, flags ...string) (*dockerd, *docker.Engine, enginetest.Instance) {
	t.Helper()
	sum := sha256.Sum256([]byte(t.Name()))
	prefix := "ct-engine-" + hex.EncodeToString(sum[:4])
	// t.TempDir is too long a name for a socket's.
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// With --live-restore it leaves its data folder mounted on itself.
		if err := syscall.Unmount(filepath.Join(dir, "data"), syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	d := &dockerd{t: t, dir: dir, flags: flags, socket: filepath.Join(dir, "docker.sock")}
	bridge := "ct" + hex.EncodeToString(sum[:4])
	d.run("ip", "link", "add", bridge, "type", "bridge")
	t.Cleanup(func() { d.run("ip", "link", "del", bridge) })
	d.run("ip", "addr", "add", "10.255.253.1/29", "dev", bridge)
	// Without rules: they would go into the chains of the machine's engine.
	d.flags = append(d.flags, "--bridge", bridge, "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--userland-proxy=false")
	if err := os.WriteFile(filepath.Join(dir, "none.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	e, err := docker.New("unix://" + d.socket)
	if err != nil {
		t.Fatal(err)
	}
	d.start(e)
	t.Cleanup(func() {
		d.clear(e)
		d.stop()
		_ = e.Close()
	})
	i := enginetest.Instance{Engine: e, Prefix: prefix, Labels: map[string]string{"ct-engine": prefix}, Image: prefix + ":1"}
	enginetest.BuildImageIn(t, d.socket, i.Image)
	return d, e, i
}

func (d *dockerd) run(name string, args ...string) {
	d.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
}

// start starts it and returns once it answers.
func (d *dockerd) start(e *docker.Engine) {
	d.t.Helper()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	name := filepath.Base(d.dir)
	d.cmd = exec.Command("dockerd", append([]string{
		"--data-root", filepath.Join(d.dir, "data"), "--exec-root", filepath.Join(d.dir, "exec"),
		"--pidfile", filepath.Join(d.dir, "docker.pid"), "-H", "unix://" + d.socket,
		"--config-file", filepath.Join(d.dir, "none.json"),
		"--containerd-namespace", name, "--containerd-plugins-namespace", name + "-plugins",
	}, d.flags...)...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	cmd, done := d.cmd, make(chan struct{})
	d.done = done
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		if _, err = e.Info(ctx); err == nil {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
			continue
		case <-done:
		case <-ctx.Done():
		}
		text, _ := os.ReadFile(filepath.Join(d.dir, "log"))
		d.t.Fatalf("the private dockerd does not answer: %v\n%s", err, text)
	}
}

// clear ends its containers, which --live-restore would leave.
func (d *dockerd) clear(e *docker.Engine) {
	if d.cmd == nil {
		d.start(e)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cs, err := e.List(ctx, nil)
	for _, c := range cs {
		err = errors.Join(err, e.Stop(ctx, c.ID, 0), e.Remove(ctx, c.ID))
	}
	if err != nil {
		d.t.Error(err)
	}
}

// stop ends it as systemd does, and returns when it has ended. Its containers
// end too, but for --live-restore.
func (d *dockerd) stop() {
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
