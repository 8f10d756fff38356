//go:build e2e

package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// At a terminal the command has one too: its size, also when that changes, and
// every key, Ctrl-C among them.
func TestRun_AtATerminal(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.shellService("shop", nil, "v1")
	tmux := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("tmux", append([]string{"-L", e.Namespace}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("tmux %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	// What is printed at the end is not in what is typed.
	script := fmt.Sprintf("CONDUCTOR_CONFIG=%s %s %s; echo ended=$?; exec cat", e.Path("conductor.yml"), binaries.conductor, strings.Join(run("shop", "v1", "sh"), " "))
	tmux("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", script)
	t.Cleanup(func() { tmux("kill-server") })
	shows := func(text string) {
		t.Helper()
		eventually(t, 30*time.Second, "the terminal shows "+text+":\n"+tmux("capture-pane", "-p"), func() bool {
			return strings.Contains(tmux("capture-pane", "-p"), text)
		})
	}
	// typed types a line until it has an effect: what comes while a shell begins
	// or ends something may be thrown away by the terminal.
	typed := func(line, effect string) {
		t.Helper()
		eventually(t, 30*time.Second, effect, func() bool {
			tmux("send-keys", line, "Enter")
			for range 10 {
				if strings.Contains(tmux("capture-pane", "-p"), effect) {
					return true
				}
				time.Sleep(20 * time.Millisecond)
			}
			return false
		})
	}
	shows("/srv #")
	typed("stty size", "30 100")
	typed("tty && echo a$((1+1))a", "a2a")
	tmux("resize-window", "-x", "120", "-y", "40")
	typed("clear; stty size", "40 120")
	tmux("send-keys", "echo s$((1+1))s; sleep 1000", "Enter")
	shows("s2s")
	tmux("send-keys", "C-c")
	typed("echo b$((1+1))b", "b2b")
	tmux("send-keys", "exit 5", "Enter")
	shows("ended=5")
	e.wantNoRuns("shop")
}

// dockerd is restarted while a run is under way: how it ended is told, or that
// this is not known, and nothing is left.
func TestRun_EngineRestarted(t *testing.T) {
	t.Parallel()
	// It ends its containers first, and may still say how that went.
	if r := engineRestarted(t, (*Dockerd).Stop); r.Code != 143 { // by SIGTERM
		r.Want(125, "the engine")
	}
}

// dockerd is killed, so that its containers live on until the next one ends
// them.
func TestRun_EngineKilled(t *testing.T) {
	t.Parallel()
	engineRestarted(t, (*Dockerd).Kill).Want(125, "the engine was restarted while it ran", "it ended with exit code")
}

// engineRestarted ends a private dockerd under a run, and starts it again.
func engineRestarted(t *testing.T, end func(*Dockerd)) Run {
	t.Helper()
	e, d := newWithEngine(t)
	e.shellService("shop", nil, "v1")
	p := e.start(run("shop", "v1", sh("echo begun; exec sleep 1000")...))
	p.says(t, "begun")
	pid := e.Inspect(e.liveRuns("shop")[0].ID).PID
	end(d)
	d.Start()
	r := p.Wait()
	rs := e.runsList("shop")
	e.wantNoRuns("shop")
	if !dead(pid) {
		t.Errorf("its process %d is left", pid)
	}
	if len(rs) != 1 || rs[0].Outcome != "failed" || rs[0].Code != r.Code {
		t.Errorf("the history: %+v", rs)
	}
	e.Conductor("runs", "logs", rs[0].Name).Want(0, "begun")
	return r
}
