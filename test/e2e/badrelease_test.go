//go:build e2e

package e2e

import (
	"slices"
	"testing"
	"time"

	"conductor/test/load"
)

// A release that is not good is refused with exit 5 and its cause, while the
// old one serves untouched.
func TestBadRelease(t *testing.T) {
	const startTimeout = 3 * time.Second
	for _, tt := range []struct {
		name string
		env  []string // of the bad image
		def  Def
		dies bool     // told at its exit, not at start_timeout
		told []string // all of these
		any  []string // one of these
	}{
		{name: "exits at once", env: []string{"EXIT_AT_START=3"}, dies: true,
			told: []string{"exited 3", "cannot reach the database at db.internal:5432"}},
		{name: "is killed for its memory", env: []string{"HOG=200m"}, dies: true,
			def: Def{"limits": "{memory: 48m}"}, any: []string{"OOM", "memory"}},
		{name: "its image lacks its command", env: []string{"CMD=/bin/server"}, dies: true,
			told: []string{"/bin/server", "set command"}},
		{name: "never listens", env: []string{"LISTEN=none"},
			any: []string{"listens on nothing", "listens nowhere", "no port"}},
		{name: "listens on another port", env: []string{"PORT=9090"},
			told: []string{"9090", "set http.port: 9090"}},
		{name: "listens on loopback only", env: []string{"LISTEN=127.0.0.1"},
			told: []string{"127.0.0.1:8080", "0.0.0.0"}},
		{name: "answers 500", env: []string{"STATUS=500"},
			told: []string{"500", "undefined method 'name' for nil"}},
		{name: "redirects", env: []string{"REDIRECT=https://shop.example.com/login"},
			told: []string{"301", "https://shop.example.com/login", "health.headers"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := New(t)
			e.Image("v1")
			e.Image("v2", tt.env...)
			def := Def{"health": "{path: /health, interval: 500ms, start_timeout: " + startTimeout.String() + "}"}
			for k, v := range tt.def {
				def[k] = v
			}
			addr := e.Web("shop", def)
			e.Upgrade("shop", "v1").Want(0)
			before := e.IDs("shop")

			l := e.Load(load.Config{Addr: addr, Rate: 200})
			p := e.Start("service", "upgrade", "--id", "shop", "--revision", "v2")
			r := p.Wait().Want(5, tt.told...)
			ended := p.begun.Add(r.Took)
			if len(tt.any) > 0 {
				r.WantOneOf(tt.any...)
			}
			if r.Find("failed") == nil {
				t.Errorf("no failed among the events: %s", r)
			}

			// The old release is untouched, and nothing is left but a dead container's logs.
			e.NoFailures(l)
			wantServes(t, addr, "v1")
			if after := e.IDs("shop"); !slices.Equal(after, before) {
				t.Errorf("running containers were %v and are %v", before, after)
			}
			var died time.Time
			for _, c := range e.Containers("shop") {
				if slices.Contains(before, c.ID) {
					continue
				}
				s := e.Inspect(c.ID)
				if !tt.dies || s.Running {
					t.Errorf("left over: %s, %s", c.Name(), c.Status)
				}
				if died.IsZero() || s.FinishedAt.Before(died) && s.FinishedAt.Year() > 1 {
					died = s.FinishedAt
				}
			}
			switch started := r.Find("started"); {
			case tt.dies && died.Year() > 1:
				if late := ended.Sub(died); late > time.Second {
					t.Errorf("it told of the end %s after it", late)
				}
			case !tt.dies && started != nil:
				if took := ended.Sub(started.Time); took < startTimeout-100*time.Millisecond || took > startTimeout+3*time.Second {
					t.Errorf("it ended %s after the start, want the start_timeout of %s and not much more", took, startTimeout)
				}
			}

			// Its diagnosis stays in the history, and the supervisor's pass does not try it again.
			e.Conductor("service", "history", "--id", "shop").Want(0, "v2", "failed")
			e.Do("converge", "--id", "shop")
			if after := e.IDs("shop"); !slices.Equal(after, before) {
				t.Errorf("after converge, running containers were %v and are %v", before, after)
			}
			// A good one goes through afterwards.
			e.Images("v3")
			e.Upgrade("shop", "v3").Want(0)
			wantServes(t, addr, "v3")
		})
	}
}

// The first release of a service is bad: nothing serves, nothing is left.
func TestBadRelease_First(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Image("v1", "EXIT_AT_START=1")
	addr := e.Web("shop", nil)
	e.Upgrade("shop", "v1").Want(5, "exited 1")
	e.WantInstances("shop", map[string]int{})
	if a := get(addr, "/"); a.Err == nil && a.Status == 200 {
		t.Errorf("answers %s", a)
	}
	e.Images("v2")
	e.Upgrade("shop", "v2").Want(0)
	wantServes(t, addr, "v2")
}

// A migration that fails ends the upgrade before any instance of the new
// release is made; one that works runs once.
func TestBadRelease_Migration(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Image("v1")
	e.Image("v2", "MIGRATE_EXIT=4")
	e.Image("v3")
	addr := e.Web("shop", Def{"upgrade": "{drain_timeout: 2s, before: [/app, migrate]}"})
	e.Upgrade("shop", "v1").Want(0)
	before := e.IDs("shop")
	r := e.Upgrade("shop", "v2").Want(5, "migrating to v2")
	if r.Find("healthy") != nil {
		t.Errorf("an instance was started after the failed migration: %s", r)
	}
	if after := e.IDs("shop"); !slices.Equal(after, before) {
		t.Errorf("running containers were %v and are %v", before, after)
	}
	e.Upgrade("shop", "v3").Want(0)
	wantServes(t, addr, "v3")
}
