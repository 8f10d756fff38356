package converge

import (
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/engine"
	"conductor/internal/engine/enginetest"
	"conductor/internal/plan"
	"conductor/internal/proxy"
	"conductor/internal/proxy/proxytest"
	"conductor/internal/state/statetest"
)

// That a process has ended is known from its event on, and not when the engine
// has cleared up after it; whether its memory was at an end, the engine is asked.
func TestObserver_HearsOfADeath(t *testing.T) {
	for name, test := range map[string]struct {
		code    int
		limited bool
		stale   bool // it is to be looked at already, for something before
		late    bool // the event is of the process before
		known   bool // at once
	}{
		"it ends":                {code: 1, known: true},
		"it is killed":           {code: codeKilled, known: true},
		"it may be out of space": {code: codeKilled, limited: true},
		"it ends, with a limit":  {code: 1, limited: true, known: true},
		"it was just changed":    {code: 1, stale: true},
		"it runs again":          {code: 1, late: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := enginetest.NewFake()
				fake.Clearing = 100 * time.Millisecond
				o := newObserver(&Host{Namespace: "ns", Engine: fake}, "shop")
				image := fake.AddImage("app:1", "one")
				id, err := fake.Create(t.Context(), engine.Create{Name: "shop.v1", Image: image.ID, Labels: o.h.mine("shop", KindService)})
				if err != nil {
					t.Fatal(err)
				}
				if err := fake.Start(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				is := func(want engine.State, code int) {
					t.Helper()
					if err := o.refresh(t.Context(), time.Now(), nil); err != nil {
						t.Fatal(err)
					}
					if c := o.containers["shop.v1"]; c.State != want || c.ExitCode != code {
						t.Errorf("%s after %s, exit code %d; want %s, %d", c.Name, c.State, c.ExitCode, want, code)
					}
				}
				is(engine.Running, 0)
				time.Sleep(time.Second)
				e := engine.Event{Time: time.Now(), Action: "die", ID: id, Name: "shop.v1", ExitCode: test.code}
				if test.late {
					e.Time = time.Now().Add(-time.Hour)
					o.heard(e, test.limited)
					is(engine.Running, 0)
					return
				}
				fake.Die(id, test.code, false)
				if test.stale {
					o.changed(id)
				}
				o.heard(e, test.limited)
				if test.known {
					is(engine.Exited, test.code)
				}
				time.Sleep(fake.Clearing)
				o.changed("") // from time to time
				is(engine.Exited, test.code)
				if len(o.died) > 0 {
					t.Errorf("still awaited: %v", o.died)
				}
			})
		})
	}
}

// What the proxy served when it last answered is not out because it has fallen
// silent, though no file says that it is in.
func TestObserver_ProxyFallsSilent(t *testing.T) {
	px := proxytest.NewFake()
	o := newObserver(&Host{Proxy: px, Store: statetest.NewMemory()}, "shop")
	look := func(want plan.RouteState, has bool) {
		t.Helper()
		is := []plan.Instance{{Name: "shop.v1"}}
		seen, err := o.route(t.Context(), true, is, time.Now())
		if err != nil || is[0].Route != want || seen.Has != has {
			t.Errorf("route state %v, has a route %v, %v; want %v, %v", is[0].Route, seen.Has, err, want, has)
		}
	}
	apply := func(table proxy.Table) {
		t.Helper()
		if _, err := px.Apply(t.Context(), table); err != nil {
			t.Fatal(err)
		}
	}
	px.Down(true)
	look(plan.Out, false)
	px.Down(false)
	apply(proxy.Table{}.With(proxy.Route{Service: "shop", Targets: []proxy.Target{{Instance: "shop.v1"}}}))
	look(plan.Unproved, true)
	px.Down(true)
	look(plan.Unproved, true)
	px.Down(false)
	apply(proxy.Table{})
	look(plan.Out, false)
	px.Down(true)
	look(plan.Out, false)
}

// A look at what is known, by ID, did not show what somebody else has created
// before it: the event that tells of it is news, however late it comes.
func TestObserver_LateEvents(t *testing.T) {
	listed := time.Now()
	known := listed.Add(2 * time.Second)
	for _, test := range []struct {
		action, id          string
		at                  time.Time
		looksAgain, listing bool
	}{
		{"start", "ours", known.Add(-time.Second), false, false},
		{"start", "ours", known.Add(time.Second), true, false},
		{"create", "other", known.Add(-time.Second), true, true},
		{"create", "other", listed.Add(-time.Second), false, false},
		{"die", "ours", listed.Add(-time.Second), true, false},
	} {
		o := newObserver(nil, "shop")
		o.containers["shop.v1"] = engine.Container{ID: "ours", Name: "shop.v1", State: engine.Running}
		o.listed, o.known = listed, known
		o.heard(engine.Event{Action: test.action, ID: test.id, Time: test.at}, false)
		if o.known.IsZero() != test.looksAgain || o.listed.IsZero() != test.listing {
			t.Errorf("%s of %s: looks again %v, lists all %v", test.action, test.id, o.known.IsZero(), o.listed.IsZero())
		}
	}
}
