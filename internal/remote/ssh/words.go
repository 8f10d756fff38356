package ssh

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"conductor/internal/fault"
	"conductor/internal/remote"
)

// reasons are what ssh says when there is no connection, and what a person can
// do about it. They are tried in this order; %s in a hint is the command to try
// by hand.
var reasons = []struct {
	says *regexp.Regexp
	what string // $1 is of the pattern
	hint string
}{
	{
		regexp.MustCompile(`(?s)REMOTE HOST IDENTIFICATION HAS CHANGED.*Offending \S+ key in (\S+)`),
		"its host key is not the one that is known (in $1): another machine answers, or it was set up anew",
		"where it was set up anew: take the old key away (ssh-keygen -R), then log in once by hand and compare the fingerprint: %s. Else find out who answers",
	},
	{regexp.MustCompile(`REMOTE HOST IDENTIFICATION HAS CHANGED`), "its host key is not the one that is known: another machine answers, or it was set up anew", "compare its fingerprint with the host's own: %s"},
	{regexp.MustCompile(`REVOKED HOST KEY`), "its host key is revoked", "give the host another key, or find out who answers: %s"},
	{regexp.MustCompile(`No (\S+) host key is known for`), "its host key ($1) is not known here", "log in once by hand and compare the fingerprint that is asked about: %s"},
	{regexp.MustCompile(`Host key verification failed`), "its host key was refused", "log in once by hand: %s"},
	{
		regexp.MustCompile(`Too many authentication failures`), "it was offered too many keys",
		"say which one to use: IdentityFile and IdentitiesOnly=yes in ~/.ssh/config. Then: %s",
	},
	{
		regexp.MustCompile(`(\S+): Permission denied \(([^)]*)\)`), "$1 may not log in: no key that is offered is taken ($2)",
		"this has to work without a question: %s. Is the key in the agent (ssh-add -l), and in the host's authorized_keys?",
	},
	{regexp.MustCompile(`Could not resolve hostname (\S+): (.*)`), "its name $1 cannot be resolved ($2)", "check ssh: in fleet.yml, and ~/.ssh/config: %s"},
	{regexp.MustCompile(`Timeout, server \S+ not responding`), fmt.Sprintf("it has not answered for %d s: the host hangs, or the network is cut", aliveInterval*aliveCount), "see whether it is up: %s"},
	{regexp.MustCompile(`(?i)connection timed out during banner exchange|Connection to \S+ port \d+ timed out`), fmt.Sprintf("it takes connections, and its sshd said nothing within %d s", connectTimeout), "see whether the host hangs, and whether it is sshd that is there: %s"},
	{regexp.MustCompile(`banner exchange: .*: invalid format|Bad remote protocol version`), "it says something else than sshd would", "is it the right port? %s"},
	{regexp.MustCompile(`(?i)connection refused`), "connection refused", "is sshd running there, and is it the right port? %s"},
	{regexp.MustCompile(`(?i)(?:connection|operation) timed out`), "no answer", "is the host up, and may this machine reach it (firewall, VPN)? %s"},
	{regexp.MustCompile(`(?i)no route to host|network is unreachable|host is down`), "there is no way to it", "is the host up, and this machine in its network? %s"},
	{regexp.MustCompile(`(?i)(?:connection closed by|connection reset by|Connection to \S+ closed by) ?(\S*)`), "the connection was closed", "what does sshd say there (journalctl -u ssh)? %s"},
	{regexp.MustCompile(`(?i)no matching (.*) found`), "both ends have no $1 in common", "what do they offer? %s"},
	{regexp.MustCompile(`(?i)bad configuration option|no argument after keyword|unsupported option`), "ssh does not take its configuration", "correct it: %s"},
}

// reason is why there is no connection to the host, by what ssh said, and how
// it ended.
func reason(host remote.Host, said string, ended error) error {
	for _, r := range reasons {
		m := r.says.FindStringSubmatchIndex(said)
		if m == nil {
			continue
		}
		what := remote.LastLines(string(r.says.ExpandString(nil, r.what, said, m)))
		return fault.New(fault.ErrUnreachable, fmt.Sprintf(r.hint, byHand(host)), "reach %s: %s", host, what)
	}
	what := "ssh ended by itself"
	if exit, ok := errors.AsType[*exec.ExitError](ended); ok {
		what = "ssh ended by itself (" + exit.String() + ")"
	}
	return fault.New(fault.ErrUnreachable, "try it by hand: "+byHand(host), "reach %s: %s%s", host, what, lastSaid(said))
}

// refusedBy: ssh said that the host takes no more sessions.
func refusedBy(said string) bool {
	return strings.Contains(said, "open refused by peer") || strings.Contains(said, "session request failed")
}

// notStarted is why the host's conductor did not run: by the exit code of what
// should have started it, what that said, and what ssh said.
func notStarted(host remote.Host, do remote.Do, code int, far, said string) error {
	user, _, _ := strings.Cut(host.SSH, "@")
	if user == host.SSH {
		user = "USER"
	}
	switch {
	case code == noConductor:
		return fault.New(fault.ErrHost, "conductor host install "+host.Name+" brings it there; or install its package by hand", "%s: %w is installed there", host, remote.ErrNoConductor)
	case code == noSudo:
		return fault.New(fault.ErrHost, "log in as root, or install sudo there", "%s: conductor has to be root, and there is no sudo", host)
	case strings.Contains(far, `no command "session"`):
		return fault.New(fault.ErrHost, "install the version there that you have here", "%s: its conductor is too old: it knows no sessions: %w", host, remote.ErrNoConductor)
	case saysSudo(far) && do == remote.Root:
		return fault.New(fault.ErrHost,
			fmt.Sprintf("log in as root, or let %s become root for the installation: echo '%s ALL=(root) NOPASSWD: ALL' > /etc/sudoers.d/conductor. Afterwards NOPASSWD: /usr/bin/conductor session is enough", user, user),
			"%s: sudo refuses to give root's shell%s", host, lastSaid(far))
	case saysSudo(far):
		return fault.New(fault.ErrHost,
			fmt.Sprintf("let it become root without a question: echo '%s ALL=(root) NOPASSWD: /usr/bin/conductor session' > /etc/sudoers.d/conductor", user),
			"%s: sudo refuses to run conductor%s", host, lastSaid(far))
	}
	return fault.New(fault.ErrHost, "try it by hand: "+byHand(host)+" conductor version", "%s: logged in, and its conductor did not start (exit code %d)%s", host, code, lastSaid(far+"\n"+said))
}

func saysSudo(far string) bool {
	for line := range strings.Lines(far) {
		if strings.HasPrefix(line, "sudo: ") || strings.HasPrefix(line, "Sorry, user ") {
			return true
		}
	}
	return false
}

// lastSaid is the last line of what was said, to be put behind a message.
func lastSaid(said string) string {
	s := remote.LastLines(said)
	if s = s[strings.LastIndexByte(s, '\n')+1:]; s == "" {
		return ""
	}
	return ": " + s
}

// readLog is the end of what ssh said.
func readLog(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, size-64<<10), io.SeekStart)
	}
	b, _ := io.ReadAll(f)
	return string(b)
}
