package proxytest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Nginx is a private nginx as Debian sets one up, with a folder, a
// configuration and a PID file of its own. It ends with its test.
type Nginx struct {
	t   testing.TB
	dir string
}

const nginxConf = `user www-data;
worker_processes 2;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log;
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
events { worker_connections 768; }
http {
    sendfile on;
    tcp_nopush on;
    types_hash_max_size 2048;
    default_type application/octet-stream;
    ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;
    ssl_prefer_server_ciphers on;
    access_log off;
    gzip on;
    client_body_temp_path %[1]s/body;
    proxy_temp_path %[1]s/proxy;
    fastcgi_temp_path %[1]s/fastcgi;
    uwsgi_temp_path %[1]s/uwsgi;
    scgi_temp_path %[1]s/scgi;
    include %[1]s/conf.d/*.conf;
%[2]s}
`

// StartNginx starts an nginx in dir, which has to be empty. It includes
// dir/conf.d/*.conf in its http block. On each of the ports it has a
// default_server of its own, as Debian's does at port 80, that answers 200
// "default". The test needs root, as workers run as www-data.
func StartNginx(t testing.TB, dir string, ports ...int) *Nginx {
	t.Helper()
	n := &Nginx{t: t, dir: dir}
	for _, sub := range []string{"", "conf.d"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var servers strings.Builder
	for _, port := range ports {
		fmt.Fprintf(&servers, "    server { listen %d default_server; listen [::]:%d default_server; server_name _; default_type text/plain; return 200 \"default\\n\"; }\n", port, port)
	}
	n.WriteConf(fmt.Sprintf(nginxConf, dir, servers.String()))
	t.Cleanup(n.Stop)
	n.Start()
	return n
}

// WriteConf replaces nginx.conf; nothing reads it before a reload or start.
func (n *Nginx) WriteConf(text string) {
	n.t.Helper()
	if err := os.WriteFile(n.conf(), []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

// Conf returns nginx.conf.
func (n *Nginx) Conf() string {
	n.t.Helper()
	b, err := os.ReadFile(n.conf())
	if err != nil {
		n.t.Fatal(err)
	}
	return string(b)
}

func (n *Nginx) conf() string { return filepath.Join(n.dir, "nginx.conf") }

// ConfigDir is the folder whose *.conf the http block includes.
func (n *Nginx) ConfigDir() string { return filepath.Join(n.dir, "conf.d") }

// TestCommand tests the configuration: proxy.test.
func (n *Nginx) TestCommand() []string { return []string{"nginx", "-t", "-p", n.dir, "-c", n.conf()} }

// ReloadCommand makes the master read it again: proxy.reload.
func (n *Nginx) ReloadCommand() []string {
	return []string{"nginx", "-s", "reload", "-p", n.dir, "-c", n.conf()}
}

// Reload runs the reload command.
func (n *Nginx) Reload() {
	n.t.Helper()
	argv := n.ReloadCommand()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		n.t.Fatalf("reload nginx: %v\n%s", err, out)
	}
}

// Start starts nginx; it listens when Start returns.
func (n *Nginx) Start() {
	n.t.Helper()
	out, err := exec.Command("nginx", "-p", n.dir, "-c", n.conf()).CombinedOutput()
	if err != nil {
		n.t.Fatalf("start nginx: %v\n%s%s", err, out, n.ErrorLog())
	}
	n.wait("write its PID", func() bool { return n.PID() != 0 })
}

// PID is the master's, 0 where none runs.
func (n *Nginx) PID() int {
	b, err := os.ReadFile(filepath.Join(n.dir, "nginx.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || !n.isMaster(pid) {
		return 0
	}
	return pid
}

// isMaster keeps a number that another process has by now from being killed.
func (n *Nginx) isMaster(pid int) bool {
	title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && bytes.HasPrefix(title, []byte("nginx: master")) && bytes.Contains(title, []byte(n.dir))
}

// Workers are the PIDs of the master's children, the ones that shut down included.
func (n *Nginx) Workers() []int {
	master := n.PID()
	if master == 0 {
		return nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", master, master))
	if err != nil {
		return nil
	}
	var pids []int
	for word := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(word); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// KillMaster kills the master with SIGKILL and then its workers, as systemd
// does with what is left of a unit.
func (n *Nginx) KillMaster() {
	n.t.Helper()
	pid, workers := n.PID(), n.Workers()
	if pid == 0 {
		n.t.Fatal("kill nginx: no master runs")
	}
	for _, p := range append([]int{pid}, workers...) {
		_ = syscall.Kill(p, syscall.SIGKILL)
	}
	n.gone(append(workers, pid))
}

// Restart ends nginx at once and starts it again.
func (n *Nginx) Restart() {
	n.t.Helper()
	n.Stop()
	n.Start()
}

// Stop ends nginx at once, if it runs.
func (n *Nginx) Stop() {
	n.t.Helper()
	pid, workers := n.PID(), n.Workers()
	if pid == 0 {
		return
	}
	_ = syscall.Kill(pid, syscall.SIGTERM)
	n.gone(append(workers, pid))
}

func (n *Nginx) gone(pids []int) {
	n.t.Helper()
	n.wait("end", func() bool {
		for _, p := range pids {
			// A dead child that nobody has waited for holds no socket.
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
			if err == nil && !bytes.Contains(stat, []byte(") Z ")) && bytes.Contains(stat, []byte("(nginx)")) {
				return false
			}
		}
		return true
	})
}

// ErrorLog is what nginx has logged.
func (n *Nginx) ErrorLog() string {
	b, _ := os.ReadFile(filepath.Join(n.dir, "error.log"))
	return string(b)
}

func (n *Nginx) wait(what string, done func() bool) {
	n.t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); {
		if time.Now().After(end) {
			n.t.Fatalf("nginx did not %s in 10 s\n%s", what, n.ErrorLog())
		}
		time.Sleep(2 * time.Millisecond)
	}
}
