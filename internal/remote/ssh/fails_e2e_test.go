//go:build e2e

package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"conductor/internal/fault"
	"conductor/internal/remote"
)

// Why there is no answer is told apart, each with the next thing to do.
func TestDo_SaysWhyThereIsNoAnswer(t *testing.T) {
	for _, test := range []struct {
		name   string
		sshd   []string // more configuration
		before func(s *sshd) (h remote.Host)
		class  error
		says   string // pattern
		hint   string // pattern
	}{
		{
			name: "unknown host key, whatever is configured",
			before: func(s *sshd) remote.Host {
				s.write("known_hosts", "")
				s.write("ssh_config", "StrictHostKeyChecking accept-new\n"+s.read("ssh_config"))
				return s.host()
			},
			class: fault.ErrUnreachable, says: `^reach web-1 \(web1\): its host key \(ED25519\) is not known here$`, hint: `log in once by hand.*fingerprint.*: ssh web1$`,
		},
		{
			name:   "changed host key",
			before: func(s *sshd) remote.Host { s.keygen("other"); s.known("other.pub"); return s.host() },
			class:  fault.ErrUnreachable, says: `its host key is not the one that is known \(in .*/known_hosts:1\)`, hint: `ssh-keygen -R`,
		},
		{
			name:   "no key is taken",
			before: func(s *sshd) remote.Host { s.write("authorized_keys", ""); return s.host() },
			class:  fault.ErrUnreachable, says: `@127.0.0.1 may not log in: no key that is offered is taken \(publickey\)`, hint: `ssh-add -l`,
		},
		{
			name:   "connection refused",
			before: func(s *sshd) remote.Host { return remote.Host{Name: "web-2", SSH: "127.0.0.1", Port: freePort(s.t)} },
			class:  fault.ErrUnreachable, says: `^reach web-2 \(127.0.0.1 port \d+\): connection refused$`, hint: `is sshd running.*ssh -p \d+ 127.0.0.1$`,
		},
		{
			name:   "takes connections and is silent",
			before: func(s *sshd) remote.Host { return listen(s.t, func(net.Conn) {}) },
			class:  fault.ErrUnreachable, says: `its sshd said nothing within 10 s`, hint: `hangs`,
		},
		{
			name:   "closes connections",
			before: func(s *sshd) remote.Host { return listen(s.t, func(c net.Conn) { _ = c.Close() }) },
			class:  fault.ErrUnreachable, says: `the connection was closed`, hint: `journalctl`,
		},
		{
			name: "speaks something else",
			before: func(s *sshd) remote.Host {
				return listen(s.t, func(c net.Conn) { fmt.Fprint(c, strings.Repeat("HTTP/1.1 400 Bad Request\r\n", 3000)); _ = c.Close() })
			},
			class: fault.ErrUnreachable, says: `^reach web-3 .*: it says something else than sshd would`, hint: `port`,
		},
		{
			name:   "no such name",
			before: func(s *sshd) remote.Host { return remote.Host{Name: "web-2", SSH: "deploy@no-such-host.invalid"} },
			class:  fault.ErrUnreachable, says: `its name no-such-host.invalid cannot be resolved`, hint: `fleet.yml`,
		},
		{
			name: "a proxy command that fails",
			before: func(s *sshd) remote.Host {
				s.write("ssh_config", "Host web1\n  ProxyCommand echo the tunnel is down >&2; exit 3\n"+s.read("ssh_config"))
				return s.host()
			},
			class: fault.ErrUnreachable, says: `the connection was closed|the tunnel is down`, hint: `ssh web1`,
		},
		{
			name:   "a configuration that ssh does not take",
			before: func(s *sshd) remote.Host { s.write("ssh_config", "Frobnicate yes\n"); return s.host() },
			class:  fault.ErrUnreachable, says: `ssh does not take its configuration`, hint: `ssh web1`,
		},
		{
			name:   "no conductor",
			before: func(s *sshd) remote.Host { must(s.t, os.Remove(s.file("bin/conductor"))); return s.host() },
			class:  remote.ErrNoConductor, says: `^web-1 \(web1\): no conductor is installed there$`, hint: `install `,
		},
		{
			name: "a conductor without sessions",
			before: func(s *sshd) remote.Host {
				s.script("echo 'conductor has no command \"session\"' >&2; exit 2")
				return s.host()
			},
			class: remote.ErrNoConductor, says: `too old`, hint: `install `,
		},
		{
			name:   "a conductor that cannot start",
			before: func(s *sshd) remote.Host { s.script("echo exec format error >&2; exit 255"); return s.host() },
			class:  fault.ErrHost, says: `its conductor did not start \(exit code 255\): exec format error`, hint: `ssh web1 conductor version`,
		},
		{
			name: "one session alone",
			sshd: []string{"MaxSessions 1"},
			before: func(s *sshd) remote.Host {
				return s.host() // the lock is taken below
			},
			class: fault.ErrHost, says: `its sshd takes no more sessions on this connection`, hint: `MaxSessions`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSSHD(t, test.sshd...)
			tr := s.transport()
			h := test.before(s)
			if test.sshd != nil {
				defer s.hold(tr)()
			}
			err := tr.Do(t.Context(), h, say("x", ""), remote.Streams{})
			if !errors.Is(err, test.class) || errors.Is(err, remote.ErrCut) {
				t.Fatalf("got %#v: %v", err, err)
			}
			if !regexp.MustCompile(test.says).MatchString(err.Error()) || !regexp.MustCompile(test.hint).MatchString(fault.Hint(err)) {
				t.Errorf("got  %s\n→ %s\nwant %s\n→ %s", err, fault.Hint(err), test.says, test.hint)
			}
		})
	}
}

// listen takes connections, and gives them to do. It is known by nobody.
func listen(t *testing.T, do func(net.Conn)) remote.Host {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			do(c)
			t.Cleanup(func() { _ = c.Close() })
		}
	})
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	return remote.Host{Name: "web-3", SSH: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port}
}

// script makes conductor a shell script.
func (s *sshd) script(text string) {
	s.t.Helper()
	must(s.t, os.Remove(s.file("bin/conductor")))
	must(s.t, os.WriteFile(s.file("bin/conductor"), []byte("#!/bin/sh\n"+text+"\n"), 0o755))
}

// lines tells of the first thing that is written to it.
type lines struct {
	once sync.Once
	come chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.once.Do(func() { close(l.come) })
	return len(p), nil
}

// begin starts a request that goes on, and returns when it has answered.
func (s *sshd) begin(ctx context.Context, tr *Transport, r remote.Request) (ended <-chan error) {
	s.t.Helper()
	out, done := &lines{come: make(chan struct{})}, make(chan error, 1)
	go func() { done <- tr.Do(ctx, s.host(), r, remote.Streams{Stdout: out}) }()
	select {
	case <-out.come:
	case err := <-done:
		s.t.Fatalf("it ended: %v", err)
	case <-time.After(patience):
		s.t.Fatal("no answer")
	}
	return done
}

// hold takes a lock until it is let go.
func (s *sshd) hold(tr *Transport) (letGo func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := s.begin(ctx, tr, remote.Request{Do: remote.Hold})
	return func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("hold: %v", err)
		}
	}
}

// A host that hangs is told about once it has not answered for 15 s.
func TestDo_HostThatHangs(t *testing.T) {
	t.Parallel()
	s := newSSHD(t)
	tr := s.transport()
	ended := s.begin(t.Context(), tr, remote.Request{Do: remote.Hold})
	for _, pid := range s.connections() {
		must(t, syscall.Kill(pid, syscall.SIGSTOP))
	}
	start := time.Now()
	err := <-ended
	if !errors.Is(err, remote.ErrCut) || !remote.Unreached(err) || !strings.Contains(err.Error(), "it has not answered for 15 s") || fault.Hint(err) == "" {
		t.Errorf("got %v (%s)", err, fault.Hint(err))
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
	does(t, tr, s.host()) // sshd itself is well
}

// A conductor that is killed in its work is no connection that was cut: the
// next request needs no new one.
func TestDo_ConductorKilled(t *testing.T) {
	s := newSSHD(t)
	tr := s.transport()
	ended := s.begin(t.Context(), tr, remote.Request{Do: remote.Command, Args: []string{"wait"}})
	for _, pid := range descendants(s.cmd.Process.Pid, func(pid int) bool { return comm(pid) == "conductor" }) {
		must(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	err := <-ended
	if !errors.Is(err, remote.ErrCut) || !strings.Contains(err.Error(), "ended in the middle of the answer") {
		t.Errorf("got %v", err)
	}
	does(t, tr, s.host())
	if n := s.logged("Accepted publickey"); n != 1 {
		t.Errorf("%d handshakes", n)
	}
}

// sshd may take fewer sessions than ten: that is learned, and no input is lost
// to a session that it refused.
func TestDo_FewSessions(t *testing.T) {
	s := newSSHD(t, "MaxSessions 3")
	tr := s.transport()
	defer s.hold(tr)()
	var all sync.WaitGroup
	for range 12 {
		all.Go(func() {
			var out strings.Builder
			r := remote.Request{Do: remote.Exec, Args: []string{"count"}}
			err := tr.Do(t.Context(), s.host(), r, remote.Streams{Stdin: strings.NewReader("all of it"), Stdout: &out})
			if err != nil || out.String() != "9\n" {
				t.Errorf("%q, %v", out.String(), err)
			}
		})
	}
	all.Wait()
	for _, m := range tr.masters {
		if n := m.places.most(); n != 2 && n != 3 { // 2: one had just ended
			t.Errorf("it takes the host to allow %d sessions", n)
		}
	}
	if n := s.logged("Accepted publickey"); n != 1 {
		t.Errorf("%d handshakes", n)
	}
}

// Where all sessions that a host takes last as long as the deploy, another is
// refused: to wait for their end would be for ever.
func TestDo_AllSessionsLast(t *testing.T) {
	s := newSSHD(t, "MaxSessions 2")
	tr := s.transport()
	release := s.hold(tr)
	d := &remote.Dialogue{Transport: tr, Host: s.host(), Request: remote.Request{Do: remote.HAProxy}}
	var answer struct{ Question string }
	must(t, d.Ask(t.Context(), "first", &answer))
	for range 2 {
		err := tr.Do(t.Context(), s.host(), say("x", ""), remote.Streams{})
		if !errors.Is(err, fault.ErrHost) || !strings.Contains(fault.Hint(err), "MaxSessions") {
			t.Errorf("got %v", err)
		}
	}
	must(t, d.Ask(t.Context(), "second", &answer))
	release()
	does(t, tr, s.host())
}

// What does not come to its end when it is told to is left to itself.
func TestDo_DeafToInterrupts(t *testing.T) {
	s := newSSHD(t)
	tr := New(Options{Command: []string{"ssh", "-F", s.config}, Grace: 50 * time.Millisecond})
	defer tr.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	leave := filepath.Join(t.TempDir(), "leave")
	ended := s.begin(ctx, tr, remote.Request{Do: remote.Command, Args: []string{"deaf", leave}})
	cancel(fault.ErrInterrupted)
	if err := <-ended; !errors.Is(err, fault.ErrInterrupted) || !strings.Contains(err.Error(), "may go on") {
		t.Errorf("got %v", err)
	}
	does(t, tr, s.host())
	must(t, os.WriteFile(leave, nil, 0o600))
}
