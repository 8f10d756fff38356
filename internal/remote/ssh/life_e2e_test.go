//go:build e2e

package ssh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"conductor/internal/remote"
)

// One handshake a host, however many sessions there are, and when that
// connection has died one more.
func TestDo_OneHandshake(t *testing.T) {
	s := newSSHD(t)
	tr := s.transport()
	for round := 1; round <= 2; round++ {
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { does(t, tr, s.host()) })
		}
		all.Wait()
		if n := s.logged("Accepted publickey"); n != round {
			t.Errorf("%d handshakes, want %d", n, round)
		}
		for _, m := range tr.masters {
			// Ctrl-C is for this process, which then tells the hosts.
			if group, err := syscall.Getpgid(m.cmd.Process.Pid); err != nil || group == syscall.Getpgrp() {
				t.Errorf("it is in this process's group: %v", err)
			}
			must(t, syscall.Kill(m.cmd.Process.Pid, syscall.SIGKILL))
			<-m.done
		}
	}
}

// Close leaves no process and no file.
func TestClose_LeavesNothing(t *testing.T) {
	s := newSSHD(t)
	tr := s.transport()
	ended := s.begin(t.Context(), tr, remote.Request{Do: remote.Hold})
	folder := tr.folder.Path
	if fi, err := os.Stat(folder); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v, %v", fi, err)
	}
	must(t, tr.Close())
	if err := <-ended; !errors.Is(err, remote.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("%s: %v", folder, err)
	}
	if left := descendants(os.Getpid(), func(pid int) bool { return comm(pid) == "ssh" }); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
}

// nearEnd is a conductor deploy that holds a lock until it is killed.
func nearEnd() {
	tr := New(Options{Command: []string{"ssh", "-F", os.Getenv("CT_SSH_NEAR")}})
	err := tr.Do(context.Background(), remote.Host{Name: "web-1", SSH: "web1"}, remote.Request{Do: remote.Hold}, remote.Streams{Stdout: os.Stdout})
	fmt.Println("ended:", err)
	os.Exit(1)
}

// A deploy that is killed leaves no connection, and so no lock.
func TestDo_DiesWithItsProcess(t *testing.T) {
	s := newSSHD(t)
	near := exec.Command(os.Args[0])
	near.Env = append(os.Environ(), "CT_SSH_NEAR="+s.config, "TMPDIR="+t.TempDir())
	out, err := near.StdoutPipe()
	must(t, err)
	must(t, near.Start())
	b := make([]byte, len(remote.Held))
	if _, err := out.Read(b); err != nil || !bytes.Equal(b, remote.Held) {
		t.Fatalf("%q, %v", b, err)
	}
	its := descendants(near.Process.Pid, func(pid int) bool { return comm(pid) == "ssh" })
	if len(its) != 2 || len(s.connections()) == 0 {
		t.Fatalf("it has %d processes of ssh, and %d connections", len(its), len(s.connections()))
	}
	must(t, near.Process.Kill())
	_ = near.Wait()
	await(t, "its connections have ended", func() bool { return len(s.connections()) == 0 })
	await(t, "its processes have ended", func() bool {
		for _, pid := range its {
			if comm(pid) == "ssh" {
				return false
			}
		}
		return true
	})
	await(t, "the lock is let go", func() bool {
		for pid := range processes() {
			if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); exe == s.file("bin/conductor") {
				return false
			}
		}
		return true
	})
}

// What is asked is in no argument and no environment of any process, here or
// there.
func TestDo_NothingOfARequestIsInArguments(t *testing.T) {
	s := newSSHD(t)
	tr := s.transport()
	const secret = "ct-s3cret-value"
	r := remote.Request{
		Do: remote.Command, By: secret, Reason: secret, Service: secret, Revision: secret, Token: secret,
		Args: []string{"wait", secret}, Command: []string{secret}, Body: json.RawMessage(`"` + secret + `"`),
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := s.begin(ctx, tr, r)
	seen := 0
	for pid := range processes() {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if bytes.Contains(args, []byte(secret)) || bytes.Contains(env, []byte(secret)) {
			t.Errorf("%s: %q", comm(pid), args)
		}
		if bytes.Contains(args, []byte(s.config)) || bytes.Contains(args, []byte("session")) {
			seen++
		}
	}
	if seen < 3 {
		t.Errorf("only %d processes of this session were looked at", seen)
	}
	cancel()
	<-ended
	if log := s.read("log"); strings.Contains(log, secret) {
		t.Error("it is in sshd's log")
	}
	logs, _ := filepath.Glob(filepath.Join(tr.folder.Path, "*"))
	for _, name := range logs {
		if b, _ := os.ReadFile(name); bytes.Contains(b, []byte(secret)) {
			t.Errorf("it is in %s", name)
		}
	}
}

// People's configuration holds: ports, keys, users, jumps. What in it would
// make a session something else does not.
func TestDo_PeoplesConfiguration(t *testing.T) {
	s := newSSHD(t, "AllowTcpForwarding yes", "Banner "+filepath.Join("/etc", "hostname"))
	own := s.read("ssh_config")
	s.write("ssh_config", fmt.Sprintf(`Host behind
  HostName 127.0.0.1
  Port %d
  ProxyCommand ssh -F %s/ssh_config -W %%h:%%p web1
Host jumps
  HostName 127.0.0.1
  Port %[1]d
  ProxyJump web1
Host forces
  HostName 127.0.0.1
  Port %[1]d
  RequestTTY force
  RemoteCommand echo other
  ControlMaster auto
  ControlPath %[2]s/theirs
  ControlPersist yes
  PermitLocalCommand yes
  LocalCommand touch %[2]s/local
  ForwardAgent yes
  StrictHostKeyChecking no
  LocalForward 127.0.0.1:%[3]d 127.0.0.1:1
  LogLevel QUIET
`, s.port, s.dir, freePort(t))+own)
	tr := s.transport()
	for _, name := range []string{"web1", "behind", "jumps", "forces"} {
		t.Run(name, func(t *testing.T) { does(t, tr, remote.Host{Name: name, SSH: name}) })
	}
	for _, name := range []string{"theirs", "local"} {
		if _, err := os.Lstat(s.file(name)); err == nil {
			t.Errorf("%s has come to be", name)
		}
	}
}

// A long TMPDIR, or one with what ssh reads as something else, is no trouble.
func TestDo_Folders(t *testing.T) {
	s := newSSHD(t)
	for _, dir := range []string{strings.Repeat("long/", 30), "a %h %% dir"} {
		dir = filepath.Join(s.dir, dir)
		must(t, os.MkdirAll(dir, 0o755))
		t.Setenv("TMPDIR", dir)
		does(t, s.transport(), s.host())
	}
}
