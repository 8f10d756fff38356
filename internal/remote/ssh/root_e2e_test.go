//go:build e2e

package ssh

import (
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"conductor/internal/fault"
	"conductor/internal/remote"
)

var _ remote.Bare = (*Transport)(nil)

// Root's shell reads the script, whatever the login shell is and says.
func TestRoot_LoginShells(t *testing.T) {
	for _, test := range []struct{ shell, file string }{
		{"/bin/sh", ""},
		{"/bin/bash", ".bashrc"},
		{"/usr/bin/zsh", ".zshenv"},
		{"/usr/bin/fish", ".config/fish/config.fish"},
		{"/bin/tcsh", ".cshrc"},
	} {
		shell := filepath.Base(test.shell)
		t.Run(shell, func(t *testing.T) {
			s := newSSHD(t)
			user := "ct-" + shell
			h := s.account(user, test.shell)
			if test.file != "" {
				s.write(filepath.Join(user, test.file), "echo Welcome\nsh -c 'echo a warning >&2'\n")
			}
			tr := s.transport()
			err := tr.Root(t.Context(), h, strings.NewReader("true\n"), remote.Streams{})
			if !errors.Is(err, fault.ErrHost) || !strings.Contains(err.Error(), "root's shell") {
				t.Errorf("without sudo: %v", err)
			}
			s.sudoers(user + " ALL=(root) NOPASSWD: ALL")
			var out, errs strings.Builder
			script := "id -u\nwc -c <<'END'\n" + strings.Repeat("x", 300_000) + "\nEND\nprintf '%s' \"$*\"\necho no room >&2\nexit 9\n"
			err = tr.Root(t.Context(), h, strings.NewReader(script), remote.Streams{Stdout: &out, Stderr: &errs})
			exit, ok := errors.AsType[*remote.ExitError](err)
			if !ok || exit.Code != 9 || !errors.Is(err, fault.ErrHost) || !strings.Contains(err.Error(), "no room") || out.String() != "0\n300001\n" {
				t.Errorf("%q, %q, %v", out.String(), errs.String(), err)
			}
			if err := tr.Root(t.Context(), h, strings.NewReader("true\n"), remote.Streams{}); err != nil {
				t.Errorf("all is well: %v", err)
			}
		})
	}
}

// Of a script that does not come whole what has come is done, and no half of a
// command.
func TestRoot_CutOff(t *testing.T) {
	s := newSSHD(t)
	tr := s.transport()
	read, write := io.Pipe()
	done := make(chan error, 1)
	var out strings.Builder
	go func() { done <- tr.Root(t.Context(), s.host(), read, remote.Streams{Stdout: &out}) }()
	_, _ = io.WriteString(write, "echo one\nlater() {\necho two\n")
	_ = write.CloseWithError(errors.New("the file cannot be read"))
	if err := <-done; err == nil || out.String() != "one\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}
