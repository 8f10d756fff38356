package balancertest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// HAProxy is a HAProxy of a test's own, with a folder, a configuration and a
// socket of its own, run as Debian runs it: a master and its worker. It ends
// with its test.
type HAProxy struct {
	t   testing.TB
	dir string
	cmd *exec.Cmd
	log *os.File
}

const haproxyConf = `global
    stats socket %[1]s mode 600 level admin expose-fd listeners
    nbthread 2
    maxconn 2000
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    timeout tunnel 1h
    option redispatch
`

// HAProxyConf is a configuration whose frontend at port sends to the backend
// shop, with the webs as its servers, by their names, checked each 100 ms. Lines
// of extra are the backend's too.
func HAProxyConf(port int, webs []*Web, extra ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "frontend web\n    bind 127.0.0.1:%d\n    default_backend shop\nbackend shop\n    option httpchk GET /up\n", port)
	for _, line := range extra {
		fmt.Fprintf(&b, "    %s\n", line)
	}
	for _, w := range webs {
		fmt.Fprintf(&b, "    server %s %s check inter 100ms\n", w.Name, w.Addr)
	}
	return b.String()
}

// StartHAProxy starts one with this configuration, less what is global. It
// answers at its socket when StartHAProxy returns.
func StartHAProxy(t testing.TB, conf string) *HAProxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "ct-haproxy-") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	h := &HAProxy{t: t, dir: dir}
	t.Cleanup(func() {
		h.Kill()
		os.RemoveAll(dir)
	})
	h.WriteConf(conf)
	h.Start()
	return h
}

// Socket is the one of its runtime API.
func (h *HAProxy) Socket() string { return filepath.Join(h.dir, "admin.sock") }

// WriteConf replaces the configuration, less what is global; nothing reads it
// before Start or Reload.
func (h *HAProxy) WriteConf(conf string) {
	h.WriteWhole(fmt.Sprintf(haproxyConf, h.Socket()) + conf)
}

// WriteWhole replaces the whole configuration.
func (h *HAProxy) WriteWhole(conf string) {
	h.t.Helper()
	if err := os.WriteFile(h.conf(), []byte(conf), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *HAProxy) conf() string { return filepath.Join(h.dir, "haproxy.cfg") }

// Start starts it; it has a worker and its socket when Start returns.
func (h *HAProxy) Start() {
	h.t.Helper()
	log, err := os.OpenFile(filepath.Join(h.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	h.log = log
	loaded := h.loaded()
	h.cmd = exec.Command("haproxy", "-W", "-db", "-S", h.master(), "-f", h.conf())
	h.cmd.Stdout, h.cmd.Stderr = log, log
	// Its worker ends with it, and it with us, however that comes.
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := h.cmd.Start(); err != nil {
		h.t.Fatalf("start haproxy: %v", err)
	}
	h.waitForWorker(loaded)
}

// Reload has the master start another worker, as systemctl reload does, and
// returns when that has taken over.
func (h *HAProxy) Reload() {
	h.t.Helper()
	loaded := h.loaded()
	if err := h.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		h.t.Fatal(err)
	}
	h.waitForWorker(loaded)
}

// loaded counts the workers that the master has had.
func (h *HAProxy) loaded() int { return strings.Count(h.Log(), "Loading success.") }

// waitForWorker waits for one more than those, and for the master to answer:
// before that it loses signals.
func (h *HAProxy) waitForWorker(loaded int) {
	h.t.Helper()
	defer func() {
		if h.t.Failed() {
			h.t.Log(h.Log())
		}
	}()
	Wait(h.t, "haproxy has a worker", func() bool {
		if h.loaded() == loaded {
			return false
		}
		conn, err := net.Dial("unix", h.master())
		if err != nil {
			return false
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		fmt.Fprint(conn, "show proc\n")
		n, err := conn.Read(make([]byte, 1))
		return err == nil && n > 0
	})
}

// master is the socket of the master, which is not the one of the runtime API.
func (h *HAProxy) master() string { return filepath.Join(h.dir, "master.sock") }

// Kill kills all its processes at once, if any run, and returns when nobody
// listens any more. Its socket stays.
func (h *HAProxy) Kill() {
	if h.cmd == nil {
		return
	}
	_ = syscall.Kill(-h.cmd.Process.Pid, syscall.SIGKILL)
	_ = h.cmd.Wait() // it was killed; its workers are not ours to wait for
	Wait(h.t, "nobody listens at "+h.Socket(), func() bool {
		c, err := net.Dial("unix", h.Socket())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	h.log.Close()
	h.cmd = nil
}

// Log is what it has said.
func (h *HAProxy) Log() string {
	b, _ := os.ReadFile(filepath.Join(h.dir, "log"))
	return string(b)
}
