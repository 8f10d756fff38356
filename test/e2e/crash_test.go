//go:build e2e

package e2e

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"conductor/test/load"
)

// Conductor is killed with SIGKILL at each of an upgrade's steps, under load:
// no request fails, the same command finishes, and nothing is left over.
func TestCrash_AtEveryStep(t *testing.T) {
	t.Parallel()
	c := newCrash(t)
	steps := len(c.e.Upgrade("shop", "v2").Want(0).Events) - 1 // but the result
	if steps < 16 {
		t.Fatalf("an upgrade of 2 replicas has %d events", steps)
	}
	for n := range steps {
		t.Run(fmt.Sprintf("event %d", n+1), func(t *testing.T) {
			c.kill(t, func(to string) *Proc {
				return c.e.With(t).StartKilled(n, "service", "upgrade", "--id", "shop", "--revision", to)
			})
		})
	}
}

// The same, killed at random instants.
func TestCrash_AtRandomInstants(t *testing.T) {
	t.Parallel()
	c := newCrash(t)
	took := c.e.Upgrade("shop", "v2").Want(0).Took
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for n := range repeat(40, 200) {
		after := time.Duration(r.Int64N(int64(took)))
		t.Run(fmt.Sprintf("%d after %s", n+1, after.Round(time.Microsecond)), func(t *testing.T) {
			c.kill(t, func(to string) *Proc {
				p := c.e.With(t).Start("service", "upgrade", "--id", "shop", "--revision", to)
				timer := time.AfterFunc(after, func() { p.cmd.Process.Kill() })
				t.Cleanup(func() { timer.Stop() })
				return p
			})
		})
	}
}

// crash is an installation whose shop goes back and forth.
type crash struct {
	e     *Env
	addr  string
	at    string // the revision that should serve
	files map[string]bool
}

func newCrash(t *testing.T) *crash {
	t.Helper()
	e := New(t)
	e.Images("v1", "v2")
	c := &crash{e: e, addr: e.Web("shop", nil), at: "v2"}
	e.Upgrade("shop", "v1").Want(0)
	e.Upgrade("shop", "v2").Want(0)
	e.Upgrade("shop", "v1").Want(0)
	c.files = c.list(t)
	return c
}

// list is the files that conductor keeps; SQLite's come and go.
func (c *crash) list(t *testing.T) map[string]bool {
	t.Helper()
	files := map[string]bool{}
	for _, dir := range []string{c.e.Path("state"), c.e.Nginx.ConfD()} {
		must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && !strings.Contains(path, "history.db") {
				files[path] = true
			}
			return err
		}))
	}
	return files
}

// kill starts an upgrade that is killed, and sees to what must be true then.
func (c *crash) kill(t *testing.T, start func(to string) *Proc) {
	t.Helper()
	e := c.e.With(t)
	to := map[string]string{"v1": "v2", "v2": "v1"}[c.at]
	l := e.Load(load.Config{Addr: c.addr, Rate: 300, Connections: 8})
	killed := start(to).Wait()
	if killed.Code != -1 && killed.Code != 0 {
		t.Errorf("it was to be killed: %s", killed)
	}
	again := e.Upgrade("shop", to).Want(0)
	c.at = to
	r := e.NoFailures(l)
	wantServes(t, c.addr, to)
	e.WantInstances("shop", map[string]int{to: 2})
	if cs := e.Containers(""); len(cs) != 2 {
		var names []string
		for _, k := range cs {
			names = append(names, k.Name()+" "+k.State)
		}
		t.Errorf("containers left over: %s", strings.Join(names, ", "))
	}
	if now := c.list(t); !maps.Equal(now, c.files) {
		t.Errorf("files were %v and are %v", slices.Sorted(maps.Keys(c.files)), slices.Sorted(maps.Keys(now)))
	}
	if t.Failed() {
		t.Logf("killed: %s\nagain: %s\nload: %s", killed, again, r)
	}
}
