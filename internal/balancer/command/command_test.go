package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"conductor/internal/balancer"
	"conductor/internal/balancer/balancertest"
	"conductor/internal/fault"
)

var hosts = []balancer.Host{{Name: "web1", At: "192.0.2.1"}, {Name: "web2", At: "192.0.2.2"}, {Name: "web3", At: "192.0.2.3"}}

// cloud is a balancer with commands of its own, in a folder: a file a host that
// is in, or away.
type cloud struct{ dir string }

func newCloud(t *testing.T) cloud {
	t.Helper()
	c := cloud{t.TempDir()}
	for _, h := range hosts {
		c.write(t, h.Name, h.Name)
	}
	return c
}

func (c cloud) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (c cloud) config(state bool) Config {
	shell := func(script string) []string {
		return []string{"sh", "-ec", "cd " + c.dir + "\n" + script, "sh", "{host}"}
	}
	config := Config{
		Hosts: hosts,
		Drain: shell(`echo "drain $1" >>log; if [ "$CONDUCTOR_AWAY" = true ]; then echo "$1 away" >"$CONDUCTOR_HOST"; else rm -f "$1"; fi`),
		Admit: shell(`echo "admit $1" >>log; echo "$1" >"$1"`),
	}
	if state {
		config.State = []string{"sh", "-c", "cd " + c.dir + "; cat web* 2>/dev/null; echo another-host"}
	}
	return config
}

func (c cloud) log(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, "log"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", ", ")
}

func open(t *testing.T, c Config) *Balancer {
	t.Helper()
	b, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBalancer_Conforms(t *testing.T) {
	for name, state := range map[string]bool{"WithState": true, "WithoutState": false} {
		t.Run(name, func(t *testing.T) {
			balancertest.Suite(t, func(t *testing.T) balancertest.Subject {
				c := newCloud(t).config(state)
				s := balancertest.Subject{Balancer: open(t, c), Hosts: []string{"web1", "web2", "web3"}}
				if state {
					s.Reopen = func() balancer.Balancer { return open(t, c) }
				}
				return s
			})
		})
	}
}

func TestSet_AdmitsFirstAndStopsAtWhatFails(t *testing.T) {
	for _, state := range []bool{true, false} {
		c := newCloud(t)
		config := c.config(state)
		config.Admit = []string{"sh", "-c", "echo \"admit $1\" >>" + c.dir + "/log; echo 'quota exceeded' >&2; exit 3", "sh", "{host}"}
		b := open(t, config)
		if err := b.Set(t.Context(), balancer.Change{Drain: []string{"web1"}}); err != nil {
			t.Fatal(err)
		}
		err := b.Set(t.Context(), balancer.Change{Admit: []string{"web1"}, Drain: []string{"web2", "web3"}})
		if !errors.Is(err, balancer.ErrRefused) || !strings.Contains(fmt.Sprint(err), "exit status 3: quota exceeded") {
			t.Errorf("set: %v", err)
		}
		if got := c.log(t); got != "drain web1, admit web1" {
			t.Errorf("it ran: %s", got)
		}
	}
}

func TestSet_WithoutStateRunsWhatIsNotKnown(t *testing.T) {
	c := newCloud(t)
	b := open(t, c.config(false))
	for range 2 { // the second time it knows
		if err := b.Set(t.Context(), balancer.Change{Admit: []string{"web1"}, Drain: []string{"web2"}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.log(t); got != "admit web1, drain web2" {
		t.Errorf("it ran: %s", got)
	}
}

func TestSet_IsNotDoneBecauseACommandSaysSo(t *testing.T) {
	config := newCloud(t).config(true)
	config.Drain, config.ProveTimeout = []string{"true"}, 300*time.Millisecond
	err := open(t, config).Set(t.Context(), balancer.Change{Drain: []string{"web1"}})
	if !errors.Is(err, balancer.ErrRefused) || !strings.Contains(fmt.Sprint(err), "web1 is in") {
		t.Errorf("set: %v", err)
	}
}

func TestSet_AwaitsWhatIsSlow(t *testing.T) {
	c := newCloud(t)
	config := c.config(true)
	config.Drain = []string{"sh", "-c", "echo run >>" + c.dir + "/log; (sleep 0.5; rm " + c.dir + "/web1) >/dev/null 2>&1 &"}
	b := open(t, config)
	if err := b.Set(t.Context(), balancer.Change{Drain: []string{"web1"}}); err != nil {
		t.Fatal(err)
	}
	if s, err := b.State(t.Context()); err != nil || s["web1"].In || c.log(t) != "run" {
		t.Errorf("web1 is %+v, %v; it ran: %s", s["web1"], err, c.log(t))
	}
}

func TestCommands_GetTheHostAsAWordAndInTheEnvironment(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	b := open(t, Config{
		Hosts: []balancer.Host{{Name: "web1", At: "192.0.2.1:81; $(reboot)"}},
		Admit: []string{"true"},
		Drain: []string{"sh", "-c", `printf '%s|' "$CONDUCTOR_HOST" "$CONDUCTOR_ADDRESS" "$CONDUCTOR_AWAY" "$@" >` + out, "sh", "{host}", "{address}", "--host={host}", ""},
	})
	if err := b.Set(t.Context(), balancer.Change{Drain: []string{"web1"}}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if want := "web1|192.0.2.1:81; $(reboot)||web1|192.0.2.1:81; $(reboot)|--host={host}||"; err != nil || string(got) != want {
		t.Errorf("it got %q, %v, want %q", got, err, want)
	}
}

func TestCommands_MayNotTakeForEver(t *testing.T) {
	dir := t.TempDir()
	pid := filepath.Join(dir, "pid")
	config := Config{Hosts: hosts, Admit: []string{"true"}, Drain: []string{"sh", "-c", "sleep 100 & echo $! >" + pid + "; wait"}, Timeout: 300 * time.Millisecond}
	began := time.Now()
	err := open(t, config).Set(t.Context(), balancer.Change{Drain: []string{"web1"}})
	if !errors.Is(err, balancer.ErrRefused) || !strings.Contains(fmt.Sprint(err), "did not end within 300ms") || time.Since(began) > 20*time.Second {
		t.Errorf("set: %v, after %s", err, time.Since(began))
	}
	text, rerr := os.ReadFile(pid)
	if rerr != nil {
		t.Fatal(rerr)
	}
	balancertest.Wait(t, "what the command began has ended", func() bool {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(text)) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
	config.Timeout = time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := open(t, config).Set(ctx, balancer.Change{Drain: []string{"web1"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("set: %v, want the deadline", err)
	}
}

func TestState_OfACommandThatFails(t *testing.T) {
	for script, words := range map[string]string{
		"echo 'no credentials' >&2; exit 4": "exit status 4: no credentials",
		"echo web1 in service":              `printed "web1 in service"`,
		"":                                  "more than 1048576 bytes",
	} {
		b := open(t, Config{Hosts: hosts, Admit: []string{"true"}, Drain: []string{"true"}, State: []string{"sh", "-c", script}, Timeout: 2 * time.Second})
		if script == "" {
			b.c.State = []string{"head", "-c", "2000000", "/dev/zero"}
		}
		_, err := b.State(t.Context())
		if !errors.Is(err, balancer.ErrUnreachable) || !errors.Is(err, fault.ErrUnreachable) || !strings.Contains(fmt.Sprint(err), words) {
			t.Errorf("%s: %v, want ErrUnreachable and %q", script, err, words)
		}
	}
	b := open(t, Config{Hosts: hosts, Admit: []string{"true"}, Drain: []string{"no-such-command-here"}})
	if err := b.Set(t.Context(), balancer.Change{Drain: []string{"web1"}}); err == nil || !strings.Contains(fault.Hint(err), "install it") {
		t.Errorf("a command that is not there: %v (%s)", err, fault.Hint(err))
	}
}
