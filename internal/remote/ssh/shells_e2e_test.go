//go:build e2e

package ssh

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"conductor/internal/fault"
	"conductor/internal/remote"
)

// account makes a user of this machine for the time of the test. Its home is
// in the server's folder.
func (s *sshd) account(name, shell string) (login remote.Host) {
	s.t.Helper()
	home := s.file(name)
	run(s.t, "useradd", "--no-create-home", "--home-dir", home, "--no-log-init", "--password", "*", "--shell", shell, name)
	s.t.Cleanup(func() { run(s.t, "userdel", "--force", name) })
	return remote.Host{Name: "web-1", SSH: name + "@web1"}
}

func run(t *testing.T, command string, args ...string) {
	t.Helper()
	if out, err := exec.Command(command, args...).CombinedOutput(); err != nil {
		t.Errorf("%s %q: %v: %s", command, args, err, out)
	}
}

// sudoers lets a user do what the line says, for the time of the test.
func (s *sshd) sudoers(line string) {
	s.t.Helper()
	file := filepath.Join("/etc/sudoers.d", strings.ReplaceAll(filepath.Base(s.dir), ".", "-"))
	s.t.Cleanup(func() { _ = os.Remove(file) })
	must(s.t, os.WriteFile(file, []byte(line+"\n"), 0o440))
}

// Whatever the login shell is, and whatever its files say first, the answer is
// the conductor's.
func TestDo_LoginShells(t *testing.T) {
	for _, test := range []struct{ shell, file string }{
		{"/bin/sh", ""}, // dash reads none
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
				s.write(filepath.Join(user, test.file), "echo 'Welcome to {\"event\":\"result\"}'\nprintf 'no end of line'\nsh -c 'echo a warning >&2'\n")
			}
			s.sudoers(user + " ALL=(root) NOPASSWD: " + s.file("bin/conductor") + " session")
			tr := s.transport()
			var out, errs strings.Builder
			err := tr.Do(t.Context(), h, remote.Request{Do: remote.Exec, Args: []string{"say", "'$HOME' !! \\ ;", "err"}}, remote.Streams{Stdout: &out, Stderr: &errs})
			if err != nil || out.String() != "'$HOME' !! \\ ;" || errs.String() != "err" {
				t.Errorf("%q, %q, %v (%s)", out.String(), errs.String(), err, fault.Hint(err))
			}
			if err := tr.Do(t.Context(), h, remote.Request{Do: remote.Exec, Args: []string{"exit", "255"}}, remote.Streams{}); err == nil || !strings.Contains(err.Error(), "it went") {
				t.Errorf("exit: %v", err)
			}
			if shell == "sh" {
				return
			}
			// It is the far end that runs as root, and it alone.
			must(t, os.Remove(s.file("bin/conductor")))
			if err := tr.Do(t.Context(), h, say("x", ""), remote.Streams{}); !errors.Is(err, remote.ErrNoConductor) {
				t.Errorf("no conductor: %v", err)
			}
		})
	}
}

// Who is not root needs sudo, which must not ask.
func TestDo_Sudo(t *testing.T) {
	for _, test := range []struct {
		name, sudoers, says, hint string
	}{
		{"may do nothing", "", `sudo refuses to run conductor: sudo: `, `echo 'ct-sudo ALL=\(root\) NOPASSWD: /usr/bin/conductor session' > /etc/sudoers.d/conductor`},
		{"with a password", "ct-sudo ALL=(root) CONDUCTOR", `sudo refuses to run conductor: sudo: a password is required`, "NOPASSWD"},
		{"another command", "ct-sudo ALL=(root) NOPASSWD: /bin/true", `sudo refuses to run conductor: `, "NOPASSWD"},
		{"only from a terminal", "Defaults:ct-sudo requiretty\nct-sudo ALL=(root) NOPASSWD: CONDUCTOR", `sudo refuses to run conductor: .*tty`, "NOPASSWD"},
		{"conductor alone", "ct-sudo ALL=(root) NOPASSWD: CONDUCTOR session", "", ""},
		{"with a terminal of its own", "Defaults:ct-sudo use_pty\nct-sudo ALL=(root) NOPASSWD: CONDUCTOR", "", ""},
		{"with a log", "Defaults:ct-sudo log_output\nDefaults:ct-sudo iolog_dir=DIR/io\nct-sudo ALL=(root) NOPASSWD: CONDUCTOR", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSSHD(t)
			h := s.account("ct-sudo", "/bin/sh")
			if test.sudoers != "" {
				s.sudoers(strings.NewReplacer("CONDUCTOR", s.file("bin/conductor"), "DIR", s.dir).Replace(test.sudoers))
			}
			tr := s.transport()
			if test.says == "" {
				does(t, tr, h)
				var out strings.Builder
				if err := tr.Do(t.Context(), h, remote.Request{Do: remote.Exec, Args: []string{"sum"}}, remote.Streams{Stdin: strings.NewReader(strings.Repeat("x", 300_000)), Stdout: &out}); err != nil || !strings.HasPrefix(out.String(), "300000 ") {
					t.Errorf("%q, %v", out.String(), err)
				}
				return
			}
			err := tr.Do(t.Context(), h, say("x", ""), remote.Streams{})
			if !errors.Is(err, fault.ErrHost) || !regexp.MustCompile(test.says).MatchString(err.Error()) || !regexp.MustCompile(test.hint).MatchString(fault.Hint(err)) {
				t.Errorf("%v\n→ %s", err, fault.Hint(err))
			}
		})
	}
}
