package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// workers is how many workers each nginx has: as many as Debian's "auto" on
// the machine with two processors that the published figures are from.
const workers = 2

const luaModules = `load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
`

// nginx is a private one.
type nginx struct {
	dir  string
	cmd  *exec.Cmd
	done chan struct{}
}

// startNginx starts one and returns once it answers at port. It dies with this
// process. http goes into its http block.
func startNginx(ctx context.Context, dir string, port int, modules, http string) (*nginx, error) {
	n := &nginx{dir: dir, done: make(chan struct{})}
	for _, d := range []string{n.confD(), filepath.Join(dir, "tmp")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	conf := fmt.Sprintf(`%[1]suser www-data;
worker_processes %[2]d;
pid %[3]s/nginx.pid;
error_log %[3]s/error.log;
events { worker_connections 768; }
http {
    access_log off;
    client_body_temp_path %[3]s/tmp/body;
    proxy_temp_path %[3]s/tmp/proxy;
    fastcgi_temp_path %[3]s/tmp/fastcgi;
    uwsgi_temp_path %[3]s/tmp/uwsgi;
    scgi_temp_path %[3]s/tmp/scgi;
    server { listen 127.0.0.1:%[4]d; return 200; }
%[5]s
    include %[3]s/conf.d/*.conf;
}
`, modules, workers, dir, port, http)
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(conf), 0o644); err != nil {
		return nil, err
	}
	args := n.command("-g", "daemon off;")
	var out bytes.Buffer
	n.cmd = exec.Command(args[0], args[1:]...)
	n.cmd.Stdout, n.cmd.Stderr = &out, &out
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = n.cmd.Wait() // how it ended is seen by who asked it to
		close(n.done)
	}()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return n, c.Close()
		}
		select {
		case <-n.done:
			return nil, fmt.Errorf("nginx did not start: %s", out.String())
		case <-ctx.Done():
			n.stop()
			return nil, fmt.Errorf("nginx does not answer: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (n *nginx) confD() string { return filepath.Join(n.dir, "conf.d") }

// command is how it is spoken to.
func (n *nginx) command(args ...string) []string {
	return append([]string{"nginx", "-p", n.dir, "-c", filepath.Join(n.dir, "nginx.conf"), "-e", filepath.Join(n.dir, "error.log")}, args...)
}

func (n *nginx) stop() {
	if n == nil || n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.done:
	case <-time.After(10 * time.Second):
		_ = n.cmd.Process.Kill()
		<-n.done
	}
}

// tick is the unit of the kernel's account of processor time.
const tick = 10 * time.Millisecond

// cpu is the processor time that its workers have used so far.
func (n *nginx) cpu() (used time.Duration) {
	for _, p := range processes() {
		if p.parent == n.cmd.Process.Pid {
			used += p.own
		}
	}
	return used
}
