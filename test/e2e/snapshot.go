//go:build e2e

package e2e

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Snapshot is all that a command that fails must leave as it was.
type Snapshot struct {
	// Files are path → content: goals, routes, all of nginx's conf.d, secrets
	// placed for instances. Of other files of state_dir only the name is kept.
	Files      map[string]string
	Containers []string // ID, name and state
	Tags       []string // names of images
}

// Snapshot looks at the whole installation.
func (e *Env) Snapshot() Snapshot {
	e.t.Helper()
	s := Snapshot{Files: map[string]string{}}
	for _, dir := range []string{e.Path("state"), e.Nginx.ConfD(), e.RunDir()} {
		s.read(e.t, dir)
	}
	for _, c := range e.Containers("") {
		s.Containers = append(s.Containers, fmt.Sprintf("%.12s %s %s", c.ID, c.Name(), c.State))
	}
	slices.Sort(s.Containers)
	for _, repository := range []string{e.Namespace + "/", e.Namespace + "-images/"} {
		tags, err := e.Engine.Tags(e.ctx(), repository)
		must(e.t, err)
		s.Tags = append(s.Tags, tags...)
	}
	slices.Sort(s.Tags)
	return s
}

// runDirs has the RunDir of each installation.
const runDirs = "/run/conductor"

// RunDir is where secrets are placed that a container sees as files.
func (e *Env) RunDir() string { return filepath.Join(runDirs, e.Namespace) }

func (s *Snapshot) read(t testing.TB, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		switch base := filepath.Base(name); {
		case strings.HasPrefix(base, "history.db"):
			return nil // it grows, and has its own tests
		case strings.Contains(name, "/locks/"), base == "addresses.json", base == "admin.json", base == "key":
			// Locks are never taken away, and their text says who was the
			// last; the cursor of addresses goes round; the proxy's port and
			// the host's key are made once, by whatever is the first command.
			return nil
		}
		s.Files[name] = string(b)
		return err
	})
	must(t, err)
}

// Unchanged fails the test unless all is as it was.
func (e *Env) Unchanged(before Snapshot) {
	e.t.Helper()
	after := e.Snapshot()
	names := map[string]bool{}
	for _, m := range []map[string]string{before.Files, after.Files} {
		for name := range maps.Keys(m) {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, had := before.Files[name]
		is, has := after.Files[name]
		switch {
		case !has:
			e.t.Errorf("%s is gone", name)
		case !had:
			e.t.Errorf("%s is new:\n%s", name, indent(is))
		case was != is:
			e.t.Errorf("%s has changed from\n%s\nto\n%s", name, indent(was), indent(is))
		}
	}
	for what, lists := range map[string][2][]string{
		"containers": {before.Containers, after.Containers}, "images": {before.Tags, after.Tags},
	} {
		if !slices.Equal(lists[0], lists[1]) {
			e.t.Errorf("%s have changed from\n%s\nto\n%s", what, indent(strings.Join(lists[0], "\n")), indent(strings.Join(lists[1], "\n")))
		}
	}
}
