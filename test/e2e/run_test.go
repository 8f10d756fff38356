//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A run is its command: output and errors apart, exit code, input, and the
// release's surroundings but for what was overridden. Nothing is left of it.
func TestRun_IsTheCommand(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.shellService("shop", nil, "v1", "v2")
	e.Do("service", "upgrade", "--id", "shop", "--revision", "v1")
	for name, c := range map[string]struct {
		stdin  string
		args   []string
		code   int
		stdout string
		stderr string // a part
	}{
		"output and errors":     {args: run("shop", "v1", sh("echo out; echo err >&2; exit 3")...), code: 3, stdout: "out\n", stderr: "err"},
		"input":                 {stdin: "a\nb\n", args: run("shop", "v1", "cat"), stdout: "a\nb\n"},
		"its words":             {args: run("shop", "v1", "printf", "%s|", "a b", "--id", "$HOME", "*", ";"), stdout: "a b|--id|$HOME|*|;|"},
		"after two dashes":      {args: run("shop", "v1", "--", "echo", "--revision"), stdout: "--revision\n"},
		"the definition":        {args: run("shop", "v1", sh("echo $A $REVISION; pwd")...), stdout: "from-the-definition v1\n/srv\n"},
		"another revision":      {args: run("shop", "v2", sh("echo $REVISION")...), stdout: "v2\n"},
		"the live release":      {args: []string{"run", "--id", "shop", "sh", "-c", "echo $REVISION"}, stdout: "v1\n"},
		"other surroundings":    {args: run("shop", "v1", "--env", "A=x", "--env", "B=$y z", "--user", "7:8", "sh", "-c", "echo $A $B; id -u; id -g"), stdout: "x $y z\n7\n8\n"},
		"another limit":         {args: run("shop", "v1", "--memory", "20m", "sh", "-c", "x=$(head -c 60000000 /dev/zero | tr '\\0' a)"), code: 137, stderr: "out of memory"},
		"by a signal of itself": {args: run("shop", "v1", sh("kill -9 $$")...), code: 137},
		"time is up":            {args: append([]string{"--timeout", "5s"}, run("shop", "v1", sh("trap 'echo ended; exit 7' TERM; while :; do sleep 0.1; done")...)...), code: 124, stdout: "ended\n", stderr: "--timeout"},
		"no such command":       {args: run("shop", "v1", "/nosuch"), code: 127, stderr: "nosuch"},
		"not executable":        {args: run("shop", "v1", "/etc"), code: 126},
		"unknown service":       {args: run("shopp", "v1", "true"), code: 125, stderr: "shopp"},
		"no image":              {args: run("shop", "v9", "true"), code: 125, stderr: "v9"},
		"no command":            {args: run("shop", "v1"), code: 2, stderr: "needs a command"},
		"bad limit":             {args: run("shop", "v1", "--memory", "1k", "true"), code: 2, stderr: "6m"},
	} {
		t.Run(name, func(t *testing.T) {
			e := e.With(t)
			r := e.Piped(strings.NewReader(c.stdin), c.args...)
			if r.Code != c.code || r.Stdout != c.stdout || !strings.Contains(r.Stderr, c.stderr) {
				t.Errorf("want exit %d, stdout %q, stderr with %q: %s", c.code, c.stdout, c.stderr, r)
			}
		})
	}
	e.wantNoRuns("shop")
}

// Signals are the command's; what does not heed them is killed at the third.
// It ends as under docker run --init, and nothing is left of it.
func TestRun_Signals(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.shellService("shop", nil, "v1")
	const loop = "; echo ready; while :; do sleep 0.1; done"
	for name, c := range map[string]struct {
		script  string
		signals []syscall.Signal
		answers []string // the script's, to each but the last
		given   string   // by the engine, by number
		code    int
		stdout  string
	}{
		"heeds Ctrl-C":    {"trap 'echo int; exit 9' INT" + loop, []syscall.Signal{syscall.SIGINT}, nil, "2", 9, "ready\nint\n"},
		"heeds SIGHUP":    {"trap 'echo hup; exit 4' HUP" + loop, []syscall.Signal{syscall.SIGHUP}, nil, "1", 4, "ready\nhup\n"},
		"dies of SIGTERM": {"echo ready; exec sleep 1000", []syscall.Signal{syscall.SIGTERM}, nil, "15", 143, "ready\n"},
		"heeds the second": {"trap 'n=x$n; echo $n; [ $n = xx ] && exit 8' INT" + loop, []syscall.Signal{syscall.SIGINT, syscall.SIGINT},
			[]string{"x"}, "2 2", 8, "ready\nx\nxx\n"},
		"heeds none": {"trap 'n=x$n; echo $n' INT TERM HUP" + loop, []syscall.Signal{syscall.SIGINT, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT},
			[]string{"x", "xx", "xxx"}, "2 1 15 9", 137, "ready\nx\nxx\nxxx\n"},
		"ignores all": {"trap '' INT TERM" + loop, []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGINT},
			nil, "2 15 9", 137, "ready\n"},
		"closes stdout, goes on": {"echo ready; exec >&- 2>&-; sleep 1; exit 6", nil, nil, "", 6, "ready\n"},
		"forks and ends":         {"(trap '' HUP TERM; sleep 1000) & echo ready; exit 5", nil, nil, "", 5, "ready\n"},
	} {
		t.Run(name, func(t *testing.T) {
			e := e.With(t)
			p := e.start(run("shop", "v1", sh(c.script)...))
			p.says(t, "ready")
			id := ""
			for n, s := range c.signals {
				if n == 0 {
					id = e.liveRuns("shop")[0].ID
				}
				p.Signal(s)
				eventually(t, 10*time.Second, "the engine gives it "+s.String(), func() bool { return len(e.signalled(id)) == n+1 })
				if n < len(c.answers) {
					p.says(t, c.answers[n])
				}
			}
			if r := p.Wait(); r.Code != c.code || r.Stdout != c.stdout {
				t.Errorf("want exit %d, stdout %q: %s", c.code, c.stdout, r)
			}
			if got := strings.Join(e.signalled(id), " "); got != c.given {
				t.Errorf("the engine gave it the signals %q, want %q", got, c.given)
			}
			e.wantNoRuns("shop")
		})
	}
}

// signalled are the numbers of the signals that the engine was asked to give to
// a container, in order.
func (e *Env) signalled(id string) (numbers []string) {
	e.t.Helper()
	if id == "" {
		return nil
	}
	now := time.Now()
	var out []byte
	must(e.t, e.Engine.Do(e.ctx(), "GET", "/events", url.Values{
		"since": {"1"}, "until": {fmt.Sprintf("%d.%09d", now.Unix(), now.Nanosecond())},
		"filters": {fmt.Sprintf(`{"container":[%q],"event":["kill"]}`, id)},
	}, nil, &out))
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var m struct {
			Actor struct{ Attributes struct{ Signal string } }
		}
		if err := d.Decode(&m); err != nil {
			if !errors.Is(err, io.EOF) {
				e.t.Fatalf("the engine's events: %v\n%s", err, out)
			}
			return numbers
		}
		numbers = append(numbers, m.Actor.Attributes.Signal)
	}
}

// A run belongs to its conductor: killed, it leaves a container that the next
// command ends, removes, and tells of; its lock is free at once.
func TestRun_OfAKilledConductorIsSweptUp(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.shellService("shop", nil, "v1")
	p := e.start(run("shop", "v1", "--lock", "nightly", "sh", "-c", "echo begun; echo more >&2; sleep 1000"))
	p.says(t, "begun")
	p.Signal(syscall.SIGKILL)
	p.Wait()
	if n := len(e.liveRuns("shop")); n != 1 {
		t.Fatalf("%d containers of runs after the kill, want the one that nobody attends to", n)
	}
	e.Conductor(run("shop", "v1", "--lock", "nightly", "--on-lock", "skip", "echo", "next")...).Want(0, "next")
	e.wantNoRuns("shop")
	rs := e.runsList("shop")
	if len(rs) != 2 || rs[1].Outcome != "interrupted" || rs[1].Code != 143 || !strings.Contains(rs[1].Error, "killed") {
		t.Fatalf("the history: %+v", rs)
	}
	e.Conductor("runs", "logs", rs[1].Name).Want(0, "begun", "more")
}

// What a killed conductor had heard is kept where the engine knows less of it:
// engines too turn logs over, and lose them.
func TestRun_SweptUpWhenTheEngineHasLostItsLog(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.shellService("shop", nil, "v1")
	p := e.start(run("shop", "v1", "sh", "-c", "echo begun; sleep 1000"))
	p.says(t, "begun")
	p.Signal(syscall.SIGKILL)
	p.Wait()
	var engine struct{ DockerRootDir string }
	must(t, e.Engine.Do(e.ctx(), "GET", "/info", nil, nil, &engine))
	log := filepath.Join(engine.DockerRootDir, "containers", e.liveRuns("shop")[0].ID, "local-logs/container.log")
	eventually(t, 10*time.Second, "the engine has written its log", func() bool {
		i, err := os.Stat(log)
		return err == nil && i.Size() > 0
	})
	must(t, os.Truncate(log, 0))
	rs := e.runsList("shop")
	e.wantNoRuns("shop")
	e.Conductor("runs", "logs", rs[0].Name).Want(0, "begun")
}

type runRecord struct {
	Name, Revision, Outcome, Error string
	Code                           int
	Memory                         int64
	Command                        []string
}

func (e *Env) runsList(id string) (rs []runRecord) {
	e.t.Helper()
	must(e.t, json.Unmarshal([]byte(e.JSON("runs", "list", "--id", id).Want(0).Stdout), &rs))
	return rs
}

// An upgrade leaves a run alone, and prune its image: it ends on the release
// that it began with.
func TestRun_DuringAnUpgrade(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.shellService("shop", Def{"retain": "1"}, "v1", "v2", "v3")
	e.Do("service", "upgrade", "--id", "shop", "--revision", "v1")
	p := e.start([]string{"run", "--id", "shop", "sh", "-c", "echo begun; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo $REVISION; cat /srv/../etc/none; ls /bin/sh"})
	p.says(t, "begun")
	id := e.liveRuns("shop")[0].ID
	e.Do("service", "upgrade", "--id", "shop", "--revision", "v2")
	e.Do("service", "upgrade", "--id", "shop", "--revision", "v3") // v1 is kept no more
	e.Do("converge")
	e.Do("prune")
	if got := e.liveRuns("shop"); len(got) != 1 || got[0].ID != id || got[0].State != "running" {
		t.Fatalf("the run beside the upgrade: %+v", got)
	}
	e.exec(id, "touch", "/tmp/go")
	if r := p.Wait().Want(0); r.Stdout != "begun\nv1\n/bin/sh\n" {
		t.Errorf("it was disturbed: %s", r)
	}
	e.wantNoRuns("shop")
}

// Locks: one waits, one skips, one replaces; without a lock all go at once.
func TestRun_Locks(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.shellService("shop", nil, "v1")
	hold := func() *Proc {
		t.Helper()
		p := e.start(run("shop", "v1", "--lock", "L", "sh", "-c", "echo begun; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo done"))
		p.says(t, "begun")
		return p
	}
	p := hold()
	if r := e.Conductor(run("shop", "v1", "--lock", "L", "--on-lock", "skip", "echo", "ran")...).Want(0); r.Text() != "" {
		t.Errorf("it was not skipped in silence: %s", r)
	}
	e.Conductor(run("shop", "v1", "--lock", "other", "--on-lock", "skip", "echo", "ran")...).Want(0, "ran")
	waiting := e.start(run("shop", "v1", "--lock", "L", "echo", "waited"))
	e.exec(e.liveRuns("shop")[0].ID, "touch", "/tmp/go")
	p.Wait().Want(0, "done")
	waiting.Wait().Want(0, "waited")

	p = hold()
	e.Conductor(run("shop", "v1", "--lock", "L", "--on-lock", "replace", "echo", "replaced")...).Want(0, "replaced")
	if r := p.Wait(); r.Code == 0 || strings.Contains(r.Stdout, "done") {
		t.Errorf("it was not replaced: %s", r)
	}
	e.Conductor(run("shop", "v1", "--lock", "../L", "true")...).Want(125, "no name for a lock")
	e.Conductor(run("shop", "v1", "--on-lock", "skip", "true")...).Want(2, "--lock NAME")
	e.wantNoRuns("shop")
}

// A detached run goes on by itself; runs shows it, its log, and ends it.
func TestRun_Detached(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.shellService("shop", nil, "v1")
	start := func(script string) string {
		t.Helper()
		name := strings.TrimSpace(e.Conductor(run("shop", "v1", append([]string{"--detach"}, sh(script)...)...)...).Want(0).Stdout)
		if cs := e.liveRuns("shop"); len(cs) != 1 || cs[0].Name() != name {
			t.Fatalf("%q is said, and %+v run", name, cs)
		}
		return name
	}
	one := start("echo begun; sleep 1; echo done; exit 3")
	e.Conductor("runs", "logs", one, "-f").Want(0, "begun", "done")
	eventually(t, 10*time.Second, "it is removed", func() bool { return len(e.liveRuns("shop")) == 0 })
	two := start("echo begun; exec sleep 1000")
	e.Conductor("runs", "list").Want(0, two, "running", one, "exit 3")
	e.Conductor("runs", "stop", two).Want(0)
	eventually(t, 10*time.Second, "it is removed", func() bool { return len(e.liveRuns("shop")) == 0 })
	eventually(t, 10*time.Second, "it is recorded", func() bool { return e.runsList("shop")[0].Code == 143 })
	e.Conductor("runs", "stop", two).Want(2, two)
	e.Conductor("runs", "logs", two).Want(0, "begun")
	e.Conductor(run("shop", "v1", "--detach", "/nosuch/command")...)
	e.Conductor(run("shop", "v7", "--detach", "true")...).Want(125, "v7")
	eventually(t, 10*time.Second, "nothing is left", func() bool { return len(e.liveRuns("shop")) == 0 })
}

// Much output streams through, whole, with as much memory as little of it; its
// log is bounded. A reader that goes away ends it.
func TestRun_MuchOutput(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.shellService("shop", nil, "v1")
	size := repeat(200, 1<<10) << 20 // 1 GB takes 10 s where nothing else runs, and thrice that beside other tests
	var n counter
	p := e.startWith(run("shop", "v1", sh(fmt.Sprintf("head -c %d /dev/zero; echo end >&2", size))...), func(p *Proc) { p.to = &n })
	peak := 0 // in the kernel's account of children, a child has its parent's before it execs
	for !p.Ended() {
		peak = max(peak, p.peak())
		time.Sleep(20 * time.Millisecond)
	}
	p.Wait().Want(0, "end")
	if int(n) != size {
		t.Errorf("%d of %d bytes came through", n, size)
	}
	t.Logf("%d MiB in %s, conductor held at most %d MiB", size>>20, p.took.Round(time.Millisecond), peak>>20)
	if peak == 0 || peak > 64<<20 {
		t.Errorf("conductor held %d MiB", peak>>20)
	}
	var log counter
	e.startWith([]string{"runs", "logs", e.runsList("shop")[0].Name}, func(p *Proc) { p.to = &log }).Wait().Want(0)
	if log < 5<<20-64<<10 || log > 10<<20 {
		t.Errorf("its log has %d bytes, want 5 to 10 MiB", log)
	}
	r, w := io.Pipe()
	p = e.startWith(run("shop", "v1", "yes"), func(p *Proc) { p.to = w })
	_, err := io.ReadFull(r, make([]byte, 100))
	must(t, err)
	must(t, r.CloseWithError(io.ErrClosedPipe))
	within(t, 20*time.Second, p.Wait().Took, "its end")
	e.wantNoRuns("shop")
}

// counter counts what is written to it.
type counter int

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// What a run was is in the history: command, end, code, the most memory.
func TestRun_History(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.shellService("shop", nil, "v1")
	e.Conductor(run("shop", "v1", sh("x=$(head -c 20000000 /dev/zero | tr '\\0' a); sleep 1; exit 2")...)...).Want(2)
	rs := e.runsList("shop")
	if len(rs) != 1 || rs[0].Code != 2 || rs[0].Outcome != "failed" || rs[0].Revision != "v1" || rs[0].Command[0] != "sh" {
		t.Fatalf("the history: %+v", rs)
	}
	if m := rs[0].Memory; m < 20<<20 || m > 64<<20 {
		t.Errorf("it held %d MiB at most, by the history; it made 20 MB of text at least, within 64 MiB", m>>20)
	}
	if b := []byte(e.read("state/history.db")); bytes.Contains(b, []byte("from-the-definition")) {
		t.Error("the environment is in the history")
	}
}
