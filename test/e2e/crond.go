//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Cron is a private cron daemon, Debian's: it reads the crontabs that the
// installation has, mails to files and logs to a socket, in a mount namespace
// of its own. Its jobs see the machine as it is but for these places.
type Cron struct {
	t     testing.TB
	dir   string
	tabs  string // in place of /etc/cron.d
	cmd   *exec.Cmd
	ended chan struct{}
	log   *net.UnixConn // in place of /dev/log
	mnt   string        // its mount namespace

	mu     sync.Mutex
	logged []string
}

// sendmail keeps each mail in a file, as cron gives it.
const sendmail = `#!/bin/sh
cat >%[1]s/.$$ && mv %[1]s/.$$ %[1]s/$$
`

// Cron starts cron and returns once it waits for the next minute. It ends with
// the test, and so do its jobs. env is added to its environment.
func (e *Env) Cron(t testing.TB, env ...string) *Cron {
	t.Helper()
	c := &Cron{t: t, dir: e.Path("cron"), tabs: e.Path("cron.d"), ended: make(chan struct{})}
	for _, d := range []string{"host/run", "host/dev", "host/usr/sbin", "run", "dev", "usr/sbin", "spool/crontabs", "mails"} {
		must(t, os.MkdirAll(filepath.Join(c.dir, d), 0o755))
	}
	for name, text := range map[string]string{
		"crontab": "", "run/crond.pid": "", "run/crond.reboot": "",
		"usr/sbin/sendmail": fmt.Sprintf(sendmail, filepath.Join(c.dir, "mails")),
	} {
		must(t, os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o644))
	}
	must(t, os.Chmod(filepath.Join(c.dir, "usr/sbin/sendmail"), 0o755))
	// cron looks again into a folder that has changed since the second it looked.
	long := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(c.tabs, long, long))
	c.listen()
	c.start(env)
	return c
}

// listen takes what cron logs, all the time: it stands still when nobody does.
func (c *Cron) listen() {
	c.t.Helper()
	var err error
	c.log, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(c.dir, "dev/log"), Net: "unixgram"})
	must(c.t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for buf := make([]byte, 64<<10); ; {
			n, err := c.log.Read(buf)
			if err != nil {
				return
			}
			c.mu.Lock()
			c.logged = append(c.logged, string(buf[:n]))
			c.mu.Unlock()
		}
	}()
	c.t.Cleanup(func() {
		c.log.Close()
		<-done
		if c.t.Failed() {
			c.t.Logf("cron logged:\n%s", indent(strings.Join(c.logged, "\n")))
		}
	})
}

// start starts cron where /run, /dev and /usr/sbin have all that the machine's
// have, as links, but for the files that are the test's.
func (c *Cron) start(env []string) {
	c.t.Helper()
	for _, program := range []string{"/usr/sbin/cron", "/usr/bin/unshare"} {
		if _, err := os.Stat(program); err != nil {
			c.t.Fatalf("%v; as root: apt-get install -y --no-install-recommends cron", err)
		}
	}
	must(c.t, os.MkdirAll("/run/conductor", 0o700)) // conductor's, which the engine sees too
	for _, place := range []string{"run", "dev", "usr/sbin"} {
		entries, err := os.ReadDir("/" + place)
		must(c.t, err)
		for _, f := range entries {
			own := filepath.Join(c.dir, place, f.Name())
			if _, err := os.Lstat(own); err != nil {
				must(c.t, os.Symlink(filepath.Join(c.dir, "host", place, f.Name()), own))
			}
		}
	}
	const script = `set -e; cd "$0"
		for d in run dev usr/sbin; do mount --rbind /$d host/$d; mount --bind $d /$d; done
		mount --bind "$1" /etc/cron.d; mount --bind crontab /etc/crontab; mount --bind spool /var/spool/cron
		exec /usr/sbin/cron -f -L 7`
	// A slave sees mounts of the machine go: it keeps no container's busy.
	c.cmd = exec.Command("unshare", "--mount", "--propagation", "slave", "/bin/sh", "-c", script, c.dir, c.tabs)
	c.cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, env...)
	// A file and not a pipe: Wait would wait for the pipe's end, which jobs hold
	// open when cron is killed.
	out, err := os.Create(filepath.Join(c.dir, "output"))
	must(c.t, err)
	defer out.Close()
	c.cmd.Stdout, c.cmd.Stderr = out, out
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(c.t, c.cmd.Start())
	go func() {
		c.cmd.Wait()
		close(c.ended)
	}()
	c.t.Cleanup(c.stop)
	c.logs("@reboot", 10*time.Second) // of which there are none
	c.mnt, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", c.cmd.Process.Pid))
	must(c.t, err)
}

// stop kills cron, which leaves its jobs behind, and sees them end.
func (c *Cron) stop() {
	c.cmd.Process.Kill()
	<-c.ended
	told := map[int]bool{}
	eventually(c.t, 30*time.Second, "cron's jobs have ended", func() bool {
		jobs := c.jobs()
		for _, pid := range jobs {
			if !told[pid] {
				syscall.Kill(pid, syscall.SIGTERM)
				told[pid] = true
			}
		}
		return len(jobs) == 0
	})
}

// jobs are the processes in cron's mount namespace, but cron.
func (c *Cron) jobs() (pids []int) {
	links, _ := filepath.Glob("/proc/[0-9]*/ns/mnt")
	for _, l := range links {
		pid, _ := strconv.Atoi(strings.Split(l, "/")[2])
		if mnt, err := os.Readlink(l); err == nil && mnt == c.mnt && pid != c.cmd.Process.Pid {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Until waits until cron has logged an event of the command: CMD is its start,
// END its end, when its mail is sent.
func (c *Cron) Until(event, command string) {
	c.t.Helper()
	c.logs(event+" ("+command+")", 2*time.Minute)
}

// logs waits until cron logs the words.
func (c *Cron) logs(words string, within time.Duration) {
	c.t.Helper()
	eventually(c.t, within, "cron logs "+words, func() bool {
		select {
		case <-c.ended:
			out, _ := os.ReadFile(filepath.Join(c.dir, "output"))
			c.t.Fatalf("cron ended: %s", out)
		default:
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return slices.ContainsFunc(c.logged, func(l string) bool { return strings.Contains(l, words) })
	})
}

// Conductor runs conductor to its end where this cron is the host's.
func (c *Cron) Conductor(e *Env, args ...string) Run {
	c.t.Helper()
	return e.startWith(args, func(p *Proc) { p.in = fmt.Sprintf("/proc/%d/ns/mnt", c.cmd.Process.Pid) }).Wait()
}

// Mail is what cron has sent.
type Mail struct {
	To, Subject, Body string
}

// Mails are those sent so far.
func (c *Cron) Mails() (mails []Mail) {
	c.t.Helper()
	files, err := filepath.Glob(filepath.Join(c.dir, "mails/[0-9]*"))
	must(c.t, err)
	for _, name := range files {
		f, err := os.Open(name)
		must(c.t, err)
		defer f.Close()
		m, err := mail.ReadMessage(f)
		must(c.t, err)
		body, err := io.ReadAll(m.Body)
		must(c.t, err)
		mails = append(mails, Mail{m.Header.Get("To"), m.Header.Get("Subject"), string(body)})
	}
	return mails
}
