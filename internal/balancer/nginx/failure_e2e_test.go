//go:build e2e

package nginx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"conductor/internal/balancer"
	"conductor/internal/balancer/balancertest"
	"conductor/internal/fault"
	"conductor/internal/session"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv("CONDUCTOR_TEST_SWAPPER"); spec != "" {
		os.Exit(swapper(spec))
	}
	os.Exit(m.Run())
}

// mustFail fails unless nothing came of the change, and all is as it was.
func (r *rig) mustFail(t *testing.T, what string, class error, words string) {
	t.Helper()
	text := read(t, r.file)
	err := r.open(t).Set(t.Context(), balancer.Change{Drain: []string{"web1"}})
	if !errors.Is(err, class) || !strings.Contains(fmt.Sprint(err, fault.Hint(err)), words) {
		t.Errorf("%s: %v (%s), want %v and %q", what, err, fault.Hint(err), class, words)
	}
	if now := read(t, r.file); now != text {
		t.Errorf("%s: the file is\n%s", what, now)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(r.file), ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("%s: left %v, %v", what, left, err)
	}
}

func TestSet_WhatNginxDoesNotTakeIsRestored(t *testing.T) {
	r := start(t)
	other := filepath.Join(r.ConfigDir(), "other.conf")
	write(t, other, "no_such_directive on;\n")
	r.mustFail(t, "a configuration that is broken already", balancer.ErrRefused, "before anything was changed")

	// nginx -t and nginx -s reload end with 0, and the processes stay.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	workers := fmt.Sprint(r.Workers())
	write(t, other, fmt.Sprintf("server { listen %s; }\n", l.Addr()))
	r.mustFail(t, "a port that is taken", balancer.ErrRefused, "a port may be taken")
	if now := fmt.Sprint(r.Workers()); now != workers {
		t.Errorf("processes %s, want %s", now, workers)
	}
	if got := r.serving(t); got != "web1 web2 web3" {
		t.Errorf("%s serve", got)
	}
	l.Close()
	set(t, r.open(t), balancer.Change{Drain: []string{"web1"}})
	if got := r.serving(t); got != "web2 web3" {
		t.Errorf("%s serve", got)
	}
}

// A reload that read the file before the change ends after it, with new
// processes: they prove nothing.
func TestSet_IsNotProvedByAnotherReload(t *testing.T) {
	r := start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	write(t, filepath.Join(r.ConfigDir(), "other.conf"), fmt.Sprintf("server { listen %s; }\n", l.Addr()))
	r.Reload() // it has read all, and tries to have the port
	balancertest.Wait(t, "it cannot have the port", func() bool { return strings.Contains(r.ErrorLog(), "Address already in use") })
	l.Close()
	set(t, r.open(t), balancer.Change{Drain: []string{"web1"}})
	if got := r.serving(t); got != "web2 web3" {
		t.Errorf("%s serve", got)
	}
}

func TestSet_SaysWhatItLacks(t *testing.T) {
	r := start(t)
	b := r.open(t)
	whole := *r

	r.file += ".other"
	if _, err := r.open(t).State(t.Context()); !errors.Is(err, fault.ErrDefinition) || !strings.Contains(fault.Hint(err), "server 192.0.2.1:80;") {
		t.Errorf("there is no file: %v (%s)", err, fault.Hint(err))
	}
	write(t, r.file, read(t, whole.file))
	r.mustFail(t, "a file that nginx does not include", fault.ErrDefinition, "include "+r.file)

	r.file = whole.file
	r.KillMaster()
	r.mustFail(t, "nginx killed", balancer.ErrUnreachable, "start nginx")
	r.Start()
	set(t, b, balancer.Change{Drain: []string{"web1"}})

	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(r.file, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(r.file, 33, 33); err != nil {
		t.Fatal(err)
	}
	r.file = link
	set(t, r.open(t), balancer.Change{Admit: []string{"web1"}})
	info, err := os.Lstat(link)
	if err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info, err)
	}
	if out, err := exec.Command("stat", "-c", "%u:%g %a", whole.file).Output(); err != nil || string(out) != "33:33 644\n" {
		t.Errorf("the file's owner and mode are %s, %v", out, err)
	}
}

// A change that was cut off is finished by the next who looks, whatever nginx
// runs; a file that it does not take is taken back.
func TestState_FinishesWhatWasCutOff(t *testing.T) {
	r := start(t)
	b := r.open(t)
	text := read(t, r.file)
	before := filepath.Join(filepath.Dir(r.file), "."+filepath.Base(r.file)+".before")
	cutOff := func(to string) {
		write(t, before, text)
		write(t, r.file, to)
	}

	cutOff(strings.Replace(text, "; # web1", " down; # web1 # conductor: drained", 1))
	if s := state(t, b)["web1"]; s.In || s.Away {
		t.Errorf("web1 is %+v, want out", s)
	}
	if got := r.serving(t); got != "web2 web3" {
		t.Errorf("%s serve", got)
	}
	cutOff("server nonsense:nonsense;\n")
	if s := state(t, b); !s["web1"].In || !s["web2"].In {
		t.Errorf("state %+v", s)
	}
	if got := r.serving(t); got != "web1 web2 web3" {
		t.Errorf("%s serve", got)
	}
	if _, err := os.Stat(before); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", before, err)
	}
}

// swapper is another process that changes the file for ever.
func swapper(spec string) int {
	var in struct {
		Host    session.NginxBalancer
		Request balancer.FileRequest
		Texts   []string
	}
	if err := json.Unmarshal([]byte(spec), &in); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("ready")
	for n := 0; ; n++ {
		r := in.Request
		a, err := in.Host.Do(context.Background(), r)
		if err == nil {
			r.Text, r.Was = &in.Texts[n%2], balancer.Sum(a.Text)
			_, err = in.Host.Do(context.Background(), r)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
}

// However a change ends, what State says is what nginx serves.
func TestState_IsTrueAfterAKill(t *testing.T) {
	r := start(t)
	b := r.open(t)
	text := read(t, r.file)
	out := strings.Replace(text, "; # web1", " down; # web1 # conductor: drained", 1)
	spec, err := json.Marshal(map[string]any{"Host": r.host(), "Request": balancer.FileRequest{File: r.file}, "Texts": []string{out, text}})
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	saw := map[bool]int{}
	for range 12 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "CONDUCTOR_TEST_SWAPPER="+string(spec))
		var said strings.Builder
		cmd.Stderr = &said
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ready := make([]byte, 6)
		if _, err := stdout.Read(ready); err != nil {
			t.Fatalf("%v: %s", err, said.String())
		}
		kill := time.NewTimer(time.Duration(random.IntN(400)) * time.Millisecond)
		<-kill.C
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		if said.Len() > 0 {
			t.Fatalf("it failed: %s", said.String())
		}
		in := state(t, b)["web1"].In
		saw[in]++
		if got := strings.Contains(r.serving(t), "web1"); got != in {
			t.Fatalf("web1 is in: %t; it serves: %t\n%s", in, got, read(t, r.file))
		}
	}
	balancertest.Wait(t, "no process is left of another configuration", func() bool { s := state(t, b)["web1"]; return s.In || s.Sessions == 0 })
	t.Logf("killed with web1 in %d times, out %d times", saw[true], saw[false])
}
