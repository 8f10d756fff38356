//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Nginx is a private nginx with Debian's Lua module.
type Nginx struct {
	t   testing.TB
	Dir string
	// Port answers at every path with 200, so that it can be seen to serve.
	Port int
	cmd  *exec.Cmd
	done chan struct{}
}

const nginxConf = `
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
user www-data;
worker_processes 2;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log notice;
events { worker_connections 2048; }
http {
    access_log off;
    client_body_temp_path %[1]s/tmp/body;
    proxy_temp_path %[1]s/tmp/proxy;
    fastcgi_temp_path %[1]s/tmp/fastcgi;
    uwsgi_temp_path %[1]s/tmp/uwsgi;
    scgi_temp_path %[1]s/tmp/scgi;
    keepalive_requests 1000000;
    server { listen 127.0.0.1:%[2]d; location / { return 200 "up\n"; } }
    include %[1]s/conf.d/*.conf;
}
`

func newNginx(t testing.TB, dir string) *Nginx {
	t.Helper()
	n := &Nginx{t: t, Dir: dir, Port: freePort(t)}
	for _, d := range []string{"conf.d", "tmp", "logs"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	must(t, os.WriteFile(n.Conf(), fmt.Appendf(nil, nginxConf, dir, n.Port), 0o644))
	return n
}

// Conf is its main file, ConfD the folder it includes.
func (n *Nginx) Conf() string  { return filepath.Join(n.Dir, "nginx.conf") }
func (n *Nginx) ConfD() string { return filepath.Join(n.Dir, "conf.d") }

// Command is how this nginx is spoken to.
func (n *Nginx) Command(args ...string) []string {
	return append([]string{"nginx", "-p", n.Dir, "-c", n.Conf(), "-e", filepath.Join(n.Dir, "error.log")}, args...)
}

// Start starts it and returns once it answers. It dies with this process.
func (n *Nginx) Start() {
	n.t.Helper()
	args := n.Command("-g", "daemon off;")
	cmd := exec.Command(args[0], args[1:]...)
	// A file and not a pipe: Wait would wait for the pipe's end, which workers
	// hold open when their master was killed.
	out, err := os.Create(filepath.Join(n.Dir, "output"))
	must(n.t, err)
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	must(n.t, cmd.Start())
	done := make(chan struct{})
	go func() {
		cmd.Wait()
		close(done)
	}()
	n.cmd, n.done = cmd, done
	eventually(n.t, 10*time.Second, "nginx answers", func() bool {
		select {
		case <-done:
			b, _ := os.ReadFile(out.Name())
			n.t.Fatalf("nginx did not start: %s", b)
		default:
		}
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", n.Port))
		if err == nil {
			c.Close()
		}
		return err == nil && n.pid() == cmd.Process.Pid
	})
}

// pid is what its pid file says.
func (n *Nginx) pid() int {
	b, _ := os.ReadFile(filepath.Join(n.Dir, "nginx.pid"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

// Kill kills the master with SIGKILL and waits until its workers, which it
// leaves behind, are killed too: that is what an OOM kill and systemd's
// restart of the unit come to.
func (n *Nginx) Kill() {
	n.t.Helper()
	workers := children(n.cmd.Process.Pid)
	n.cmd.Process.Kill()
	<-n.done
	for _, pid := range workers {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, pid := range workers {
		eventually(n.t, 5*time.Second, "nginx's worker ends", func() bool { return dead(pid) })
	}
	n.cmd = nil
}

// Stop ends it in an orderly way.
func (n *Nginx) Stop() {
	if n.cmd == nil {
		return
	}
	n.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.done:
	case <-time.After(10 * time.Second):
		n.cmd.Process.Kill()
		<-n.done
	}
	n.cmd = nil
}

// Reload is a reload by hand, which nobody told conductor of.
func (n *Nginx) Reload() {
	n.t.Helper()
	args := n.Command("-s", "reload")
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		n.t.Fatalf("nginx -s reload: %v: %s", err, out)
	}
}

// ErrorLog is what nginx wrote.
func (n *Nginx) ErrorLog() string {
	b, _ := os.ReadFile(filepath.Join(n.Dir, "error.log"))
	return string(b)
}

// children lists the processes whose parent is pid.
func children(pid int) []int {
	var pids []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range stats {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		// The name is in parentheses and may have spaces: look behind it.
		rest := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(rest) > 1 && rest[1] == strconv.Itoa(pid) {
			child, _ := strconv.Atoi(strings.Split(f, "/")[2])
			pids = append(pids, child)
		}
	}
	return pids
}

// dead says whether the process is gone or a zombie that waits for its parent.
func dead(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	rest := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	return len(rest) == 0 || rest[0] == "Z"
}
