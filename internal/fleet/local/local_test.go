package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/fleet"
	"conductor/internal/spec"
)

type said struct {
	mu    sync.Mutex
	lines []string
}

func (s *said) emit(e event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, e.Detail)
}

func TestHooks_GetTheirEnvironment(t *testing.T) {
	var s said
	dir := t.TempDir()
	h := Hooks{Commands{dir, s.emit}, map[spec.HookPoint]spec.Hook{
		spec.OnFailure: {Command: []string{"sh", "-c", `pwd; env | grep ^CONDUCTOR_ | sort; printf '$(no) line "end"'`}, Timeout: spec.Duration(time.Minute)},
	}}
	d := fleet.Deploy{Service: "shop", Revision: "v2;$(reboot)", Hosts: []string{"web1", "web2"}}
	if err := h.Run(t.Context(), fleet.OnFailure, "", d, errors.New("it\x00 failed")); err != nil {
		t.Fatal(err)
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{real, "CONDUCTOR_ERROR=it failed", "CONDUCTOR_HOOK=on_failure", "CONDUCTOR_HOST=", "CONDUCTOR_HOSTS=web1 web2",
		"CONDUCTOR_REVISION=v2;$(reboot)", "CONDUCTOR_SERVICE=shop", `$(no) line "end"`}
	if !slices.Equal(s.lines, want) {
		t.Errorf("%q\nwant\n%q", s.lines, want)
	}
	if err := h.Run(t.Context(), fleet.BeforeHost, "web1", d, nil); err != nil {
		t.Errorf("a hook that there is not: %v", err)
	}
}

func TestCommands_Fail(t *testing.T) {
	var s said
	c := Commands{t.TempDir(), s.emit}
	err := c.Target(t.Context(), spec.FleetTarget{Name: "legacy", Command: []string{"sh", "-c", "echo doing; echo no room >&2; exit 3"}}, "shop", "v2")
	for _, w := range []string{"target legacy", "exit status 3", "no room"} {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not told: %v", w, err)
		}
	}
	if err := c.Run(t.Context(), "hook x", []string{"/nowhere/x"}, nil, 0); err == nil || !strings.Contains(err.Error(), "/nowhere/x") {
		t.Error(err)
	}
}

// What a command has started ends with it, also what ignores SIGTERM.
func TestCommands_EndWithTheirTime(t *testing.T) {
	var s said
	dir := t.TempDir()
	c := Commands{dir, s.emit}
	for name, test := range map[string]struct {
		timeout time.Duration
		class   error
	}{"time": {300 * time.Millisecond, fault.ErrTimeout}, "interrupted": {time.Minute, fault.ErrInterrupted}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		began := time.Now()
		time.AfterFunc(300*time.Millisecond, func() {
			if name == "interrupted" {
				cancel(fault.ErrInterrupted)
			}
		})
		err := c.Run(ctx, "hook x", []string{"sh", "-c", "sleep 60 & echo $! >child; wait"}, nil, test.timeout)
		if !errors.Is(err, test.class) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: it took %s", name, took)
		}
		pid, err := os.ReadFile(filepath.Join(dir, "child"))
		if err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			b, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
			if err != nil || strings.Contains(string(b), ") Z ") {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s: its child lives on", name)
			}
		}
		cancel(nil)
	}
}
