package session

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"conductor/internal/fault"
)

// nginxCommandTimeout bounds nginx -t and nginx -s reload, which take some 30 ms.
const nginxCommandTimeout = 30 * time.Second

const nginxLook = 2 * time.Millisecond // between looks at its processes

var (
	dumpedFile = regexp.MustCompile(`(?m)^# configuration file (.+):$`)
	pidLine    = regexp.MustCompile(`(?m)^\s*pid\s+([^\s;]+)\s*;`)
	pidDefault = regexp.MustCompile(`--pid-path=(\S+)`)
)

// included asks nginx for its whole configuration, which has to pass its own
// test and to have the file in it.
func (c *nginxChange) included(ctx context.Context) error {
	if len(c.Test) == 0 || len(c.Reload) == 0 {
		return fault.New(fault.ErrDefinition, "", "there is no command to test nginx's configuration, or none to reload it")
	}
	out, said, err := runNginx(ctx, append(slices.Clone(c.Test), "-T"))
	if err != nil {
		// A change that was cut off may have left a file that is refused.
		if _, serr := os.Stat(c.before); serr != nil {
			return refused("nginx's configuration does not pass its test, before anything was changed", said, err)
		}
		out, said, err = c.dumpWithBefore(ctx)
		if err != nil {
			return refused("nginx's configuration does not pass its test, without the change that was cut off either", said, err)
		}
	}
	has := slices.ContainsFunc(dumpedFile.FindAllStringSubmatch(out, -1), func(m []string) bool {
		at, err := filepath.EvalSymlinks(m[1])
		return err == nil && at == c.file
	})
	if !has {
		return fault.New(fault.ErrDefinition, "write in its upstream block: include "+c.file+";", "nginx's configuration does not include %s", c.file)
	}
	if m := pidLine.FindStringSubmatch(out); m != nil {
		c.pid = m[1]
		return nil
	}
	_, version, err := runNginx(ctx, []string{c.Test[0], "-V"})
	m := pidDefault.FindStringSubmatch(version)
	if err != nil || m == nil {
		return fault.New(fault.ErrHost, "write in nginx.conf: pid /run/nginx.pid;", "find nginx's processes: its configuration has no pid")
	}
	c.pid = m[1]
	return nil
}

// dumpWithBefore puts back the text before the change that was cut off, since
// nginx refuses the file as it is.
func (c *nginxChange) dumpWithBefore(ctx context.Context) (out, said string, err error) {
	old, err := os.ReadFile(c.before)
	if err == nil {
		err = c.write(old)
	}
	if err != nil {
		return "", "", err
	}
	return runNginx(ctx, append(slices.Clone(c.Test), "-T"))
}

func (c *nginxChange) test(ctx context.Context) error {
	if _, said, err := runNginx(ctx, c.Test); err != nil {
		return refused("nginx's configuration does not pass its test with the change; what was there is restored", said, err)
	}
	return nil
}

// reload has nginx read its configuration, and proves that other processes
// than before take the connections now. Neither command's exit status does.
//
// A reload of somebody else that began before the file was written would look
// the same, so it is awaited first: what begins from then on reads the file.
func (c *nginxChange) reload(ctx context.Context) error {
	began := time.Now()
	for c.reloading() {
		if time.Since(began) > c.ProveTimeout {
			return fault.New(fault.ErrProxyRefused, "look at nginx's error log: a port may be taken", "reload nginx: it has been at another reload for %s", c.ProveTimeout)
		}
		time.Sleep(nginxLook)
	}
	before, err := c.workers()
	if err != nil {
		return err
	}
	if _, said, err := runNginx(ctx, c.Reload); err != nil {
		return refused("reload nginx", said, err)
	}
	for began := time.Now(); ; time.Sleep(nginxLook) {
		idle := !c.reloading() // asked first: those that it made are seen then
		now, err := c.workers()
		if err != nil {
			return err
		}
		if now.follows(before) {
			return nil
		}
		if took := time.Since(began); took > c.ProveTimeout || idle && before.runs(now) {
			return fault.New(fault.ErrProxyRefused, "look at nginx's error log: a port may be taken, or a file have gone", "reload nginx: %s later the processes from before take the connections", took.Round(time.Millisecond))
		}
	}
}

// nginxWorkers are the processes of nginx's that take connections, and those
// that finish what is in flight at an earlier configuration.
type nginxWorkers struct {
	taking, finishing []int
	starting          []int // have not said yet what they are
}

// follows: a new configuration has taken over from what was before, or was about
// to be.
func (w nginxWorkers) follows(before nginxWorkers) bool {
	return len(w.taking) > 0 && !slices.ContainsFunc(w.taking, func(pid int) bool {
		return slices.Contains(before.taking, pid) || slices.Contains(before.starting, pid)
	})
}

// runs: what takes connections now is what took them before.
func (w nginxWorkers) runs(now nginxWorkers) bool {
	return len(now.taking) > 0 && len(now.starting) == 0 && !slices.ContainsFunc(now.taking, func(pid int) bool { return !slices.Contains(w.taking, pid) })
}

func (c *nginxChange) workers() (nginxWorkers, error) {
	var w nginxWorkers
	master, err := c.master()
	if err != nil {
		return w, err
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", master, master))
	if err != nil {
		return w, fault.New(fault.ErrUnreachable, "start nginx", "look at nginx's processes: %w", err)
	}
	for word := range strings.FieldsSeq(string(children)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			continue
		}
		switch title := title(pid); {
		case strings.HasPrefix(title, "nginx: worker process is shutting down"):
			w.finishing = append(w.finishing, pid)
		case strings.HasPrefix(title, "nginx: worker process"):
			w.taking = append(w.taking, pid)
		case strings.HasPrefix(title, "nginx: master"):
			w.starting = append(w.starting, pid)
		}
	}
	return w, nil
}

func (c *nginxChange) master() (int, error) {
	text, err := os.ReadFile(c.pid)
	pid, perr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || perr != nil || !strings.HasPrefix(title(pid), "nginx: master") {
		return 0, fault.New(fault.ErrUnreachable, "start nginx", "nginx does not run: %s names no process of it", c.pid)
	}
	return pid, nil
}

// reloading tells whether the master is reading its configuration, or is going
// to: it lets SIGHUP through only where it waits for signals, so meanwhile the
// signal is blocked, or pending; on its way from the one to the other it is
// neither, and the master runs. Where there is no master: false.
func (c *nginxChange) reloading() bool {
	master, err := c.master()
	if err != nil {
		return false
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", master))
	if err != nil {
		return false
	}
	const hangup = 1 << (uint(syscall.SIGHUP) - 1)
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		if name == "State" && !strings.HasPrefix(strings.TrimSpace(value), "S") {
			return true // it does not wait
		}
		if name != "SigBlk" && name != "SigPnd" && name != "ShdPnd" {
			continue
		}
		set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err == nil && set&hangup != 0 {
			return true
		}
	}
	return false
}

// title is what a process calls itself; empty where there is none.
func title(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	return string(bytes.TrimRight(text, "\x00"))
}

func runNginx(ctx context.Context, argv []string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(ctx, nginxCommandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = time.Second
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err = cmd.Run(); err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return out.String(), said.String(), err
}

func refused(what, said string, err error) error {
	if said = strings.TrimSpace(said); said != "" {
		return fault.New(fault.ErrProxyRefused, "", "%s: %w: %s", what, err, said)
	}
	return fault.New(fault.ErrProxyRefused, "", "%s: %w", what, err)
}
