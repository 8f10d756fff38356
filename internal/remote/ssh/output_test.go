package ssh

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"

	"conductor/internal/fault"
	"conductor/internal/remote"
)

// However the far end's words are cut into pieces, what is passed on is what
// it said, and nothing else.
func TestOutput_Pieces(t *testing.T) {
	const said = "one\x00two\x00conductor\x00conductor end {}}\x00\n\x00conductor end {\"code\":3}\x00\nlast\n"
	var ending bytes.Buffer
	if err := (remote.Ending{Code: 7, Error: "locked"}).Write(&ending); err != nil {
		t.Fatal(err)
	}
	for _, before := range []string{"", "Welcome!\n", "\x00conductor ", "\x00\x00", strings.Repeat("noise ", 10_000)} {
		all := before + remote.Greeting + said + ending.String()
		for size := 1; size < 80; size++ {
			var out bytes.Buffer
			e := newEndings(&out)
			a := &answer{to: e, begun: make(chan struct{})}
			for rest := all; rest != ""; {
				n := min(size, len(rest))
				if _, err := a.Write([]byte(rest[:n])); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			// What looks like an ending, and is not the last, is lost: who writes
			// it wants to be mistaken for one.
			want := strings.Replace(said, "\x00conductor end {\"code\":3}\x00\n", "", 1)
			got, found := e.found()
			if out.String() != want || !found || got.Code != 7 || !a.hasBegun() {
				t.Fatalf("%.20q in pieces of %d: %q, %+v", before, size, out.String(), got)
			}
			if p := a.preamble(); !strings.HasSuffix(before, p) || len(p) < min(len(before), kept-len(remote.Greeting)) {
				t.Fatalf("%.20q in pieces of %d: before it was %.40q", before, size, p)
			}
		}
	}
}

// What cannot be an ending any more is passed on at once.
func TestOutput_HoldsNothingBack(t *testing.T) {
	var out bytes.Buffer
	e := newEndings(&out)
	for _, p := range []string{"prompt> ", "\x00x", "\x00conductor and"} {
		out.Reset()
		if _, err := e.Write([]byte(p)); err != nil || out.String() != p {
			t.Errorf("%q: %q, %v", p, out.String(), err)
		}
	}
}

func TestNotStarted(t *testing.T) {
	host := remote.Host{Name: "web-1", SSH: "deploy@192.0.2.1"}
	for _, test := range []struct {
		name        string
		code        int
		far         string
		says, hints string
	}{
		{"sudo asks", 1, "sudo: a password is required\n", "sudo refuses to run conductor: sudo: a password is required", "deploy ALL=.root. NOPASSWD: /usr/bin/conductor session"},
		{"sudo asks, in French", 1, "sudo: il est nécessaire de saisir un mot de passe\n", "sudo refuses", "NOPASSWD"},
		{"sudo wants a terminal", 1, "sudo: sorry, you must have a tty to run sudo\n", "you must have a tty", "NOPASSWD"},
		{"sudo does not allow it", 1, "Sorry, user deploy is not allowed to execute '/usr/bin/conductor session' as root on web1.\n", "not allowed", "NOPASSWD"},
		{"no sudo", noSudo, "", "there is no sudo", "as root"},
		{"no conductor", noConductor, "Welcome\n", "no conductor is installed there", "conductor host install web-1"},
		{"a login shell that is none", 1, "This account is currently not available.\n", "did not start .exit code 1.: This account is currently not available", "conductor version"},
		{"a login shell that says nothing", 0, "", "did not start .exit code 0.", "by hand"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := notStarted(host, remote.Observe, test.code, test.far, "")
			if !errors.Is(err, fault.ErrHost) || !regexp.MustCompile(test.says).MatchString(err.Error()) || !regexp.MustCompile(test.hints).MatchString(fault.Hint(err)) {
				t.Errorf("%v\n→ %s", err, fault.Hint(err))
			}
		})
	}
}

// Who may not have root's shell is told so, and not of a conductor that there is
// not.
func TestNotStarted_Root(t *testing.T) {
	err := notStarted(remote.Host{Name: "web-1", SSH: "deploy@192.0.2.1"}, remote.Root, 1, "sudo: a password is required\n", "")
	if !errors.Is(err, fault.ErrHost) || !strings.Contains(err.Error(), "root's shell: sudo: a password is required") || !strings.Contains(fault.Hint(err), "NOPASSWD: ALL") {
		t.Errorf("%v\n→ %s", err, fault.Hint(err))
	}
}

// A login shell of any kind reads the command as one word in single quotes.
func TestFarCommand_IsPlain(t *testing.T) {
	for _, command := range []string{farCommand, rootCommand} {
		inner, ok := strings.CutPrefix(command, "exec /bin/sh -c '")
		inner, ok2 := strings.CutSuffix(inner, "'")
		if !ok || !ok2 || strings.ContainsAny(inner, "'!\\\n") {
			t.Errorf("%s", command)
		}
	}
}
