//go:build e2e

package schedule

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// realCron is Debian's cron in a mount namespace of its own: its crontabs, its
// spool, /run and /dev are folders of the test.
type realCron struct {
	dir string
	log *net.UnixConn // /dev/log
}

func newRealCron(t *testing.T) *realCron {
	t.Helper()
	for _, program := range []string{"/usr/sbin/cron", "/usr/bin/crontab", "/usr/bin/unshare", faketime} {
		if _, err := os.Stat(program); err != nil {
			t.Fatalf("%v; as root: apt-get install -y --no-install-recommends cron faketime", err)
		}
	}
	dir, err := os.MkdirTemp("", "ct-cron-") // short: a socket's path is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, d := range []string{"", "dev", "run", "spool", "spool/crontabs", "cron.d"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, minor := range map[string]int{"null": 3, "urandom": 9} {
		if err := syscall.Mknod(filepath.Join(dir, "dev", name), syscall.S_IFCHR|0o666, 1<<8|minor); err != nil {
			t.Fatal(err)
		}
	}
	c := &realCron{dir: dir}
	c.write(t, "crontab", "", 0o644)
	if err := os.Chmod(dir, 0o755); err != nil { // jobs may run as nobody
		t.Fatal(err)
	}
	if c.log, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "dev/log"), Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.log.Close() })
	return c
}

func (c *realCron) write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// command runs a script where cron's places are the test's. What it starts
// ends with it, and it with the test.
func (c *realCron) command(script string, env ...string) *exec.Cmd {
	const places = `set -e; cd "$0"
		mount --bind cron.d /etc/cron.d; mount --bind crontab /etc/crontab; mount --bind spool /var/spool/cron
		mount --bind run /run; mount --bind dev /dev; `
	cmd := exec.Command("/usr/bin/unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "/bin/sh", "-c", places+script, c.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}, env...)
	return cmd
}

// start starts cron until the end of the test, with a clock that begins at the
// time and is so many times faster.
func (c *realCron) start(t *testing.T, from time.Time, loc *time.Location, rate int) {
	t.Helper()
	cmd := c.command("exec env LD_PRELOAD="+faketime+" /usr/sbin/cron -f -L 1", "TZ="+loc.String(),
		fmt.Sprintf("FAKETIME=@%s x%d", from.In(loc).Format("2006-01-02 15:04:05"), rate))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() && out.Len() > 0 {
			t.Log(out.String())
		}
	})
}

const faketime = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"

// takes tells of each crontab whether crontab(1) takes it for a user.
func (c *realCron) takes(t *testing.T, crontabs []string) []bool {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(c.dir, "check"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i, text := range crontabs {
		c.write(t, fmt.Sprintf("check/%d", i), text, 0o644)
	}
	cmd := c.command(fmt.Sprintf(`i=0; while [ $i -lt %d ]; do
		if crontab -u root -n check/$i >/dev/null 2>&1; then echo yes; else echo no; fi; i=$((i+1)); done`, len(crontabs)))
	out, err := cmd.Output()
	answers := strings.Fields(string(out))
	if err != nil || len(answers) != len(crontabs) {
		t.Fatalf("%v: %d answers for %d crontabs", err, len(answers), len(crontabs))
	}
	takes := make([]bool, len(crontabs))
	for i, a := range answers {
		takes[i] = a == "yes"
	}
	return takes
}

// stricter are the reasons for which Parse refuses what cron takes (see the
// package's doc).
var stricter = []string{
	"a range that goes down", "is too large", "there is no command", "has no name", "cuts it off", "control character",
	"carriage return", "is not UTF-8", "SHELL is", "directive", "on-lock", "jitter",
}

func TestParse_RefusesWhatCronRefuses(t *testing.T) {
	lines := generateLines(1500)
	files := make([]string, len(lines))
	for i, l := range lines {
		files[i] = l + "\n"
	}
	both, neither, only := 0, 0, 0
	for i, takes := range newRealCron(t).takes(t, files) {
		_, err := Parse(files[i])
		excused := false
		for _, reason := range stricter {
			excused = excused || err != nil && strings.Contains(err.Error(), reason)
		}
		switch {
		case takes && excused:
			only++
		case takes != (err == nil):
			t.Errorf("cron takes it: %v; Parse: %v\n%q", takes, err, lines[i])
		case takes:
			both++
		default:
			neither++
		}
	}
	t.Logf("%d lines: %d taken by both, %d refused by both, %d refused here alone", len(lines), both, neither, only)
	if both < 300 || neither < 300 || only > len(lines)/5 {
		t.Error("the lines are too much of one kind")
	}
}

// generateLines makes lines of crontabs, most of them nearly right. They are
// the same each time.
func generateLines(n int) []string {
	r := rand.New(rand.NewPCG(3, 162))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	number := func() string {
		switch r.IntN(12) {
		case 0:
			return pick("60", "24", "32", "13", "8", "99", "-1", "007", "2147483648", "")
		case 1:
			return pick("jan", "Dec", "mon", "SUN", "sat", "feb", "xyz", "january")
		default:
			return fmt.Sprint(r.IntN(12))
		}
	}
	item := func() string {
		switch r.IntN(8) {
		case 0, 1:
			return "*"
		case 2:
			return "*/" + number()
		case 3:
			return number() + "-" + number() + "/" + number()
		case 4:
			return number() + "-" + number()
		case 5:
			return pick("1/2", "*-3", "**", "5.5", "3;4", "1-2-3", "*/5/2", "a", "'1'", "1,", ",1", "1-", "é", "L", "5#2", "?", "H", "1w", "\"", "*x")
		default:
			return number()
		}
	}
	field := func() string {
		if r.IntN(3) > 0 {
			return pick("*", "1", "2-5", "*/3", "1,3")
		}
		s := item()
		for r.IntN(4) == 0 {
			s += "," + item()
		}
		return s
	}
	blank := func() string { return pick(" ", " ", " ", "\t", "  ", " \t ") }
	command := func() string {
		return pick("x", "bin/x -a", "a && b", `echo \%`, "a%b", "*x", " ", "", "%x", "é", "A=b x", "x = y", "= x", "'", "root x",
			strings.Repeat("x", 990+r.IntN(20)), strings.Repeat(`\%`, 490+r.IntN(20)))
	}
	lines := make([]string, n)
	for i := range lines {
		var s string
		switch r.IntN(10) {
		case 0:
			s = pick("A", "", "A B", "'A B'", `"A"`, "A.B-c", `"A`, "SHELL", "MAILTO", "5", "@daily", "*", "A=", "#", "é") +
				pick("=", " = ", "\t=", "= ", "", " ") +
				pick("b", "", `""`, "''", `"b c"`, "'b", `"b" c`, `"b"  `, "b 'c'", `"b'`, "# c", "=", strings.Repeat("v", 985+r.IntN(20)), "/bin/sh")
		case 1:
			s = pick("@daily", "@reboot", "@yearly", "@annually", "@monthly", "@weekly", "@midnight", "@hourly", "@Daily", "@every", "@", "@dailyx") +
				pick(" ", "\t", "", "  ") + command()
		case 2:
			s = pick("#", " # x", "", "  ", "\t", "#=", "x", "-", "\f", "\v1 1 1 1 1 x", "\u00a0")
		case 3:
			for range r.IntN(7) {
				s += field() + blank()
			}
			s += command()
		default:
			s = field()
			for range 4 {
				s += blank() + field()
			}
			s += blank() + command()
		}
		if r.IntN(12) == 0 {
			s = pick(" ", "\t", "  ") + s
		}
		if r.IntN(15) == 0 && s != "" { // one byte changed
			b := []byte(s)
			const others = " \t%\\*/-,=#'\"@059azZ\xc3\x7f"
			b[r.IntN(len(b))] = others[r.IntN(len(others))]
			s = string(b)
		}
		lines[i] = s
	}
	return lines
}
