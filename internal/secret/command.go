package secret

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unicode"

	"conductor/internal/fault"
)

// commandTimeout is how long a command may take that prints a secret.
const commandTimeout = 30 * time.Second

var errTooLong = errors.New("took longer than it may")

// runCommand runs a command, without a shell, and returns what it wrote to
// stdout, less one newline at its end. Its stderr may be shown, its stdout never.
func runCommand(ctx context.Context, name string, argv []string) ([]byte, error) {
	return runWithin(ctx, name, argv, commandTimeout)
}

func runWithin(ctx context.Context, name string, argv []string, timeout time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTooLong)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	// A group of its own, so that what the command starts ends with it. That
	// also keeps a Ctrl-C for conductor from ending it half-way.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	stdout, stderr := &limited{max: maxSize}, &tail{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()
	if err == nil && stdout.over {
		err = fmt.Errorf("it printed more than %d bytes", maxSize)
	}
	if err == nil {
		return bytes.TrimSuffix(stdout.b.Bytes(), []byte("\n")), nil
	}

	hint := "run the command by hand on this host, as the user that conductor runs as"
	switch {
	case errors.Is(context.Cause(ctx), errTooLong):
		err = fmt.Errorf("it did not end within %v", timeout)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, exec.ErrNotFound):
		hint = "install " + argv[0] + " on this host, or name it by its whole path"
	}
	said := ""
	if l := lastLine(string(stderr.b)); l != "" && !leaks(l, stdout.b.String()) {
		said = ": " + l
	}
	// argv alone may be shown: the contract keeps values out of it, but an
	// argument could be a token all the same.
	return nil, fault.New(fault.ErrHost, hint, "read secret %s: %s: %w%s", name, argv[0], err, said)
}

// leaks is true where a line of stdout is in what is to be shown.
func leaks(shown, stdout string) bool {
	for l := range strings.Lines(stdout) {
		if l = strings.TrimSpace(l); l != "" && strings.Contains(shown, l) {
			return true
		}
	}
	return false
}

// lastLine is the last line that is not empty, fit for a terminal.
func lastLine(s string) string {
	s = strings.TrimRight(s, "\r\n\t ")
	s = s[strings.LastIndexByte(s, '\n')+1:]
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return strings.TrimSpace(s)
}

// limited keeps the first max bytes, and remembers that there were more.
type limited struct {
	b    bytes.Buffer
	max  int
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.max-l.b.Len())
	l.b.Write(p[:n])
	l.over = l.over || n < len(p)
	return len(p), nil
}

// tail keeps the end of what is written.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	const keep = 4096
	t.b = append(t.b, p[max(0, len(p)-keep):]...)
	t.b = t.b[max(0, len(t.b)-keep):]
	return len(p), nil
}
