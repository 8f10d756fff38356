//go:build e2e

package ssh

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"conductor/internal/fault"
	"conductor/internal/remote"
	"conductor/internal/remote/remotetest"
	"conductor/internal/session"
)

// A host's conductor is this program, by another name.
func TestMain(m *testing.M) {
	if os.Getenv("CT_SSH_NEAR") != "" {
		nearEnd()
	}
	if filepath.Base(os.Args[0]) == "conductor" {
		os.Exit(farEnd(os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

func farEnd(args []string) int {
	if len(args) != 1 || args[0] != "session" {
		fmt.Fprintf(os.Stderr, "conductor has no command %q\n", args)
		return 2
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	do := func(ctx context.Context, c session.Call) error {
		return remotetest.Far(ctx, remote.Host{}, c.Request, remote.Streams{Stdin: c.Stdin, Take: c.Take, Stdout: c.Stdout, Stderr: c.Stderr})
	}
	s := session.Server{Version: "1.0", Code: remote.ClassCode, Do: map[remote.Do]session.Handler{
		remote.Command: do, remote.Exec: do, remote.Hold: do, remote.HAProxy: do,
	}}
	return s.Serve(context.Background(), os.Stdin, os.Stdout, os.Stderr)
}

const patience = 30 * time.Second

// sshd is a server of the test's own, at a port of loopback.
type sshd struct {
	t       *testing.T
	dir     string // of its files
	port    int
	log     string
	cmd     *exec.Cmd
	config  string   // of ssh here
	options []string // of sshd's configuration
}

// newSSHD starts sshd, with more lines of configuration where there are some.
// The user of the test may log in, and finds conductor.
func newSSHD(t *testing.T, options ...string) *sshd {
	t.Helper()
	s := &sshd{t: t, dir: newDir(t), options: options}
	s.log, s.config = filepath.Join(s.dir, "log"), filepath.Join(s.dir, "ssh_config")
	s.keygen("host")
	s.keygen("user")
	s.install("bin/conductor")
	s.copy("user.pub", "authorized_keys")
	s.port = freePort(t)
	s.known("host.pub")
	s.write("ssh_config", fmt.Sprintf(`Host web1
  HostName 127.0.0.1
  Port %d
Host *
  IdentityFile %s/user
  IdentitiesOnly yes
  UserKnownHostsFile %[2]s/known_hosts
  GlobalKnownHostsFile /dev/null
  UpdateHostKeys no
`, s.port, s.dir))
	s.start()
	return s
}

// newDir is a short folder that everybody may look into, as sshd wants it.
func newDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/tmp", "ct-ssh-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	return dir
}

func (s *sshd) file(name string) string { return filepath.Join(s.dir, name) }

func (s *sshd) write(name, text string) {
	s.t.Helper()
	must(s.t, os.MkdirAll(filepath.Dir(s.file(name)), 0o755))
	must(s.t, os.WriteFile(s.file(name), []byte(text), 0o644))
}

func (s *sshd) read(name string) string {
	s.t.Helper()
	b, err := os.ReadFile(s.file(name))
	must(s.t, err)
	return string(b)
}

func (s *sshd) copy(from, to string) { s.t.Helper(); s.write(to, s.read(from)) }

func (s *sshd) keygen(name string) {
	s.t.Helper()
	out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", s.file(name)).CombinedOutput()
	if err != nil {
		s.t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
}

// known makes the key that of the host, for ssh here.
func (s *sshd) known(key string) {
	s.t.Helper()
	s.write("known_hosts", fmt.Sprintf("[127.0.0.1]:%d %s", s.port, s.read(key)))
}

// install puts this program there, which others have to be able to run too.
func (s *sshd) install(name string) {
	s.t.Helper()
	self, err := os.Executable()
	must(s.t, err)
	b, err := os.ReadFile(self)
	must(s.t, err)
	s.write(name, "")
	must(s.t, os.WriteFile(s.file(name), b, 0o755))
	must(s.t, os.Chmod(s.file(name), 0o755))
}

// start starts the server, again where it was ended.
func (s *sshd) start() {
	s.t.Helper()
	must(s.t, os.MkdirAll("/run/sshd", 0o755)) // for privilege separation; empty
	me, err := user.Current()
	must(s.t, err)
	s.write("sshd_config", fmt.Sprintf(`%s
ListenAddress 127.0.0.1:%d
HostKey %s/host
PidFile none
AuthorizedKeysFile %[3]s/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowUsers %s ct-*
UsePAM no
StrictModes no
PrintMotd no
PrintLastLog no
LogLevel VERBOSE
MaxStartups 100
SetEnv PATH=%[3]s/bin:/usr/local/bin:/usr/bin:/bin CT_SSH_DIR=%[3]s GORACE=atexit_sleep_ms=0
`, strings.Join(s.options, "\n"), s.port, s.dir, me.Username))
	s.cmd = exec.Command("/usr/sbin/sshd", "-D", "-E", s.log, "-f", s.file("sshd_config"))
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(s.t, s.cmd.Start())
	cmd := s.cmd
	s.t.Cleanup(func() {
		for _, pid := range s.connections() {
			_ = syscall.Kill(pid, syscall.SIGCONT)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		s.endFarEnds()
		if s.t.Failed() && os.Getenv("CONDUCTOR_TEST_KEEP") != "" {
			s.t.Logf("sshd said:\n%s", s.read("log"))
		}
	})
	await(s.t, "sshd listens", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
		if err != nil {
			return false
		}
		_ = c.Close()
		return true
	})
}

// connections are sshd's processes for those who are connected.
func (s *sshd) connections() []int {
	return descendants(s.cmd.Process.Pid, func(pid int) bool { return strings.HasPrefix(comm(pid), "sshd") })
}

// cut kills them, and waits until their ends are known.
func (s *sshd) cut() {
	for _, pid := range s.connections() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// transport is one that reads the test's configuration of ssh.
func (s *sshd) transport() *Transport {
	tr := New(Options{Command: []string{"ssh", "-F", s.config}})
	s.t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			s.t.Errorf("close: %v", err)
		}
	})
	return tr
}

// endFarEnds kills what goes on to an end of its own though its connection is
// gone, as it should.
func (s *sshd) endFarEnds() {
	all, _ := filepath.Glob("/proc/[0-9]*/exe") // the pattern is well-formed
	for _, link := range all {
		at, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(at, s.dir+"/") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link))); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

func (s *sshd) host() remote.Host { return remote.Host{Name: "web-1", SSH: "web1"} }

// logged counts the lines of sshd's log that have the text.
func (s *sshd) logged(text string) int { return strings.Count(s.read("log"), text) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// await waits for what comes soon.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for start := time.Now(); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > patience {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func comm(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(b))
}

// descendants are the processes below one that are as asked.
func descendants(of int, is func(pid int) bool) (found []int) {
	for pid, parent := range processes() {
		if parent != of {
			continue
		}
		if is(pid) {
			found = append(found, pid)
		}
		found = append(found, descendants(pid, is)...)
	}
	return found
}

// processes are all there are, with their parents.
func processes() map[int]int {
	parents := map[int]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 1 {
			parents[pid], _ = strconv.Atoi(f[1])
		}
	}
	return parents
}

func say(words ...string) remote.Request {
	return remote.Request{Version: "1.0", Do: remote.Command, Args: append([]string{"say"}, words...)}
}

// does says that the host does what it is asked.
func does(t *testing.T, tr remote.Transport, h remote.Host) {
	t.Helper()
	var out strings.Builder
	if err := tr.Do(t.Context(), h, say("hello", ""), remote.Streams{Stdout: &out}); err != nil || out.String() != "hello" {
		t.Fatalf("%q, %v (hint: %s)", out.String(), err, fault.Hint(err))
	}
}
