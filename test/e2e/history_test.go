//go:build e2e

package e2e

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// The history may be lost, torn or unwritable: everything else works, and says so.
func TestHistory_NothingDependsOnIt(t *testing.T) {
	t.Parallel()
	const db = "state/history.db"
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, e *Env)
		says   string // on stderr, of every verb until it is well; "": a new history begins, nothing need be said
		code   int    // of service history afterwards
	}{
		{name: "deleted", damage: func(t *testing.T, e *Env) {
			for _, f := range []string{"", "-wal", "-shm"} {
				os.Remove(e.Path(db + f))
			}
		}},
		{name: "truncated", says: "a fresh one is begun", damage: func(t *testing.T, e *Env) { must(t, os.Truncate(e.Path(db), 1000)) }},
		{name: "garbage", says: "a fresh one is begun", damage: func(t *testing.T, e *Env) { e.write(db, strings.Repeat("no database ", 500)) }},
		{name: "a folder in its place", says: "history alone is concerned", code: 9, damage: func(t *testing.T, e *Env) {
			must(t, os.Remove(e.Path(db)))
			must(t, os.Mkdir(e.Path(db), 0o755))
			must(t, os.WriteFile(e.Path(db+"/x"), nil, 0o600))
		}},
		{name: "read-only", says: "history alone is concerned", code: 9, damage: func(t *testing.T, e *Env) {
			// Root writes to any file; a read-only mount stops it.
			must(t, syscall.Mount(e.Path(db), e.Path(db), "", syscall.MS_BIND, ""))
			t.Cleanup(func() { syscall.Unmount(e.Path(db), syscall.MNT_DETACH) })
			must(t, syscall.Mount("", e.Path(db), "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, addr := serving(t, nil)
			tt.damage(t, e)
			r := e.Upgrade("shop", "v2").Want(0)
			if says := strings.Contains(r.Stderr, "history"); says != (tt.says != "") || !strings.Contains(r.Stderr, tt.says) {
				t.Errorf("want %q told of the history: %s", tt.says, r)
			}
			wantServes(t, addr, "v2")
			if h := e.Conductor("service", "history", "--id", "shop"); h.Code != tt.code || h.Code == 0 && !strings.Contains(h.Stdout, "upgrade") {
				t.Errorf("want exit %d, or what was done since: %s", tt.code, h)
			}
			e.Verb("rollback", "shop").Want(0)
			wantServes(t, addr, "v1")
			e.Conductor("service", "status").Want(0, "v1")
			e.Verb("stop", "shop").Want(0)
			e.Verb("start", "shop").Want(0)
			wantServes(t, addr, "v1")
			e.Verb("remove", "shop").Want(0)
		})
	}
}
