//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Event is one line of conductor's JSON output.
type Event struct {
	Time      time.Time `json:"time"`
	Event     string    `json:"event"`
	Service   string    `json:"service"`
	Revision  string    `json:"revision"`
	Instance  string    `json:"instance"`
	Container string    `json:"container"`
	Cause     string    `json:"cause"`
	Detail    string    `json:"detail"`
	// The result's.
	OK    *bool  `json:"ok"`
	Code  int    `json:"code"`
	Error string `json:"error"`
	Hint  string `json:"hint"`
}

// Run is a run of conductor that has ended.
type Run struct {
	t      testing.TB
	Args   []string
	Stdout string
	Stderr string
	Code   int // -1: killed
	Took   time.Duration
	Events []Event // with --output json
	Result *Event  // the last of them, nil if it was not written
}

// Text is all that a user could have read.
func (r Run) Text() string { return r.Stdout + r.Stderr }

func (r Run) String() string {
	return fmt.Sprintf("conductor %s\nexit %d after %s\nstdout:\n%s\nstderr:\n%s",
		strings.Join(r.Args, " "), r.Code, r.Took.Round(time.Millisecond), indent(r.Stdout), indent(r.Stderr))
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ")
}

// Want fails the test unless the run ended with the code and told all the words.
func (r Run) Want(code int, words ...string) Run {
	r.t.Helper()
	if r.Code != code {
		r.t.Fatalf("exit %d, want %d: %s", r.Code, code, r)
	}
	for _, w := range words {
		if !strings.Contains(r.Text(), w) {
			r.t.Errorf("%q is not told by: %s", w, r)
		}
	}
	return r
}

// WantOneOf fails the test unless one of the words is told.
func (r Run) WantOneOf(words ...string) Run {
	r.t.Helper()
	if !slices.ContainsFunc(words, func(w string) bool { return strings.Contains(r.Text(), w) }) {
		r.t.Errorf("none of %q is told by: %s", words, r)
	}
	return r
}

// Names are the names of the events, in their order.
func (r Run) Names() []string {
	var names []string
	for _, e := range r.Events {
		names = append(names, e.Event)
	}
	return names
}

// Find returns the first event of the name, nil if there is none.
func (r Run) Find(name string) *Event {
	for i := range r.Events {
		if r.Events[i].Event == name {
			return &r.Events[i]
		}
	}
	return nil
}

// Conductor runs conductor to its end, with the arguments alone.
func (e *Env) Conductor(args ...string) Run {
	e.t.Helper()
	return e.start(args).Wait()
}

// JSON runs conductor with --output json.
func (e *Env) JSON(args ...string) Run {
	e.t.Helper()
	return e.Start(args...).Wait()
}

// Do is JSON that must exit with 0.
func (e *Env) Do(args ...string) Run {
	e.t.Helper()
	return e.JSON(args...).Want(0)
}

// Upgrade upgrades a service, whatever comes of it.
func (e *Env) Upgrade(id, revision string, more ...string) Run {
	e.t.Helper()
	return e.JSON(append([]string{"service", "upgrade", "--id", id, "--revision", revision}, more...)...)
}

// Service commands that take an id alone.
func (e *Env) Verb(verb, id string, more ...string) Run {
	e.t.Helper()
	return e.JSON(append([]string{"service", verb, "--id", id}, more...)...)
}

// Proc is a run of conductor that is under way.
type Proc struct {
	t     testing.TB
	args  []string
	cmd   *exec.Cmd
	begun time.Time
	out   bytes.Buffer // read after done
	err   shared
	done  chan struct{}
	took  time.Duration
	stdin io.Reader
	to    io.Writer // its stdout, instead of out
	in    string    // its mount namespace; empty: that of the test

	mu      sync.Mutex
	events  []Event
	lines   string        // what stdout had so far
	seen    chan struct{} // closed and replaced at each event
	onEvent func(n int, e Event)
}

// Start starts conductor with --output json.
func (e *Env) Start(args ...string) *Proc {
	e.t.Helper()
	return e.start(append([]string{"--output", "json"}, args...))
}

// StartKilled starts conductor with --output json and kills it with SIGKILL
// as soon as its n-th event (from 0) is seen.
func (e *Env) StartKilled(n int, args ...string) *Proc {
	e.t.Helper()
	return e.startWith(append([]string{"--output", "json"}, args...), func(p *Proc) {
		p.onEvent = func(k int, _ Event) {
			if k == n {
				p.cmd.Process.Kill()
			}
		}
	})
}

// Piped runs conductor to its end, with its stdin.
func (e *Env) Piped(stdin io.Reader, args ...string) Run {
	e.t.Helper()
	return e.startWith(args, func(p *Proc) { p.stdin = stdin }).Wait()
}

func (e *Env) start(args []string) *Proc {
	e.t.Helper()
	return e.startWith(args, func(*Proc) {})
}

func (e *Env) startWith(args []string, prepare func(*Proc)) *Proc {
	e.t.Helper()
	p := &Proc{t: e.t, args: args, done: make(chan struct{}), seen: make(chan struct{})}
	prepare(p)
	p.cmd = exec.Command(binaries.conductor, args...)
	if p.in != "" {
		p.cmd = exec.Command("nsenter", append([]string{"--mount=" + p.in, binaries.conductor}, args...)...)
	}
	p.cmd.Dir = e.Dir
	p.cmd.Env = append(os.Environ(), "CONDUCTOR_CONFIG="+e.Path("conductor.yml"), "NO_COLOR=1")
	p.cmd.Stdin, p.cmd.Stderr = p.stdin, &p.err
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stdout io.Reader = strings.NewReader("")
	if p.cmd.Stdout = p.to; p.to == nil {
		var err error
		stdout, err = p.cmd.StdoutPipe()
		must(e.t, err)
	}
	p.begun = time.Now()
	must(e.t, p.cmd.Start())
	go func() {
		defer close(p.done)
		p.read(stdout)
		p.cmd.Wait()
		p.took = time.Since(p.begun)
	}()
	e.t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// read takes stdout in, and each line that is an event.
func (p *Proc) read(stdout io.Reader) {
	r := bufio.NewReader(io.TeeReader(stdout, &p.out))
	for {
		line, err := r.ReadBytes('\n')
		p.mu.Lock()
		p.lines += string(line)
		p.mu.Unlock()
		var e Event
		if bytes.HasPrefix(line, []byte("{")) && json.Unmarshal(line, &e) == nil && e.Event != "" {
			p.mu.Lock()
			p.events = append(p.events, e)
			n := len(p.events) - 1
			close(p.seen)
			p.seen = make(chan struct{})
			p.mu.Unlock()
			if p.onEvent != nil {
				p.onEvent(n, e)
			}
		}
		if err != nil {
			return
		}
	}
}

// procTimeout is given to any run of conductor.
const procTimeout = 2 * time.Minute

// Until waits for the n-th event (from 1) of the name.
func (p *Proc) Until(name string, n int) Event {
	p.t.Helper()
	timeout := time.After(procTimeout)
	ended := false
	for {
		p.mu.Lock()
		k := 0
		for _, e := range p.events {
			if e.Event == name {
				if k++; k == n {
					p.mu.Unlock()
					return e
				}
			}
		}
		seen := p.seen
		p.mu.Unlock()
		if ended {
			p.t.Fatalf("it ended without %d × %q: %s", n, name, p.Wait())
		}
		select {
		case <-seen:
		case <-p.done:
			ended = true
		case <-timeout:
			p.cmd.Process.Kill()
			p.t.Fatalf("no %d × %q within %s: %s", n, name, procTimeout, p.Wait())
		}
	}
}

// Signal sends it a signal.
func (p *Proc) Signal(s syscall.Signal) { p.cmd.Process.Signal(s) }

// PID is its process.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Wait waits for its end.
func (p *Proc) Wait() Run {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(procTimeout):
		// A stack of all goroutines says what it waits for.
		p.cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-p.done:
		case <-time.After(5 * time.Second):
			p.cmd.Process.Kill()
			<-p.done
		}
		p.t.Fatalf("it did not end within %s: conductor %s\n%s%s", procTimeout, strings.Join(p.args, " "), p.out.String(), p.err.String())
	}
	r := Run{
		t: p.t, Args: p.args, Stdout: p.out.String(), Stderr: p.err.String(),
		Code: p.cmd.ProcessState.ExitCode(), Took: p.took, Events: p.events,
	}
	if n := len(r.Events); n > 0 && r.Events[n-1].Event == "result" {
		r.Result = &r.Events[n-1]
	}
	return r
}

// shared is what is written while somebody reads.
type shared struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *shared) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// peak is the most memory that it has held so far, in bytes; 0: unknown.
func (p *Proc) peak() (n int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &n); err == nil {
			return n << 10
		}
	}
	return 0
}

// Ended says whether it has ended.
func (p *Proc) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// binaries are built once by TestMain.
var binaries struct{ conductor, app string }

// build compiles a command of this module, static.
func build(out, pkg string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("build %s: %w", pkg, err), errors.New(string(b)))
	}
	return nil
}
