//go:build e2e

package fleet

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"conductor/test/load"
)

// told is a line that conductor writes with --output json.
type told struct {
	Event, Host, Revision, Cause, Detail string
	Error, Hint                          string
}

// underWay is a run of conductor at the desk whose events are read as they come.
type underWay struct {
	t     testing.TB
	args  []string
	cmd   *exec.Cmd
	began time.Time
	ended chan struct{}
	errs  bytes.Buffer

	mu   sync.Mutex
	out  strings.Builder
	told []told
}

// start starts conductor with --output json.
func (f *Fleet) start(t testing.TB, args ...string) *underWay {
	t.Helper()
	return f.startAt(t, nil, args...)
}

// startAt starts it at a terminal.
func (f *Fleet) startAt(t testing.TB, stdin *os.File, args ...string) *underWay {
	t.Helper()
	args = append([]string{"--output", "json"}, args...)
	u := &underWay{t: t, args: args, cmd: f.Command(args...), began: time.Now(), ended: make(chan struct{})}
	stdout, err := u.cmd.StdoutPipe()
	must(t, err)
	u.cmd.Stderr = &u.errs
	if stdin != nil {
		u.cmd.Stdin = stdin
	}
	must(t, u.cmd.Start())
	go func() {
		defer close(u.ended)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			var e told
			isEvent := json.Unmarshal(lines.Bytes(), &e) == nil
			u.mu.Lock()
			u.out.WriteString(lines.Text() + "\n")
			if isEvent {
				u.told = append(u.told, e)
			}
			u.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		u.cmd.Process.Kill() // if the test has not waited for it
		<-u.ended
		u.cmd.Wait()
	})
	return u
}

// events are those that have come.
func (u *underWay) events() []told {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.told)
}

// when waits for an event of a host ("": of any), of one of the names (none:
// any). It has to come before the run ends.
func (u *underWay) when(host string, names ...string) {
	u.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		over := false
		select {
		case <-u.ended:
			over = true
		default:
		}
		if slices.ContainsFunc(u.events(), func(e told) bool {
			return (host == "" || e.Host == host) && (len(names) == 0 || slices.Contains(names, e.Event))
		}) {
			return
		}
		if over || time.Now().After(end) {
			u.t.Fatalf("no %v of %s has come: %s", names, host, u.wait())
		}
	}
}

// wait waits for its end.
func (u *underWay) wait() ran {
	u.t.Helper()
	<-u.ended
	u.cmd.Wait() // its exit code tells
	return ran{u.t, u.args, u.out.String(), u.errs.String(), u.cmd.ProcessState.ExitCode(), time.Since(u.began)}
}

// kill ends it as nothing can be refused.
func (u *underWay) kill() {
	u.t.Helper()
	must(u.t, u.cmd.Process.Kill())
	u.wait()
}

// within fails the test if the run took longer.
func (r ran) within(d time.Duration) ran {
	r.t.Helper()
	if r.took > d {
		r.t.Errorf("it took %s, want at most %s: %s", r.took.Round(time.Millisecond), d, r)
	}
	return r
}

// result is how it says that it ended, with --output json.
func (r ran) result() (e told) {
	r.t.Helper()
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	must(r.t, json.Unmarshal([]byte(lines[len(lines)-1]), &e))
	return e
}

// loaded puts load on the balancer, for up to five minutes.
func loaded(t *testing.T, f *Fleet, rate float64) *load.Running {
	t.Helper()
	l := load.Start(t.Context(), load.Config{Addr: f.LB.Addr(), Host: "shop.test", Rate: rate, RevisionHeader: "X-Revision", Duration: 5 * time.Minute})
	eventually(t, 10*time.Second, "the load gets answers", func() bool { return l.Good() > 20 })
	return l
}

// Out are the hosts that the balancer was told to send nothing.
func (b *Balancer) Out() (hosts []string) {
	b.t.Helper()
	for line := range strings.Lines(b.Ask("show servers state shop")) {
		field := strings.Fields(line)
		if len(field) < 7 || !strings.HasPrefix(field[3], "web") {
			continue
		}
		state, err := strconv.Atoi(field[6])
		must(b.t, err)
		const maintenance, drain = 0x01, 0x08
		if state&(maintenance|drain) != 0 {
			hosts = append(hosts, field[3])
		}
	}
	return hosts
}

// slow makes revisions on all hosts that take three seconds to start, so that
// there is a middle of an upgrade.
func (f *Fleet) slow(revisions ...string) {
	f.t.Helper()
	var refs []string
	for _, r := range revisions {
		refs = append(refs, f.Image(r, "START_DELAY=3s"))
	}
	f.Each(func(h *Host) { h.Load(refs...) })
}
