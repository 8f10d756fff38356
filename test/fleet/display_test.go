//go:build e2e

package fleet

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// terminal is a person's, with a shell's line in it that runs conductor.
type terminal struct {
	t    *testing.T
	name string // of tmux's server
}

var terminals int

// terminal runs conductor at the desk in a terminal of that size. When it has
// ended, its exit code is there as ended=CODE.
func (f *Fleet) terminal(t *testing.T, width, height int, env string, args ...string) *terminal {
	t.Helper()
	terminals++
	tm := &terminal{t, fmt.Sprintf("%s-%d", f.Name, terminals)}
	// All of it are this test's own words.
	script := fmt.Sprintf("cd %[1]s; env -u CI -u NO_COLOR %[2]s PATH=%[1]s/bin:$PATH conductor %[3]s; echo ended=$?; exec cat", f.Dir, env, strings.Join(args, " "))
	tm.tmux("-f", "/dev/null", "new-session", "-d", "-x", fmt.Sprint(width), "-y", fmt.Sprint(height), script)
	t.Cleanup(tm.close)
	return tm
}

func (tm *terminal) tmux(args ...string) string {
	tm.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-u", "-L", tm.name}, args...)...).CombinedOutput()
	if err != nil {
		tm.t.Fatalf("tmux %v: %v: %s", args, err, out)
	}
	return string(out)
}

func (tm *terminal) close() { exec.Command("tmux", "-L", tm.name, "kill-server").Run() }

// screen is what is to be seen, what has scrolled away included.
func (tm *terminal) screen() string {
	tm.t.Helper()
	return tm.tmux("capture-pane", "-p", "-S", "-")
}

// until looks at the screen all the time, and returns it when it shows the text.
func (tm *terminal) until(text string, look func(screen string)) string {
	tm.t.Helper()
	var s string
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		s = tm.screen()
		if look != nil {
			look(s)
		}
		if strings.Contains(s, text) {
			return s
		}
		if time.Now().After(end) {
			tm.t.Fatalf("the terminal does not show %q:\n%s", text, s)
		}
	}
}

// asItWas fails the test unless the cursor is to be seen and lines wrap.
func (tm *terminal) asItWas() {
	tm.t.Helper()
	if got := strings.TrimSpace(tm.tmux("display-message", "-p", "#{cursor_flag} #{wrap_flag}")); got != "1 1" {
		tm.t.Errorf("cursor and wrapping are %s, want both", got)
	}
}

// line is the last line of the screen that begins with the words.
func line(screen string, words ...string) (last string) {
	for l := range strings.Lines(screen) {
		if w := strings.Fields(l); len(w) >= len(words) && fmt.Sprint(w[:len(words)]) == fmt.Sprint(words) {
			last = strings.TrimSpace(l)
		}
	}
	return last
}

// At a terminal each host has a row that is brought up to date in place, also
// when the terminal's size changes; what is left is a table.
func TestDisplay_OfADeploy(t *testing.T) {
	f, l := deployed(t, 200)
	f.describe(t, "strategy: one-at-a-time")
	tm := f.terminal(t, 120, 30, "", "deploy", "--id", "shop", "--revision", "v2")
	waves, steps := map[string]bool{}, map[string]bool{}
	sizes := [][2]string{{"140", "20"}, {"115", "12"}, {"160", "40"}}
	most := 0 // headlines
	s := tm.until("ended=", func(s string) {
		for n := 1; n <= 4; n++ {
			if wave := fmt.Sprintf("wave %d of 4", n); strings.Contains(s, wave) && !waves[wave] {
				waves[wave] = true
				if n <= len(sizes) {
					tm.tmux("resize-window", "-x", sizes[n-1][0], "-y", sizes[n-1][1])
				}
			}
			host := fmt.Sprintf("web%d", n)
			if row := line(s, "›", host); strings.Contains(row, "v1 → v2") && strings.Contains(row, "upgrade") {
				steps[host] = true
			}
		}
		if n := strings.Count(s, "one at a time"); n > max(most, 1) {
			most = n
			t.Errorf("%d headlines:\n%s", n, s)
		}
	})
	if len(waves) != 4 || len(steps) != 4 {
		t.Errorf("it has shown %v, and the upgrades of %v", waves, steps)
	}
	for _, h := range f.Hosts() {
		if got := line(s, "✓", h.Name()); strings.Join(strings.Fields(got), " ") != "✓ "+h.Name()+" v2 in" {
			t.Errorf("the row of %s is %q", h.Name(), got)
		}
	}
	if !strings.Contains(s, "shop: v2 on 4 hosts") || !strings.Contains(s, "ended=0") || strings.Contains(s, "one at a time") {
		t.Errorf("in the end:\n%s", s)
	}
	tm.asItWas()
	nothingFailed(t, l)
}

// A failure is told above the rows, and its host has a cross; Ctrl-C is taken,
// told, and leaves the terminal as it was.
func TestDisplay_OfFailureAndInterruption(t *testing.T) {
	f, l := deployed(t, 200)
	f.Image("bad", "STATUS=500")
	f.Each(func(h *Host) { h.Load(f.Repo() + ":bad") })
	f.describe(t, "strategy: one-at-a-time")
	tm := f.terminal(t, 100, 30, "", "deploy", "--id", "shop", "--revision", "bad")
	s := tm.until("ended=5", nil)
	if row := line(s, "✗", "web1", "v1", "out"); !strings.Contains(row, "500") {
		t.Errorf("the row of web1 is %q:\n%s", row, s)
	}
	if !strings.Contains(s, "failed") || line(s, "web2", "v1", "in") == "" {
		t.Errorf("in the end:\n%s", s)
	}
	tm.asItWas()
	tm.close()

	tm = f.terminal(t, 100, 30, "NO_COLOR=1", "deploy", "--id", "shop", "--revision", "v2")
	interrupted := false
	s = tm.until("ended=", func(s string) {
		if !interrupted && strings.Contains(line(s, "›", "web1"), "upgrade") {
			interrupted = true
			if colored := tm.tmux("capture-pane", "-p", "-e"); strings.Contains(colored, "\x1b[") {
				t.Errorf("with NO_COLOR it has colours: %q", colored)
			}
			tm.tmux("send-keys", "C-c")
		}
	})
	if !interrupted || !strings.Contains(s, "ended=130") || !strings.Contains(s, "coming to a clean end") || strings.Contains(s, "one at a time") {
		t.Errorf("interrupted:\n%s", s)
	}
	tm.asItWas()
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(0)
	wantRuns(t, f, all("v2 UP")...)
	nothingFailed(t, l)
}

// Where nobody watches: lines without escapes, and for programs events, the
// hosts with the result.
func TestDisplay_WithoutATerminal(t *testing.T) {
	f, l := deployed(t, 200)
	f.describe(t, "strategy: halves")
	r := f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(0, "withdrawn", "upgraded", "verified", "admitted", "v2 on 4 hosts")
	if strings.Contains(r.stdout+r.stderr, "\x1b") {
		t.Errorf("it has escapes: %s", r)
	}
	tm := f.terminal(t, 100, 200, "CI=true", "deploy", "--id", "shop", "--revision", "v1")
	if s := tm.until("ended=0", nil); strings.Contains(s, "halves ·") || !strings.Contains(s, "withdrawn") {
		t.Errorf("in CI:\n%s", s)
	}
	if s := tm.tmux("capture-pane", "-p", "-e"); strings.Contains(s, "\x1b[") {
		t.Errorf("in CI it has escapes: %q", s)
	}
	nothingFailed(t, l)
}
