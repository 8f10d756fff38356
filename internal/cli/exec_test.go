package cli

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"conductor/internal/converge"
	"conductor/internal/engine"
)

func TestExec_PicksAHealthyLiveInstance(t *testing.T) {
	instance := func(name, state, health, route string) converge.InstanceStatus {
		return converge.InstanceStatus{Name: name, State: state, Health: health, Route: route}
	}
	for _, tt := range []struct {
		name string
		is   []converge.InstanceStatus
		want string
	}{
		{"healthy before sick", []converge.InstanceStatus{instance("a", "running", "unhealthy", "in"), instance("b", "running", "healthy", "in")}, "b"},
		{"routed before not yet", []converge.InstanceStatus{instance("a", "running", "healthy", "out"), instance("b", "running", "healthy", "in")}, "b"},
		{"sick before dead", []converge.InstanceStatus{instance("a", "exited", "dead", ""), instance("b", "running", "starting", "out")}, "b"},
		{"the first of equals", []converge.InstanceStatus{instance("a", "running", "healthy", ""), instance("b", "running", "healthy", "")}, "a"},
	} {
		got, err := chooseInstance("shop", "", []converge.Status{{Instances: tt.is}})
		if err != nil || got.Name != tt.want {
			t.Errorf("%s: got %s, %v, want %s", tt.name, got.Name, err, tt.want)
		}
	}
	dead := []converge.Status{{Instances: []converge.InstanceStatus{instance("a", "exited", "dead", "")}}}
	for named, code := range map[string]int{"": 1, "a": 1, "b": 2} {
		if got, err := chooseInstance("shop", named, dead); Code(err) != code {
			t.Errorf("%q among the dead: got %s, %v", named, got.Name, err)
		}
	}
}

// pty returns both ends of a terminal of that size.
func pty(t *testing.T, columns, rows uint16) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("a terminal is needed: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	resize(t, slave, columns, rows)
	return master, slave
}

func resize(t *testing.T, f *os.File, columns, rows uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		t.Fatal(err)
	}
}

// termEngine runs a command that watches its terminal.
type termEngine struct {
	engine.Engine
	exec func(engine.Exec)
}

func (e termEngine) Exec(_ context.Context, _ string, x engine.Exec) (int, error) {
	e.exec(x)
	return 0, nil
}

func TestExec_LendsItsTerminal(t *testing.T) {
	_, tty := pty(t, 120, 40)
	a := &app{env: Env{Stdin: tty, Stdout: tty}, stdout: &guard{w: tty}, stderr: tty}
	before, err := term.GetState(int(tty.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	next := func(x engine.Exec) [2]uint {
		select {
		case s := <-x.Resize:
			return s
		case <-time.After(10 * time.Second):
			t.Error("no size came")
			return [2]uint{}
		}
	}
	e := termEngine{exec: func(x engine.Exec) {
		if !x.TTY {
			t.Error("the command got no terminal")
		}
		if got := next(x); got != [2]uint{120, 40} {
			t.Errorf("its size is %d", got)
		}
		if now, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS); err != nil || now.Lflag&(unix.ISIG|unix.ECHO) != 0 {
			t.Errorf("the terminal is not raw: %v", err)
		}
		resize(t, tty, 80, 24)
		// The kernel tells only those whose controlling terminal it is.
		if err := unix.Kill(os.Getpid(), unix.SIGWINCH); err != nil {
			t.Error(err)
		}
		if got := next(x); got != [2]uint{80, 24} {
			t.Errorf("after the change its size is %d", got)
		}
	}}
	if err := a.execIn(t.Context(), e, converge.InstanceStatus{Name: "shop"}, []string{"sh"}); err != nil {
		t.Fatal(err)
	}
	after, err := term.GetState(int(tty.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if *after != *before {
		t.Error("the terminal was not given back as it was")
	}
}

// At a terminal the output has colour, unless it is not wanted, and fits.
func TestMain_AtATerminal(t *testing.T) {
	for _, tt := range []struct {
		env   map[string]string
		color bool
	}{
		{nil, true},
		{map[string]string{"CI": "false"}, true},
		{map[string]string{"CI": "true"}, false},
		{map[string]string{"NO_COLOR": "1"}, false},
		{map[string]string{"TERM": "dumb"}, false},
	} {
		_, tty := pty(t, 60, 20)
		a := &app{env: Env{Stdout: tty, Getenv: func(k string) string { return tt.env[k] }}, stdout: &guard{w: tty}}
		a.output.mode = a.defaultMode()
		if got := a.color(); got != tt.color {
			t.Errorf("%v: colour is %t", tt.env, got)
		}
		if got := a.width(); got != 60 {
			t.Errorf("the width is %d", got)
		}
	}
	a := &app{env: Env{Stdout: &strings.Builder{}}, stdout: &guard{w: &strings.Builder{}}}
	if got := a.defaultMode(); got != "plain" {
		t.Errorf("without a terminal: %s", got)
	}
	if got := a.width(); got != 0 {
		t.Errorf("without a terminal the width is %d", got)
	}
}
