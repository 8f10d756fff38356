// Package local runs a fleet's own commands where the deploy runs: hooks, and
// targets that conductor does not deploy itself.
//
// cmd and cli put it together. It imports fleet, spec, event and fault.
package local

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/fleet"
	"conductor/internal/spec"
)

// grace is how long a command has between SIGTERM and SIGKILL.
const grace = 10 * time.Second

// keep is how much of what a command said is told when it fails, in bytes.
const keep = 8 << 10

// Commands runs them in Dir, never in a shell, with the environment of this
// process and what says what it is about.
type Commands struct {
	Dir  string
	Emit event.Sink
}

// Run runs a command to its end. An error says its exit status and last words.
// When ctx ends, or the time is over, all that it started is told to end, and
// killed if it does not.
func (c Commands) Run(ctx context.Context, what string, command, env []string, timeout time.Duration) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fault.ErrTimeout)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = c.Dir
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	out := &lines{each: func(line string) {
		c.Emit(event.Event{Time: time.Now(), Event: event.Note, Cause: what, Detail: line})
	}}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if cmd.Process != nil && err != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // whatever of it is left
	}
	out.end()
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); ctx.Err() != nil {
		if errors.Is(cause, fault.ErrTimeout) && timeout > 0 {
			return fault.New(fault.ErrTimeout, "give it more time in fleet.yml, or see what it waits for", "%s (%s) did not end within %s", what, command[0], timeout)
		}
		return fault.New(fault.ErrInterrupted, "", "%s (%s) was ended: %w", what, command[0], cause)
	}
	if last := out.last(); last != "" {
		return fault.New(fault.ErrHost, "", "%s (%s): %w\n%s", what, strings.Join(command, " "), err, last)
	}
	return fault.New(fault.ErrHost, "", "%s (%s): %w", what, strings.Join(command, " "), err)
}

// Hooks are those of a fleet.
type Hooks struct {
	Commands
	Hooks map[spec.HookPoint]spec.Hook
}

// Run runs the hook of the name, if the fleet has one.
func (h Hooks) Run(ctx context.Context, name, host string, d fleet.Deploy, failure error) error {
	hook, ok := h.Hooks[spec.HookPoint(name)]
	if !ok {
		return nil
	}
	env := append(about(d.Service, d.Revision), "CONDUCTOR_HOOK="+name, "CONDUCTOR_HOST="+host, "CONDUCTOR_HOSTS="+strings.Join(d.Hosts, " "))
	if failure != nil {
		env = append(env, "CONDUCTOR_ERROR="+oneLine(failure.Error()))
	}
	return h.Commands.Run(ctx, "hook "+name, hook.Command, env, time.Duration(hook.Timeout))
}

// Target brings something else to the revision.
func (c Commands) Target(ctx context.Context, t spec.FleetTarget, service, revision string) error {
	return c.Run(ctx, "target "+t.Name, t.Command, append(about(service, revision), "CONDUCTOR_TARGET="+t.Name), time.Duration(t.Timeout))
}

func about(service, revision string) []string {
	return []string{"CONDUCTOR_SERVICE=" + service, "CONDUCTOR_REVISION=" + revision}
}

// oneLine makes text fit for an environment, which takes no NUL.
func oneLine(s string) string { return strings.ReplaceAll(s, "\x00", "") }

// lines gives each line that is written to each, and keeps the last ones.
type lines struct {
	each func(string)

	mu   sync.Mutex
	part []byte
	all  []byte
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.part = append(l.part, b...)
	for {
		line, rest, found := bytes.Cut(l.part, []byte("\n"))
		if !found && len(l.part) < keep {
			return len(b), nil
		}
		if !found {
			line, rest = l.part, nil
		}
		l.take(line)
		l.part = append([]byte(nil), rest...)
	}
}

func (l *lines) take(line []byte) {
	l.all = append(append(l.all, line...), '\n')
	if len(l.all) > 2*keep {
		l.all = append([]byte(nil), l.all[len(l.all)-keep:]...)
	}
	l.each(strings.ToValidUTF8(string(line), "\uFFFD"))
}

func (l *lines) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.part) > 0 {
		l.take(l.part)
		l.part = nil
	}
}

func (l *lines) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := strings.Split(strings.TrimSpace(strings.ToValidUTF8(string(l.all), "\uFFFD")), "\n")
	return strings.Join(text[max(0, len(text)-10):], "\n")
}

var _ fleet.Hooks = Hooks{}
